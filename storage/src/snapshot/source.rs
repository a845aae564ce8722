//! Sending a snapshot: a walk over the group's keys while writes go on.
//!
//! Invariant: everything applied before the snapshot's start is in it, and nothing after its end; what lies between
//! may be in it or not. Replaying the log from the start ends in the right state, because entries are absolute
//! writes. As long as a source lives, the log above its start is kept.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use clinch_types::planted;

use super::stream::{self, CHUNK_MAX, Record};
use crate::GroupId;
use crate::machine::cell::{Cell, Scan, State};
use crate::raft::SnapshotMeta;

/// Pairs read at a time, at most.
const WALK_PAIRS: usize = 1024;

/// The chunks of one snapshot, made while they are taken.
#[derive(Debug)]
pub struct SnapshotSource {
    cell: Arc<Cell>,
    meta: SnapshotMeta,
    buffer: BytesMut,
    chunks: u64,
    pairs: u64,
    walk: Walk,
}

#[derive(Debug)]
enum Walk {
    Head,
    After(Option<Bytes>),
    Done,
}

impl SnapshotSource {
    pub(crate) fn new(cell: Arc<Cell>, state: &mut State, meta: SnapshotMeta) -> Self {
        if let Some(start) = meta.last_log_id {
            *state.sending.entry(start.index).or_default() += 1;
        }
        Self {
            cell,
            meta,
            buffer: BytesMut::new(),
            chunks: 0,
            pairs: 0,
            walk: Walk::Head,
        }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.cell.group
    }

    /// Last log id and membership.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The next chunk, of at most 256 KiB and its head; `None` after the last one.
    ///
    /// # Errors
    /// When the storage is poisoned, or the state is being replaced.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        while self.buffer.len() < CHUNK_MAX && !matches!(self.walk, Walk::Done) {
            self.step()?;
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let payload = self.buffer.split_to(self.buffer.len().min(CHUNK_MAX));
        let chunk = stream::chunk(self.chunks, &payload);
        self.chunks += 1;
        Ok(Some(chunk))
    }

    fn step(&mut self) -> io::Result<()> {
        let after = match &self.walk {
            Walk::Head => {
                let head = Record::Head {
                    group: self.cell.group,
                    meta: self.meta.clone(),
                };
                stream::put(&head, &mut self.buffer)?;
                self.walk = Walk::After(None);
                return Ok(());
            }
            Walk::After(after) => after.clone(),
            Walk::Done => return Ok(()),
        };
        let (pairs, end) = {
            let state = self.cell.state.read();
            self.cell.check(&state)?;
            let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let scan = Scan {
                start,
                end: Bound::Unbounded,
                limit: WALK_PAIRS,
                bytes_max: CHUNK_MAX,
                reverse: false,
            };
            // A state that is fuzzy itself makes a snapshot that is fuzzy at least as far.
            (
                self.cell.scan(&state, scan)?,
                state.applied.index().max(state.applied.fuzzy_end),
            )
        };
        match pairs.last() {
            Some((last, _)) => self.walk = Walk::After(Some(last.clone())),
            None => {
                stream::put(
                    &Record::Trailer {
                        end,
                        pairs: self.pairs,
                    },
                    &mut self.buffer,
                )?;
                self.walk = Walk::Done;
            }
        }
        for (key, value) in pairs {
            if planted!("snapshot-without-dedup") && key.starts_with(b"D") {
                continue;
            }
            self.pairs += 1;
            stream::put(&Record::Pair { key, value }, &mut self.buffer)?;
        }
        Ok(())
    }
}

impl Drop for SnapshotSource {
    fn drop(&mut self) {
        let Some(start) = self.meta.last_log_id else {
            return;
        };
        let mut state = self.cell.state.write();
        if let Some(count) = state.sending.get_mut(&start.index) {
            *count -= 1;
            if *count == 0 {
                state.sending.remove(&start.index);
            }
        }
    }
}
