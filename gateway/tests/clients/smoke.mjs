#!/usr/bin/env node
// Unmodified RivetKit clients of two generations, in every encoding, against a running gateway.
//   npm install && ENDPOINT=http://127.0.0.1:6420 node smoke.mjs
// The server must host `counter`; cases on other actors, named in brackets, run when it has them.
// NAMESPACE and TOKEN are optional. The last line is `N passed, N failed`; the exit status is 0 only without failures.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

const endpoint = process.env.ENDPOINT ?? "http://127.0.0.1:6420";
const namespace = process.env.NAMESPACE ?? "default";
const token = process.env.TOKEN;
const CLIENTS = ["rivetkit-2.0", "rivetkit-2.3"];
const ENCODINGS = ["json", "cbor", "bare"];
const CASE_MAX_MS = 20_000;

// The clients log through these; their own errors are what the cases look at.
process.env._RIVETKIT_LOG_LEVEL ??= "silent";
process.env.RIVET_LOG_LEVEL ??= "silent";
process.env.LOG_LEVEL ??= "silent";

/** Cases by name; a case named after an actor type in brackets runs only when the server has it. */
const CASES = {
	"an action runs twice on one actor": async ({ client, key }) => {
		const counter = client.counter.getOrCreate([key]);
		assert.equal(await counter.increment(1), 1);
		assert.equal(await counter.increment(1), 2);
		assert.equal(await counter.getCount(), 2);
		assert.equal(await client.counter.get([key]).getCount(), 2, "found by get()");
	},
	"a string key is a list of one": async ({ client, key }) => {
		await client.counter.getOrCreate(key).increment(4);
		assert.equal(await client.counter.getOrCreate([key]).getCount(), 4);
	},
	"create() with input makes the actor that get() finds": async ({ client, key }) => {
		const made = await client.counter.create([key], { input: { start: 40 } });
		assert.equal(await made.increment(2), 42);
		assert.equal(await client.counter.get([key]).getCount(), 42);
		await rejects(client.counter.create([key]), "actor", "duplicate_key");
	},
	"an id leads to the actor": async ({ client, key }) => {
		const handle = client.counter.getOrCreate([key, "a/b", "c\\d"]);
		await handle.increment(7);
		const id = await handle.resolve();
		assert.match(id, /^[A-Za-z0-9_-]+$/);
		assert.equal(await client.counter.getForId(id).getCount(), 7);
	},
	"get() of a missing key is actor/not_found": async ({ client, key }) => {
		await rejects(client.counter.get([key, "missing"]).getCount(), "actor", "not_found");
	},
	"an unknown action is an error of its own": async ({ client, key }) => {
		await rejects(client.counter.getOrCreate([key]).noSuchAction(), "actor", "action_not_found");
	},
	"an unknown actor type is an error": async ({ client, key }) => {
		await assert.rejects(client.noSuchActorType.getOrCreate([key]).anything());
	},
	"twelve calls at once are twelve increments": async ({ client, key }) => {
		await Promise.all(Array.from({ length: 12 }, () => client.counter.getOrCreate([key]).increment(1)));
		assert.equal(await client.counter.getOrCreate([key]).getCount(), 12);
	},
	"[echo] values survive": async ({ client, key }) => {
		const echo = client.echo.getOrCreate([key]);
		const values = [0, -1, 65536, 4294967296, 1700000000000, 9007199254740991, 0.1, 1e21, "漢字 🙂", null, true];
		assert.deepEqual(await echo.echo(values), values);
		assert.equal(await echo.echo(2n ** 60n), 2n ** 60n);
		assert.deepEqual([...(await echo.echo(Uint8Array.from([0, 127, 255])))], [0, 127, 255]);
		assert.deepEqual(await echo.echo(["$weird", 1]), ["$weird", 1]);
		assert.deepEqual(await echo.echo({ a: { b: [{}] } }), { a: { b: [{}] } });
	},
	"[errors] a UserError arrives with code and metadata": async ({ client, key }) => {
		const error = await rejects(client.errors.getOrCreate([key]).withMetadata(), "user", "rate_limited");
		assert.deepEqual(error.metadata, { limit: 100, retryAfter: 1.5, nested: { list: [1, "two", null, true] } });
		assert.equal(error.message, "Rate limit exceeded");
	},
	"[errors] an internal error is masked": async ({ client, key }) => {
		const errors = client.errors.getOrCreate([key]);
		await assert.rejects(errors.internal(), (error) => error.code === "internal_error");
		assert.equal(await errors.fine(), "fine");
	},
	"[withInput] input is used by the call that creates": async ({ client, key }) => {
		const first = client.withInput.getOrCreate([key], { createWithInput: { v: 1 } });
		assert.deepEqual((await first.read()).input, { v: 1 });
		const second = client.withInput.getOrCreate([key], { createWithInput: { v: 2 } });
		assert.deepEqual((await second.read()).input, { v: 1 });
	},
};

/** Cases that need no encoding of their own, or only one generation has. */
Object.assign(CASES, {
	"events of a connection come in order, each before the answer of its action": async ({ client, key }) => {
		const conn = client.counter.getOrCreate([key]).connect();
		const seen = [];
		conn.on("newCount", (count) => seen.push(count));
		conn.on("tick", (n) => seen.push(`tick ${n}`));
		assert.equal(await conn.increment(5), 5);
		assert.deepEqual(seen, [5]);
		await conn.burst(3);
		assert.deepEqual(seen, [5, "tick 0", "tick 1", "tick 2"]);
		await client.counter.getOrCreate([key]).increment(1);
		await eventually(() => seen.includes(6), "an event of somebody else's call");
		await conn.dispose();
	},
	"a hundred calls over one connection are answered one by one": async ({ client, key }) => {
		const conn = client.counter.getOrCreate([key]).connect();
		const counts = await Promise.all(Array.from({ length: 100 }, () => conn.increment(1)));
		assert.deepEqual(counts, Array.from({ length: 100 }, (_, index) => index + 1));
		await rejects(conn.noSuchAction(), "actor", "action_not_found");
		await conn.dispose();
	},
	"[chatRoom] a room knows who is there and tells everybody": async ({ client, key }) => {
		const enter = (username) => client.chatRoom.getOrCreate([key], { params: { username } }).connect();
		const amy = enter("amy");
		const heard = [];
		amy.on("newMessage", (message) => heard.push(message));
		amy.on("userLeft", ({ username }) => heard.push(`${username} left`));
		await amy.whoAmI();
		const bob = enter("bob");
		await bob.sendMessage("hello");
		assert.deepEqual(await amy.users(), ["amy", "bob"]);
		await eventually(() => heard.length === 1, "the message");
		assert.deepEqual(heard, [{ from: "bob", text: "hello" }]);
		await bob.dispose();
		await eventually(() => heard.includes("bob left"), "the end of bob's connection");
		assert.deepEqual(await amy.users(), ["amy"]);
		await amy.dispose();
	},
	"[chatRoom] who is refused is told why": async ({ client, key }) => {
		const conn = client.chatRoom.getOrCreate([key], { params: { authToken: "bad" } }).connect();
		const error = await rejects(conn.history(), "user", "forbidden");
		assert.deepEqual(error.metadata, { reason: "bad token" });
		await conn.dispose();
	},
	"[rawHttp] requests reach the actor as they are": async ({ client, key }) => {
		const handle = client.rawHttp.getOrCreate([key], { params: { who: "me" } });
		const headers = { "x-test-one": "1" };
		const response = await handle.fetch("/echo/a?x=%2F", { method: "POST", body: "hello", headers });
		assert.equal(response.headers.get("x-from-actor"), "yes");
		const { method, path, search, body, params, headers: seen } = await response.json();
		assert.deepEqual([method, path, search, body], ["POST", "/echo/a", "?x=%2F", "hello"]);
		assert.deepEqual([params, seen], [{ who: "me" }, headers]);
		assert.equal((await handle.fetch("/status/418")).status, 418);
	},
	"[rawSocket] messages pass both ways": async ({ client, key, version }) => {
		const handle = client.rawSocket.getOrCreate([key]);
		// The method has another name in each generation; every other name is an action.
		const socket = await (version === "rivetkit-2.0" ? handle.websocket("a?b=1") : handle.webSocket("a?b=1"));
		const heard = [];
		socket.addEventListener("message", ({ data }) => heard.push(data));
		await eventually(() => heard.length === 1, "the welcome");
		assert.equal(JSON.parse(heard[0]).path, "/websocket/a?b=1");
		socket.send("ping");
		await eventually(() => heard.length === 2, "the answer");
		assert.equal(heard[1], "pong");
		const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
		socket.send("close-me");
		const { code, reason } = await closed;
		assert.deepEqual([code, reason], [4001, "bye now"]);
	},
	"[queueWorker] messages are worked off": async ({ client, key, version }) => {
		const worker = client.queueWorker.getOrCreate([key]);
		if (version === "rivetkit-2.0") return;
		const answer = await worker.send("tasks", { n: 21 }, { wait: true, timeout: 8000 });
		assert.deepEqual(answer, { status: "completed", response: { doubled: 42 } });
		await rejects(worker.send("guarded", 1), "auth", "forbidden");
	},
});

async function eventually(holds, what) {
	const until = Date.now() + 8000;
	while (!holds()) {
		if (Date.now() > until) throw new Error(`not in time: ${what}`);
		await new Promise((resolve) => setTimeout(resolve, 10));
	}
}

async function rejects(promise, group, code) {
	let caught;
	await assert.rejects(promise, (error) => {
		caught = error;
		assert.equal(`${error.group}/${error.code}`, `${group}/${code}`);
		return true;
	});
	return caught;
}

async function within(promise) {
	let timer;
	const late = new Promise((_, reject) => {
		timer = setTimeout(() => reject(new Error(`no end within ${CASE_MAX_MS} ms`)), CASE_MAX_MS);
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

async function hostedActors() {
	const url = new URL(`/actors/names?namespace=${encodeURIComponent(namespace)}`, endpoint);
	const response = await fetch(url, { headers: token ? { authorization: `Bearer ${token}` } : {} });
	assert.equal(response.status, 200, `GET ${url}`);
	return new Set(Object.keys((await response.json()).names));
}

let passed = 0;
let failed = 0;
let skipped = 0;
const hosted = await hostedActors();
for (const version of CLIENTS) {
	const { createClient } = await import(`${version}/client`);
	for (const encoding of ENCODINGS) {
		for (const [name, run] of Object.entries(CASES)) {
			const needs = name.match(/^\[(\w+)\]/)?.[1] ?? "counter";
			if (!hosted.has(needs)) {
				skipped++;
				continue;
			}
			const client = createClient({ endpoint, namespace, encoding, ...(token ? { token } : {}) });
			try {
				await within(run({ client, version, key: randomUUID() }));
				passed++;
			} catch (error) {
				failed++;
				console.log(`FAIL ${version} ${encoding}: ${name}\n  ${error?.message ?? error}`);
			} finally {
				await client.dispose();
			}
		}
	}
}
console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`);
process.exit(failed || !passed ? 1 : 0);
