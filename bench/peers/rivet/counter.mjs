// The counter of the bench as a RivetKit actor, attached to a running engine: node counter.mjs ENDPOINT [saved]
// With `saved` the state is in the engine's store before the answer leaves; without, about a second later (the default).
process.env.RIVET_RUN_SERVICES ??= "0";
const { actor, setup } = await import("rivetkit");

const [endpoint, mode] = process.argv.slice(2);
const saved = mode === "saved";
const counter = actor({
	state: { count: 0 },
	actions: {
		increment: async (c, by = 1) => {
			c.state.count += by;
			if (saved) await c.saveState({ immediate: true });
			return c.state.count;
		},
		getCount: (c) => c.state.count,
	},
});
const registry = setup({
	use: { counter },
	endpoint,
	noWelcome: true,
	startServices: false,
	logging: { level: process.env.LOG ?? "warn" },
});
registry.start();
console.log(`counter${saved ? ", saved before each answer," : ""} attached to ${endpoint}`);
