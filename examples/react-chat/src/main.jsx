import { createRivetKit } from "@rivetkit/react";
import { createRoot } from "react-dom/client";
import { Chat } from "./Chat.jsx";
import "./chat.css";

// Any node of the cluster will do: `?endpoint=http://127.0.0.1:6421&room=kitchen&name=ada`.
const query = new URLSearchParams(location.search);
const endpoint = query.get("endpoint") ?? "http://127.0.0.1:6420";
const { useActor } = createRivetKit(endpoint);

createRoot(document.querySelector("#root")).render(
	<Chat useActor={useActor} room={query.get("room") ?? "lobby"} name={query.get("name") ?? "guest"} />,
);
