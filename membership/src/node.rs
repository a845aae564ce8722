//! One node as the cluster remembers it.

use std::fmt;

use bincode::{Decode, Encode};
use clinch_types::{Incarnation, NodeId, RegionId};

use crate::command::Rejected;
use crate::limits;

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum NodeState {
    /// Admitted, not yet ready: keeps replicas it already has, gains none.
    Joining,
    /// Serves.
    Up,
    /// Serves while everything moves off it.
    Draining,
    /// Moved everything off and went. For ever.
    Left,
    /// Not heard of; keeps its replicas, because it may only be rebooting.
    Down,
    /// Given up: its replicas are made anew elsewhere. For ever; if the machine comes back, it is a new node.
    Replaced,
}

impl NodeState {
    /// Whether the node will never be part of the cluster again; its id stays taken.
    pub fn is_gone(self) -> bool {
        match self {
            Self::Left | Self::Replaced => true,
            Self::Joining | Self::Up | Self::Draining | Self::Down => false,
        }
    }

    /// Whether a placement may leave replicas where they are on such a node.
    pub fn keeps_replicas(self) -> bool {
        match self {
            Self::Joining | Self::Up | Self::Down => true,
            Self::Draining | Self::Left | Self::Replaced => false,
        }
    }

    /// Whether a placement may give replicas to such a node.
    pub fn gains_replicas(self) -> bool {
        self == Self::Up
    }

    /// Whether the node is expected to answer.
    pub fn is_reachable(self) -> bool {
        match self {
            Self::Joining | Self::Up | Self::Draining => true,
            Self::Down | Self::Left | Self::Replaced => false,
        }
    }

    /// Whether a node may go from this state to `next`.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Joining => matches!(next, Self::Up | Self::Down | Self::Left),
            Self::Up => matches!(next, Self::Draining | Self::Down),
            Self::Draining => matches!(next, Self::Up | Self::Down | Self::Left),
            Self::Down => matches!(next, Self::Up | Self::Draining | Self::Replaced),
            Self::Left | Self::Replaced => false,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Left => "left",
            Self::Down => "down",
            Self::Replaced => "replaced",
        })
    }
}

/// What the cluster knows about one node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    /// Who it is for ever.
    pub id: NodeId,
    /// Drawn when its data directory was made: tells a restart from a wiped disk, and a copied directory from
    /// the original.
    pub storage_id: u128,
    /// Which start of it joined last.
    pub incarnation: Incarnation,
    /// QUIC address, `host:port`.
    pub address: String,
    /// Base URL of its gateway, if it has one.
    pub gateway: Option<String>,
    /// What fails together with it (a rack, a building); replicas of a shard avoid sharing one.
    pub zone: String,
    /// The region it stands in.
    pub region: RegionId,
    /// Version of the code it runs; a shard never moves from a higher to a lower one.
    pub code_version: u32,
    /// Its share of the shards relative to others; 1 is an ordinary node, 0 holds none.
    pub capacity: u32,
    /// Where it is in its life.
    pub state: NodeState,
    /// The actor types it can run.
    pub actor_types: Vec<String>,
}

impl NodeRecord {
    /// Checks a record that came from outside against [`limits`].
    ///
    /// # Errors
    /// [`Rejected::TooLong`] or [`Rejected::Malformed`], naming value and limit.
    pub fn check(&self) -> Result<(), Rejected> {
        let gateway = self.gateway.as_ref().map_or(0, String::len);
        let types = self.actor_types.iter().map(|name| name.len() + 8).sum();
        for (what, len, max) in [
            ("address", self.address.len(), limits::ADDRESS_MAX),
            ("gateway", gateway, limits::GATEWAY_MAX),
            ("zone", self.zone.len(), limits::ZONE_MAX),
            ("actor types", types, limits::ACTOR_TYPES_BYTES_MAX),
        ] {
            if len > max {
                return Err(Rejected::TooLong { what, len, max });
            }
        }
        if self.address.is_empty() {
            return Err(Rejected::Malformed {
                what: "address",
                value: String::new(),
            });
        }
        if self.capacity > limits::CAPACITY_MAX {
            return Err(Rejected::OutOfRange {
                what: "capacity",
                value: u64::from(self.capacity),
                min: 0,
                max: u64::from(limits::CAPACITY_MAX),
            });
        }
        Ok(())
    }
}
