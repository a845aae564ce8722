// A program that uses the actors rightly: it compiles.
import { createClient } from "rivetkit/client";
import type { Item, Kind, Page, Registry } from "./actors.js";

const client = createClient<Registry>({ endpoint: "http://127.0.0.1:6420" });
const cart = client.cart.getOrCreate(["ada"]);
const kind: Kind = { Made: { by: "hand" } };
const item: Item = { name: "pear", price: 0.5, picture: new Uint8Array([1]), tags: [], note: null, kind };

const count: number = await cart.add(item);
await cart.add({ ...item, kind: "Plain" }, 2);
await cart.add({ ...item, kind: { Weighed: 500 }, note: "ripe" }, null, true);
const page: Page<Item> = await cart.listItems(null, 10);
const next: number | null = page.next;
const nothing: void = await cart.clear();
const prices: { [name: string]: [number, number] } = await cart["prices-of"]("pear", "plum");
await cart["prices-of"]();
const found: Kind | null = await cart.byNumber({ 7: { items: ["pear"], next: null } });
const any: unknown = await cart.anything(new Date());

const connection = cart.connect();
const stop: () => void = connection.on("added", ({ item }) => item.name.toUpperCase());
connection.on("counted", (count) => count.toFixed(2));
connection.on("moved-by", (dx, dy) => Math.hypot(dx, dy));
connection.once("cleared", () => stop());
const again: number = await connection.add(item);
await cart.send("jobs", { any: "thing" });

const quiet = client.quiet.get(["night"]);
const id: string = await quiet.resolve();
const plain: any = await client.plain.getOrCreate(["p"]).read("whatever");
export { again, any, count, found, id, next, nothing, plain, prices };
