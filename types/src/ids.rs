//! Identities. Each is a newtype, so that a shard is never passed where a node is meant.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// Who a node is for ever. Never reused, not even after the node left.
    NodeId(u64), ""
);
id!(
    /// Which start of a node it is; grows at each start.
    Incarnation(u64), ""
);
id!(
    /// A fixed bucket of actors with one Raft group.
    ShardId(u32), ""
);
id!(
    /// One of the 1,024 fixed hash buckets a key falls into; slots are grouped into shards.
    Slot(u16), ""
);
id!(
    /// The ownership number of a shard: the Raft term of its leader. Grows at each change of owner and fences
    /// the old one.
    Epoch(u64), ""
);
id!(
    /// A set of nodes that hold a shard's replicas close together. `0` is the only region of a one-region cluster.
    RegionId(u16), ""
);
id!(
    /// How many turns of this actor (in this life of it) have been committed. Grows by one per committed turn.
    Version(u64), ""
);

impl Slot {
    /// How many slots there are, in every cluster, for ever: a key never changes its slot.
    pub const COUNT: u16 = 1024;
}

/// The identity of one cluster, drawn when it is created; keeps nodes of two clusters apart.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names one source of requests (a client, a gateway) for one run of its process. Drawn at random.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The caller's name for one intention: a retry carries the same id, and takes effect at most once.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
pub struct RequestId {
    /// Who asks.
    pub session: SessionId,
    /// The session's running number, from 1.
    pub seq: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.session, self.seq)
    }
}

/// The identity of one life of an actor: a destroyed actor's id is never used again.
///
/// 16 bytes: region (2), slot (2), unique part (12). Region and slot make it routable without a look-up.
/// As text: 32 lower-case hexadecimal digits, safe in paths and in WebSocket sub-protocols.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct ActorId([u8; 16]);

impl ActorId {
    /// Builds an id; of `unique` the low 96 bits count.
    pub fn new(region: RegionId, slot: Slot, unique: u128) -> Self {
        let mut bytes = unique.to_be_bytes();
        bytes[..2].copy_from_slice(&region.0.to_be_bytes());
        bytes[2..4].copy_from_slice(&slot.0.to_be_bytes());
        Self(bytes)
    }

    /// Reads the 16 bytes back; refuses a slot that does not exist.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, ActorIdError> {
        let id = Self(bytes);
        if id.slot().0 >= Slot::COUNT {
            return Err(ActorIdError::Slot { slot: id.slot().0 });
        }
        Ok(id)
    }

    /// The bytes, big-endian, for use in storage keys.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The home region.
    pub fn region(&self) -> RegionId {
        RegionId(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    /// The slot, and by the cluster's slot table the shard.
    pub fn slot(&self) -> Slot {
        Slot(u16::from_be_bytes([self.0[2], self.0[3]]))
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorId({self})")
    }
}

/// Why a text or byte string is not an actor id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActorIdError {
    /// Not 32 hexadecimal digits.
    #[error("an actor id is 32 hexadecimal digits, got {len} characters")]
    Text {
        /// Length of what was given, in characters.
        len: usize,
    },
    /// The slot part is out of range.
    #[error("actor id names slot {slot}, there are only {}", Slot::COUNT)]
    Slot {
        /// The slot it names.
        slot: u16,
    },
}

impl FromStr for ActorId {
    type Err = ActorIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ActorIdError::Text {
            len: text.chars().count(),
        };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| bad())?;
        Self::from_bytes(value.to_be_bytes())
    }
}

impl Serialize for ActorId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ActorId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_id_survives_its_text_and_keeps_region_and_slot() {
        let id = ActorId::new(RegionId(7), Slot(1023), 0x0123_4567_89ab_cdef_0011_2233);
        assert_eq!(id.to_string(), "000703ff0123456789abcdef00112233");
        assert_eq!(id.to_string().parse::<ActorId>(), Ok(id));
        assert_eq!((id.region(), id.slot()), (RegionId(7), Slot(1023)));
    }

    #[test]
    fn text_that_is_no_actor_id_is_refused_by_name() {
        assert_eq!("x".parse::<ActorId>(), Err(ActorIdError::Text { len: 1 }));
        assert_eq!(
            "+00703ff0123456789abcdef00112233".parse::<ActorId>(),
            Err(ActorIdError::Text { len: 32 })
        );
        assert_eq!(
            "00000400000000000000000000000000".parse::<ActorId>(),
            Err(ActorIdError::Slot { slot: 1024 })
        );
    }
}
