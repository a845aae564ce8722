//! What can be asked of the cluster state, and the answers "no".

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use clinch_types::{Incarnation, NodeId, RegionId, ShardId, WallMs};

use crate::node::{NodeRecord, NodeState};
use crate::state::TokenRecord;

/// A change of the cluster state; see [`ClusterState::apply`](crate::ClusterState::apply).
///
/// Every command may be repeated: one that finds its effect already there changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// A node starts: for the first time, or again.
    Join {
        /// The node as it describes itself. Its state must be `Joining` or `Up`; a draining node stays draining,
        /// and a repeated join of the same incarnation does not change the state.
        record: NodeRecord,
    },
    /// A node's life goes on.
    SetNodeState {
        /// Which node.
        node: NodeId,
        /// Only if this is still its incarnation: a verdict about an earlier start must not hit the next one.
        incarnation: Option<Incarnation>,
        /// The new state.
        state: NodeState,
    },
    /// Places all shards for the first time, once `expect_nodes` nodes are up.
    PlaceInitial,
    /// Sets where shards should be; see [`ClusterState::rebalanced`](crate::ClusterState::rebalanced).
    SetDesired {
        /// The version of the state the plan was made from; refused when the state has moved on.
        base: u64,
        /// The shards that change.
        shards: BTreeMap<ShardId, Desired>,
    },
    /// Records where a shard is: the voters of its group.
    SetActual {
        /// Which shard.
        shard: ShardId,
        /// The voters as of the group's last committed membership.
        voters: Vec<NodeId>,
    },
    /// Sets the preferred leader of a shard.
    SetLeader {
        /// Which shard.
        shard: ShardId,
        /// One of its desired replicas.
        leader: NodeId,
    },
    /// Makes a namespace.
    CreateNamespace {
        /// Its name.
        name: String,
        /// When it was asked for.
        created: WallMs,
    },
    /// Adds a token, or replaces the one of that id.
    PutToken {
        /// The public part, by which it is found.
        id: String,
        /// The rest, with the secret part hashed.
        token: TokenRecord,
    },
    /// Removes a token.
    RemoveToken {
        /// Its id.
        id: String,
    },
    /// Changes a setting.
    SetSetting {
        /// Which, and to what.
        setting: Setting,
    },
    /// Gives the cluster the secret that tokens of inspectors are made from, unless it has one. A control leader of a release
    /// that does not know it refuses it.
    MakeInspectorSecret {
        /// Random bytes.
        secret: [u8; 32],
        /// When it was asked for.
        created: WallMs,
    },
}

/// Where one shard should be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Desired {
    /// Its replicas, distinct, in any order.
    pub replicas: Vec<NodeId>,
    /// The preferred leader, one of them.
    pub leader: NodeId,
}

/// A setting and its new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Setting {
    /// Number of shards; fixed once they are placed.
    Shards(u32),
    /// Replicas of a shard; takes effect with the next rebalance.
    Replicas(u8),
    /// Nodes to wait for before the first placement; means nothing after it.
    ExpectNodes(u32),
}

/// Why a command was refused. The state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The node's directory is not the one it joined with.
    #[error(
        "node {node}'s data directory is not the one it joined with: a wiped node must join under a new node id"
    )]
    WrongStorage {
        /// Which node.
        node: NodeId,
    },
    /// The directory belongs to another node: it was copied.
    #[error(
        "the data directory of node {node} is the one of node {owner}: it may not be copied to a second node"
    )]
    StorageTaken {
        /// Who wanted to join.
        node: NodeId,
        /// Whose directory it is.
        owner: NodeId,
    },
    /// An earlier start of the node.
    #[error("node {node} is at incarnation {current}, got {given}")]
    OldIncarnation {
        /// Which node.
        node: NodeId,
        /// The incarnation known.
        current: Incarnation,
        /// The incarnation given.
        given: Incarnation,
    },
    /// The node left or was replaced.
    #[error("node {node} is {state}: its id is never used again, join under a new one")]
    Gone {
        /// Which node.
        node: NodeId,
        /// `Left` or `Replaced`.
        state: NodeState,
    },
    /// A node does not move between regions.
    #[error("node {node} joined in region {current}, not {given}")]
    WrongRegion {
        /// Which node.
        node: NodeId,
        /// Where it joined.
        current: RegionId,
        /// Where it says it is now.
        given: RegionId,
    },
    /// No such node.
    #[error("no node {node}")]
    UnknownNode {
        /// Which.
        node: NodeId,
    },
    /// No such shard.
    #[error("no shard {shard}")]
    UnknownShard {
        /// Which.
        shard: ShardId,
    },
    /// No such namespace.
    #[error("no namespace {name:?}")]
    UnknownNamespace {
        /// Which.
        name: String,
    },
    /// No such way through a node's life.
    #[error("node {node} is {from} and cannot become {to}")]
    BadTransition {
        /// Which node.
        node: NodeId,
        /// Its state.
        from: NodeState,
        /// The state asked for.
        to: NodeState,
    },
    /// The node still has, or is to get, a replica.
    #[error("node {node} cannot leave: shard {shard} is on it, drain it first")]
    StillInUse {
        /// Which node.
        node: NodeId,
        /// The first shard found on it.
        shard: ShardId,
    },
    /// Too early for the first placement.
    #[error("{up} nodes are up, the first placement waits for {expected}")]
    TooFewNodes {
        /// Nodes that could hold shards now.
        up: usize,
        /// Nodes waited for.
        expected: u32,
    },
    /// The shards are placed; this was possible only before.
    #[error("the shards are placed already: {what} is fixed")]
    AlreadyPlaced {
        /// What cannot change any more.
        what: &'static str,
    },
    /// Made from an older state.
    #[error("made from version {base}, the state is at {current}")]
    Stale {
        /// The version it was made from.
        base: u64,
        /// The version now.
        current: u64,
    },
    /// A shard without nodes, or twice on one.
    #[error("shard {shard} needs distinct nodes, at least one and at most {max}, got {nodes:?}")]
    BadReplicas {
        /// Which shard.
        shard: ShardId,
        /// The nodes given.
        nodes: Vec<NodeId>,
        /// Most nodes allowed.
        max: usize,
    },
    /// The preferred leader has no replica.
    #[error("node {leader} cannot lead shard {shard}: it is to be on {replicas:?}")]
    BadLeader {
        /// Which shard.
        shard: ShardId,
        /// The node asked for.
        leader: NodeId,
        /// Where the shard is to be.
        replicas: Vec<NodeId>,
    },
    /// The node may not get a replica it does not have.
    #[error("node {node} cannot get shard {shard}: it is {state}")]
    CannotGain {
        /// Which node.
        node: NodeId,
        /// Which shard.
        shard: ShardId,
        /// Its state.
        state: NodeState,
    },
    /// Longer than allowed.
    #[error("{what} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Outside its range.
    #[error("{what} is {value}, allowed is {min} to {max}")]
    OutOfRange {
        /// What.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// No more room.
    #[error("there are {max} {what} already, no more are allowed")]
    Full {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Not of the form it must have.
    #[error("{what} {value:?} is not valid")]
    Malformed {
        /// What.
        what: &'static str,
        /// Its value, shortened.
        value: String,
    },
}
