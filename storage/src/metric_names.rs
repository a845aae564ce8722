//! The names of every metric of this crate.

/// Seconds one write and sync of the log took.
pub(crate) const LOG_SYNC_SECONDS: &str = "storage.log.sync.seconds";
/// Bytes in one write of the log.
pub(crate) const LOG_BATCH_BYTES: &str = "storage.log.batch.bytes";
/// Keys written to the state store by checkpoints.
pub(crate) const CHECKPOINT_KEYS: &str = "storage.checkpoint.keys";
/// Times the storage was poisoned (0 or 1 in the life of a process).
pub(crate) const POISONED: &str = "storage.poisoned.count";
/// Snapshots installed.
pub(crate) const SNAPSHOT_INSTALLS: &str = "storage.snapshot.installs";
