//! The state of a cluster: what the control group replicates.
//!
//! Invariant: [`ClusterState::check_invariants`] holds after [`ClusterState::new`] and after every accepted command.
//! Changing the encoded form needs a new format; golden bytes in the tests hold it.
//! Not here: the transitions (`apply`).

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use clinch_types::{ClusterId, Epoch, NodeId, NodeRoute, RegionId, RouteMap, ShardId, ShardRoute, WallMs};

use crate::command::{Desired, Rejected};
use crate::limits;
use crate::node::NodeRecord;
use crate::placement::{self, PlacementInput, PlacementNode};

/// The namespace that exists from the start.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The place among the tokens of the secret that tokens of inspectors are made from: there the format of a state has room for it,
/// so that nodes of releases that do not know it keep it.
pub(crate) const INSPECTOR_SECRET: &str = "inspector-secret";

/// Everything the nodes of a cluster agree on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClusterState {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: String,
    /// The region whose nodes hold the shards; nodes of other regions are gateways to it.
    pub region: RegionId,
    /// Grows by one with each change.
    pub version: u64,
    /// What was chosen for the cluster.
    pub settings: Settings,
    /// All nodes ever, because an id is never used again.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Slot → shard; empty until the shards are placed.
    pub slots: Vec<ShardId>,
    /// Where the shards are and should be; empty until they are placed.
    pub shards: BTreeMap<ShardId, ShardPlacement>,
    /// Tenants.
    pub namespaces: BTreeMap<String, NamespaceRecord>,
    /// Tokens by the public part of their text.
    pub tokens: BTreeMap<String, TokenRecord>,
}

/// What is chosen for a cluster when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// Number of shards. Default: 16.
    pub shards: u32,
    /// Replicas of a shard; fewer while there are fewer nodes. Default: 3.
    pub replicas: u8,
    /// Nodes to wait for before the first placement. Default: 1.
    pub expect_nodes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: 16,
            replicas: 3,
            expect_nodes: 1,
        }
    }
}

impl Settings {
    /// Checks each value against its range.
    ///
    /// # Errors
    /// [`Rejected::OutOfRange`].
    pub fn check(&self) -> Result<(), Rejected> {
        for (what, value, max) in [
            ("shards", u64::from(self.shards), u64::from(limits::SHARDS_MAX)),
            (
                "replicas",
                u64::from(self.replicas),
                u64::from(limits::REPLICAS_MAX),
            ),
            (
                "expect-nodes",
                u64::from(self.expect_nodes),
                limits::NODES_MAX as u64,
            ),
        ] {
            if value == 0 || value > max {
                return Err(Rejected::OutOfRange {
                    what,
                    value,
                    min: 1,
                    max,
                });
            }
        }
        Ok(())
    }
}

/// Where one shard should be, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShardPlacement {
    /// The nodes that should hold its replicas, in order of id.
    pub desired: Vec<NodeId>,
    /// The voters of its group as last recorded, in order of id; empty until the group has formed.
    pub actual: Vec<NodeId>,
    /// The node that should lead it, one of `desired`.
    pub leader: NodeId,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NamespaceRecord {
    /// When it was made.
    pub created: WallMs,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum TokenKind {
    /// Calls on actors; may be given to browsers.
    Publishable,
    /// And creating, listing and destroying them.
    Secret,
    /// And the cluster itself.
    Admin,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TokenRecord {
    /// What it allows.
    pub kind: TokenKind,
    /// The only namespace it is good for; `None` is all.
    pub namespace: Option<String>,
    /// A cryptographic hash of the secret part; which one is the business of whoever compares.
    pub hash: [u8; 32],
    /// When it was made.
    pub created: WallMs,
}

impl ClusterState {
    /// A cluster without nodes.
    ///
    /// # Errors
    /// A setting out of range, or a name too long.
    pub fn new(
        cluster: ClusterId,
        name: impl Into<String>,
        region: RegionId,
        settings: Settings,
        now: WallMs,
    ) -> Result<Self, Rejected> {
        let name = name.into();
        settings.check()?;
        if name.len() > limits::CLUSTER_NAME_MAX {
            return Err(Rejected::TooLong {
                what: "cluster name",
                len: name.len(),
                max: limits::CLUSTER_NAME_MAX,
            });
        }
        Ok(Self {
            cluster,
            name,
            region,
            version: 0,
            settings,
            nodes: BTreeMap::new(),
            slots: Vec::new(),
            shards: BTreeMap::new(),
            namespaces: BTreeMap::from([(DEFAULT_NAMESPACE.to_owned(), NamespaceRecord { created: now })]),
            tokens: BTreeMap::new(),
        })
    }

    /// What tokens of inspectors are made from; `None` before the first one was asked for.
    pub fn inspector_secret(&self) -> Option<&[u8; 32]> {
        self.tokens.get(INSPECTOR_SECRET).map(|token| &token.hash)
    }

    /// Whether the shards have been placed.
    pub fn is_placed(&self) -> bool {
        !self.shards.is_empty()
    }

    /// The nodes that can be given shards now: up, in the cluster's region, with a capacity.
    pub fn placeable(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes
            .values()
            .filter(|node| node.region == self.region && node.capacity > 0 && node.state.gains_replicas())
    }

    /// Whether a node that is not gone can run actors of this type.
    pub fn actor_type_exists(&self, name: &str) -> bool {
        self.nodes
            .values()
            .any(|node| !node.state.is_gone() && node.actor_types.iter().any(|known| known == name))
    }

    /// The shards that are, or should be, on a node.
    pub fn shards_on(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        self.shards
            .iter()
            .filter(move |(_, at)| at.desired.contains(&node) || at.actual.contains(&node))
            .map(|(&shard, _)| shard)
    }

    /// The question to put to [`placement::place`] as things are.
    pub fn placement_input(&self) -> PlacementInput {
        let nodes = self
            .nodes
            .values()
            .filter(|node| node.region == self.region && node.state.keeps_replicas())
            .map(|node| PlacementNode {
                id: node.id,
                zone: node.zone.clone(),
                weight: node.capacity,
                accepts: node.state.gains_replicas(),
                code_version: node.code_version,
            })
            .collect();
        PlacementInput {
            shards: self.settings.shards,
            replicas: self.settings.replicas,
            nodes,
            current: self
                .shards
                .iter()
                .map(|(&shard, at)| (shard, at.desired.clone()))
                .collect(),
            leaders: self
                .shards
                .iter()
                .map(|(&shard, at)| (shard, at.leader))
                .collect(),
        }
    }

    /// The shards whose place should change, given the nodes as they are: the content of
    /// [`Command::SetDesired`](crate::Command::SetDesired). Empty when all is well, before the first placement, and
    /// while there is no node that could hold a shard.
    pub fn rebalanced(&self) -> BTreeMap<ShardId, Desired> {
        if !self.is_placed() {
            return BTreeMap::new();
        }
        let placed = placement::place(&self.placement_input());
        self.shards
            .iter()
            .filter_map(|(&shard, at)| {
                let replicas = placed.replicas.get(&shard)?.clone();
                let leader = *placed.leaders.get(&shard)?;
                (replicas != at.desired || leader != at.leader)
                    .then_some((shard, Desired { replicas, leader }))
            })
            .collect()
    }

    /// The shards that should be led by another one of their replicas, given the nodes as they are: while versions of the
    /// code differ, by one of the newest. The content of [`Command::SetDesired`](crate::Command::SetDesired); replicas stay
    /// where they are.
    pub fn leaders_due(&self) -> BTreeMap<ShardId, Desired> {
        let leaders = placement::lead(&self.placement_input());
        self.shards
            .iter()
            .filter_map(|(shard, at)| {
                let leader = *leaders.get(shard)?;
                let replicas = at.desired.clone();
                (leader != at.leader).then_some((*shard, Desired { replicas, leader }))
            })
            .collect()
    }

    /// The map that routers and clients keep. `owners` are the owners as last heard; a shard without one has
    /// no owner hint. Until a shard's group has formed, its replicas are the desired ones.
    pub fn route_map(&self, owners: &BTreeMap<ShardId, (NodeId, Epoch)>) -> RouteMap {
        let shards = self
            .shards
            .iter()
            .map(|(&shard, at)| {
                let owner = owners.get(&shard);
                let route = ShardRoute {
                    replicas: if at.actual.is_empty() {
                        &at.desired
                    } else {
                        &at.actual
                    }
                    .clone(),
                    owner: owner.map(|&(node, _)| node),
                    epoch: owner.map_or(Epoch::default(), |&(_, epoch)| epoch),
                };
                (shard, route)
            })
            .collect();
        let nodes = self
            .nodes
            .values()
            .filter(|node| !node.state.is_gone())
            .map(|node| {
                let route = NodeRoute {
                    address: node.address.clone(),
                    gateway: node.gateway.clone(),
                };
                (node.id, route)
            })
            .collect();
        RouteMap {
            cluster: self.cluster,
            version: self.version,
            slots: self.slots.clone(),
            shards,
            nodes,
        }
    }
}
