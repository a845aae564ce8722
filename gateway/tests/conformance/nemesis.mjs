#!/usr/bin/env node
// A nemesis kills one node of three with -9 every few seconds and starts it again, while unmodified clients work on.
//   node nemesis.mjs --clinch FILE --dir DIR [--port N] [--seconds N] [--every MS] [--all] [--suite]
// The clients' own gateway lives, and the other two nodes die in turn: no call fails, each counts once, every connection
// stays the same one and hears every event, in order and once. With --all every node dies, the clients dial a front that
// leads to a living one, and what is demanded is what a client can know: no answer twice, none lost, no event twice or out of
// order on a connection, and no connection or call that stays away for good. With --suite all cases of run.mjs
// run beside it, until each has passed; a case that fails is repeated, twice at most, and counted: some measure time, and
// an actor whose node dies does not fall asleep, say.
// The last line is `N passed, N failed`, a case for each counter; the exit status is 0 only without failures.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync } from "node:fs";
import net from "node:net";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { ENCODINGS, assert, eventually, sleep, unique, withTimeout } from "./lib/harness.mjs";

const { values: opt } = parseArgs({
	options: {
		clinch: { type: "string" },
		dir: { type: "string" },
		port: { type: "string", default: "17430" },
		seconds: { type: "string", default: "30" },
		every: { type: "string", default: "5000" },
		all: { type: "boolean", default: false },
		suite: { type: "boolean", default: false },
		jobs: { type: "string", default: "8" },
	},
});
const CLIENTS = ["2.3.19", "2.0.33"];
/** Counters of each client and encoding: together enough for every shard to have some. */
const COUNTERS = 3;
/** How long a call, an event or a node may take to come, on a busy machine. */
const PATIENCE_MS = 60_000;

process.env._RIVETKIT_LOG_LEVEL ??= "silent";
process.env.RIVET_LOG_LEVEL ??= "silent";
process.env.LOG_LEVEL ??= "silent";
console.warn = () => {};
// A client leaves promises unhandled while one of its connections is torn down.
process.on("unhandledRejection", () => {});

const children = [];
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

async function startCluster() {
	const args = ["up", "--nodes", "3", "--base-port", opt.port, "--dir", opt.dir, "--shards", "4", "--json"];
	mkdirSync(opt.dir, { recursive: true });
	const up = spawn(opt.clinch, args, { stdio: ["ignore", "pipe", "inherit"] });
	children.push(up);
	for await (const line of createInterface({ input: up.stdout })) {
		const said = JSON.parse(line);
		if (said.ready) {
			up.stdout.resume();
			return { up, nodes: said.nodes.map((node) => ({ ...node, process: null })) };
		}
	}
	throw new Error("the cluster did not become ready");
}

async function kill(node) {
	if (node.process) {
		const ended = once(node.process, "exit");
		node.process.kill("SIGKILL");
		await ended;
	} else {
		process.kill(node.pid, "SIGKILL");
	}
	node.alive = false;
}

/** Starts a killed node on its data; waits until it serves. */
async function restart(node) {
	const log = openSync(node.log, "a");
	const config = `${opt.dir}/node-${node.node}/clinch.toml`;
	const started = spawn(opt.clinch, ["start", "--config", config, "--example-actors"], { stdio: ["ignore", log, log] });
	children.push(started);
	node.process = started;
	await eventually(async () => (await fetch(`${node.gateway}/ready`)).ok, {
		within: PATIENCE_MS,
		what: `node ${node.node} serving again`,
	});
	node.alive = true;
}

async function nemesis(nodes, until) {
	let kills = 0;
	while (Date.now() < until) {
		const victim = nodes[kills % nodes.length];
		await kill(victim);
		kills++;
		const next = Date.now() + Number(opt.every);
		await sleep(Number(opt.every) / 2);
		await restart(victim);
		await sleep(Math.max(0, next - Date.now()));
	}
	return kills;
}

/** What stands before a cluster: leads each TCP connection to a node that takes it. */
async function startFront(nodes) {
	let turn = 0;
	const server = net.createServer(async (socket) => {
		socket.on("error", () => {});
		for (let tried = 0; tried < 100; tried++) {
			const node = nodes[turn++ % nodes.length];
			if (node.alive === false) {
				await sleep(20);
				continue;
			}
			const up = net.connect(Number(new URL(node.gateway).port), "127.0.0.1");
			try {
				await once(up, "connect");
			} catch {
				continue;
			}
			const drop = () => (socket.destroy(), up.destroy());
			for (const s of [socket, up]) s.on("error", drop).on("close", drop);
			socket.pipe(up);
			up.pipe(socket);
			return;
		}
		socket.destroy();
	});
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	return `http://127.0.0.1:${server.address().port}`;
}

/** One counter: calls by HTTP and over a connection in turn, and a connection that listens. */
async function count(client, until) {
	const key = unique("nemesis");
	const handle = client.counter.getOrCreate([key]);
	let [listener, caller] = [handle.connect(), handle.connect()];
	const heard = [];
	let life = 0;
	const ends = [];
	const listen = (conn) => {
		conn.on("newCount", (count) => heard.push({ count, life }));
		conn.onClose?.(() => ends.push(life++));
	};
	listen(listener);
	const begin = () => withTimeout(listener.getCount(), PATIENCE_MS, "the first call");
	// A call that is under way when its gateway dies is rejected, and nobody repeats it.
	await (opt.all ? eventually(async () => [await begin()], { within: PATIENCE_MS, what: "the first call" }) : begin());
	const answers = [];
	let unsure = 0;
	for (let turn = 0; Date.now() < until; turn++) {
		const over = turn % 2 ? handle : caller;
		try {
			const call = over.increment(1);
			answers.push(await withTimeout(call, opt.all ? 10_000 : PATIENCE_MS, "an increment"));
		} catch (error) {
			if (!opt.all) throw error;
			// Its node died with the call: whether it counted, nobody can say. Clients of 2.3 give a connection up when
			// a dial of theirs is refused; the application makes another.
			unsure++;
			if (over === caller) {
				caller.dispose().catch(() => {});
				caller = handle.connect();
			}
			await sleep(50);
		}
	}
	const [last] = await eventually(async () => [await handle.getCount()], { within: PATIENCE_MS, what: "a last answer" });
	const distinct = new Set(answers).size;
	assert.equal(distinct, answers.length, "distinct answers");
	assert.ok(
		last >= answers.length && last <= answers.length + unsure,
		`${answers.length} answered and ${unsure} unsure calls, but the counter is at ${last}`,
	);
	if (!opt.all) {
		assert.equal(answers, Array.from({ length: last }, (_, index) => index + 1), "answers");
		await eventually(() => heard.length >= last, { within: PATIENCE_MS, what: `${last} events` });
		assert.equal(heard.map(({ count }) => count), answers, "events");
		assert.equal(ends.length, 0, "connections that were closed");
	} else {
		heard.forEach(({ count, life }, index) => {
			const before = heard[index - 1];
			const follows = !before || (life === before.life ? count === before.count + 1 : count > before.count);
			assert.ok(follows, `event ${count} came behind ${before?.count}`);
		});
		const more = await eventually(() => handle.increment(1), { within: PATIENCE_MS, what: "one more call" });
		const heardIt = () => heard.some(({ count }) => count >= more);
		await eventually(heardIt, { within: 10_000, what: "an event" }).catch(async () => {
			life++;
			listener.dispose().catch(() => {});
			listener = handle.connect();
			listen(listener);
			await withTimeout(listener.increment(1), PATIENCE_MS, "a connection, once all is well again");
			await eventually(heardIt, { within: PATIENCE_MS, what: "the listener, once all is well again" });
		});
	}
	await Promise.all([listener.dispose(), caller.dispose()]);
	return answers.length;
}

async function suite(endpoint, version) {
	const args = ["run.mjs", "--client", version, "--jobs", opt.jobs, "--timeout", "60000", "--repeat", "2"];
	const run = spawn(process.execPath, args, {
		cwd: import.meta.dirname,
		env: { ...process.env, ENDPOINT: endpoint },
		stdio: ["ignore", "pipe", "inherit"],
	});
	children.push(run);
	let last = "";
	let repeated = 0;
	for await (const line of createInterface({ input: run.stdout })) {
		if (!line.startsWith("  ok")) console.log(`suite ${version}: ${line}`);
		if (line.startsWith("  ..")) repeated++;
		if (line) last = line;
	}
	console.log(`suite ${version}: ${repeated} repeated`);
	const [passed, failed] = (last.match(/^(\d+) passed, (\d+) failed/) ?? [0, 0, 1]).slice(1).map(Number);
	return { passed, failed };
}

const { up, nodes } = await startCluster();
const endpoint = opt.all ? await startFront(nodes) : nodes[0].gateway;
const victims = opt.all ? nodes : nodes.slice(1);
let passed = 0;
let failed = 0;
const work = [];
let until = Date.now() + Number(opt.seconds) * 1000;
if (opt.suite) {
	until = Number.MAX_SAFE_INTEGER;
	const suites = CLIENTS.map((version) => suite(endpoint, version));
	Promise.all(suites).then(() => (until = Date.now()));
	for (const running of suites) {
		work.push(
			running.then((score) => {
				passed += score.passed;
				failed += score.failed;
			}),
		);
	}
}
const deadline = { valueOf: () => until };
let calls = 0;
for (const version of CLIENTS) {
	const { createClient } = await import(`rivetkit-${version}/client`);
	for (const encoding of ENCODINGS) {
		const client = createClient({ endpoint, encoding });
		for (let index = 0; index < COUNTERS; index++) {
			work.push(
				count(client, deadline).then(
					(answered) => {
						calls += answered;
						passed++;
					},
					(error) => {
						failed++;
						console.log(`FAIL ${version} ${encoding} counter ${index}\n     ${error?.message ?? error}`);
					},
				),
			);
		}
	}
}
const kills = await nemesis(victims, deadline);
await Promise.all(work);
console.log(`${kills} kills, ${calls} calls answered`);
nodes.forEach((node) => node.process?.kill("SIGTERM"));
up.kill("SIGTERM");
await Promise.race([once(up, "exit"), sleep(15_000)]);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
