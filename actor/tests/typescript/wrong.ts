// A program that uses the actors wrongly: every line that names an error at its end has just that error, no other has any.
import { createClient } from "rivetkit/client";
import type { Item, Registry } from "./actors.js";

declare const item: Item;
const client = createClient<Registry>({ endpoint: "http://127.0.0.1:6420" });
const cart = client.cart.getOrCreate(["ada"]);
const connection = cart.connect();

client.basket.getOrCreate(["ada"]); // TS2339
await cart.remove(item); // TS2339
await cart.not_there(); // TS2339
await cart.list_items(null, 10); // TS2551
await cart.add(); // TS2554
await cart.add("pear"); // TS2345
await cart.add(item, "two"); // TS2345
await cart.add(item, 2, true, 4); // TS2554
await cart.add({ ...item, kind: "Odd" }); // TS2322
await cart.add({ ...item, picture: "AQ==" }); // TS2322
await cart.listItems(null); // TS2554
await cart["prices-of"](1); // TS2345
await cart.clear("all"); // TS2554
const text: string = await cart.add(item); // TS2322
const nothing: number = await cart.clear(); // TS2322
const kind: string = await cart.byNumber({}); // TS2322
connection.on("removed", () => {}); // TS2769
connection.on("counted", (count: string) => count); // TS2769
connection.on("moved-by", (dx, dy, dz) => dz); // TS2769
await client.quiet.get([]).sleep(); // TS2339
export { kind, nothing, text };
