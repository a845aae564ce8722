//! Questions about actors that are not calls on them: what exists, and where.

use bincode::{Decode, Encode};

use crate::{ActorId, Key, RegionId, WallMs};

/// What the cluster knows about one actor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ActorInfo {
    /// Its id.
    pub id: ActorId,
    /// Its namespace.
    pub namespace: String,
    /// Its type's name.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// Its home region.
    pub region: RegionId,
    /// When it was created.
    pub created: WallMs,
    /// Whether it is in memory at its owner now.
    pub awake: bool,
}

/// Asks one shard's owner for its actors, in order of id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ListRequest {
    /// The shard asked.
    pub shard: crate::ShardId,
    /// Only this namespace.
    pub namespace: String,
    /// Only actors of this name.
    pub name: Option<String>,
    /// Only these ids; empty means all.
    pub ids: Vec<ActorId>,
    /// Only ids above this one (the last of the previous page).
    pub after: Option<ActorId>,
    /// At most this many, 1 to [`crate::limits::LIST_MAX`].
    pub limit: u32,
}

/// One page of actors of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ListReply {
    /// The actors, in order of id.
    pub actors: Vec<ActorInfo>,
    /// Where the next page goes on (its `after`); `None` at the end. May come with an empty page: a page also ends when
    /// enough actors were looked at.
    pub next: Option<ActorId>,
}
