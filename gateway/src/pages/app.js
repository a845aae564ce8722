// The pages of the inspector. All they show comes from routes of the gateway that served them, with the token that somebody
// entered; that token is kept by this page alone, until it is left. What comes from actors is set as text and never becomes markup.

const base = new URL("../../", location.href);
const main = document.querySelector("main");
const form = document.querySelector("#access");
const PAGE = 50;

// In no storage: pages that actors answer with come from the same origin and could read it there.
const access = { token: "", namespace: "default" };

/** Asks the gateway; what it refuses is thrown, with the reason in its own words. */
async function ask(path, method = "GET", body = undefined) {
	const headers = {};
	if (access.token) headers.authorization = `Bearer ${access.token}`;
	if (body !== undefined) headers["content-type"] = "application/json";
	let response;
	try {
		response = await fetch(new URL(path, base), { method, body, headers, cache: "no-store", credentials: "omit" });
	} catch (error) {
		throw new Error(`The gateway was not reached: ${error.message}`);
	}
	const text = await response.text();
	let value;
	try {
		value = JSON.parse(text);
	} catch {
		throw new Error(`${response.status}: ${text.slice(0, 200)}`);
	}
	if (!response.ok) throw new Error(`${response.status} ${value.group}.${value.code}: ${value.message}`);
	return value;
}

/** An element; texts among the children stay texts. */
function el(tag, attributes = {}, ...children) {
	const made = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (typeof value === "function") made.addEventListener(name, value);
		else if (value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : value);
	}
	made.append(...children.flat(Infinity));
	return made;
}

const pretty = (value) => JSON.stringify(value, null, 2) ?? "undefined";
const brief = (value) => JSON.stringify(value) ?? "";
const exactly = (ms) => new Date(Number(ms)).toISOString().replace("T", " ").replace("Z", " UTC");
const time = (ms) => exactly(ms).replace(/\.\d+/, "");
const problem = (error) => el("p", { role: "alert" }, error.message);
const listed = (values) => (Array.isArray(values) ? values : []);
const plain = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? brief(value) : String(value));

/** A table; what no row has gets no column. */
function table(label, heads, rows) {
	if (!rows.length) return el("p", { class: "faint" }, "None.");
	const used = heads.map((_, column) => rows.some((row) => row[column] instanceof Node || plain(row[column]) !== ""));
	[heads, ...rows] = [heads, ...rows].map((row) => row.filter((_, column) => used[column]));
	const cell = (content) => (content instanceof HTMLTableCellElement ? content : el("td", {}, content instanceof Node ? content : plain(content)));
	const head = el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text))));
	return el("div", { class: "scroll" }, el("table", { "aria-label": label }, head, el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}

const code = (value) => el("td", { class: "code" }, plain(value));
const facts = (pairs) => el("dl", {}, pairs.filter(([, value]) => value !== undefined && value !== "").map(([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : plain(value))]));
const section = (title, ...children) => el("section", { "aria-label": title }, el("h3", {}, title), children);
const bar = (title) => el("div", { class: "bar" }, el("h2", {}, title), el("button", { type: "button", click: () => show() }, "Refresh"));

/** Runs what a button does: it cannot be pressed twice, and what goes wrong is said beside it. */
async function during(button, said, work) {
	button.disabled = true;
	said.className = "";
	said.textContent = "";
	try {
		said.textContent = (await work()) ?? "";
	} catch (error) {
		said.className = "bad";
		said.textContent = error.message;
	} finally {
		button.disabled = false;
	}
}

/** Whether somebody means it. */
function sure(question, label) {
	const dialog = document.querySelector("#sure");
	// One question at a time: a click must not answer another one than was read.
	if (dialog.open) return Promise.resolve(false);
	dialog.querySelector("#question").textContent = question;
	dialog.querySelector("#yes").textContent = label;
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function warnings(all) {
	const rows = listed(all).map((warning) => [warning.code, warning.message ?? plain(warning)]);
	return rows.length ? [section("Warnings", table("Warnings", ["Kind", "What"], rows))] : [];
}

async function cluster() {
	const all = await ask("cluster");
	const nodes = listed(all.nodes).map((node) => [
		node.id, el("span", { class: node.state === "up" ? "good" : "bad" }, plain(node.state)), node.address, node.gateway, node.zone,
		node.owned, node.replicas, node.incarnation, node.codeVersion,
	]);
	const ids = (nodes) => listed(nodes).join(", ");
	const shards = listed(all.shards).map((shard) => [
		shard.id, shard.owner ?? el("span", { class: "bad" }, "unknown"), shard.preferred, ids(shard.voters), ids(shard.replicas), shard.epoch,
	]);
	return [
		bar(all.name ? `Cluster ${all.name}` : "Cluster"),
		section("Facts", facts([["Id", all.cluster], ["As seen by node", all.node], ["Shards are placed", all.formed], ["Version of its state", all.version]])),
		section("Nodes", table("Nodes", ["Node", "State", "Address", "Gateway", "Zone", "Owns", "Replicas", "Start", "Code"], nodes)),
		section("Shards", table("Shards", ["Shard", "Owner", "Preferred", "Voters", "Should be on", "Epoch"], shards)),
	];
}

/** The list: `name`, `key` and `cursor` are in the address, so that it can be kept and gone back to. */
async function actors(_, query) {
	const name = query.get("name") ?? "";
	const names = Object.keys((await ask(`actors/names?${new URLSearchParams({ namespace: access.namespace })}`)).names ?? {});
	const link = (values) => `#/actors?${new URLSearchParams(values)}`;
	const id = el("input", { name: "id", size: 34, pattern: "[0-9a-f]{32}", title: "32 hexadecimal digits" });
	const find = el("form", { "aria-label": "Find actors", submit: (event) => {
		event.preventDefault();
		const { name, key } = Object.fromEntries(new FormData(event.target));
		location.hash = link(key ? { name, key } : { name });
	} },
		el("label", {}, "Name", el("select", { name: "name" }, names.map((each) => el("option", { selected: each === name }, each)))),
		el("label", {}, "Key", el("input", { name: "key", placeholder: "any", value: query.get("key") ?? "" })),
		el("button", {}, "Find"));
	const open = el("form", { "aria-label": "Open an actor", submit: (event) => {
		event.preventDefault();
		location.hash = `#/actor/${id.value}`;
	} }, el("label", {}, "Id", id), el("button", {}, "Open"));
	const parts = [bar("Actors"), section("Find", find), section("By id", open)];
	if (!name) return parts;
	const asked = new URLSearchParams({ namespace: access.namespace, name, limit: PAGE });
	for (const part of ["key", "cursor"]) if (query.get(part)) asked.set(part, query.get(part));
	const page = await ask(`actors?${asked}`);
	const rows = listed(page.actors).map((actor) => [
		el("a", { href: `#/actor/${actor.actor_id}` }, actor.key), actor.status, time(actor.create_ts), code(actor.actor_id),
	]);
	const next = page.pagination?.cursor;
	return [
		...parts,
		...warnings(page.warnings),
		section(`Actors ${name}`, table(`Actors ${name}`, ["Key", "Status", "Created", "Id"], rows),
			el("p", {}, next ? el("a", { href: link({ name, cursor: next }) }, "Next page") : "")),
	];
}

/** State of an actor: shown, and replaced as a whole. What somebody has begun to write is not overwritten. */
function stateOf(of, refresh) {
	const text = el("textarea", { "aria-label": "State", rows: 6, spellcheck: "false" });
	const said = el("output", { role: "status" });
	const button = el("button", { type: "button", click: () => during(button, said, async () => {
		JSON.parse(text.value);
		const now = pretty((await ask(`${of}/state`)).state);
		if (now !== known && !(await sure(`The state has changed since it was shown here. It is now\n${now}\nReplace it nevertheless?`, "Replace"))) return "Not saved.";
		await ask(`${of}/state`, "PATCH", `{"state":${text.value}}`);
		known = text.value;
		await refresh();
		return "Saved.";
	}) }, "Save");
	let known;
	let wasWithout = false;
	const update = (summary) => {
		const has = summary.isStateEnabled === true;
		const untouched = known === undefined || text.value === known;
		if (untouched) text.value = known = pretty(summary.state);
		text.disabled = button.disabled = !has;
		const unknown = summary.crash ? "Not known as long as it cannot be woken." : "This actor has no state.";
		if (!has) said.textContent = unknown;
		else if (wasWithout) said.textContent = "";
		wasWithout = !has;
	};
	return { part: section("State", text, el("p", {}, button), said), update };
}

function actionsOf(of, refresh) {
	const name = el("select", { name: "action", "aria-label": "Action" });
	const args = el("textarea", { "aria-label": "Arguments", rows: 3, spellcheck: "false" }, "[]");
	const said = el("output", { role: "status" });
	const answer = el("pre", { "aria-label": "Answer" });
	const button = el("button", {}, "Call");
	const call = (event) => {
		event.preventDefault();
		answer.textContent = "";
		during(button, said, async () => {
			if (!Array.isArray(JSON.parse(args.value))) throw new Error("Arguments are a JSON array.");
			try {
				answer.textContent = pretty((await ask(`${of}/action/${encodeURIComponent(name.value)}`, "POST", `{"args":${args.value}}`)).output);
			} finally {
				await refresh();
			}
		});
	};
	const update = ({ rpcs }) => {
		if (!name.options.length) name.append(...listed(rpcs).map((each) => el("option", {}, each)));
	};
	const inside = el("form", { submit: call }, el("label", {}, "Action", name), el("label", { class: "wide" }, "Arguments, a JSON array", args), button);
	return { part: section("Actions", inside, said, answer), update };
}

function connectionsOf() {
	const place = el("div");
	const update = ({ connections }) => {
		const rows = listed(connections).map(({ id, type, details = {} }) => [
			code(id), type, code(details.params), code(details.state), listed(details.subscriptions).join(", "),
		]);
		place.replaceChildren(table("Connections", ["Id", "Kind", "Parameters", "State", "Listens to"], rows));
	};
	return { part: section("Connections", place), update };
}

function queueOf(of, refresh) {
	const place = el("div");
	const said = el("output", { role: "status" });
	const name = el("input", { name: "queue", required: true });
	const body = el("textarea", { "aria-label": "Message", rows: 2, spellcheck: "false" }, "null");
	const add = el("button", {}, "Add");
	const push = (event) => {
		event.preventDefault();
		during(add, said, async () => {
			JSON.parse(body.value);
			const { id } = await ask(`${of}/queue`, "POST", `{"name":${JSON.stringify(name.value)},"body":${body.value}}`);
			await refresh();
			return `Message ${id} is there.`;
		});
	};
	const empty = el("button", { type: "button", class: "danger", click: () => during(empty, said, async () => {
		if (!(await sure("Take all messages out of the queues of this actor that nobody works on?", "Empty"))) return "";
		const { removed } = await ask(`${of}/queue`, "DELETE");
		await refresh();
		return `${removed} taken out.`;
	}) }, "Empty the queues");
	const update = ({ queue = {} }) => {
		const { size = 0, maxSize, truncated, messages } = queue ?? {};
		const rows = listed(messages).map((message) => [message.id, message.name, time(message.createdAtMs)]);
		const count = `${size}${maxSize ? ` of at most ${maxSize}` : ""} messages${truncated ? `, the first ${rows.length} are shown` : ""}.`;
		place.replaceChildren(el("p", {}, count), ...(rows.length ? [table("Queue", ["Message", "Queue", "Added"], rows)] : []));
	};
	const inside = el("form", { submit: push }, el("label", {}, "Queue", name), el("label", { class: "wide" }, "Message, JSON", body), add, empty);
	return { part: section("Queues", place, inside, said), update };
}

/** Whatever in traces has a beginning is a span, however deep it lies. */
function spansIn(value) {
	if (value === null || typeof value !== "object") return [];
	if (value.startTimeUnixNano !== undefined) return [value];
	return Object.values(value).flatMap(spansIn);
}

function turnsOf(of) {
	const place = el("div");
	const attribute = ({ key, value = {} }) => `${key}=${plain(Object.values(value)[0])}`;
	const row = (span) => {
		const [start, end] = [BigInt(span.startTimeUnixNano), BigInt(span.endTimeUnixNano ?? span.startTimeUnixNano)];
		return [span.name, exactly(start / 1_000_000n), `${Number(end - start) / 1e6} ms`, code(listed(span.attributes).map(attribute).join(" ")), plain(span.status?.message ?? "")];
	};
	const update = async () => {
		const traces = await ask(`${of}/traces`);
		const spans = spansIn(traces.otlp);
		const raw = listed(traces.otlp).length ? el("pre", {}, pretty(traces.otlp)) : el("p", { class: "faint" }, "None.");
		place.replaceChildren(spans.length ? table("Recent turns", ["Turn", "Began", "Took", "More", "Error"], spans.map(row)) : raw);
	};
	return { part: section("Recent turns", place), update };
}

function endOf(id, label) {
	const said = el("output", { role: "status" });
	const button = el("button", { type: "button", class: "danger", click: () => during(button, said, async () => {
		if (!(await sure(`Destroy ${label}? Its state, its KV entries, schedules and messages are gone for ever.`, "Destroy"))) return "";
		await ask(`actors/${id}?${new URLSearchParams({ namespace: access.namespace })}`, "DELETE");
		await show();
		return "";
	}) }, "Destroy this actor");
	return section("End", button, said);
}

async function actor([id]) {
	const of = `gateway/${encodeURIComponent(id)}/inspector`;
	const known = new URLSearchParams({ namespace: access.namespace, actor_ids: id });
	// Who has but the actor's own token may see the actor, and not the list.
	const [summary, found] = await Promise.all([ask(`${of}/summary`), ask(`actors?${known}`).catch(() => ({}))]);
	const [info = {}] = listed(found.actors);
	const label = info.name ? `${info.name} ${info.key}` : id;
	const refresh = async () => {
		const now = await ask(`${of}/summary`);
		await Promise.all(parts.map((part) => part.update(now)));
	};
	const parts = [stateOf(of, refresh), actionsOf(of, refresh), connectionsOf(), queueOf(of, refresh), turnsOf(of)];
	await Promise.all(parts.map((part) => part.update(summary)));
	const crash = summary.crash ?? info.crash;
	return [
		bar(label),
		section("Facts", facts([
			["Name", info.name], ["Key", info.key], ["Id", el("code", {}, id)], ["Status", summary.status ?? info.status],
			["Crashed", crash ? brief(crash) : undefined], ["Created", info.create_ts === undefined ? undefined : time(info.create_ts)],
		])),
		...warnings(summary.warnings),
		...parts.map(({ part }) => part),
		endOf(id, label),
	];
}

const pages = { cluster, actors, actor };
let shown = 0;

/** Shows the page of the address. One that was left before it came is not shown. */
async function show() {
	const mine = ++shown;
	const [path, query = ""] = location.hash.slice(1).split("?");
	const [name = "actors", ...rest] = path.split("/").filter(Boolean);
	for (const link of document.querySelectorAll("nav a")) {
		if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
		else link.removeAttribute("aria-current");
	}
	main.setAttribute("aria-busy", "true");
	let content;
	try {
		if (!Object.hasOwn(pages, name)) throw new Error(`There is no page ${name}.`);
		content = await pages[name](rest.map(decodeURIComponent), new URLSearchParams(query));
	} catch (error) {
		content = [bar("Not shown"), problem(error)];
	}
	if (mine !== shown) return;
	main.replaceChildren(...content);
	main.removeAttribute("aria-busy");
	document.title = `${main.querySelector("h2").textContent} · Clinch inspector`;
}

form.elements.token.value = access.token;
form.elements.namespace.value = access.namespace;
form.addEventListener("submit", (event) => {
	event.preventDefault();
	access.token = form.elements.token.value.trim();
	access.namespace = form.elements.namespace.value.trim();
	show();
});
window.addEventListener("hashchange", show);
show();
