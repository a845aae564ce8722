//! Reading a group's state.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::cell::{Cell, Scan};
use crate::GroupId;
use crate::raft::LogId;

/// Reads the state of one group as of the last applied entry. Cheap to clone.
///
/// Everything errs while the group is not [`ready`](Self::ready), and after the storage is poisoned.
#[derive(Debug, Clone)]
pub struct GroupReader {
    cell: Arc<Cell>,
}

/// How much of a group waits for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStats {
    /// Index of the last applied entry.
    pub applied: Option<u64>,
    /// Index up to which the state store is durable.
    pub flushed: Option<u64>,
    /// Keys not yet in the state store.
    pub dirty_keys: usize,
    /// Bytes of these keys and their values.
    pub dirty_bytes: u64,
}

impl GroupReader {
    pub(crate) fn new(cell: Arc<Cell>) -> Self {
        Self { cell }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.cell.group
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the group is not ready or the storage is poisoned.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let state = self.cell.state.read();
        self.cell.check_ready(&state)?;
        self.cell.get(&state, key)
    }

    /// The first `limit` pairs of a range in ascending order of keys, or the last ones in descending order. All
    /// pairs are of the same moment.
    ///
    /// # Errors
    /// When the group is not ready or the storage is poisoned.
    pub fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        let state = self.cell.state.read();
        self.cell.check_ready(&state)?;
        self.cell.scan(
            &state,
            Scan {
                start,
                end,
                limit,
                bytes_max: usize::MAX,
                reverse,
            },
        )
    }

    /// The last applied entry.
    pub fn applied(&self) -> Option<LogId> {
        self.cell.state.read().applied.log_id
    }

    /// Whether the state may be served: there is one, it is not being replaced, and it is of one moment (after a
    /// snapshot, only once the entries written while it was taken are applied).
    pub fn ready(&self) -> bool {
        self.cell.check_ready(&self.cell.state.read()).is_ok()
    }

    /// How much waits for a checkpoint.
    pub fn stats(&self) -> GroupStats {
        let state = self.cell.state.read();
        GroupStats {
            applied: state.applied.index(),
            flushed: state.flushed.index(),
            dirty_keys: state.overlay.keys(),
            dirty_bytes: state.overlay.bytes(),
        }
    }
}
