//! Every metric of this crate.

/// Times a shard was taken over by this node.
pub(crate) const OWNER_CHANGES: &str = "node.shard.owner.changes";
/// Turns in one proposed entry.
pub(crate) const SHARD_BATCH_TURNS: &str = "node.shard.batch.turns";
