//! Leaving: a node that is about to stop gives away what it owns, while it still answers.
//!
//! It tells the nodes it is connected to, so that nobody hands it a shard any more; puts the actors of each shard to sleep
//! that have something to do before; and hands the shard to a replica that stays. Callers then wait at their routers for as
//! long as a hand-over takes, and not for an election.
//! Invariant: it never waits for a node that stops as well. When nobody stays it ends at once, and the shards are left to
//! an election, as after a crash.
//! Not here: the hand-over itself (`shard::task`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clinch_membership::{ClusterState, NodeRecord};
use clinch_transport::{Class, Inbound, PeerId, Refusal, RefusalCode, Transport, TransportError};
use clinch_types::{Incarnation, NodeId, ShardId, codec};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::control::Control;
use crate::desk::Desk;
use crate::shard::{Group, Raft, ShardMsg, kinds, respond};

/// Time the others have to hear, each time they are told, that this node leaves. All of it is spent only when one of them has
/// just died, or stands still.
const TELL_MAX: Duration = Duration::from_millis(300);
/// Time actors have to fall asleep before their shard moves; calls are served meanwhile.
const REST_MAX: Duration = Duration::from_secs(4);
/// Shards on their way at a time.
const AT_ONCE: usize = 4;
/// Rounds of telling and giving away: one may not have heard in time, or have begun a hand-over to this node before it did.
const ROUNDS: usize = 3;
/// How often it is looked at whether a shard has moved, should nothing be heard of it.
const LOOK: Duration = Duration::from_millis(20);
/// Entries the next owner may lack: it gets them before it takes over.
const LAG_MAX: u64 = 16;

/// Which nodes are about to stop, as this node has heard.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    me: AtomicBool,
    others: Mutex<BTreeMap<NodeId, Incarnation>>,
}

impl Leaving {
    /// Whether this node is about to stop.
    pub(crate) fn is_me(&self) -> bool {
        self.me.load(Ordering::Relaxed)
    }

    /// Whether that node has said that it is about to stop, and has not started again since.
    pub(crate) fn has(&self, node: &NodeRecord) -> bool {
        let others = self.others.lock();
        others.get(&node.id).is_some_and(|left| *left >= node.incarnation)
    }

    fn note(&self, node: NodeId, incarnation: Incarnation) {
        let mut others = self.others.lock();
        let known = others.entry(node).or_insert(incarnation);
        *known = incarnation.max(*known);
    }

    /// Another node says that it is about to stop. It is told whether this one is, too.
    pub(crate) fn request(&self, inbound: Inbound) {
        let PeerId::Node(node) = inbound.from else {
            let text = format!("{} is not a node", inbound.from);
            return inbound.refuse(Refusal::new(RefusalCode::Forbidden, text));
        };
        match codec::decode(&inbound.body) {
            Ok(incarnation) => {
                tracing::info!(%node, "a node is about to stop");
                self.note(node, incarnation);
                respond(inbound, &self.is_me());
            }
            Err(error) => inbound.refuse(Refusal::new(RefusalCode::Invalid, error.to_string())),
        }
    }
}

/// What a node needs to leave.
pub(crate) struct Leave {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) control: Control,
    pub(crate) transport: Transport,
    pub(crate) desk: Arc<Desk>,
    pub(crate) groups: Arc<Mutex<BTreeMap<ShardId, Group>>>,
    /// Why the store has failed, once it has.
    pub(crate) store_failed: watch::Receiver<Option<Arc<str>>>,
}

impl Leave {
    /// Gives everything away that others can take. May be dropped at any time: what was not given away by then is left to
    /// elections.
    pub(crate) async fn run(&self) {
        self.desk.leaving().me.store(true, Ordering::Relaxed);
        if self.store_failed.borrow().is_some() {
            // It can do nothing in order any more.
            return;
        }
        let begun = Instant::now();
        let mut told = BTreeSet::new();
        let room = Semaphore::new(AT_ONCE);
        let given = self.led().len();
        for _ in 0..ROUNDS {
            let unsure = self.tell_others(&mut told).await;
            let led = self.led();
            if led.is_empty() || self.staying(&told).is_empty() && !unsure {
                break;
            }
            let moves = led.iter().map(|(id, group)| self.give(*id, group, &told, &room));
            futures_util::future::join_all(moves).await;
        }
        self.give_control(&told).await;
        let left = self.led();
        match (left.is_empty(), told.is_empty()) {
            (true, _) => {
                tracing::info!(shards = given, took = ?begun.elapsed(), "all shards are handed over")
            }
            (false, true) => tracing::info!(shards = left.len(), "nobody stays who could take the shards"),
            (false, false) => {
                tracing::warn!(
                    shards = left.len(),
                    "shards are left to an election: no replica can take them now"
                );
            }
        }
    }

    /// Tells the other nodes that have not heard, and adds those that hear now and stay; whether one that seems to be there has
    /// not answered in time, and may hear the next time.
    async fn tell_others(&self, told: &mut BTreeSet<NodeId>) -> bool {
        let (Some(state), Ok(body)) = (self.control.state(), codec::encode(&self.incarnation)) else {
            return false;
        };
        let body = Bytes::from(body);
        let others = state
            .nodes
            .values()
            .filter(|n| n.id != self.node && n.state.is_reachable() && !told.contains(&n.id));
        let asked = others.map(|other| {
            let body = body.clone();
            async move {
                let class = Class::Control;
                let answer = self
                    .transport
                    .call(other.id, class, kinds::LEAVING, body, TELL_MAX)
                    .await;
                let stays = match answer {
                    Ok(answer) => Some(codec::decode::<bool>(&answer).is_ok_and(|leaves| !leaves)),
                    // A node of an earlier release: it stays, as far as it can say.
                    Err(TransportError::Refused { code, .. }) => Some(code == RefusalCode::UnknownKind),
                    Err(_) => None,
                };
                (other.id, stays)
            }
        });
        let answers = futures_util::future::join_all(asked).await;
        let silent = answers.iter().filter(|(_, stays)| stays.is_none());
        let unsure = silent.filter(|(id, _)| self.transport.is_up(*id)).count() > 0;
        let stay = answers.into_iter().filter(|(_, stays)| *stays == Some(true));
        told.extend(stay.map(|(id, _)| id));
        unsure
    }

    /// Of the nodes that stayed when they were told, those that still do.
    fn staying(&self, told: &BTreeSet<NodeId>) -> Vec<Candidate> {
        let Some(state) = self.control.state() else {
            return Vec::new();
        };
        let stays = |id: &NodeId| {
            let record = state.nodes.get(id)?;
            let stays = self.transport.is_up(*id) && !self.desk.leaving().has(record);
            stays.then_some((*id, record.code_version))
        };
        told.iter().filter_map(stays).collect()
    }

    /// The shards that this node leads.
    fn led(&self) -> Vec<(ShardId, Group)> {
        let groups = self.groups.lock();
        let led = groups.iter().filter(|(_, group)| leads(&group.raft));
        led.map(|(id, group)| (*id, group.clone())).collect()
    }

    /// Gives one shard away. Returns when another node leads it, or nobody is left who could.
    async fn give(&self, id: ShardId, group: &Group, told: &BTreeSet<NodeId>, room: &Semaphore) {
        let Some(shard) = self.desk.shard(id) else { return };
        if tokio::time::timeout(REST_MAX, shard.rest()).await.is_err() {
            tracing::warn!(shard = %id, "actors that do not fall asleep in time are left behind");
        }
        let mut place = None;
        let mut server = group.raft.server_metrics();
        while server
            .borrow_watched()
            .current_leader
            .is_none_or(|leader| leader == self.node.0)
        {
            let candidates = self.heirs(&group.raft, told);
            if candidates.is_empty() {
                return;
            }
            if leads(&group.raft) {
                match self.heir(id.0, Some(id), &group.raft, &candidates) {
                    // Who waits for a replica to catch up is in nobody's way.
                    None => place = None,
                    Some(_) if place.is_none() => {
                        let Ok(room) = room.acquire().await else { return };
                        place = Some(room);
                        continue;
                    }
                    // A full queue, or a hand-over under way: the next look sees.
                    Some(to) => drop(shard.tx.try_send(ShardMsg::HandOff { to, leaving: true })),
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, server.changed()).await {
                return;
            }
        }
    }

    /// The leadership of the control group, too: changes of the cluster need not wait for an election.
    async fn give_control(&self, told: &BTreeSet<NodeId>) {
        let raft = &self.control.group().raft;
        let heir = self.heir(0, None, raft, &self.heirs(raft, told));
        let (true, Some(to)) = (leads(raft), heir) else {
            return;
        };
        if let Err(error) = raft.trigger().transfer_leader(to.0).await {
            return tracing::warn!(%error, "the control group could not be handed over");
        }
        let mut server = raft.server_metrics();
        let moved = async { while leads(raft) && server.changed().await.is_ok() {} };
        if tokio::time::timeout(TELL_MAX, moved).await.is_err() {
            tracing::warn!(%to, "the control group did not move in time: it is left to an election");
        }
    }

    /// The voters of a group that stay: who is none of them will never lead it.
    fn heirs(&self, raft: &Raft, told: &BTreeSet<NodeId>) -> Vec<Candidate> {
        let metrics = raft.metrics().borrow_watched().clone();
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        let staying = self.staying(told).into_iter();
        staying.filter(|(n, _)| voters.contains(&n.0)).collect()
    }

    /// Who should lead a group next, if one of these voters has nearly the whole log.
    fn heir(&self, group: u32, shard: Option<ShardId>, raft: &Raft, voters: &[Candidate]) -> Option<NodeId> {
        let state = self.control.state()?;
        let metrics = raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.as_ref()?;
        let is_close = |node: NodeId| {
            let matched = replication.get(&node.0).and_then(|matched| matched.as_ref());
            matched.is_some_and(|matched| matched.index + LAG_MAX >= last)
        };
        let preferred = shard.and_then(|shard| Some(state.shards.get(&shard)?.leader));
        choose(
            group,
            code_version(&state, self.node),
            preferred,
            voters,
            is_close,
        )
    }
}

/// A node that may take something over, and the version of its code.
type Candidate = (NodeId, u32);

fn code_version(state: &ClusterState, node: NodeId) -> u32 {
    state.nodes.get(&node).map_or(0, |record| record.code_version)
}

fn leads(raft: &Raft) -> bool {
    raft.server_metrics().borrow_watched().state == ServerState::Leader
}

/// The next leader of a group among voters that stay: one of the newest code that has nearly the whole log, the preferred
/// leader if it is one of them, else another one for each group.
///
/// Nobody older than `mine` is chosen while there is a voter who is not: that one is waited for. If there is none, an older
/// one takes over in order, for the election that would follow otherwise could only choose the same.
fn choose(
    group: u32,
    mine: u32,
    preferred: Option<NodeId>,
    voters: &[Candidate],
    is_close: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let least = match voters.iter().any(|(_, version)| *version >= mine) {
        true => mine,
        false => 0,
    };
    let fit = |(node, version): &&Candidate| *version >= least && is_close(*node);
    let newest = voters.iter().filter(fit).map(|(_, version)| *version).max()?;
    let best = voters
        .iter()
        .filter(fit)
        .filter(|(_, version)| *version == newest);
    let mut best: Vec<NodeId> = best.map(|(node, _)| *node).collect();
    best.sort_unstable();
    match preferred.filter(|node| best.contains(node)) {
        Some(preferred) => Some(preferred),
        None => Some(best[group as usize % best.len()]),
    }
}

#[cfg(test)]
mod tests {
    use clinch_membership::NodeState;

    use super::*;

    fn all(_: NodeId) -> bool {
        true
    }

    fn nodes(list: &[(u64, u32)]) -> Vec<Candidate> {
        list.iter().map(|(id, version)| (NodeId(*id), *version)).collect()
    }

    #[test]
    fn groups_of_a_node_that_leaves_spread_over_those_that_stay() {
        let voters = nodes(&[(3, 0), (2, 0)]);
        let heirs = [0, 1, 2].map(|group| choose(group, 0, None, &voters, all));
        assert_eq!(heirs, [Some(NodeId(2)), Some(NodeId(3)), Some(NodeId(2))]);
        let preferred = choose(0, 0, Some(NodeId(3)), &voters, all);
        assert_eq!(preferred, Some(NodeId(3)));
        assert_eq!(choose(0, 0, None, &[], all), None);
    }

    #[test]
    fn newer_code_goes_first_and_older_code_takes_over_only_when_there_is_no_other() {
        let mixed = nodes(&[(2, 1), (3, 2)]);
        for group in 0..4 {
            assert_eq!(choose(group, 1, Some(NodeId(2)), &mixed, all), Some(NodeId(3)));
            assert_eq!(choose(group, 2, None, &mixed, all), Some(NodeId(3)));
        }
        // The only one that is not older lacks much: it is waited for.
        assert_eq!(choose(0, 2, None, &mixed, |node| node == NodeId(2)), None);
        let older = nodes(&[(2, 1), (3, 1)]);
        assert_eq!(choose(0, 2, None, &older, all), Some(NodeId(2)));
    }

    #[test]
    fn a_node_that_has_started_again_is_not_leaving_any_more() {
        let mut record = NodeRecord {
            id: NodeId(2),
            storage_id: 1,
            incarnation: Incarnation(4),
            address: "a:1".into(),
            gateway: None,
            zone: String::new(),
            region: Default::default(),
            code_version: 0,
            capacity: 1,
            state: NodeState::Up,
            actor_types: Vec::new(),
        };
        let leaving = Leaving::default();
        assert!(!leaving.has(&record));
        leaving.note(NodeId(2), Incarnation(4));
        assert!(leaving.has(&record));
        record.incarnation = Incarnation(5);
        assert!(!leaving.has(&record));
        // A word of the former start that comes late changes nothing.
        leaving.note(NodeId(2), Incarnation(5));
        leaving.note(NodeId(2), Incarnation(3));
        assert!(leaving.has(&record));
    }

    #[test]
    fn the_bytes_between_nodes_are_these() {
        assert_eq!(codec::encode(&Incarnation(7)).unwrap(), [1, 7]);
        assert_eq!(codec::encode(&true).unwrap(), [1, 1]);
    }
}
