//! One shard whose voters are not the desired ones: which change is safe now, and what it needs before.

use std::collections::BTreeSet;

use clinch_types::NodeId;

use super::{MovesInput, Planner, ShardView, Step, Waiting, has_quorum, is_alive, is_older, live};

/// One shard on its way from its voters to the desired ones.
pub(super) struct Shift<'a> {
    input: &'a MovesInput,
    view: &'a ShardView,
    leader: NodeId,
    /// To become voters, answering, caught up.
    ready: Vec<NodeId>,
    /// To become voters, answering, not caught up or not even learners.
    coming: Vec<NodeId>,
    /// To become voters, answering, but their code is older than the leader's.
    older: BTreeSet<NodeId>,
    /// Voting, not desired, not the leader; those that do not answer first.
    removable: Vec<NodeId>,
    /// Voters that stay and answer: they may take over the leadership. The best one first.
    heirs: Vec<NodeId>,
}

impl<'a> Shift<'a> {
    pub(super) fn new(input: &'a MovesInput, view: &'a ShardView, leader: NodeId) -> Self {
        let missing = || view.desired.difference(&view.voters).copied();
        let answering = || missing().filter(|node| is_alive(input, *node));
        let (older, fit): (BTreeSet<NodeId>, Vec<NodeId>) = (
            answering()
                .filter(|node| is_older(input, *node, leader))
                .collect(),
            answering()
                .filter(|node| !is_older(input, *node, leader))
                .collect(),
        );
        let (ready, coming) = fit
            .into_iter()
            .partition(|node| view.learners.get(node) == Some(&true));
        let leaving = view.voters.difference(&view.desired).copied();
        let mut removable: Vec<NodeId> = leaving.filter(|node| *node != leader).collect();
        removable.sort_by_key(|node| (is_alive(input, *node), *node));
        let staying = view.voters.intersection(&view.desired).copied();
        let mut heirs: Vec<NodeId> = staying
            .filter(|node| *node != leader && is_alive(input, *node))
            .collect();
        heirs.sort_by_key(|node| (is_older(input, *node, leader), *node != view.preferred, *node));
        Self {
            input,
            view,
            leader,
            ready,
            coming,
            older,
            removable,
            heirs,
        }
    }

    /// The next step; an error is why there is none, though the shard is not where it should be.
    pub(super) fn step(&self, planner: &mut Planner<'_>, paused: bool) -> Result<Option<Step>, Waiting> {
        if let Some(voters) = self.swap().or_else(|| self.grow()).or_else(|| self.shrink()) {
            return Ok(Some(Step::ChangeVoters { voters }));
        }
        let fed = self.feed(planner, paused);
        if fed.is_ok() {
            return fed.map(Some);
        }
        match self.hand_over(planner)? {
            Some(step) => Ok(Some(step)),
            None => fed.map(Some),
        }
    }

    /// As many new ones for old ones as there are; the number of voters stays.
    fn swap(&self) -> Option<BTreeSet<NodeId>> {
        let pairs = self.ready.len().min(self.removable.len());
        self.change(&self.ready[..pairs], &self.removable[..pairs])
    }

    /// More voters, when none can be swapped out. An even number tolerates no more than the odd one below it, so
    /// wait for the last learner rather than stop there, unless no other is on its way.
    fn grow(&self) -> Option<BTreeSet<NodeId>> {
        if self.is_leader_leaving() && !self.heirs.is_empty() {
            // Then the leader hands over first, and can be swapped out.
            return None;
        }
        let voters = self.change(&self.ready, &[])?;
        (!voters.len().is_multiple_of(2) || self.coming.is_empty()).then_some(voters)
    }

    /// Fewer voters, once all the desired ones vote.
    fn shrink(&self) -> Option<BTreeSet<NodeId>> {
        self.is_complete().then(|| self.change(&[], &self.removable))?
    }

    /// The voters after a change, if it is one and it is safe.
    fn change(&self, add: &[NodeId], remove: &[NodeId]) -> Option<BTreeSet<NodeId>> {
        let old = &self.view.voters;
        let mut voters = old.clone();
        voters.retain(|node| !remove.contains(node));
        voters.extend(add);
        let wanted = live(self.input, old).count().min(self.view.desired.len());
        let safe = has_quorum(self.input, &voters) && live(self.input, &voters).count() >= wanted;
        (safe && voters != *old).then_some(voters)
    }

    /// The next learner, or why there is none.
    fn feed(&self, planner: &mut Planner<'_>, paused: bool) -> Result<Step, Waiting> {
        let (learning, absent): (BTreeSet<NodeId>, BTreeSet<NodeId>) = self
            .coming
            .iter()
            .partition(|node| self.view.learners.contains_key(node));
        if !absent.is_empty() && !paused {
            let added = absent
                .iter()
                .find_map(|&node| planner.add_learner(node, self.leader));
            if let Some(step) = added {
                return Ok(step);
            }
        }
        if !learning.is_empty() {
            return Err(Waiting::CatchingUp { nodes: learning });
        }
        if !absent.is_empty() {
            return Err(if paused {
                Waiting::RepairsFirst
            } else {
                Waiting::Busy
            });
        }
        if !self.older.is_empty() {
            return Err(Waiting::OlderCode {
                nodes: self.older.clone(),
            });
        }
        let desired = self.view.desired.iter().copied();
        Err(Waiting::NodesDown {
            nodes: desired.filter(|node| !is_alive(self.input, *node)).collect(),
        })
    }

    /// The leadership away from a node that is to go, when all else that can be done before is done. Learners that
    /// catch up would start over under the next leader, and count against its limit: they come first.
    fn hand_over(&self, planner: &mut Planner<'_>) -> Result<Option<Step>, Waiting> {
        let learning = self
            .coming
            .iter()
            .any(|node| self.view.learners.contains_key(node));
        let due = self.is_leader_leaving() && !learning && (!self.ready.is_empty() || self.is_complete());
        match self.heirs.first() {
            Some(&to) if due => planner.transfer(self.leader, to).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    fn is_leader_leaving(&self) -> bool {
        !self.view.desired.contains(&self.leader)
    }

    /// Whether all the desired nodes vote.
    fn is_complete(&self) -> bool {
        self.view.desired.is_subset(&self.view.voters)
    }
}
