//! Checkpoints: what has been applied goes into the state store, and only then may the log forget it.
//!
//! Invariant: before its first key is written, the store says that the group is fuzzy up to the new index, and that it is
//! there only after the last one. A crash in between is healed by replaying the log, like a snapshot taken during writes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use clinch_types::fp;

use super::applied::Applied;
use super::cell::{Cell, Phase};
use super::keys;
use super::overlay::Generation;
use crate::metric_names;
use crate::store::KeyWrite;

/// A checkpoint that is in the store but not durable yet.
#[derive(Debug)]
#[must_use = "without `finish` the group is stuck"]
pub(crate) struct Written {
    cell: Arc<Cell>,
    applied: Applied,
}

/// Writes what waits into the store, so many keys at once. `None` when nothing waits, or the group is busy with something else.
pub(crate) fn write(cell: &Arc<Cell>, keys_max: usize) -> io::Result<Option<Written>> {
    cell.poison.check()?;
    let (generation, old, applied) = {
        let mut state = cell.state.write();
        if state.applied == state.flushed || !cell.enter(&mut state, Phase::Checkpointing) {
            return Ok(None);
        }
        (
            state.overlay.freeze(),
            state.flushed.clone(),
            state.applied.clone(),
        )
    };
    // From here on an error poisons the storage, so it does not matter that the phase stays.
    cell.guard(write_generation(cell, &generation, keys_max, old, &applied))?;
    metrics::counter!(metric_names::CHECKPOINT_KEYS).increment(generation.len() as u64);
    Ok(Some(Written {
        cell: Arc::clone(cell),
        applied,
    }))
}

fn write_generation(
    cell: &Cell,
    generation: &Generation,
    keys_max: usize,
    old: Applied,
    new: &Applied,
) -> io::Result<()> {
    let fuzzy_end = new.index().max(old.fuzzy_end).max(new.fuzzy_end);
    let fuzzy = Applied { fuzzy_end, ..old };
    let mut writes = vec![record(cell, &fuzzy)?];
    fp!("checkpoint.before_write");
    for (key, held) in generation {
        if writes.len() >= keys_max {
            cell.store.apply(std::mem::take(&mut writes))?;
            fp!("checkpoint.part_written");
        }
        writes.push((keys::data(cell.group, key), held.value.clone()));
    }
    cell.store.apply(writes)?;
    fp!("checkpoint.keys_written");
    cell.store.apply(vec![record(cell, new)?])?;
    fp!("checkpoint.after_write");
    Ok(())
}

/// The write that says how far the group is.
pub(crate) fn record(cell: &Cell, applied: &Applied) -> io::Result<KeyWrite> {
    let bytes = applied.encode().map_err(io::Error::other)?;
    Ok((keys::applied(cell.group), Some(Bytes::from(bytes))))
}

impl Written {
    /// The store has been flushed: the log may forget what is in it.
    pub(crate) fn finish(self) {
        fp!("checkpoint.flushed");
        let mut state = self.cell.state.write();
        let before = state.overlay.cost();
        state.overlay.thaw();
        self.cell.waiting.moved(before, state.overlay.cost());
        state.flushed = self.applied;
        state.phase = Phase::Idle;
        drop(state);
        self.cell.idle.notify_waiters();
    }
}
