//! The shards of one node: opened as the cluster state asks for them, watched for their owners, led where they should
//! be led.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clinch_actor::{Caller, Registry};
use clinch_client::Router;
use clinch_membership::{ClusterState, Command, NodeRecord, NodeState};
use clinch_types::{Clock, NodeId, ShardId, fp};
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::NodeConfig;
use crate::control::Control;
use crate::desk::{Desk, group_of};
use crate::seams::NodeRng;
use crate::shard::{
    EventHub, Group, GroupParts, Owners, ShardContext, ShardEnds, ShardMsg, ShardTask, open_group,
};
use crate::tasks::Tasks;

/// How long the replicas beside the preferred leader wait before they make a group themselves.
const INITIALIZE_AFTER: Duration = Duration::from_secs(3);
/// How often a node looks whether its shards are led where they should be.
const BALANCE: Duration = Duration::from_secs(1);
/// Shards handed over at a time: each pauses its actors for a moment.
const HAND_OFFS: usize = 2;
/// Entries the next leader may lack when the leadership is handed to it.
const LAG_MAX: u64 = 16;

/// What the shards of a node are opened with.
pub(crate) struct Shards {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) parts: GroupParts,
    pub(crate) registry: Registry,
    pub(crate) caller: Arc<dyn Caller>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<NodeRng>,
    pub(crate) events: Arc<EventHub>,
    pub(crate) tasks: Tasks,
    pub(crate) desk: Arc<Desk>,
    pub(crate) router: Router,
    pub(crate) control: Control,
    pub(crate) owners: Owners,
    pub(crate) groups: Arc<Mutex<BTreeMap<ShardId, Group>>>,
    pub(crate) map_version: Arc<AtomicU64>,
}

impl Shards {
    /// Follows the cluster state until the node stops.
    pub(crate) fn start(self) {
        let shards = Arc::new(self);
        let keeper = shards.clone();
        shards.tasks.spawn_until_stop(async move { keeper.keep().await });
        let balancer = shards.clone();
        shards
            .tasks
            .spawn_until_stop(async move { balancer.balance().await });
    }

    /// Opens replicas as they are asked for, and feeds the router.
    async fn keep(&self) {
        let mut states = self.control.watch();
        let mut owners = self.owners.changes();
        loop {
            let state = states.borrow_and_update().clone();
            owners.mark_unchanged();
            if let Some(state) = state {
                let mine: Vec<ShardId> = state
                    .shards
                    .iter()
                    .filter(|(_, p)| {
                        p.desired.contains(&self.config.node) || p.actual.contains(&self.config.node)
                    })
                    .map(|(id, _)| *id)
                    .collect();
                for id in mine {
                    if self.groups.lock().contains_key(&id) {
                        continue;
                    }
                    if let Err(error) = self.open(id, &state).await {
                        tracing::error!(shard = %id, %error, "a replica cannot be opened");
                    }
                }
                self.map_version.store(state.version, Ordering::Relaxed);
                self.router.set_routes(state.route_map(&self.owners.all()));
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = owners.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn open(&self, id: ShardId, state: &ClusterState) -> anyhow::Result<()> {
        fp!("shards.before_open");
        let group = open_group(&self.parts, group_of(id)).await?;
        let (ended_tx, ended) = mpsc::channel(1024);
        let (internal_tx, internal) = mpsc::channel(1024);
        let context = ShardContext {
            id,
            node: self.config.node,
            region: self.config.region,
            config: self.config.clone(),
            reader: group.reader.clone(),
            transport: self.parts.transport.clone(),
            registry: self.registry.clone(),
            caller: self.caller.clone(),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            events: self.events.clone(),
            router: self.router.clone(),
            tasks: self.tasks.clone(),
            ended: ended_tx,
            internal: internal_tx,
            map_version: self.map_version.clone(),
            turns: AtomicU64::new(1),
        };
        let ends = ShardEnds { ended, internal };
        let (task, handle) = ShardTask::new(context, ends, group.raft.clone(), self.owners.clone());
        self.tasks.spawn(task.run());
        self.desk.put_shard(handle);
        self.groups.lock().insert(id, group.clone());
        let Some(placement) = state.shards.get(&id).cloned() else {
            return Ok(());
        };
        if placement.actual.is_empty() {
            // One replica makes the group; the others step in should that one be gone. Making it twice is harmless.
            let first = placement.leader == self.config.node;
            self.tasks.spawn_until_stop(async move {
                if !first {
                    tokio::time::sleep(INITIALIZE_AFTER).await;
                }
                if let Err(error) = group.initialize(&placement.desired).await {
                    tracing::warn!(shard = %id, %error, "the group of a shard could not be made");
                }
            });
        }
        Ok(())
    }

    /// Hands shards to the nodes that should lead them, and records what their groups look like.
    async fn balance(&self) {
        loop {
            tokio::time::sleep(BALANCE).await;
            let Some(state) = self.control.state() else {
                continue;
            };
            let groups: Vec<(ShardId, Group)> =
                self.groups.lock().iter().map(|(i, g)| (*i, g.clone())).collect();
            let mut handed = 0;
            for (id, group) in groups {
                let Some(placement) = state.shards.get(&id) else {
                    continue;
                };
                let metrics = group.raft.metrics().borrow_watched().clone();
                if metrics.current_leader != Some(self.config.node.0) {
                    continue;
                }
                let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
                let voters: Vec<NodeId> = voters.into_iter().map(NodeId).collect();
                if voters != placement.actual && !voters.is_empty() {
                    let command = Command::SetActual { shard: id, voters };
                    if let Err(error) = self.control.propose(command, BALANCE).await {
                        tracing::debug!(shard = %id, %error, "the voters of a shard could not be recorded");
                    }
                }
                let to = placement.leader;
                let mine = state.nodes.get(&self.config.node).map_or(0, |n| n.code_version);
                // Older code may not be able to read what newer code has written.
                let is_fit = |n: &NodeRecord| {
                    n.state == NodeState::Up && n.code_version >= mine && !self.desk.leaving().has(n)
                };
                let fit = !self.desk.leaving().is_me() && state.nodes.get(&to).is_some_and(is_fit);
                if to == self.config.node || !fit || handed == HAND_OFFS {
                    continue;
                }
                let matched = metrics
                    .replication
                    .as_ref()
                    .and_then(|r| r.get(&to.0))
                    .and_then(|m| m.as_ref());
                let last = metrics.last_log_index.unwrap_or(0);
                if matched.is_none_or(|m| m.index + LAG_MAX < last) {
                    continue;
                }
                if let Some(shard) = self.desk.shard(id) {
                    handed += 1;
                    // A full queue: another round will do.
                    drop(shard.tx.try_send(ShardMsg::HandOff { to, leaving: false }));
                }
            }
        }
    }
}
