//! What a caller needs to find an owner: a versioned map from slot to shard to node.
//!
//! A hint, never the truth: a wrong route is corrected by the answer ([`crate::CallError::Moved`]).

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Epoch, NodeId, ShardId, Slot};

/// The routes of one cluster at one version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct RouteMap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Grows with every change of membership or placement; owner hints may change within a version.
    pub version: u64,
    /// Slot → shard, [`Slot::COUNT`] long; empty until the cluster is formed.
    pub slots: Vec<ShardId>,
    /// Shard → replicas.
    pub shards: BTreeMap<ShardId, ShardRoute>,
    /// Node → how to reach it.
    pub nodes: BTreeMap<NodeId, NodeRoute>,
}

/// Where a shard is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct ShardRoute {
    /// The nodes with a replica.
    pub replicas: Vec<NodeId>,
    /// The owner as last heard.
    pub owner: Option<NodeId>,
    /// The epoch of that hint.
    pub epoch: Epoch,
}

/// How to reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct NodeRoute {
    /// QUIC address, `host:port`.
    pub address: String,
    /// Base URL of its gateway, if it has one.
    pub gateway: Option<String>,
}

impl RouteMap {
    /// The shard of a slot; `None` until the cluster is formed.
    pub fn shard_of(&self, slot: Slot) -> Option<ShardId> {
        self.slots.get(usize::from(slot.0)).copied()
    }
}
