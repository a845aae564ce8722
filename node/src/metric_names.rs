//! Every metric of this crate.

/// Times a shard was taken over by this node.
pub(crate) const OWNER_CHANGES: &str = "node.shard.owner.changes";
/// Spans of turns that no collector took, because it did not answer or not fast enough.
#[cfg(feature = "otlp")]
pub(crate) const SPANS_DROPPED: &str = "node.spans.dropped.count";
/// Turns in one proposed entry.
pub(crate) const SHARD_BATCH_TURNS: &str = "node.shard.batch.turns";
