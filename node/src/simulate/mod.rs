//! A whole cluster in one thread of virtual time, from one seed: `Registry::simulate(seed)`.
//!
//! The nodes are the product, unchanged: real activations, real Raft, the real log on a simulated disk, real QUIC and
//! TLS over a simulated network. Only time, packets, disks and randomness are the simulation's.
//!
//! ```
//! use std::time::Duration;
//!
//! use clinch::prelude::*;
//! use clinch::simulate::Simulate;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! pub struct Counter { count: i64 }
//!
//! #[clinch::actor(name = "counter")]
//! impl Counter {
//!     #[action]
//!     fn increment(&mut self, by: i64) -> i64 {
//!         self.count += by;
//!         self.count
//!     }
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut sim = Registry::new().actor::<Counter>().simulate(7).nodes(3).start()?;
//! let add = |cluster: Cluster| async move { cluster.get::<Counter>("a").increment(3).await };
//! assert_eq!(sim.run(add)??, 3);
//! sim.power_loss(0);
//! assert_eq!(sim.run(add)??, 6);
//! sim.restart(0)?;
//! sim.advance(Duration::from_secs(5));
//! assert_eq!(sim.run(add)??, 9);
//! # Ok(()) }
//! ```
//!
//! Invariant: nothing runs except inside [`Simulation::step`]. In a process that simulates once, on a thread that has
//! drawn nothing before, the same seed gives the same [`Simulation::trace`].
//! Not here: the machines ([`clinch_sim`]), faults by plan and checkers (`jepsen-like-tests`).

mod node;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clinch_actor::Registry;
use clinch_client::{Client, ClientConfig, Cluster};
use clinch_sim::World;
pub use clinch_sim::{LinkRule, Machine, MachineClock, NetCounts, Trace, entropy};
use clinch_storage::SimDisk;
use clinch_transport::{CertBundle, ClusterCa, TransportConfig};
use clinch_types::{Clock, NodeId, SessionId};
use parking_lot::Mutex;

use self::node::SimNode;
use crate::{ClusterConfig, Node, NodeConfig, RaftConfig, StorageConfig};

/// Where nodes listen.
const PORT: u16 = 7420;
/// Simulated time a cluster has to come up, and a future of [`Simulation::run`] to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest time that [`Simulation::advance`] lives through step by step; more passes in leaps of the wall clocks.
const STEPPED_MAX: Duration = Duration::from_secs(60);
/// Leaps of one [`Simulation::advance`] at most.
const LEAPS: u32 = 240;

/// Turns a registry into a simulated cluster.
pub trait Simulate {
    /// A cluster of these actor types in virtual time; everything random in it comes from the seed.
    fn simulate(self, seed: u64) -> SimulationBuilder;
}

impl Simulate for Registry {
    fn simulate(self, seed: u64) -> SimulationBuilder {
        SimulationBuilder {
            registry: self,
            seed,
            nodes: 3,
            spares: 0,
            shards: 4,
            raft: RaftConfig::default(),
            storage: StorageConfig::default(),
            segment_bytes: 256 << 10,
            retain_bytes: None,
            checkpoint_keys: 2048,
        }
    }
}

/// A simulated cluster that has not started.
#[derive(Clone)]
pub struct SimulationBuilder {
    registry: Registry,
    seed: u64,
    nodes: u64,
    spares: u64,
    shards: u32,
    raft: RaftConfig,
    storage: StorageConfig,
    segment_bytes: u64,
    retain_bytes: Option<u64>,
    checkpoint_keys: usize,
}

impl SimulationBuilder {
    /// How many nodes. Default: 3.
    #[must_use]
    pub fn nodes(mut self, nodes: u64) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many more nodes there are that have not been started: [`Simulation::restart`] lets them join. Default: none.
    #[must_use]
    pub fn spares(mut self, spares: u64) -> Self {
        self.spares = spares;
        self
    }

    /// How many shards. Default: 4, so that a few actors share each.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// Raft timings. Default: those of a node.
    #[must_use]
    pub fn raft(mut self, raft: RaftConfig) -> Self {
        self.raft = raft;
        self
    }

    /// The store of the nodes. Default: that of a node.
    #[must_use]
    pub fn storage(mut self, storage: StorageConfig) -> Self {
        self.storage = storage;
        self
    }

    /// Size of a segment of the log, in bytes. Default: 256 KiB, so that a short run goes through several.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Log kept for replicas that lag, in bytes; small values make snapshots travel. Default: `retain-mib` of the store.
    #[must_use]
    pub fn retain_bytes(mut self, bytes: u64) -> Self {
        self.retain_bytes = Some(bytes);
        self
    }

    /// Keys that a checkpoint writes at once; small values leave checkpoints half done. Default: 2,048.
    #[must_use]
    pub fn checkpoint_keys(mut self, keys: usize) -> Self {
        self.checkpoint_keys = keys;
        self
    }

    /// Starts the nodes and waits, in virtual time, until every shard has an owner.
    ///
    /// # Errors
    /// What kept a node from starting or the cluster from forming.
    pub fn start(self) -> anyhow::Result<Simulation> {
        let mut sim = self.boot()?;
        sim.settle(PATIENCE)?;
        Ok(sim)
    }

    /// Starts the nodes and returns at once: nothing has run yet.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub fn boot(self) -> anyhow::Result<Simulation> {
        self.registry.check()?;
        anyhow::ensure!(
            self.nodes > 0 && self.nodes.saturating_add(self.spares) <= 64,
            "nodes is {} with {} spares, must be from 1 to 64",
            self.nodes,
            self.spares
        );
        let repeatable = entropy::seed(self.seed);
        let mut world = World::new(self.seed);
        let machines: Vec<Machine> = (0..self.nodes + self.spares).map(|_| world.add()).collect();
        let outside = world.add();
        let addresses: Vec<SocketAddr> = machines
            .iter()
            .map(|machine| SocketAddr::new(world.ip(*machine), PORT))
            .collect();
        let ca = ClusterCa::generate("simulated", world.clock(outside).wall())?;
        let mut nodes = Vec::new();
        for (index, machine) in machines.iter().enumerate() {
            let config = self.config(index, &addresses);
            let identity = ca.issue_node(config.node, &[])?;
            nodes.push(SimNode {
                machine: *machine,
                config,
                identity,
                disk: SimDisk::new(self.seed ^ (0xd15c << 32) ^ index as u64),
                segment_bytes: self.segment_bytes,
                retain_bytes: self.retain_bytes,
                checkpoint_keys: self.checkpoint_keys,
                boots: 0,
                life: Arc::default(),
            });
        }
        let mut sim = Simulation {
            seed: self.seed,
            repeatable,
            world,
            registry: self.registry,
            client_identity: ca.issue_client("simulated")?,
            addresses,
            nodes,
            outside,
            sessions: 0,
            cluster: None,
        };
        for index in 0..self.nodes as usize {
            sim.restart(index)?;
        }
        sim.world.boot(outside)?;
        Ok(sim)
    }

    fn config(&self, index: usize, addresses: &[SocketAddr]) -> NodeConfig {
        let join = addresses
            .iter()
            .enumerate()
            .filter(|(other, _)| index > 0 && *other != index)
            .map(|(_, address)| address.to_string())
            .collect();
        NodeConfig {
            node: NodeId(index as u64 + 1),
            data_dir: "simulated".into(),
            cert_dir: "simulated".into(),
            listen: addresses[index],
            advertise: None,
            gateway: Vec::new(),
            zone: String::new(),
            region: Default::default(),
            capacity: 1,
            code_version: 0,
            cluster: ClusterConfig {
                bootstrap: index == 0,
                name: "simulated".into(),
                expect_nodes: self.nodes as u32,
                shards: self.shards,
                replicas: self.nodes.min(3) as u8,
                join,
            },
            raft: self.raft.clone(),
            proposer: Default::default(),
            storage: self.storage.clone(),
            tokens: Vec::new(),
            http: Default::default(),
            insecure: false,
            expose_errors: false,
        }
    }
}

/// A simulated cluster. Nodes are named by their index, from 0.
pub struct Simulation {
    seed: u64,
    repeatable: bool,
    world: World,
    registry: Registry,
    client_identity: CertBundle,
    addresses: Vec<SocketAddr>,
    nodes: Vec<SimNode>,
    /// Where [`Simulation::run`] runs.
    outside: Machine,
    sessions: u128,
    cluster: Option<Cluster>,
}

impl Simulation {
    /// The seed it came from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the same seed gives the same run: the system's randomness could be replaced.
    pub fn repeatable(&self) -> bool {
        self.repeatable
    }

    /// Simulated time since the start.
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// Everything that happened so far, as one number.
    pub fn trace(&self) -> Trace {
        self.world.trace()
    }

    /// The machines under the cluster: for faults beyond those named here.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Moves everything on by a millisecond.
    pub fn step(&mut self) {
        self.step_watched(|_| {});
    }

    /// As [`Simulation::step`]; `before` is told each machine that is about to run.
    pub fn step_watched(&mut self, before: impl FnMut(Machine)) {
        self.world.step(before);
        for index in 0..self.nodes.len() {
            self.nodes[index].after_step(&mut self.world);
        }
    }

    /// Lets time pass: a minute is lived through; of more, the wall clocks take most in leaps, and the nodes live a
    /// moment after each, so that what is due happens.
    pub fn advance(&mut self, time: Duration) {
        let stepped = time.min(STEPPED_MAX);
        let leaping = time - stepped;
        if !leaping.is_zero() {
            let live = (stepped / LEAPS).max(Duration::from_millis(100));
            for _ in 0..LEAPS {
                let leap = i64::try_from((leaping / LEAPS).as_millis()).unwrap_or(i64::MAX / 4);
                for index in 0..self.nodes.len() {
                    self.jump_clock(index, leap);
                }
                self.live(live);
            }
            return;
        }
        self.live(stepped);
    }

    fn live(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.world.now() < until {
            self.step();
        }
    }

    /// Waits, in virtual time, until every running node knows an owner for every shard.
    ///
    /// # Errors
    /// What is missing when the time is up.
    pub fn settle(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = self.world.now() + patience;
        loop {
            let mut problem = None;
            for (index, node) in self.nodes.iter().enumerate() {
                match node.problem() {
                    Some(reason) => problem = Some(format!("node {}: {reason}", index + 1)),
                    None => continue,
                }
            }
            match problem {
                None => return Ok(()),
                Some(problem) if self.world.now() >= deadline => {
                    anyhow::bail!("seed {}: not ready after {patience:?}: {problem}", self.seed)
                }
                Some(_) => self.step(),
            }
        }
    }

    /// Runs a future against the cluster, from a client outside of it, until it ends.
    ///
    /// # Errors
    /// When no node can be reached, the future panics, or it does not end within two simulated minutes.
    pub fn run<F, T>(&mut self, make: impl FnOnce(Cluster) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let cluster = match &self.cluster {
            Some(cluster) => cluster.clone(),
            None => {
                let config = self.client_config(self.outside, self.addresses.clone());
                let client = self
                    .wait(self.outside, Client::connect(config))?
                    .context("the simulated client")?;
                let cluster = client.cluster().clone();
                // It lives as long as the machine outside does.
                self.world
                    .spawn(self.outside, async move {
                        let _client = client;
                        std::future::pending::<()>().await;
                    })
                    .context("the machine outside is off")?;
                self.cluster.insert(cluster).clone()
            }
        };
        self.wait(self.outside, make(cluster))
    }

    /// Runs a future on a machine until it ends.
    ///
    /// # Errors
    /// When the machine is off or the future does not end in time.
    pub fn wait<F>(&mut self, machine: Machine, future: F) -> anyhow::Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (slot, out) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let inner = out.clone();
        let handle = self
            .world
            .spawn(machine, async move {
                let value = future.await;
                *inner.lock() = Some(value);
            })
            .context("the machine is off")?;
        *slot.lock() = Some(handle);
        let deadline = self.world.now() + PATIENCE;
        loop {
            self.step();
            if let Some(value) = out.lock().take() {
                return Ok(value);
            }
            let finished = slot.lock().as_ref().is_none_or(|handle| handle.is_finished());
            anyhow::ensure!(!finished, "seed {}: the future panicked", self.seed);
            anyhow::ensure!(
                self.world.now() < deadline,
                "seed {}: the future did not end within {PATIENCE:?} of simulated time",
                self.seed
            );
        }
    }

    /// A machine beside the cluster, switched on.
    ///
    /// # Errors
    /// When its runtime cannot be made.
    pub fn add_machine(&mut self) -> anyhow::Result<Machine> {
        let machine = self.world.add();
        self.world.boot(machine)?;
        Ok(machine)
    }

    /// How a client on this machine reaches the cluster.
    pub fn client_config(&mut self, machine: Machine, seeds: Vec<SocketAddr>) -> ClientConfig {
        self.sessions += 1;
        let seeds = seeds.iter().map(ToString::to_string).collect();
        ClientConfig {
            transport: self.client_transport(machine),
            sockets: Arc::new(self.world.sockets(machine)),
            session: Some(SessionId(self.sessions)),
            ..ClientConfig::new(self.client_identity.clone(), seeds)
        }
    }

    /// QUIC settings of a client on this machine.
    pub fn client_transport(&mut self, machine: Machine) -> TransportConfig {
        self.sessions += 1;
        TransportConfig {
            rng_seed: Some(node::spread(self.seed ^ 0xc11e, self.sessions as u64)),
            certificate_clock: Some(Arc::new(self.world.clock(machine))),
            ..TransportConfig::default()
        }
    }

    /// The certificate that clients show.
    pub fn client_identity(&self) -> CertBundle {
        self.client_identity.clone()
    }

    /// Where the nodes listen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The machine of a node.
    pub fn machine(&self, node: usize) -> Machine {
        self.nodes[node].machine
    }

    /// The disk of a node: what is on it, and what goes wrong with it.
    pub fn disk(&self, node: usize) -> &SimDisk {
        &self.nodes[node].disk
    }

    /// A running node.
    pub fn node(&self, node: usize) -> Option<Arc<Node>> {
        self.nodes[node].running()
    }

    /// Whether a running node has lost the state of a shard and serves it no more: its store came back older than its log
    /// allows for.
    pub fn has_lost_state(&self, node: usize) -> bool {
        self.node(node).is_some_and(|node| node.has_lost_state())
    }

    /// Why a node ended by itself, if it did: it stays off until it is started again.
    pub fn failure(&self, node: usize) -> Option<String> {
        self.nodes[node].failure()
    }

    /// Whether the machine of a node is on.
    pub fn is_on(&self, node: usize) -> bool {
        self.world.is_on(self.nodes[node].machine)
    }

    /// `kill -9`: the process is gone, what it wrote is with the operating system.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].end(&mut self.world, SimDisk::kill);
    }

    /// The machine loses power: what was not synced is lost, or torn.
    pub fn power_loss(&mut self, node: usize) {
        self.nodes[node].end(&mut self.world, SimDisk::crash);
    }

    /// Cuts a node off from its network and its disk, from inside its own step: what still runs of it has no effect. The
    /// machine then loses power with [`Simulation::power_loss`] after the step.
    pub fn severer(&self, node: usize) -> impl Fn() + Send + Sync + 'static {
        let (network, disk) = (
            self.world.severer(self.nodes[node].machine),
            self.disk(node).clone(),
        );
        move || {
            disk.crash();
            network();
        }
    }

    /// Starts a node that is off.
    ///
    /// # Errors
    /// When its runtime cannot be made. Why a node does not come up is told by [`Simulation::failure`].
    pub fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        let registry = self.registry.clone();
        self.nodes[node].boot(&mut self.world, registry, self.seed)
    }

    /// Stops a node for a while, as `SIGSTOP` does.
    pub fn pause(&mut self, node: usize, time: Duration) {
        self.world.pause(self.nodes[node].machine, time);
    }

    /// Loses everything between two groups of nodes, in both directions.
    pub fn partition(&mut self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                self.cut(*a, *b);
                self.cut(*b, *a);
            }
        }
    }

    /// Loses everything from one node to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        let (from, to) = (self.nodes[from].machine, self.nodes[to].machine);
        self.world.cut(from, to);
    }

    /// Undoes all cuts and rules of links.
    pub fn heal(&mut self) {
        self.world.heal();
    }

    /// Moves the wall clock of a node; negative is backwards.
    pub fn jump_clock(&mut self, node: usize, by_ms: i64) {
        self.world.clock(self.nodes[node].machine).jump_ms(by_ms);
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Whoever uses this thread next gets real randomness again.
        entropy::unseed();
    }
}
