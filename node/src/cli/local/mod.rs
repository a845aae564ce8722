//! A real cluster on this machine: N processes of one program, on loopback, with certificates of their own.
//!
//! What `clinch up` and `clinch demo` run, and what benches and fault tests drive: it starts, kills, pauses and
//! restarts nodes, and says where they are. The program only has to understand `start --config FILE`.
//!
//! Invariant: no process outlives the [`LocalCluster`] that started it, not even when its owner is killed.
//! Not here: what is run against the cluster (`demo`), what people see (`up`).

mod files;
mod ports;
mod process;
mod ready;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use clinch_client::{Client, ClientConfig, HttpClient};
use clinch_transport::{CertBundle, PeerId};
use clinch_types::{NodeId, ShardId};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use files::{Kind, claim, ensure_authority, ensure_client, ensure_node, merge};
pub use ports::Ports;
use process::{Process, Signal};

/// Most nodes in one local cluster: their ports must fit between two bases.
pub const NODES_MAX: u32 = 100;
/// The name of the client certificate that comes with a local cluster.
pub const CLIENT: &str = "local";
/// How long a node may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long one question about the cluster may take.
const ASK_MAX: Duration = Duration::from_secs(5);
/// How long a call through a gateway may take.
const CALL_MAX: Duration = Duration::from_secs(70);

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where certificates, configurations, data and logs go. Started again on the same folder, the cluster goes on
    /// with its data.
    pub dir: PathBuf,
    /// How many nodes, 1 to [`NODES_MAX`]. A folder may be started with more nodes than before, not with fewer.
    pub nodes: u32,
    /// Where they listen.
    pub ports: Ports,
    /// The program, run as `PROGRAM start --config FILE`.
    pub program: PathBuf,
    /// Further arguments of `start`.
    pub arguments: Vec<String>,
    /// Shards, when the cluster is new.
    pub shards: u32,
    /// Replicas of each shard, when the cluster is new; default: 3, or as many as there are nodes.
    pub replicas: Option<u8>,
    /// Further settings for every node's configuration, merged over what is written there.
    pub settings: toml::Table,
    /// Further environment of every node.
    pub environment: BTreeMap<String, String>,
}

impl LocalOptions {
    /// Three nodes of `program` in `dir`, on free ports.
    pub fn new(dir: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            nodes: 3,
            ports: Ports::Auto,
            program: program.into(),
            arguments: Vec::new(),
            shards: 16,
            replicas: None,
            settings: toml::Table::new(),
            environment: BTreeMap::new(),
        }
    }
}

/// A running local cluster. Dropping it kills its processes.
pub struct LocalCluster {
    options: LocalOptions,
    nodes: BTreeMap<NodeId, LocalNode>,
}

struct LocalNode {
    gateway: SocketAddr,
    address: SocketAddr,
    /// The last process started for it, which may have ended.
    process: Mutex<Option<Arc<Process>>>,
    /// Killed or stopped on purpose: nobody waits for it.
    down: AtomicBool,
}

impl LocalCluster {
    /// Writes what is missing in the folder and starts all nodes; [`LocalCluster::wait_ready`] tells when they serve.
    ///
    /// Must be called from a thread that lives as long as the cluster (the main thread or a runtime's worker): the
    /// kernel ends the processes with the thread that started them.
    ///
    /// # Errors
    /// When the folder belongs to something else, a port is taken, or a process does not start.
    pub async fn start(mut options: LocalOptions) -> anyhow::Result<Self> {
        ensure!(
            (1..=NODES_MAX).contains(&options.nodes),
            "a local cluster has 1 to {NODES_MAX} nodes, not {}",
            options.nodes
        );
        let dir =
            std::path::absolute(&options.dir).with_context(|| format!("folder {}", options.dir.display()))?;
        options.dir = dir;
        let nodes = files::prepare(&options)?;
        let nodes = nodes
            .into_iter()
            .map(|(id, place)| {
                let node = LocalNode {
                    gateway: place.gateway,
                    address: place.address,
                    process: Mutex::new(None),
                    down: AtomicBool::new(false),
                };
                (id, node)
            })
            .collect();
        let cluster = Self { options, nodes };
        for node in cluster.nodes() {
            cluster.restart(node)?;
        }
        Ok(cluster)
    }

    /// All nodes, running or not.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// The process ids of the nodes that run (paused ones included).
    pub fn pids(&self) -> BTreeMap<NodeId, u32> {
        let running = |(id, node): (&NodeId, &LocalNode)| {
            let process = node.process.lock();
            let process = process.as_ref().filter(|p| p.exited().is_none())?;
            Some((*id, process.pid()))
        };
        self.nodes.iter().filter_map(running).collect()
    }

    /// Base URLs of all gateways.
    pub fn gateways(&self) -> BTreeMap<NodeId, String> {
        self.nodes
            .iter()
            .map(|(id, node)| (*id, format!("http://{}", node.gateway)))
            .collect()
    }

    /// QUIC addresses of all nodes.
    pub fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.nodes
            .iter()
            .map(|(id, node)| (*id, node.address.to_string()))
            .collect()
    }

    /// The folder with everything, absolute.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The folder with the authority and all certificates.
    pub fn cert_dir(&self) -> PathBuf {
        files::cert_dir(&self.options.dir)
    }

    /// Where a node writes its log.
    pub fn log(&self, node: NodeId) -> PathBuf {
        files::log(&self.options.dir, node)
    }

    /// Waits until the gateway of every node says that it can serve, but for nodes that were killed or stopped here.
    ///
    /// # Errors
    /// Says what is missing when the time is up, or at once when a node has ended by itself.
    pub async fn wait_ready(&self, timeout: Duration) -> anyhow::Result<()> {
        let up = |(id, node): (&NodeId, &LocalNode)| (!node.down.load(Ordering::Relaxed)).then_some(*id);
        let nodes: Vec<NodeId> = self.nodes.iter().filter_map(up).collect();
        ready::wait(self, &nodes, timeout).await
    }

    /// As [`LocalCluster::wait_ready`], for one node.
    ///
    /// # Errors
    /// As [`LocalCluster::wait_ready`].
    pub async fn wait_node_ready(&self, node: NodeId, timeout: Duration) -> anyhow::Result<()> {
        ready::wait(self, &[node], timeout).await
    }

    /// `kill -9`; returns when the process is gone, with the time of the signal.
    ///
    /// # Errors
    /// When the node does not run.
    pub async fn kill(&self, node: NodeId) -> anyhow::Result<Instant> {
        let process = self.process(node)?;
        self.node(node)?.down.store(true, Ordering::Relaxed);
        let at = Instant::now();
        process
            .signal(Signal::Kill)
            .with_context(|| format!("killing node {node}"))?;
        process.wait().await;
        Ok(at)
    }

    /// `kill -9` of all running nodes at once; returns when they are gone, with the time of the first signal.
    ///
    /// # Errors
    /// When a signal cannot be sent.
    pub async fn kill_all(&self) -> anyhow::Result<Instant> {
        let running = self.running();
        let at = Instant::now();
        for (node, process) in &running {
            self.node(*node)?.down.store(true, Ordering::Relaxed);
            process
                .signal(Signal::Kill)
                .with_context(|| format!("killing node {node}"))?;
        }
        for (_, process) in running {
            process.wait().await;
        }
        Ok(at)
    }

    /// Stops a node in the middle of whatever it does (`SIGSTOP`): it is silent, but its memory and sockets stay.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn pause(&self, node: NodeId) -> anyhow::Result<()> {
        self.process(node)?
            .signal(Signal::Pause)
            .with_context(|| format!("pausing node {node}"))
    }

    /// Lets a paused node go on.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn resume(&self, node: NodeId) -> anyhow::Result<()> {
        self.process(node)?
            .signal(Signal::Resume)
            .with_context(|| format!("resuming node {node}"))
    }

    /// Starts a node that has ended, on its data; see [`LocalCluster::start`] about threads.
    ///
    /// # Errors
    /// When it runs still, or its process does not start.
    pub fn restart(&self, node: NodeId) -> anyhow::Result<()> {
        let mut process = self.node(node)?.process.lock();
        if let Some(running) = process.as_ref().filter(|p| p.exited().is_none()) {
            anyhow::bail!("node {node} runs already (pid {})", running.pid());
        }
        let config = files::config(&self.options.dir, node);
        let log = self.log(node);
        let started = Process::start(
            &self.options.program,
            &self.options.arguments,
            &config,
            &log,
            &self.options.environment,
        );
        *process = Some(Arc::new(
            started.with_context(|| format!("starting node {node}"))?,
        ));
        self.node(node)?.down.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Stops a node in order: asks it to end, and kills it only when it does not within ten seconds.
    ///
    /// # Errors
    /// When the node does not run.
    pub async fn stop(&self, node: NodeId) -> anyhow::Result<()> {
        let process = self.process(node)?;
        self.node(node)?.down.store(true, Ordering::Relaxed);
        process.stop(STOP_MAX).await;
        Ok(())
    }

    /// Stops all running nodes at once, each as [`LocalCluster::stop`] does.
    pub async fn stop_all(&self) {
        self.nodes
            .values()
            .for_each(|node| node.down.store(true, Ordering::Relaxed));
        futures_util::future::join_all(self.running().values().map(|process| process.stop(STOP_MAX))).await;
    }

    /// Waits for the end of a node's process, which was perhaps killed.
    ///
    /// # Errors
    /// When it was never started.
    pub async fn exited(&self, node: NodeId) -> anyhow::Result<ExitStatus> {
        let process = self.node(node)?.process.lock().clone();
        let process = process.with_context(|| format!("node {node} was never started"))?;
        Ok(process.wait().await)
    }

    /// A client of one node's gateway; its calls may take 70 s, like those of the router behind the gateway.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn http(&self, node: NodeId) -> anyhow::Result<HttpClient> {
        let gateway = format!("http://{}", self.node(node)?.gateway);
        Ok(HttpClient::new(&gateway, None, CALL_MAX))
    }

    /// Settings for a client over QUIC that knows all nodes.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn client_config(&self) -> anyhow::Result<ClientConfig> {
        let identity = CertBundle::load(&self.cert_dir(), &PeerId::Client(CLIENT.into()))?;
        Ok(ClientConfig::new(
            identity,
            self.addresses().into_values().collect(),
        ))
    }

    /// A client over QUIC.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(self.client_config()?).await?)
    }

    /// The cluster as the first running node that answers sees it: `GET /cluster`.
    ///
    /// # Errors
    /// What the last one said, when none answers.
    pub async fn status(&self) -> anyhow::Result<Value> {
        let (gateways, mut problem) = (self.gateways(), anyhow::anyhow!("no node runs"));
        for node in self.pids().into_keys() {
            let client = HttpClient::new(&gateways[&node], None, ASK_MAX);
            match client.request(http::Method::GET, "/cluster", None).await {
                Ok(status) => return Ok(status),
                Err(error) => problem = error.into(),
            }
        }
        Err(problem.context("asking for the state of the cluster"))
    }

    /// The owner of each shard as [`LocalCluster::status`] tells; `None` while nobody is known to own it.
    ///
    /// # Errors
    /// As [`LocalCluster::status`].
    pub async fn owners(&self) -> anyhow::Result<BTreeMap<ShardId, Option<NodeId>>> {
        let status = self.status().await?;
        Ok(owners_in(&status))
    }

    fn node(&self, node: NodeId) -> anyhow::Result<&LocalNode> {
        self.nodes
            .get(&node)
            .with_context(|| format!("there is no node {node}, only 1 to {}", self.nodes.len()))
    }

    /// The process of a node that runs.
    fn process(&self, node: NodeId) -> anyhow::Result<Arc<Process>> {
        let process = self.node(node)?.process.lock().clone();
        process
            .filter(|p| p.exited().is_none())
            .with_context(|| format!("node {node} does not run"))
    }

    fn running(&self) -> BTreeMap<NodeId, Arc<Process>> {
        self.nodes()
            .into_iter()
            .filter_map(|node| Some((node, self.process(node).ok()?)))
            .collect()
    }
}

/// The owners in what `GET /cluster` answers.
pub(crate) fn owners_in(status: &Value) -> BTreeMap<ShardId, Option<NodeId>> {
    let shards = status
        .get("shards")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let owner = |shard: &Value| {
        let id = u32::try_from(shard.get("id")?.as_u64()?).ok()?;
        Some((
            ShardId(id),
            shard.get("owner").and_then(Value::as_u64).map(NodeId),
        ))
    };
    shards.iter().filter_map(owner).collect()
}
