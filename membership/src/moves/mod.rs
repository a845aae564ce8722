//! From where the shards are to where they should be, in steps that are safe one by one.
//!
//! Per shard: add learner → let it catch up → change voters → transfer leadership → remove. [`plan`] looks at how
//! things are and names what to do next; it remembers nothing, so a driver that crashed simply asks again.
//! Invariants: a change of voters happens only while a majority of the old voters answers, and leaves a majority
//! of the new ones that answers; it never takes away the leader; it never lowers the number of voters that answer
//! below the number wanted; a shard is never given to a node with older code than its leader's.
//! Not here: choosing where shards should be (`placement`), carrying steps out (`node`).

mod shift;

use std::collections::{BTreeMap, BTreeSet};

use clinch_types::{NodeId, ShardId};

use self::shift::Shift;

/// How one shard is and should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardView {
    /// The nodes that should vote.
    pub desired: BTreeSet<NodeId>,
    /// The node that should lead.
    pub preferred: NodeId,
    /// The nodes that vote, by the group's last committed membership; empty until the group has formed.
    pub voters: BTreeSet<NodeId>,
    /// The nodes that only receive the log, and whether they have caught up.
    pub learners: BTreeMap<NodeId, bool>,
    /// The leader as known now.
    pub leader: Option<NodeId>,
    /// Whether a change of the membership is still under way.
    pub changing: bool,
}

/// How one node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeView {
    /// Whether it answers.
    pub alive: bool,
    /// Version of its code.
    pub code_version: u32,
}

/// Bounds on what goes on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveLimits {
    /// Learners that catch up on one node. Default: 1.
    pub incoming_max: usize,
    /// Learners fed by the leaders on one node. Default: 2.
    pub outgoing_max: usize,
    /// Leaderships one node gives or takes in one plan. Default: 2.
    pub transfers_max: usize,
}

impl Default for MoveLimits {
    fn default() -> Self {
        Self {
            incoming_max: 1,
            outgoing_max: 2,
            transfers_max: 2,
        }
    }
}

/// What a plan is made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MovesInput {
    /// The shards.
    pub shards: BTreeMap<ShardId, ShardView>,
    /// The nodes. One that is not here does not answer.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// The bounds.
    pub limits: MoveLimits,
}

/// One thing to do to a shard's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start feeding the log to a node.
    AddLearner {
        /// The node.
        node: NodeId,
    },
    /// Make these the voters; those that were and are not any more leave the group altogether.
    ChangeVoters {
        /// The new voters.
        voters: BTreeSet<NodeId>,
    },
    /// Hand the leadership over.
    TransferLeader {
        /// To whom: a voter.
        to: NodeId,
    },
    /// Stop feeding a node that is not wanted.
    RemoveLearner {
        /// The node.
        node: NodeId,
    },
}

/// Why nothing is done to a shard that is not where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Its group has not formed.
    NotFormed,
    /// Too few voters answer.
    NoQuorum {
        /// The voters that do not answer.
        missing: BTreeSet<NodeId>,
        /// How many vote.
        voters: usize,
    },
    /// No leader is known.
    NoLeader,
    /// A change of membership is under way.
    Changing,
    /// These learners have not caught up.
    CatchingUp {
        /// Which.
        nodes: BTreeSet<NodeId>,
    },
    /// These nodes should have a replica and do not answer.
    NodesDown {
        /// Which.
        nodes: BTreeSet<NodeId>,
    },
    /// These nodes run older code than the leader.
    OlderCode {
        /// Which.
        nodes: BTreeSet<NodeId>,
    },
    /// Enough is going on at a node it needs.
    Busy,
    /// Another shard has too few replicas that answer, and goes first.
    RepairsFirst,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// At most one step per shard.
    pub steps: BTreeMap<ShardId, Step>,
    /// Shards that are not where they should be and have no step.
    pub waiting: BTreeMap<ShardId, Waiting>,
}

impl Plan {
    /// Whether every shard is where it should be.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }
}

/// Names the next step of each shard. Repairs are given room first, then the other shards in order of id.
pub fn plan(input: &MovesInput) -> Plan {
    let mut planner = Planner::new(input);
    let mut plan = Plan::default();
    let (repairs, others): (Vec<_>, Vec<_>) = input
        .shards
        .iter()
        .partition(|(_, view)| lacks_replicas(input, view));
    let paused = !repairs.is_empty();
    let repairs = repairs.into_iter().map(|entry| (entry, false));
    let others = others.into_iter().map(|entry| (entry, paused));
    for ((&shard, view), paused) in repairs.chain(others) {
        match planner.next(view, paused) {
            Ok(None) => {}
            Ok(Some(step)) => drop(plan.steps.insert(shard, step)),
            Err(waiting) => drop(plan.waiting.insert(shard, waiting)),
        }
    }
    plan
}

/// Whether a formed shard has fewer voters that answer than it should have replicas.
fn lacks_replicas(input: &MovesInput, view: &ShardView) -> bool {
    !view.voters.is_empty() && live(input, &view.voters).count() < view.desired.len()
}

fn live<'a>(input: &'a MovesInput, nodes: &'a BTreeSet<NodeId>) -> impl Iterator<Item = NodeId> + 'a {
    nodes.iter().copied().filter(|node| is_alive(input, *node))
}

fn is_alive(input: &MovesInput, node: NodeId) -> bool {
    input.nodes.get(&node).is_some_and(|node| node.alive)
}

fn has_quorum(input: &MovesInput, voters: &BTreeSet<NodeId>) -> bool {
    live(input, voters).count() > voters.len() / 2
}

/// The leader, if it can act: known, a voter, answering, and a majority with it.
fn able_leader(input: &MovesInput, view: &ShardView) -> Option<NodeId> {
    let able = |node: &NodeId| is_alive(input, *node) && view.voters.contains(node);
    view.leader
        .filter(able)
        .filter(|_| has_quorum(input, &view.voters))
}

/// Counts what goes on at each node while steps are given out.
struct Planner<'a> {
    input: &'a MovesInput,
    incoming: BTreeMap<NodeId, usize>,
    outgoing: BTreeMap<NodeId, usize>,
    transfers: BTreeMap<NodeId, usize>,
}

impl<'a> Planner<'a> {
    fn new(input: &'a MovesInput) -> Self {
        let mut planner = Self {
            input,
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            transfers: BTreeMap::new(),
        };
        for view in input.shards.values() {
            // What makes no progress takes no bandwidth, and must not block others for ever.
            let Some(leader) = able_leader(input, view) else {
                continue;
            };
            for (&node, &caught_up) in &view.learners {
                if !caught_up && is_alive(input, node) {
                    planner.count_learner(node, leader);
                }
            }
        }
        planner
    }

    fn count_learner(&mut self, node: NodeId, leader: NodeId) {
        *self.incoming.entry(node).or_default() += 1;
        *self.outgoing.entry(leader).or_default() += 1;
    }

    /// The shard's next step; nothing when it is where it should be.
    fn next(&mut self, view: &ShardView, paused: bool) -> Result<Option<Step>, Waiting> {
        if view.voters.is_empty() {
            return Err(Waiting::NotFormed);
        }
        let unwanted = view.learners.keys().find(|node| !view.desired.contains(node));
        let settled = view.voters == view.desired && unwanted.is_none();
        if settled && !view.changing && view.leader == Some(view.preferred) {
            return Ok(None);
        }
        if view.changing {
            return Err(Waiting::Changing);
        }
        if !has_quorum(self.input, &view.voters) {
            let alive = |node: &NodeId| is_alive(self.input, *node);
            let missing = view.voters.iter().copied().filter(|node| !alive(node)).collect();
            return Err(Waiting::NoQuorum {
                missing,
                voters: view.voters.len(),
            });
        }
        let Some(leader) = able_leader(self.input, view) else {
            return Err(Waiting::NoLeader);
        };
        if let Some(&node) = unwanted {
            return Ok(Some(Step::RemoveLearner { node }));
        }
        if view.voters == view.desired {
            return self.prefer_leader(view, leader);
        }
        Shift::new(self.input, view, leader).step(self, paused)
    }

    fn prefer_leader(&mut self, view: &ShardView, leader: NodeId) -> Result<Option<Step>, Waiting> {
        let to = view.preferred;
        if leader == to || !view.voters.contains(&to) {
            return Ok(None);
        }
        if !is_alive(self.input, to) {
            return Err(Waiting::NodesDown {
                nodes: BTreeSet::from([to]),
            });
        }
        self.transfer(leader, to).map(Some)
    }

    fn transfer(&mut self, from: NodeId, to: NodeId) -> Result<Step, Waiting> {
        if is_older(self.input, to, from) {
            return Err(Waiting::OlderCode {
                nodes: BTreeSet::from([to]),
            });
        }
        let max = self.input.limits.transfers_max.max(1);
        let busy = |node: &NodeId| self.transfers.get(node).is_some_and(|count| *count >= max);
        if busy(&from) || busy(&to) {
            return Err(Waiting::Busy);
        }
        *self.transfers.entry(from).or_default() += 1;
        *self.transfers.entry(to).or_default() += 1;
        Ok(Step::TransferLeader { to })
    }

    /// `None` when enough is going on at one of the two.
    fn add_learner(&mut self, node: NodeId, leader: NodeId) -> Option<Step> {
        let limits = self.input.limits;
        let count = |counts: &BTreeMap<NodeId, usize>, node| counts.get(&node).copied().unwrap_or(0);
        if count(&self.incoming, node) >= limits.incoming_max.max(1)
            || count(&self.outgoing, leader) >= limits.outgoing_max.max(1)
        {
            return None;
        }
        self.count_learner(node, leader);
        Some(Step::AddLearner { node })
    }
}

/// Whether `node` runs older code than `than`.
fn is_older(input: &MovesInput, node: NodeId, than: NodeId) -> bool {
    let version = |node| input.nodes.get(&node).map_or(0, |view| view.code_version);
    version(node) < version(than)
}
