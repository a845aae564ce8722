//! Keeps vigil over the nodes whose replicas lead: when one falls silent, its groups elect at once and in order.
//!
//! Raft alone waits out the lease and then a random time, group by group, and two followers that wake together split the
//! votes and wait again. A node hears of another one in every heartbeat of every group, so silence in all of them says
//! more than silence in one; and the replicas can take turns by rank instead of by chance.
//! Invariant: this only *asks* for elections. openraft refuses one while the lease of the old leader may hold, and asks
//! the others first (pre-vote), so a wrong guess costs a message and nothing else; without this file elections still
//! happen, later.

use std::collections::BTreeMap;
use std::time::Duration;

use clinch_types::NodeId;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Raft, RaftDesk};

/// Added to the lease: messages of the groups arrive at different moments, and the slowest counts.
const SLACK: Duration = Duration::from_millis(20);
/// Between the attempts of one rank and the next: an election takes a few round trips and two syncs.
const RANK_STEP: Duration = Duration::from_millis(100);
/// Between two attempts of the same replica.
const AGAIN: Duration = Duration::from_millis(60);
/// Waking so much later than asked means this process stood still: messages may lie in its queues.
const STALL: Duration = Duration::from_millis(50);

/// When each node was last heard.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<BTreeMap<NodeId, Instant>>);

impl Heard {
    /// A Raft message of this node has arrived.
    pub(crate) fn note(&self, node: NodeId) {
        self.0.lock().insert(node, Instant::now());
    }

    /// Nodes silent since `since` or longer, and when the next one may become so.
    fn silent_since(&self, since: Instant) -> (Vec<(NodeId, Instant)>, Option<Instant>) {
        let heard = self.0.lock();
        let silent = heard.iter().filter(|(_, at)| **at <= since);
        let next = heard.values().filter(|at| **at > since).min();
        (silent.map(|(node, at)| (*node, *at)).collect(), next.copied())
    }
}

/// Watches for as long as the node runs.
pub(crate) async fn keep(desk: RaftDesk, me: NodeId, lease: Duration) {
    let patience = lease + SLACK;
    let mut wake = Instant::now() + patience;
    loop {
        tokio::time::sleep_until(wake).await;
        let now = Instant::now();
        if now.duration_since(wake) > STALL {
            wake = now + SLACK;
            continue;
        }
        let (silent, next) = match now.checked_sub(patience) {
            Some(since) => desk.heard().silent_since(since),
            None => (Vec::new(), None),
        };
        let mut led = false;
        if !silent.is_empty() {
            for (group, raft) in desk.groups() {
                led |= stand(group, &raft, me, &silent, now - patience).await;
            }
        }
        wake = match (led, next) {
            (true, _) => now + AGAIN,
            (false, Some(heard)) => heard + patience,
            (false, None) => now + patience,
        };
    }
}

/// Stands for election if the group's leader is silent and it is this replica's turn. Whether the leader is silent.
async fn stand(group: u32, raft: &Raft, me: NodeId, silent: &[(NodeId, Instant)], due: Instant) -> bool {
    let (leader, rank) = {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.map(NodeId);
        if metrics.state != ServerState::Follower {
            return false;
        }
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        (leader, rank(group, me, leader, &voters))
    };
    let Some((_, heard)) = silent.iter().find(|(node, _)| Some(*node) == leader) else {
        return false;
    };
    if let Some(rank) = rank
        && *heard + RANK_STEP * rank <= due
    {
        tracing::debug!(
            group,
            rank,
            "the group's leader is silent: asking for an election"
        );
        // Fails when the group has stopped: then there is nothing to do.
        let _stopped = raft.trigger().elect(true).await;
    }
    true
}

/// The turn of a voter among those that are left; another one comes first in each group, so that a dead node's groups
/// spread over the rest.
fn rank(group: u32, me: NodeId, leader: Option<NodeId>, voters: &[u64]) -> Option<u32> {
    let mut left: Vec<NodeId> = voters
        .iter()
        .copied()
        .map(NodeId)
        .filter(|v| Some(*v) != leader)
        .collect();
    left.sort_unstable();
    let place = left.iter().position(|v| *v == me)?;
    let first = group as usize % left.len();
    // Fewer voters than fit into a map of nodes.
    Some(((place + left.len() - first) % left.len()) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voter_but_the_leader_has_a_rank_of_its_own_and_groups_differ_in_the_first() {
        let leader = Some(NodeId(2));
        let ranks = |group| {
            [1, 3, 4]
                .map(|n| rank(group, NodeId(n), leader, &[1, 2, 3, 4]))
                .map(Option::unwrap)
        };
        let mut firsts = Vec::new();
        for group in 0..3 {
            let mut sorted = ranks(group);
            firsts.push(ranks(group).iter().position(|r| *r == 0).unwrap());
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2]);
        assert_eq!(rank(0, NodeId(9), leader, &[1, 2]), None);
    }

    #[test]
    fn a_node_is_silent_from_its_last_message_on() {
        let heard = Heard::default();
        heard.note(NodeId(1));
        let first = heard.0.lock()[&NodeId(1)];
        let (silent, next) = heard.silent_since(first);
        assert_eq!((silent, next), (vec![(NodeId(1), first)], None));
        let (silent, next) = heard.silent_since(first - Duration::from_millis(1));
        assert_eq!((silent, next), (vec![], Some(first)));
    }
}
