//! A node: everything wired together, started in order, stopped in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use clinch_actor::{Caller, Registry};
use clinch_client::{Cluster, Router, RouterConfig};
use clinch_gateway::GatewayConfig;
use clinch_membership::{ClusterState, Command, NodeRecord, NodeState, Settings};
use clinch_storage::{Disk, Driver, FileDisk, GroupId, SledStore, Storage, StorageOptions};
use clinch_transport::{CertBundle, PeerId, Transport, TransportConfig};
use clinch_types::{Clock, ClusterId, Incarnation, NodeId, SessionId, codec};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth::Tokens;
use crate::backend::NodeBackend;
use crate::checkpoint::Checkpoints;
use crate::config::NodeConfig;
use crate::control::{Control, JoinRequest, join_by_seeds};
use crate::desk::{Desk, LocalDesk};
use crate::embed::LocalNode;
use crate::leave::Leave;
use crate::seams::{NodeRng, Platform, PlatformStore};
use crate::shard::{EventHub, GroupParts, Owners, RaftDesk, open_group, vigil};
use crate::shards::Shards;
use crate::tasks::Tasks;

/// How long each stage of a stop may take before it is left behind.
const STOP_STAGE_MAX: Duration = Duration::from_secs(10);

/// Bytes on their way through a pipe of [`Node::dial`]: what the buffers of a socket hold.
#[cfg(feature = "simulate")]
const PIPE_BYTES: usize = 64 << 10;

/// Turns a registry into a node.
pub trait RunNode {
    /// A node of this configuration with these actor types.
    fn node(self, config: NodeConfig) -> NodeBuilder;

    /// Starts a node of this process alone, for tests: real disk, real log, no configuration. Its data are deleted when it
    /// ends.
    ///
    /// # Errors
    /// As [`NodeBuilder::start`].
    fn start_local(self) -> impl Future<Output = anyhow::Result<LocalNode>> + Send;

    /// As [`RunNode::start_local`], with its data in `dir`, where they stay: the next start goes on with them.
    ///
    /// # Errors
    /// As [`NodeBuilder::start`].
    fn start_in(self, dir: impl AsRef<Path> + Send)
    -> impl Future<Output = anyhow::Result<LocalNode>> + Send;
}

impl RunNode for Registry {
    fn node(self, config: NodeConfig) -> NodeBuilder {
        NodeBuilder {
            registry: self,
            config,
            platform: Platform::default(),
        }
    }

    async fn start_local(self) -> anyhow::Result<LocalNode> {
        LocalNode::start(None, |config| self.node(config)).await
    }

    async fn start_in(self, dir: impl AsRef<Path> + Send) -> anyhow::Result<LocalNode> {
        LocalNode::start(Some(dir.as_ref()), |config| self.node(config)).await
    }
}

/// A node that has not started.
pub struct NodeBuilder {
    registry: Registry,
    config: NodeConfig,
    platform: Platform,
}

impl NodeBuilder {
    /// Starts the node on these surroundings instead of the system's: for simulations.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Starts the node. Returns when it takes part in its cluster; [`Node::ready`] tells when it can serve.
    ///
    /// # Errors
    /// What is wrong with the configuration, the data directory, the certificates, the addresses, or why the cluster
    /// does not admit the node.
    pub async fn start(self) -> anyhow::Result<Node> {
        self.registry.check()?;
        let config = Arc::new(self.config.validate()?);
        Node::start(config, self.registry, self.platform).await
    }

    /// Starts the node and runs it until the process is asked to end (SIGINT, SIGTERM) or its store fails.
    ///
    /// # Errors
    /// As [`NodeBuilder::start`]; and what made a running node give up.
    pub async fn run(self) -> anyhow::Result<()> {
        let node = self.start().await?;
        let result = tokio::select! {
            () = shutdown_signal() => Ok(()),
            reason = node.failed() => Err(anyhow::anyhow!("this node gives up: {reason}")),
        };
        node.stop().await;
        result
    }
}

/// A running node.
pub struct Node {
    id: NodeId,
    parts: Parts,
    gateways: Vec<SocketAddr>,
    http: GatewayConfig,
    address: SocketAddr,
    /// Stopped one after the other: the door, the work, the network.
    door: Tasks,
    work: Tasks,
    network: Tasks,
}

struct Parts {
    cluster: Cluster,
    control: Control,
    backend: Arc<NodeBackend>,
    storage: Storage,
    disk: Weak<dyn Disk>,
    events: Arc<EventHub>,
    raft: RaftDesk,
    desk: Arc<Desk>,
    checkpoints: Checkpoints,
    leave: Leave,
    /// Why the cluster does not take the node back, if it does not.
    refused: watch::Sender<Option<String>>,
}

/// What a data directory says about its node.
struct Identity {
    storage_id: u128,
    incarnation: Incarnation,
    cluster: Option<ClusterId>,
}

impl Node {
    #[expect(
        clippy::too_many_lines,
        reason = "the wiring of all parts, in the order they depend on each other"
    )]
    async fn start(config: Arc<NodeConfig>, registry: Registry, platform: Platform) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (door, work, network) = (Tasks::under(&stop), Tasks::under(&stop), Tasks::under(&stop));
        let simulated = platform.seed.is_some();
        let (rng, clock) = (Arc::new(NodeRng::new(platform.seed)), platform.clock);
        let metrics = metrics_handle()?;
        let (storage, disk, driver) = open_storage(&config, platform.store)?;
        let identity = Identity::load(&storage, config.node, &rng)?;
        let restarted = !storage.groups().is_empty();
        let certificate = match platform.identity {
            Some(identity) => identity,
            None => CertBundle::load(&config.cert_dir, &PeerId::Node(config.node))
                .with_context(|| format!("certificates in {}", config.cert_dir.display()))?,
        };
        let desk = Desk::new(config.node, identity.incarnation, work.clone());
        let transport = Transport::start(
            TransportConfig {
                rng_seed: simulated.then(|| rng.seed()),
                certificate_clock: simulated.then(|| clock.clone()),
                ..TransportConfig::default()
            },
            certificate,
            platform.sockets,
            Some(config.listen),
            desk.clone(),
            network.tracker().clone(),
            network.stop().clone(),
        )
        .with_context(|| format!("listening on {} (UDP)", config.listen))?;
        let address = transport.local_addr()?;
        let raft = RaftDesk::new(storage.clone(), work.clone());
        let parts = GroupParts {
            node: config.node,
            config: config.raft.clone(),
            storage: storage.clone(),
            transport: transport.clone(),
            rng: rng.clone(),
            desk: raft.clone(),
        };
        if restarted {
            // Leases this node granted in its former life are not remembered: let them run out before it may vote.
            tokio::time::sleep(config.raft.lease()).await;
        }
        desk.put_raft(raft.clone());
        work.spawn_until_stop(vigil::keep(raft.clone(), config.node, config.raft.lease()));
        let refused = watch::channel(None).0;
        let control = enter_cluster(
            &config, &identity, &registry, &parts, &transport, &work, &storage, &*clock, &refused,
        )
        .await?;
        desk.put_control(control.clone());

        let local = Arc::new(LocalDesk::new(&desk));
        let session = SessionId(rng.u128());
        let router = Router::new(
            RouterConfig::default(),
            transport.clone(),
            session,
            Some(local),
            Vec::new(),
        );
        desk.put_router(router.clone());
        let cluster = Cluster::new(router.clone(), "default");
        let caller: Arc<dyn Caller> = Arc::new(cluster.clone());
        let (events, owners) = (Arc::new(EventHub::default()), Owners::default());
        let groups = Arc::new(Mutex::new(BTreeMap::new()));
        let shards = Shards {
            config: config.clone(),
            parts,
            registry: registry.clone(),
            caller,
            clock: clock.clone(),
            rng: rng.clone(),
            events: events.clone(),
            tasks: work.clone(),
            desk: desk.clone(),
            router: router.clone(),
            control: control.clone(),
            owners: owners.clone(),
            groups: groups.clone(),
            map_version: Arc::new(AtomicU64::new(0)),
        };
        shards.start();
        let every = Duration::from_millis(config.storage.checkpoint_ms);
        let leave = Leave {
            node: config.node,
            incarnation: identity.incarnation,
            control: control.clone(),
            transport,
            desk: desk.clone(),
            groups: groups.clone(),
            store_failed: storage.poisoned(),
        };
        let checkpoints =
            crate::checkpoint::start(storage.clone(), driver, every, &work, control.clone(), groups)?;
        let tokens = Tokens::new(config.tokens.clone());
        let backend = Arc::new(NodeBackend {
            node: config.node,
            router,
            registry,
            control: control.clone(),
            owners,
            tokens,
            rng,
            clock,
            metrics,
            leaving: desk.leaving().clone(),
            store_failed: storage.poisoned(),
        });
        let gateways = open_gateway(&config, &backend, &door).await?;
        let upkeep = backend.clone();
        work.spawn_until_stop(async move { upkeep.keep_metrics().await });
        tracing::info!(node = %config.node, %address, ?gateways, incarnation = %identity.incarnation, "node started");
        let id = config.node;
        let parts = Parts {
            cluster,
            control,
            backend,
            storage,
            disk,
            events,
            raft,
            desk,
            checkpoints,
            leave,
            refused,
        };
        Ok(Self {
            id,
            parts,
            gateways,
            http: config.http.clone(),
            address,
            door,
            work,
            network,
        })
    }

    /// Who this node is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The cluster, as actors' callers see it.
    pub fn cluster(&self) -> &Cluster {
        &self.parts.cluster
    }

    /// Committed events of actors that this node owns.
    pub fn events(&self) -> &EventHub {
        &self.parts.events
    }

    /// Where its gateways listen.
    pub fn gateways(&self) -> &[SocketAddr] {
        &self.gateways
    }

    /// Where it listens for nodes and Rust clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The gateway of this node as a router, for the web server of an application: under a path of its own with
    /// `Router::nest("/api/actors", node.router())`, where clients find it as they find a gateway. It has the settings of
    /// the configuration (`http`), but for what concerns addresses and connections (`cert`, `max-connections`,
    /// `max-requests-per-second-..`, `max-in-flight-per-actor`), and tokens protect it as they do the gateway's own ports.
    /// Its sockets end with the node.
    pub fn router(&self) -> clinch_gateway::Router {
        let (stop, tracker) = (self.door.stop().clone(), self.door.tracker().clone());
        clinch_gateway::embedded(self.parts.backend.clone(), self.http.clone(), stop, tracker)
    }

    /// The cluster as this node sees it, as JSON.
    pub fn status(&self) -> serde_json::Value {
        use clinch_gateway::Backend;
        self.parts.backend.status()
    }

    /// Waits until every shard has an owner.
    ///
    /// # Errors
    /// What is missing when the time is up.
    pub async fn ready(&self, timeout: Duration) -> anyhow::Result<()> {
        use clinch_gateway::Backend;
        let deadline = tokio::time::Instant::now() + timeout;
        let mut states = self.parts.control.watch();
        let mut owners = self.parts.backend.owners.changes();
        loop {
            let problem = match self.parts.backend.ready() {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            tokio::select! {
                changed = states.changed() => changed?,
                changed = owners.changed() => changed?,
                () = tokio::time::sleep_until(deadline) => anyhow::bail!("not ready after {timeout:?}: {problem}"),
            }
        }
    }

    /// Who owns a shard, as a replica on this node knows.
    #[cfg(feature = "simulate")]
    pub fn owner_of(&self, shard: clinch_types::ShardId) -> Option<NodeId> {
        let owners = self.parts.backend.owners.all();
        owners.get(&shard).map(|(owner, _)| *owner)
    }

    /// Hands a shard that this node owns to another node, as the balance does; nothing when it does not own it.
    #[cfg(feature = "simulate")]
    pub fn hand_over(&self, shard: clinch_types::ShardId, to: NodeId) {
        if let Some(handle) = self.parts.desk.shard(shard) {
            // A full queue: it is a wish, not an order.
            drop(
                handle
                    .tx
                    .try_send(crate::shard::ShardMsg::HandOff { to, leaving: false }),
            );
        }
    }

    /// The client's end of a connection to a gateway of this node, which ends with the node: a pipe instead of a socket.
    /// Called on the node's own machine.
    #[cfg(feature = "simulate")]
    pub fn dial(&self) -> tokio::io::DuplexStream {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let config = clinch_gateway::GatewayConfig::default();
        let router = clinch_gateway::router(self.parts.backend.clone(), config.clone());
        let (stop, tracker) = (self.door.stop().clone(), self.door.tracker().clone());
        self.door.spawn(async move {
            clinch_gateway::serve_one(server, router, &config, stop, tracker).await;
        });
        client
    }

    /// The state of each of its groups: group, term and index of the last applied entry, and a digest.
    #[cfg(feature = "simulate")]
    pub fn digests(&self) -> Vec<(u32, u64, u64, u64)> {
        let storage = &self.parts.storage;
        let groups = storage.groups().into_iter();
        groups
            .filter_map(|group| {
                let (applied, digest) = storage.digest(group)?;
                Some((group.0, applied.leader_id.term, applied.index, digest))
            })
            .collect()
    }

    /// Whether the state of any of its groups was lost and has to come from a peer.
    #[cfg(feature = "simulate")]
    pub(crate) fn has_lost_state(&self) -> bool {
        !self.parts.storage.needs_rebuild().is_empty()
    }

    /// What keeps it from serving every shard, if anything does.
    #[cfg(feature = "simulate")]
    pub(crate) fn lacks(&self) -> Option<String> {
        use clinch_gateway::Backend;
        self.parts.backend.ready().err()
    }

    /// Ends when the node must not go on: its store has failed, or the cluster does not take it back.
    pub async fn failed(&self) -> String {
        let mut poisoned = self.parts.storage.poisoned();
        let mut refused = self.parts.refused.subscribe();
        tokio::select! {
            reason = poisoned.wait_for(Option::is_some) => match reason {
                Ok(reason) => reason.as_deref().unwrap_or_default().to_owned(),
                Err(_) => "the store is closed".into(),
            },
            reason = refused.wait_for(Option::is_some) => match reason {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "the node is stopping".into(),
            },
        }
    }

    /// Stops front to back: first everything this node owns is handed to nodes that stay, while it still answers; then come
    /// no new requests, then the shards, then the network and the disk. A node that is alone, or stops together with all
    /// others, has nobody to hand anything to and does not wait for that. Each stage takes ten seconds at most and is then
    /// left behind.
    ///
    /// When it returns, the data directory may be used by another process; the address too, once every [`Cluster`] and
    /// handle got from this node is dropped.
    pub async fn stop(self) {
        let stages = [
            (
                "hand-over",
                Box::pin(self.parts.leave.run()) as std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>,
            ),
            ("gateway", Box::pin(self.door.end())),
            ("actors", Box::pin(self.parts.desk.rest())),
            ("shards", Box::pin(self.work.end())),
        ];
        for (name, stage) in stages {
            if tokio::time::timeout(STOP_STAGE_MAX, stage).await.is_err() {
                tracing::warn!(stage = name, "a stage of the stop overran and is left behind");
            }
        }
        for raft in self.parts.raft.close_all() {
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(%error, "a group did not stop cleanly");
            }
        }
        if tokio::time::timeout(STOP_STAGE_MAX, self.network.end())
            .await
            .is_err()
        {
            tracing::warn!(
                stage = "network",
                "a stage of the stop overran and is left behind"
            );
        }
        self.parts.desk.close();
        let Parts {
            checkpoints,
            storage,
            disk,
            cluster,
            control,
            backend,
            events,
            raft,
            desk,
            leave,
            refused,
        } = self.parts;
        checkpoints.ended().await;
        drop((
            storage, cluster, control, backend, events, raft, desk, leave, refused,
        ));
        // The log's thread lets go of the directory when it has seen the end of its queue.
        let free = async {
            while disk.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(STOP_STAGE_MAX, free).await.is_err() {
            tracing::warn!(stage = "disk", "a stage of the stop overran and is left behind");
        }
    }
}

impl Identity {
    /// Reads who this directory belongs to; a new one gets its own names. Each load is a new incarnation.
    fn load(storage: &Storage, node: NodeId, rng: &NodeRng) -> anyhow::Result<Self> {
        let read = |key: &str| storage.node_meta_get(key);
        match read("node") {
            Some(bytes) => {
                let owner: NodeId = codec::decode(&bytes)?;
                anyhow::ensure!(
                    owner == node,
                    "this data directory belongs to node {owner}, not to node {node}"
                );
            }
            None => storage.node_meta_put("node", &codec::encode(&node)?)?,
        }
        let storage_id = match read("storage-id") {
            Some(bytes) => codec::decode(&bytes)?,
            None => {
                let drawn = rng.u128();
                storage.node_meta_put("storage-id", &codec::encode(&drawn)?)?;
                drawn
            }
        };
        let last: Incarnation = read("incarnation").map_or(Ok(Incarnation(0)), |b| codec::decode(&b))?;
        let incarnation = Incarnation(last.0 + 1);
        storage.node_meta_put("incarnation", &codec::encode(&incarnation)?)?;
        let cluster = read("cluster").map(|b| codec::decode(&b)).transpose()?;
        Ok(Self {
            storage_id,
            incarnation,
            cluster,
        })
    }
}

fn open_storage(
    config: &NodeConfig,
    given: Option<PlatformStore>,
) -> anyhow::Result<(Storage, Weak<dyn Disk>, Driver)> {
    let dir = &config.data_dir;
    let what = || format!("data directory {}", dir.display());
    let PlatformStore { disk, state, options } = match given {
        Some(given) => given,
        None => {
            let disk = Arc::new(FileDisk::open(dir).with_context(what)?);
            let state = Arc::new(SledStore::open(&disk, config.storage.cache_mib << 20).with_context(what)?);
            let options = StorageOptions {
                retain_bytes: config.storage.retain_mib << 20,
                ..StorageOptions::default()
            };
            PlatformStore { disk, state, options }
        }
    };
    let (weak, driver) = (Arc::downgrade(&disk), options.driver);
    Ok((
        Storage::open(options, disk, state).with_context(what)?,
        weak,
        driver,
    ))
}

/// Opens the control group, and makes sure the cluster knows this node.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a node that is coming up; they have no common owner yet"
)]
async fn enter_cluster(
    config: &NodeConfig,
    identity: &Identity,
    registry: &Registry,
    parts: &GroupParts,
    transport: &Transport,
    work: &Tasks,
    storage: &Storage,
    clock: &dyn Clock,
    refused: &watch::Sender<Option<String>>,
) -> anyhow::Result<Control> {
    let record = NodeRecord {
        id: config.node,
        storage_id: identity.storage_id,
        incarnation: identity.incarnation,
        address: config.advertised(),
        gateway: config.gateway.first().map(|a| format!("http://{a}")),
        zone: config.zone.clone(),
        region: config.region,
        code_version: config.code_version,
        capacity: config.capacity,
        state: NodeState::Up,
        actor_types: registry.types().map(|t| t.name().to_owned()).collect(),
    };
    let cluster = match identity.cluster {
        Some(cluster) => cluster,
        None if config.cluster.bootstrap => {
            let drawn = ClusterId(parts.rng.u128());
            storage.node_meta_put("cluster", &codec::encode(&drawn)?)?;
            drawn
        }
        None => {
            let request = JoinRequest {
                cluster: None,
                record: record.clone(),
            };
            let reply = join_by_seeds(transport, &config.cluster.join, &request).await?;
            storage.node_meta_put("cluster", &codec::encode(&reply.state.cluster)?)?;
            set_routes(transport, &reply.state);
            reply.state.cluster
        }
    };
    parts.desk.set_cluster(cluster);
    let group = open_group(parts, GroupId::CONTROL).await?;
    let control = Control::new(config.node, group, transport.clone(), work.clone());
    let mut states = control.watch();
    let routes = transport.clone();
    work.spawn_until_stop(async move {
        loop {
            if let Some(state) = states.borrow_and_update().clone() {
                set_routes(&routes, &state);
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    });
    control.start();
    if config.cluster.bootstrap && control.state().is_none() {
        let settings = Settings {
            shards: config.cluster.shards,
            replicas: config.cluster.replicas,
            expect_nodes: config.cluster.expect_nodes,
        };
        let state = ClusterState::new(
            cluster,
            &config.cluster.name,
            config.region,
            settings,
            clock.wall(),
        )?;
        let state = state.apply(Command::Join {
            record: record.clone(),
        })?;
        control.bootstrap(state).await?;
    } else if identity.cluster.is_some() {
        // Known already: say in the background that it is back, for the others may be on their way as well.
        let (back, seeds, transport) = (control.clone(), config.cluster.join.clone(), transport.clone());
        let refused = refused.clone();
        work.spawn_until_stop(async move {
            let told = match seeds.is_empty() {
                true => back.rejoin(record).await,
                false => {
                    let request = JoinRequest {
                        cluster: Some(cluster),
                        record,
                    };
                    join_by_seeds(&transport, &seeds, &request).await.map(drop)
                }
            };
            if let Err(error) = told {
                refused.send_replace(Some(format!("{error:#}")));
            }
        });
    }
    Ok(control)
}

fn set_routes(transport: &Transport, state: &ClusterState) {
    for node in state.nodes.values().filter(|n| !n.state.is_gone()) {
        transport.set_route(PeerId::Node(node.id), node.address.clone());
    }
}

async fn open_gateway(
    config: &NodeConfig,
    backend: &Arc<NodeBackend>,
    door: &Tasks,
) -> anyhow::Result<Vec<SocketAddr>> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in &config.gateway {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("gateway: listening on {address} (TCP)"))?;
        addresses.push(listener.local_addr()?);
        listeners.push(listener);
    }
    if !listeners.is_empty() {
        crate::handles::make_room_for((config.http.max_connections + config.http.max_sockets) as u64);
        let tls = clinch_gateway::Tls::load(&config.http).context("TLS of the gateway")?;
        let router = clinch_gateway::router(backend.clone(), config.http.clone());
        let (stop, tracker) = (door.stop().clone(), door.tracker().clone());
        let http = config.http.clone();
        door.spawn(clinch_gateway::serve(listeners, router, http, tls, stop, tracker));
    }
    Ok(addresses)
}

/// One recorder per process: several nodes in one process (tests) share it.
fn metrics_handle() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock();
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let made = recorder.handle();
    metrics::set_global_recorder(recorder)
        .context("another metrics recorder is installed in this process")?;
    *handle = Some(made.clone());
    Ok(made)
}

/// Ends when the process is asked to.
async fn shutdown_signal() {
    let interrupt = tokio::signal::ctrl_c();
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt => {}
        () = terminate => {}
    }
}
