//! Who an actor is, as its own code sees it.

use std::sync::Arc;

use clinch_types::{ActorId, Key, RegionId, ShardId, WallMs};

/// The fixed facts of one life of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorMeta {
    /// The identity of this life.
    pub id: ActorId,
    /// The namespace (tenant).
    pub namespace: Arc<str>,
    /// The actor type's name.
    pub name: Arc<str>,
    /// The key, unique per namespace and name.
    pub key: Key,
    /// The home region.
    pub region: RegionId,
    /// The shard it lives in.
    pub shard: ShardId,
    /// When it was created.
    pub created: WallMs,
}
