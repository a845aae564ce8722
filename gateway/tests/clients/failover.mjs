#!/usr/bin/env node
// Connections outlive the death of a node: unmodified clients listen through one gateway of three, calls go through another,
// and the third node is killed with -9. Every connection hears every event, in order and once, and stays the same connection.
//   NODES='[{"gateway":"http://..","pid":1},..]' node failover.mjs      (the nodes as `clinch up --json` prints them)
// The last line is `N passed, N failed`, a case for each version of the client; the exit status is 0 only without failures.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

const nodes = JSON.parse(process.env.NODES ?? "[]");
assert.equal(nodes.length, 3, "three nodes are needed");
const [listening, victim, calling] = nodes;
/** Enough for every shard to have one. */
const ACTORS = 32;
const EVENTS = 40;
const PATIENCE_MS = 60_000;

process.env._RIVETKIT_LOG_LEVEL ??= "silent";
process.env.RIVET_LOG_LEVEL ??= "silent";
process.env.LOG_LEVEL ??= "silent";

async function listen(client, key) {
	const conn = client.counter.getOrCreate([key]).connect();
	const heard = [];
	const ends = [];
	conn.on("newCount", (count) => heard.push(count));
	conn.onClose?.(() => ends.push(Date.now()));
	await conn.getCount();
	const id = conn.connId ?? conn.connectionId;
	return { key, conn, heard, ends, id };
}

async function heardAll(listeners) {
	const until = Date.now() + PATIENCE_MS;
	while (listeners.some(({ heard }) => heard.length < EVENTS) && Date.now() < until) {
		await new Promise((resolve) => setTimeout(resolve, 20));
	}
	const expected = Array.from({ length: EVENTS }, (_, index) => index + 1);
	for (const { heard, ends, conn, id } of listeners) {
		assert.deepEqual(heard, expected);
		assert.equal(ends.length, 0, "the socket was closed");
		assert.equal(conn.connId ?? conn.connectionId, id, "another connection");
		assert.equal(await conn.getCount(), EVENTS, "the connection works on");
	}
}

async function run(version, kill) {
	const { createClient } = await import(`${version}/client`);
	const listener = createClient({ endpoint: listening.gateway });
	const caller = createClient({ endpoint: calling.gateway });
	const keys = Array.from({ length: ACTORS }, () => randomUUID());
	const listeners = await Promise.all(keys.map((key) => listen(listener, key)));
	for (let round = 0; round < EVENTS; round++) {
		if (round === EVENTS / 2) kill();
		await Promise.all(keys.map((key) => caller.counter.getOrCreate([key]).increment(1)));
	}
	await heardAll(listeners);
	await listener.dispose();
	await caller.dispose();
}

let passed = 0;
let failed = 0;
for (const [index, version] of ["rivetkit-2.3", "rivetkit-2.0"].entries()) {
	// The first of them sees the death, the second a cluster of two.
	const kill = () => index === 0 && process.kill(victim.pid, "SIGKILL");
	try {
		await run(version, kill);
		passed++;
	} catch (error) {
		failed++;
		console.log(`FAIL ${version}\n  ${error?.message ?? error}`);
	}
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
