//! How a node's storage is tuned.

use crate::OpenError;

/// Tuning of a node's storage. Past [`StorageOptions::validate`] every value is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageOptions {
    /// Size of a log segment, in bytes. Default: 64 MiB.
    pub segment_bytes: u64,
    /// Most bytes the log writes before one sync. Default: 4 MiB.
    pub batch_bytes: usize,
    /// Bytes of log entries kept in memory, over all groups; what is older is read from the segments. Default: 8 MiB.
    pub cache_bytes: usize,
    /// Bytes of a group's log kept below its checkpoint, so that a follower that lags a little needs no snapshot.
    /// Default: 16 MiB.
    pub retain_bytes: u64,
    /// Size of the log on disk above which `retain_bytes` is no longer honoured. Default: 2 GiB.
    pub log_bytes_max: u64,
    /// Most bytes of entries one read for replication returns (at least one entry). Default: 1 MiB.
    pub read_bytes_max: u64,
    /// Free segments kept for reuse; more are deleted. Default: 2.
    pub free_segments_max: usize,
    /// Most keys a checkpoint gives to the state store in one call. Default: 2,048.
    pub checkpoint_keys: usize,
    /// Most memory that applied writes may take while they wait for a checkpoint, over all groups, in bytes; applying waits
    /// for it. Default: 128 MiB.
    pub waiting_bytes_max: u64,
    /// What moves the log writer. Default: a thread.
    pub driver: Driver,
}

/// What moves the log writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// One thread of the operating system: production.
    Thread,
    /// A tokio task of the runtime [`crate::Storage::open`] is called in; the disk's sync latency becomes tokio
    /// time: simulation.
    Task,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            batch_bytes: 4 << 20,
            cache_bytes: 8 << 20,
            retain_bytes: 16 << 20,
            log_bytes_max: 2 << 30,
            read_bytes_max: 1 << 20,
            free_segments_max: 2,
            checkpoint_keys: 2048,
            waiting_bytes_max: 128 << 20,
            driver: Driver::Thread,
        }
    }
}

impl StorageOptions {
    /// Smallest segment: room for its head and a few frames.
    const SEGMENT_MIN: u64 = 4 << 10;
    /// Largest segment: it is read into memory as a whole at start.
    const SEGMENT_MAX: u64 = 1 << 30;

    /// Checks every value and the relations between them.
    ///
    /// # Errors
    /// [`OpenError::Options`] naming the values.
    pub fn validate(&self) -> Result<(), OpenError> {
        let bad = |text: String| Err(OpenError::Options(text));
        if !(Self::SEGMENT_MIN..=Self::SEGMENT_MAX).contains(&self.segment_bytes) {
            return bad(format!(
                "segment_bytes is {}, must be from {} to {}",
                self.segment_bytes,
                Self::SEGMENT_MIN,
                Self::SEGMENT_MAX
            ));
        }
        if self.log_bytes_max < 2 * self.segment_bytes {
            // One segment is always being written, so a smaller limit would force purges for ever.
            return bad(format!(
                "log_bytes_max is {}, must be at least twice segment_bytes ({})",
                self.log_bytes_max, self.segment_bytes
            ));
        }
        if self.batch_bytes == 0
            || self.read_bytes_max == 0
            || self.checkpoint_keys == 0
            || self.waiting_bytes_max == 0
        {
            return bad(
                "batch_bytes, read_bytes_max, checkpoint_keys and waiting_bytes_max must not be 0".into(),
            );
        }
        Ok(())
    }
}
