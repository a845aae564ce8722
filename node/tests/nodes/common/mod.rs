//! A cluster of nodes in one process, for tests: real sockets, real disks, real Raft.
#![allow(unreachable_pub, reason = "used by its siblings alone")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use clinch::prelude::*;
use clinch::{ClusterConfig, Node, RaftConfig, SystemClock, TokenConfig};
use clinch_transport::{
    CertBundle, Class, ClusterCa, PeerId, RefuseAll, Transport, TransportConfig, TransportError, UdpSockets,
};
use clinch_types::{
    ActorId, CallError, CallOp, CallReply, CallRequest, Clock, Key, ListRequest, NodeId, RequestId, Target,
    codec, kind,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    count: i64,
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "count")]
pub struct Count(pub i64);

#[clinch::actor(name = "counter", events(Count))]
impl Counter {
    #[action]
    async fn increment(&mut self, c: &Ctx<Self>, by: i64) -> i64 {
        self.count += by;
        c.broadcast(Count(self.count));
        self.count
    }

    #[action]
    fn get_count(&self) -> i64 {
        self.count
    }

    #[action]
    fn add_then_fail(&mut self, c: &Ctx<Self>, by: i64) -> Result<i64> {
        self.count += by;
        c.kv().put("left", &by)?;
        Err(Error::user("no_deal", "changed my mind").with("count", self.count))
    }

    #[action]
    fn add_then_panic(&mut self, by: i64) {
        self.count += by;
        panic!("a bug in the application");
    }
}

/// How often user code of an actor ran, by the actor's key: all nodes of a test share one process.
static RUNS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
/// Semaphores on which turns wait until the test lets them go on.
static GATES: Mutex<BTreeMap<String, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

pub fn ran(key: &str) {
    *RUNS.lock().entry(key.to_owned()).or_default() += 1;
}

pub fn runs(key: &str) -> u64 {
    RUNS.lock().get(key).copied().unwrap_or(0)
}

/// The gate of this name; closed until permits are added. Names must be unique in a test binary.
pub fn gate(name: &str) -> Arc<Semaphore> {
    GATES
        .lock()
        .entry(name.to_owned())
        .or_insert_with(|| Arc::new(Semaphore::new(0)))
        .clone()
}

/// An actor that does whatever a test of the rules needs.
#[derive(Default, Serialize, Deserialize)]
pub struct Probe {
    count: i64,
    notes: Vec<String>,
}

#[clinch::actor(name = "probe", events(Count), action_timeout = "20s")]
impl Probe {
    #[action]
    fn add(&mut self, c: &Ctx<Self>, by: i64) -> i64 {
        ran(&c.key().to_string());
        self.count += by;
        c.broadcast(Count(self.count));
        self.count
    }

    #[action]
    fn get(&self) -> i64 {
        self.count
    }

    /// A turn that changes nothing.
    #[action]
    fn look(&mut self, c: &Ctx<Self>) -> i64 {
        ran(&c.key().to_string());
        self.count
    }

    /// Adds, then waits for the gate before the turn ends.
    #[action]
    async fn add_held(&mut self, c: &Ctx<Self>, by: i64, name: String) -> i64 {
        ran(&c.key().to_string());
        self.count += by;
        gate(&name)
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
        self.count
    }

    /// Every kind of effect, and then an end of any kind.
    #[action]
    async fn everything(&mut self, c: &Ctx<Self>, end: String) -> Result<i64> {
        ran(&c.key().to_string());
        self.count += 100;
        self.notes.push(end.clone());
        c.kv().put("note", &end)?;
        c.kv().delete("old")?;
        c.me().add(1000).after(Duration::from_secs(3600))?;
        c.broadcast(Count(self.count));
        match end.as_str() {
            "err" => Err(Error::user("no_deal", "changed my mind")),
            "panic" => panic!("a bug in the application"),
            "hang" => std::future::pending().await,
            _ => Ok(self.count),
        }
    }

    #[action]
    fn seed(&mut self, c: &Ctx<Self>) -> Result<()> {
        c.kv().put("old", &1)
    }

    /// State, KV keys and number of schedules, as later turns see them.
    #[action]
    fn contents(&self, c: &Ctx<Self>) -> Result<(i64, Vec<String>, Vec<String>, usize)> {
        let keys = c
            .kv()
            .list("")?
            .iter()
            .filter_map(|e| e.key_str().map(str::to_owned))
            .collect();
        Ok((self.count, self.notes.clone(), keys, c.schedules().list()?.len()))
    }

    #[action]
    fn end(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }

    /// Calls the next actor of the list with the rest of it.
    #[action]
    async fn around(&mut self, c: &Ctx<Self>, mut keys: Vec<String>) -> Result<()> {
        ran(&c.key().to_string());
        if keys.is_empty() {
            return Ok(());
        }
        let next = keys.remove(0);
        c.get::<Probe>(next).around(keys).await
    }
}

/// Waits until the condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// A client of the lowest layer: requests as they are on the wire, to the node it chooses.
pub struct RawClient {
    transport: Transport,
    stop: CancellationToken,
}

impl Drop for RawClient {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl RawClient {
    pub fn new(cluster: &TestCluster) -> Self {
        let identity =
            CertBundle::load(&cluster.certs(), &PeerId::Client("test".into())).expect("a certificate");
        Self::with(identity)
    }

    pub fn with(identity: CertBundle) -> Self {
        let stop = CancellationToken::new();
        let transport = Transport::start(
            TransportConfig::default(),
            identity,
            Arc::new(UdpSockets::default()),
            None,
            Arc::new(RefuseAll),
            TaskTracker::new(),
            stop.clone(),
        );
        Self {
            transport: transport.expect("a socket"),
            stop,
        }
    }

    pub fn transport(&self) -> Transport {
        self.transport.clone()
    }

    pub async fn ask(
        &self,
        to: SocketAddr,
        kind: u8,
        body: impl Into<Bytes>,
    ) -> Result<Bytes, TransportError> {
        self.ask_for(to, kind, body, PATIENCE).await
    }

    /// As [`RawClient::ask`], for no longer than `patience`.
    pub async fn ask_for(
        &self,
        to: SocketAddr,
        kind: u8,
        body: impl Into<Bytes>,
        patience: Duration,
    ) -> Result<Bytes, TransportError> {
        let answer = self
            .transport
            .call_addr(&to.to_string(), Class::Action, kind, body.into(), patience)
            .await;
        answer.map(|(_, body)| body)
    }

    pub async fn call(&self, to: SocketAddr, request: &CallRequest) -> Result<CallReply, CallError> {
        let body = codec::encode(request).expect("a sound request");
        let answer = self.ask(to, kind::CALL, body).await.expect("an answer");
        codec::decode::<Result<CallReply, CallError>>(&answer).expect("a readable answer")
    }
}

/// A call on a probe as it is on the wire.
pub fn request_for(key: &str, action: &str, args: impl Serialize, request: RequestId) -> CallRequest {
    let args = clinch_actor::encode(&args).expect("arguments");
    CallRequest {
        request,
        acked_below: 0,
        long_dedup: false,
        target: probe_target(key),
        op: CallOp::Action {
            name: action.into(),
            args,
        },
        if_active: false,
        consistency: Default::default(),
        chain: Vec::new(),
        params: None,
        trace: [0; 25],
        door: None,
    }
}

pub fn probe_target(key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: "probe".into(),
        key: Key::new([key]).expect("a short key"),
        create: Some(Default::default()),
    }
}

/// One HTTP/1.1 exchange; the request is sent as it is. Returns status and body.
pub async fn http(to: SocketAddr, request: &[u8]) -> (u16, String) {
    let exchange = async {
        let mut socket = tokio::net::TcpStream::connect(to).await?;
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("an end")
        .expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let status = answer
        .get(9..12)
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"));
    (
        status,
        answer
            .split_once("\r\n\r\n")
            .map_or_else(String::new, |(_, body)| body.to_owned()),
    )
}

/// A token of this kind, as a configuration has it.
pub fn token(kind: &str, text: &str) -> TokenConfig {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::from_value(serde_json::json!({ "kind": kind, "sha256": sha256 })).expect("a sound token")
}

/// Entries proposed and turns in them, by all nodes of this process.
pub async fn proposed(cluster: &TestCluster) -> (f64, f64) {
    let gateway = cluster.node(0).gateways()[0];
    let (status, body) = http(
        gateway,
        b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let value = |name: &str| {
        let line = body.lines().find(|l| l.split([' ', '{']).next() == Some(name));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    };
    (
        value("node_shard_batch_turns_count"),
        value("node_shard_batch_turns_sum"),
    )
}

/// Nodes of one cluster and the folder they live in.
pub struct TestCluster {
    pub dir: TempDir,
    pub configs: Vec<NodeConfig>,
    pub nodes: Vec<Option<Node>>,
    registry: Registry,
}

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn free_udp() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("an address")
}

impl TestCluster {
    /// `count` nodes with these actors, started and ready.
    pub async fn start(count: u64, registry: Registry) -> Self {
        let mut cluster = Self::prepare(count, registry);
        for index in 0..cluster.configs.len() {
            cluster.start_node(index).await;
        }
        cluster.ready().await;
        cluster
    }

    pub fn prepare(count: u64, registry: Registry) -> Self {
        // Shown when a test fails, and filtered by RUST_LOG; another test of this process may have set it up.
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
        drop(
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_test_writer()
                .try_init(),
        );
        let dir = tempfile::tempdir().expect("a folder");
        let certs = dir.path().join("certs");
        let ca = ClusterCa::generate("test", SystemClock.wall()).expect("a CA");
        ca.save(&certs).expect("saved");
        ca.issue_client("test")
            .and_then(|c| c.save(&certs))
            .expect("a client certificate");
        let addresses: Vec<SocketAddr> = (0..count).map(|_| free_udp()).collect();
        let configs = (0..count)
            .map(|index| {
                let node = NodeId(index + 1);
                ca.issue_node(node, &[])
                    .and_then(|c| c.save(&certs))
                    .expect("a node certificate");
                let join = match index {
                    0 => Vec::new(),
                    _ => addresses
                        .iter()
                        .filter(|a| **a != addresses[index as usize])
                        .map(ToString::to_string)
                        .collect(),
                };
                NodeConfig {
                    node,
                    data_dir: dir.path().join(format!("node-{node}")),
                    cert_dir: certs.clone(),
                    listen: addresses[index as usize],
                    advertise: None,
                    gateway: vec![(Ipv4Addr::LOCALHOST, 0).into()],
                    zone: String::new(),
                    region: Default::default(),
                    capacity: 1,
                    code_version: 0,
                    cluster: ClusterConfig {
                        bootstrap: index == 0,
                        expect_nodes: count as u32,
                        shards: 4,
                        join,
                        ..ClusterConfig::default()
                    },
                    // Patient: on a machine busy with other tests, heartbeats come late.
                    raft: RaftConfig {
                        heartbeat_ms: 150,
                        election_min_ms: 500,
                        election_max_ms: 1000,
                    },
                    proposer: Default::default(),
                    storage: Default::default(),
                    tokens: Vec::new(),
                    http: Default::default(),
                    insecure: false,
                    expose_errors: false,
                }
            })
            .collect();
        let nodes = (0..count).map(|_| None).collect();
        Self {
            dir,
            configs,
            nodes,
            registry,
        }
    }

    pub async fn start_node(&mut self, index: usize) {
        let node = self
            .registry
            .clone()
            .node(self.configs[index].clone())
            .start()
            .await;
        self.nodes[index] = Some(node.unwrap_or_else(|e| panic!("node {} does not start: {e:#}", index + 1)));
    }

    pub async fn ready(&self) {
        for node in self.nodes.iter().flatten() {
            node.ready(PATIENCE)
                .await
                .unwrap_or_else(|e| panic!("node {}: {e:#}", node.id()));
        }
    }

    pub async fn stop_node(&mut self, index: usize) {
        if let Some(node) = self.nodes[index].take() {
            node.stop().await;
        }
    }

    /// Stops every node at once.
    pub async fn stop_all(&mut self) {
        let running: Vec<Node> = self.nodes.iter_mut().filter_map(Option::take).collect();
        futures_util::future::join_all(running.into_iter().map(Node::stop)).await;
    }

    /// Starts every node that does not run, with these actor types.
    pub async fn start_all(&mut self, registry: Registry) {
        self.registry = registry;
        for index in 0..self.configs.len() {
            if self.nodes[index].is_none() {
                // QUIC keeps the socket for a moment, to tell peers that may not be there any more.
                let address = self.configs[index].listen;
                eventually("the address is free", || async {
                    UdpSocket::bind(address).is_ok()
                })
                .await;
                self.start_node(index).await;
            }
        }
        self.ready().await;
    }

    /// The shard of an actor and the index of the node that owns it, as node `asked` knows.
    pub fn owner(&self, asked: usize, target: &Target) -> Option<(u64, usize)> {
        let routes = self.node(asked).cluster().router().routes();
        let shard = routes.shard_of(target.slot())?;
        let owner = routes.shards.get(&shard)?.owner?;
        Some((u64::from(shard.0), owner.0 as usize - 1))
    }

    /// Waits until every shard is led where it should be: from then on only a fault moves one.
    pub async fn settled(&self) {
        let node = self.nodes.iter().flatten().next().expect("a node runs");
        eventually("every shard has its preferred owner", || async {
            let status = node.status();
            let shards = status["shards"].as_array().cloned().unwrap_or_default();
            !shards.is_empty() && shards.iter().all(|s| s["owner"] == s["preferred"])
        })
        .await;
    }

    /// Whether the actor is in memory at its owner; unlike a call, asking keeps nobody awake.
    pub async fn awake(&self, asked: usize, id: ActorId) -> bool {
        let router = self.node(asked).cluster().router();
        let shard = router.routes().shard_of(id.slot()).expect("a formed cluster");
        let ids = vec![id];
        let request = ListRequest {
            shard,
            namespace: "default".into(),
            name: None,
            ids,
            after: None,
            limit: 1,
        };
        let listed = router.list(request, PATIENCE).await.expect("a listing");
        listed.actors.first().expect("the actor exists").info.awake
    }

    /// Sends to whichever node owns the actor, as long as it takes to find one.
    pub async fn call_owner(
        &self,
        client: &RawClient,
        request: &CallRequest,
    ) -> Result<CallReply, CallError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            for node in self.nodes.iter().flatten() {
                match client.call(node.address(), request).await {
                    Err(CallError::Moved { .. } | CallError::Unavailable { .. })
                        if tokio::time::Instant::now() < deadline => {}
                    other => return other,
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("the node runs")
    }

    pub fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }
}
