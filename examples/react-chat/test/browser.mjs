// Two browsers chat through two nodes of three, and the third, the owner of their room, is killed with -9 in the middle.
// Both pages go on without a reload; each line is heard once, in order.
//   PROGRAM=../../target/debug/examples/react_chat node test/browser.mjs [ROUNDS]
// CHROMIUM names the browser (default /usr/bin/chromium), PORT the first of the cluster's (default 16520).
// The last line is `N passed, N failed`; the exit status is 0 only without failures.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { build, preview } from "vite";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const program = process.env.PROGRAM ?? join(root, "../../target/debug/examples/react_chat");
const basePort = Number(process.env.PORT ?? 16520);
const rounds = Number(process.argv[2] ?? 1);
const PATIENCE_MS = 60_000;
const LINES = 20;
/** Slots of a cluster; the second two bytes of an actor's id are its slot. */
const SLOTS = 1024;

const run = (...args) => JSON.parse(execFileSync(program, [...args, "--json"], { encoding: "utf8" }));

/** Starts three processes; `close` stops them in order. */
async function cluster(dir) {
	const args = ["up", "--nodes", "3", "--base-port", basePort, "--dir", join(dir, "cluster"), "--json"].map(String);
	const process = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
	const ended = new Promise((resolve) => process.on("exit", resolve));
	const ready = new Promise((resolve, reject) => {
		createInterface({ input: process.stdout }).on("line", (line) => line.startsWith("{") && resolve(JSON.parse(line)));
		ended.then((status) => reject(new Error(`the cluster ended with status ${status}`)));
	});
	const close = () => (process.kill("SIGTERM"), ended);
	return { nodes: (await ready).nodes, close };
}

/** The nodes in an order: the owner of the room first. The actor is there already. */
async function byOwner(nodes, room) {
	const { actors } = run("actors", "get", "room", room, "--gateway", nodes[0].gateway);
	const shards = run("shards", "--gateway", nodes[0].gateway);
	const slot = Number.parseInt(actors[0].actor_id.slice(4, 8), 16);
	const { owner } = shards[Math.floor((slot * shards.length) / SLOTS)];
	const isOwner = (node) => Number(node.node === owner);
	return [...nodes].sort((a, b) => isOwner(b) - isOwner(a));
}

async function open(browser, site, gateway, room, name) {
	const context = await browser.newContext();
	const page = await context.newPage();
	const problems = [];
	page.on("pageerror", (error) => problems.push(error.message));
	await page.addInitScript(() => {
		window.heard = [];
		window.addEventListener("heard", ({ detail }) => window.heard.push(detail));
	});
	await page.goto(`${site}?${new URLSearchParams({ endpoint: gateway, room, name })}`);
	await page.getByText("connected", { exact: true }).waitFor({ timeout: PATIENCE_MS });
	// A reload would lose it.
	await page.evaluate(() => (window.opened = true));
	const say = async (text) => {
		await page.getByLabel("Message").fill(text);
		await page.getByRole("button", { name: "Send" }).click({ timeout: PATIENCE_MS });
	};
	const lines = () => page.locator("li").allTextContents();
	const seen = (text) => page.getByText(text, { exact: true }).waitFor({ timeout: PATIENCE_MS });
	return { page, name, say, lines, seen, problems, context };
}

async function chat(browser, site, dir, round) {
	const { nodes, close } = await cluster(dir);
	try {
		const room = `round-${round}`;
		// The first line makes the room, so that it has an owner to be killed.
		const first = await open(browser, site, nodes[0].gateway, room, "first");
		await first.say("is anybody here?");
		await first.seen("is anybody here?");
		await first.context.close();

		const [owner, ...others] = await byOwner(nodes, room);
		const ada = await open(browser, site, others[0].gateway, room, "ada");
		const bob = await open(browser, site, others[1].gateway, room, "bob");
		// Asked for behind the subscription: who has this line hears every later one.
		for (const guest of [ada, bob]) await guest.seen("is anybody here?");
		const expected = ["first is anybody here?"];
		for (let number = 1; number <= LINES; number++) {
			const [speaker, listener] = number % 2 ? [ada, bob] : [bob, ada];
			const text = `line ${number}`;
			if (number === LINES / 2) process.kill(owner.pid, "SIGKILL");
			await speaker.say(text);
			await listener.seen(text);
			expected.push(`${speaker.name} ${text}`);
		}
		for (const guest of [ada, bob]) {
			assert.deepEqual(await guest.lines(), expected, `what ${guest.name} sees`);
			const heard = await guest.page.evaluate(() => window.heard);
			assert.deepEqual(heard, Array.from({ length: LINES }, (_, index) => index + 2), `what ${guest.name} heard`);
			assert.equal(await guest.page.evaluate(() => window.opened), true, `${guest.name}'s page was loaded again`);
			assert.deepEqual(guest.problems, []);
			await guest.context.close();
		}
	} finally {
		await close();
	}
}

const dir = mkdtempSync(join(tmpdir(), "react-chat-"));
await build({ root, logLevel: "error", build: { outDir: join(dir, "site") } });
const site = await preview({ root, logLevel: "error", build: { outDir: join(dir, "site") }, preview: { port: 0, host: "127.0.0.1" } });
const browser = await chromium.launch({
	executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
	args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
});
let passed = 0;
let failed = 0;
for (let round = 1; round <= rounds; round++) {
	const own = mkdtempSync(join(dir, "round-"));
	try {
		await chat(browser, site.resolvedUrls.local[0], own, round);
		passed++;
		rmSync(own, { recursive: true });
	} catch (error) {
		failed++;
		console.log(`FAIL round ${round}, logs in ${own}\n  ${error?.stack ?? error}`);
	}
}
await browser.close();
await site.close();
if (!failed) rmSync(dir, { recursive: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
