import { useEffect, useRef, useState } from "react";

/** Lines by number: one that arrives twice, as an event and in answer to `since`, is shown once. */
function merge(lines, more) {
	const all = new Map([...lines, ...more].map((line) => [line.number, line]));
	return [...all.values()].sort((a, b) => a.number - b.number);
}

export function Chat({ useActor, room, name }) {
	const [lines, setLines] = useState([]);
	const [text, setText] = useState("");
	const [problem, setProblem] = useState("");
	const last = useRef(0);
	const { connection, connStatus, useEvent } = useActor({ name: "room", key: [room], params: { name } });

	const show = (more) => setLines((lines) => merge(lines, more));
	useEvent("line", (line) => {
		show([line]);
		window.dispatchEvent(new CustomEvent("heard", { detail: line.number }));
	});

	useEffect(() => {
		last.current = lines.at(-1)?.number ?? 0;
	}, [lines]);

	// What was said before this page came, or while it was away.
	useEffect(() => {
		if (connStatus === "connected") connection.since(last.current).then(show, (error) => setProblem(error.message));
	}, [connection, connStatus]);

	async function say(event) {
		event.preventDefault();
		const said = text.trim();
		if (!said) return;
		setText("");
		// The room takes a line with a known id once: saying it again after an error cannot double it.
		const id = crypto.randomUUID();
		for (let attempt = 1; ; attempt++) {
			try {
				await connection.say(id, said);
				return setProblem("");
			} catch (error) {
				if (attempt === 5) return setProblem(`not sent: ${said} (${error.message})`);
			}
		}
	}

	return (
		<main>
			<h1>
				{room} <small data-status>{connStatus}</small>
			</h1>
			<ol aria-live="polite">
				{lines.map(({ number, from, text }) => (
					<li key={number} value={number}>
						<b>{from}</b> <span>{text}</span>
					</li>
				))}
			</ol>
			{problem && <p role="alert">{problem}</p>}
			<form onSubmit={say}>
				<input value={text} onChange={(event) => setText(event.target.value)} aria-label="Message" autoFocus />
				<button disabled={connStatus !== "connected"}>Send</button>
			</form>
		</main>
	);
}
