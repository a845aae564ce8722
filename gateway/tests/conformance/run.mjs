#!/usr/bin/env node
// Conformance runner. See README.md.
//   ENDPOINT=http://127.0.0.1:6420 node run.mjs --client 2.3.19
import { readdir, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import WebSocket from "ws";
import { Context } from "./lib/context.mjs";
import { ENCODINGS, GENERATIONS, expandCases, withTimeout } from "./lib/harness.mjs";

const { values: opt } = parseArgs({
	options: {
		client: { type: "string", default: "2.3.19" },
		encoding: { type: "string", default: ENCODINGS.join(",") },
		filter: { type: "string" },
		without: { type: "string", multiple: true, default: [] },
		timeout: { type: "string", default: "20000" },
		json: { type: "string" },
		jobs: { type: "string", default: "1" },
		repeat: { type: "string", default: "0" },
		list: { type: "boolean", default: false },
		verbose: { type: "boolean", default: false },
	},
});

if (!GENERATIONS.includes(opt.client)) {
	console.error(`--client must be one of ${GENERATIONS.join(", ")}`);
	process.exit(2);
}

// Features that the server under test lacks. There are no allowances: the cases ask for quirks only of other servers.
const without = new Set(opt.without);
const quirks = new Set();

// keep the clients quiet unless asked
process.env._RIVETKIT_LOG_LEVEL ??= opt.verbose ? "debug" : "silent";
process.env.RIVET_LOG_LEVEL ??= opt.verbose ? "debug" : "silent";
process.env.LOG_LEVEL ??= opt.verbose ? "debug" : "silent";
if (!opt.verbose) {
	console.warn = () => {};
	const write = process.stdout.write.bind(process.stdout);
	process.stdout.write = (chunk, ...rest) =>
		typeof chunk === "string" && chunk.startsWith("level=") ? true : write(chunk, ...rest);
	const log = console.log.bind(console);
	console.log = (...args) => {
		if (typeof args[0] === "string" && /^level=|^ts=/.test(args[0])) return;
		log(...args);
	};
}
// A client library may leave promises unhandled while a connection is being
// torn down; that must not end the run.
process.on("unhandledRejection", (error) => {
	if (opt.verbose) console.error("unhandledRejection", error);
});

const endpoint = process.env.ENDPOINT ?? "http://127.0.0.1:6420";
const namespace = process.env.NAMESPACE ?? "default";
const token = process.env.TOKEN;

const lib = await import(`rivetkit-${opt.client}/client`);
for (const file of (await readdir(new URL("./cases/", import.meta.url))).sort()) {
	if (file.endsWith(".mjs")) await import(new URL(`./cases/${file}`, import.meta.url));
}

const encodings = opt.encoding.split(",");
const pattern = opt.filter ? new RegExp(opt.filter, "i") : null;
const cases = expandCases({ gen: opt.client, encodings }).filter((c) => !pattern || pattern.test(c.id));

if (opt.list) {
	for (const c of cases) console.log(c.id);
	console.log(`${cases.length} cases`);
	process.exit(0);
}

console.log(
	`client rivetkit ${opt.client} · node ${process.version} · ${endpoint} · ${cases.length} cases`,
);

const results = [];
async function runCase(c) {
	const missing = (c.options.needs ?? []).filter((n) => without.has(n));
	if (missing.length) {
		results.push({ id: c.id, status: "skipped", why: `server lacks ${missing.join(", ")}` });
		console.log(`  -  ${c.id} (server lacks ${missing.join(", ")})`);
		return;
	}
	const started = Date.now();
	for (let repeats = Number(opt.repeat); ; repeats--) {
		const error = await attempt(c);
		const ms = Date.now() - started;
		if (!error) {
			results.push({ id: c.id, status: "passed", ms });
			console.log(`  ok ${c.id} (${ms} ms)`);
			return;
		}
		const text = String(error?.message ?? error);
		if (repeats <= 0) {
			results.push({ id: c.id, status: "failed", ms, error: text });
			console.log(`FAIL ${c.id} (${ms} ms)\n     ${text}`);
			return;
		}
		console.log(`  .. ${c.id}: once more, ${text}`);
	}
}

/** Runs a case once, on keys of its own; the error it ended with, if any. */
async function attempt(c) {
	const ctx = new Context({ lib, gen: opt.client, encoding: c.encoding, endpoint, namespace, token, quirks, WebSocket });
	try {
		await withTimeout(c.body(ctx), c.options.timeout ?? Number(opt.timeout), "case");
	} catch (error) {
		if (opt.verbose) console.log(error?.stack);
		return error ?? new Error("unknown");
	} finally {
		await ctx.cleanup();
	}
}

const pending = [...cases];
await Promise.all(
	Array.from({ length: Number(opt.jobs) }, async () => {
		for (let c = pending.shift(); c; c = pending.shift()) await runCase(c);
	}),
);

const count = (s) => results.filter((r) => r.status === s).length;
const failed = results.filter((r) => r.status === "failed");
if (failed.length) {
	console.log("\nfailed:");
	for (const r of failed) console.log(`  ${r.id}\n     ${r.error}`);
}
console.log(`\n${count("passed")} passed, ${count("failed")} failed${count("skipped") ? `, ${count("skipped")} skipped` : ""}`);
if (opt.json) {
	await writeFile(
		opt.json,
		JSON.stringify({ client: opt.client, endpoint, node: process.version, results }, null, 1),
	);
}
process.exit(failed.length ? 1 : 0);
