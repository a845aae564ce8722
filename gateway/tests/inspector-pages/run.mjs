// The inspector's pages in Chromium, against one node of the program with tokens: what somebody sees and does there is compared
// with what the routes say.
//   PROGRAM=../../../target/debug/clinch node run.mjs [WORD]       only cases with WORD in their names
// CHROMIUM names the browser (default /usr/bin/chromium), PORT the node's (default 16560), SHOTS a folder for screenshots.
// The last line is `N passed, N failed`; the exit status is 0 only without failures.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const program = process.env.PROGRAM ?? join(root, "target/debug/clinch");
const port = Number(process.env.PORT ?? 16560);
const only = process.argv[2] ?? "";
const gateway = `http://127.0.0.1:${port}`;
const PATIENCE_MS = 30_000;
const ADMIN = "for-administrators";
const PUBLISHABLE = "for-browsers";
/** What must never become markup. Runs if it does. */
const HOSTILE = "<img src=x onerror=window.broken=1><script>window.broken=1</script>";

/** Starts one node; ends when it serves. */
async function node(dir) {
	const token = (kind, text) => `[[tokens]]\nkind = "${kind}"\nsha256 = "${createHash("sha256").update(text).digest("hex")}"\n`;
	const config = join(dir, "clinch.toml");
	execFileSync(program, ["cert", "init", "--dir", join(dir, "certs"), "--cluster", "pages"], { stdio: "ignore" });
	execFileSync(program, ["cert", "issue", "--dir", join(dir, "certs"), "--node", "1"], { stdio: "ignore" });
	writeFileSync(config, `node = 1\ndata-dir = "data"\ncert-dir = "certs"\nlisten = "127.0.0.1:${port + 1000}"\ngateway = ["127.0.0.1:${port}"]
[cluster]\nbootstrap = true\nname = "pages"\nreplicas = 1\n${token("admin", ADMIN)}${token("publishable", PUBLISHABLE)}`);
	const process = spawn(program, ["start", "--config", config], { stdio: ["ignore", "ignore", "inherit"] });
	let status;
	const ended = new Promise((resolve) => process.on("exit", (code) => resolve((status = code ?? -1))));
	const deadline = Date.now() + PATIENCE_MS;
	for (;;) {
		const ready = await fetch(`${gateway}/ready`).catch(() => undefined);
		if (ready?.ok) break;
		assert.ok(status === undefined, `the node ended with status ${status}`);
		assert.ok(Date.now() < deadline, "the node does not get ready");
		await new Promise((resolve) => setTimeout(resolve, 50));
	}
	return () => (process.kill("SIGTERM"), ended);
}

async function ask(method, path, body, token = ADMIN) {
	const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
	const response = await fetch(`${gateway}/${path}`, { method, headers, body: body && JSON.stringify(body) });
	return { status: response.status, body: await response.json() };
}

async function made(name, key) {
	const { status, body } = await ask("PUT", "actors?namespace=default", { name, key });
	assert.equal(status, 200, JSON.stringify(body));
	return body.actor.actor_id;
}

const state = async (id) => (await ask("GET", `gateway/${id}/inspector/state`)).body.state;

/** A page of a person who has entered this token. */
async function open(browser, hash, { token = ADMIN, width = 1100 } = {}) {
	const context = await browser.newContext({ viewport: { width, height: 900 } });
	context.setDefaultTimeout(PATIENCE_MS);
	const page = await context.newPage();
	const problems = [];
	page.on("pageerror", (error) => problems.push(error.message));
	await page.addInitScript(() => {
		window.violations = [];
		document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
	});
	await page.goto(`${gateway}/inspector/ui/${hash}`);
	if (token) {
		await page.getByLabel("Token").fill(token);
		await page.getByRole("button", { name: "Use" }).click();
	}
	const part = (name) => page.getByRole("region", { name, exact: true });
	return {
		page,
		part,
		row: (text) => page.getByRole("row").filter({ hasText: text }),
		sees: (text) => page.getByText(text).first().waitFor(),
		answered: (text) => part("Actions").getByLabel("Answer").filter({ hasText: text }).waitFor(),
		async close() {
			assert.deepEqual(problems, [], "errors of the page");
			assert.deepEqual(await page.evaluate(() => window.violations), [], "what the policy had to stop");
			assert.equal(await page.evaluate(() => window.broken), undefined, "a text was run");
			await context.close();
		},
	};
}

async function call(page, action, args) {
	await page.part("Actions").getByLabel("Action", { exact: true }).selectOption(action);
	await page.part("Actions").getByLabel("Arguments").fill(args);
	await page.part("Actions").getByRole("button", { name: "Call" }).click();
}

const cases = {
	async "an actor is found in the list, called, changed and destroyed"(browser) {
		const id = await made("counter", "first");
		await ask("POST", `gateway/${id}/action/increment`, { args: [3] });
		const page = await open(browser, "#/actors");
		await page.part("Find").getByLabel("Name").selectOption("counter");
		await page.part("Find").getByRole("button", { name: "Find" }).click();
		await page.page.getByRole("link", { name: "first", exact: true }).click();
		const text = page.part("State").getByLabel("State");
		await page.sees("counter first");
		assert.deepEqual(JSON.parse(await text.inputValue()), await state(id));
		const before = await text.inputValue();

		await call(page, "increment", "[4]");
		await page.answered("7");
		assert.notEqual(await text.inputValue(), before);
		assert.deepEqual(JSON.parse(await text.inputValue()), await state(id));
		await call(page, "increment", '{"by":1}');
		await page.sees("Arguments are a JSON array.");
		await call(page, "setCount", '["many"]');
		await page.part("Actions").getByText("actor.invalid_request").waitFor();
		assert.equal((await ask("POST", `gateway/${id}/action/getCount`, { args: [] })).body.output, 7);

		await text.fill((await text.inputValue()).replace("7", "40"));
		await page.part("State").getByRole("button", { name: "Save" }).click();
		await page.sees("Saved.");
		assert.equal((await ask("POST", `gateway/${id}/action/increment`, { args: [2] })).body.output, 42);
		await text.fill('{"count":');
		await page.part("State").getByRole("button", { name: "Save" }).click();
		await page.part("State").locator("output.bad").waitFor();

		const destroy = page.part("End").getByRole("button", { name: "Destroy this actor" });
		await destroy.click();
		await page.sees("Destroy counter first?");
		await page.page.getByRole("button", { name: "Cancel" }).click();
		assert.equal((await ask("GET", `gateway/${id}/metadata`)).status, 200);
		await destroy.click();
		await page.page.getByRole("dialog").getByRole("button", { name: "Destroy" }).click();
		await page.page.getByRole("alert").filter({ hasText: "404 actor.not_found" }).waitFor();
		assert.equal((await ask("GET", `gateway/${id}/metadata`)).status, 404);
		await page.page.goto(`${gateway}/inspector/ui/#/actors?name=counter&key=first`);
		await page.sees("None.");
		await page.close();
	},

	async "a state that has changed meanwhile is replaced only by who insists"(browser) {
		const id = await made("counter", "meanwhile");
		const page = await open(browser, `#/actor/${id}`);
		const text = page.part("State").getByLabel("State");
		await text.fill((await text.inputValue()).replace("0", "10"));
		await ask("POST", `gateway/${id}/action/increment`, { args: [5] });
		const save = page.part("State").getByRole("button", { name: "Save" });
		await save.click();
		await page.sees("The state has changed since it was shown here.");
		await page.page.getByRole("button", { name: "Cancel" }).click();
		await page.sees("Not saved.");
		const count = async () => (await ask("POST", `gateway/${id}/action/getCount`, { args: [] })).body.output;
		assert.equal(await count(), 5);
		await save.click();
		await page.page.getByRole("button", { name: "Replace" }).click();
		await page.sees("Saved.");
		assert.equal(await count(), 10);
		await page.close();
	},

	async "what actors hold is shown and never becomes markup"(browser) {
		const id = await made("chatRoom", HOSTILE.replaceAll("/", "\\/"));
		const page = await open(browser, "#/actors?name=chatRoom");
		const said = await ask("POST", `gateway/${id}/action/sendMessage`, { args: [HOSTILE] });
		assert.equal(said.status, 200, JSON.stringify(said.body));
		await page.page.getByRole("link", { name: HOSTILE.replaceAll("/", "\\/") }).click();
		const text = page.part("State").getByLabel("State");
		assert.ok((await text.inputValue()).includes(HOSTILE), await text.inputValue());
		await page.part("Queues").getByLabel("Queue", { exact: true }).fill(HOSTILE);
		await page.part("Queues").getByRole("button", { name: "Add" }).click();
		await page.row(HOSTILE).waitFor();
		const echo = await made("echo", "hostile");
		await page.page.evaluate((path) => (location.hash = path), `#/actor/${echo}`);
		await page.sees("echo hostile");
		await call(page, "echo", JSON.stringify([HOSTILE]));
		await page.answered(HOSTILE);
		await page.page.evaluate((path) => (location.hash = path), `#/actor/${encodeURIComponent(HOSTILE)}`);
		await page.page.getByRole("alert").waitFor();
		await page.page.evaluate((path) => (location.hash = path), `#/${HOSTILE}`);
		await page.sees("There is no page");
		assert.equal(await page.page.locator("img, main script").count(), 0);
		assert.equal((await ask("GET", `gateway/${id}/metadata`)).status, 200);
		await page.close();
	},

	async "queues and connections of an actor are shown"(browser) {
		const id = await made("counter", "busy");
		const page = await open(browser, `#/actor/${id}`);
		await page.part("Connections").getByText("None.").waitFor();
		await page.page.evaluate(([url, token]) => new Promise((resolve, reject) => {
			window.socket = new WebSocket(url, ["rivet", "rivet_encoding.json", `rivet_token.${token}`]);
			window.socket.onmessage = resolve;
			window.socket.onclose = reject;
		}), [`${gateway.replace("http", "ws")}/gateway/${id}/connect`, PUBLISHABLE]);
		await page.page.getByRole("button", { name: "Refresh" }).click();
		await page.part("Connections").getByRole("row").filter({ hasText: "events" }).waitFor();

		const queues = page.part("Queues");
		await queues.getByLabel("Queue", { exact: true }).fill("letters");
		await queues.getByLabel("Message").fill('{"to":"all"}');
		await queues.getByRole("button", { name: "Add" }).click();
		await queues.getByRole("row").filter({ hasText: "letters" }).waitFor();
		assert.equal((await ask("GET", `gateway/${id}/inspector/queue`)).body.size, 1);
		await queues.getByRole("button", { name: "Empty the queues" }).click();
		await page.page.getByRole("dialog").getByRole("button", { name: "Empty" }).click();
		await page.sees("1 taken out.");
		await queues.getByText("0 of at most").waitFor();
		assert.equal((await ask("GET", `gateway/${id}/inspector/queue`)).body.size, 0);
		await page.close();
	},

	async "a long list has pages, and each actor is on one of them"(browser) {
		const keys = Array.from({ length: 120 }, (_, number) => `page-${number}`);
		await Promise.all(keys.map((key) => made("kvStore", key)));
		const page = await open(browser, "#/actors?name=kvStore");
		const seen = [];
		for (;;) {
			await page.part("Actors kvStore").waitFor();
			seen.push(...(await page.part("Actors kvStore").getByRole("link").filter({ hasText: "page-" }).allTextContents()));
			const next = page.page.getByRole("link", { name: "Next page" });
			if (!(await next.count())) break;
			const first = seen.at(-1);
			await next.click();
			await page.page.getByRole("link", { name: first, exact: true }).waitFor({ state: "detached" });
		}
		assert.deepEqual(seen.toSorted(), keys.toSorted());
		await page.close();
	},

	async "the cluster is shown with its nodes, shards and owners"(browser) {
		const { body } = await ask("GET", "cluster");
		const page = await open(browser, "#/cluster");
		await page.sees("Cluster pages");
		const nodes = page.part("Nodes").getByRole("row").filter({ hasText: `127.0.0.1:${port + 1000}` });
		await nodes.getByText("up", { exact: true }).waitFor();
		assert.equal(await page.part("Shards").getByRole("row").count(), body.shards.length + 1);
		await page.close();
	},

	async "a token that does not suffice is refused with the reason"(browser) {
		const id = await made("counter", "guarded");
		for (const [token, hash, reason] of [
			["", "#/actors", "401 api.unauthorized"],
			["wrong", "#/actors", "401 api.unauthorized: the token is not known here"],
			["wrong", `#/actor/${id}`, "401 inspector.unauthorized: the token is not known here"],
			[PUBLISHABLE, "#/cluster", "403 api.forbidden"],
			[PUBLISHABLE, "#/actors?name=counter", "403 api.forbidden"],
			[PUBLISHABLE, `#/actor/${id}`, "401 inspector.unauthorized"],
		]) {
			const page = await open(browser, hash, { token });
			await page.page.getByRole("alert").filter({ hasText: reason }).waitFor();
			await page.close();
		}
	},

	async "the token of an actor opens its page and no other"(browser) {
		const id = await made("counter", "own");
		const other = await made("counter", "other");
		const { body } = await ask("GET", `actors/${id}/kv/keys/Aw%3D%3D?namespace=default`);
		const token = Buffer.from(body.value, "base64").toString();
		const page = await open(browser, `#/actor/${id}`, { token });
		await call(page, "increment", "[9]");
		await page.answered("9");
		await page.page.evaluate((hash) => (location.hash = hash), `#/actor/${other}`);
		await page.page.getByRole("alert").filter({ hasText: "401 inspector.unauthorized" }).waitFor();
		await page.close();
	},

	async "a token stays in its page, and in no address and no storage"(browser) {
		const page = await open(browser, "#/cluster");
		await page.sees("Cluster pages");
		const urls = [];
		page.page.on("request", (request) => urls.push(request.url()));
		await page.page.getByRole("button", { name: "Use" }).click();
		await page.sees("Cluster pages");
		const kept = await page.page.evaluate(() => [localStorage.length, document.cookie, sessionStorage.length]);
		assert.deepEqual(kept, [0, "", 0]);
		await page.page.reload();
		await page.page.getByRole("alert").filter({ hasText: "401" }).waitFor();
		assert.ok(urls.length > 3 && urls.every((url) => url.startsWith(gateway) && !url.includes(ADMIN)), urls.join("\n"));
		const another = await page.page.context().newPage();
		await another.goto(`${gateway}/inspector/ui/#/cluster`);
		await another.getByRole("alert").filter({ hasText: "401" }).waitFor();
		await page.close();
	},

	async "a narrow window shows all without moving sideways"(browser) {
		const id = await made("counter", "narrow-" + "x".repeat(80));
		for (const [name, hash] of Object.entries({ cluster: "#/cluster", actors: "#/actors?name=counter", actor: `#/actor/${id}` })) {
			for (const width of [400, 1100]) {
				const page = await open(browser, hash, { width });
				await page.page.locator("main:not([aria-busy]) section").last().waitFor();
				const wide = await page.page.evaluate(() => document.scrollingElement.scrollWidth);
				if (process.env.SHOTS) await page.page.screenshot({ path: join(process.env.SHOTS, `${name}-${width}.png`), fullPage: true });
				assert.ok(wide <= width, `${name} is ${wide} wide in a window of ${width}`);
				await page.close();
			}
		}
	},
};

const dir = mkdtempSync(join(tmpdir(), "inspector-pages-"));
const stop = await node(dir);
let passed = 0;
let failed = 0;
try {
	const browser = await chromium.launch({
		executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
		args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
	});
	for (const [name, run] of Object.entries(cases).filter(([name]) => name.includes(only))) {
		try {
			await run(browser);
			passed++;
			console.log(`ok   ${name}`);
		} catch (error) {
			failed++;
			console.log(`FAIL ${name}\n  ${error?.stack ?? error}`);
		}
	}
	await browser.close();
} finally {
	await stop();
}
if (!failed) rmSync(dir, { recursive: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
