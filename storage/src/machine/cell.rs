//! The applied state of one group: overlay and store as one map, and how far it is.
//!
//! Invariant: `flushed` describes what is durable in the store, `applied` what readers see. At most one of
//! checkpoint and snapshot install is under way. Shared by the machine, the readers and the checkpointer.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::applied::Applied;
use super::keys::{self, PREFIX};
use super::overlay::{Held, Overlay};
use super::waiting::Waiting;
use crate::GroupId;
use crate::error::Poison;
use crate::store::{StateStore, is_empty_range};

/// Pairs asked of the store at a time, at first and at most: small, because values may be large.
const FETCH_MIN: usize = 16;
const FETCH_MAX: usize = 1024;
/// Below this many bytes in a fetch, the next one asks for more pairs.
const FETCH_SMALL: usize = 64 << 10;

/// What is being done to a group besides applying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Checkpointing,
    /// A snapshot replaces the state: there is nothing to read.
    Installing,
    /// The state store lost what the log has purged: there is nothing to read until a snapshot is installed.
    Lost,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) applied: Applied,
    pub(crate) flushed: Applied,
    pub(crate) overlay: Overlay,
    pub(crate) phase: Phase,
    /// Start indexes of the snapshots being sent, and how many of each.
    pub(crate) sending: BTreeMap<u64, u32>,
}

pub(crate) struct Cell {
    pub(crate) group: GroupId,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) poison: Poison,
    /// Of all groups together.
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) state: RwLock<State>,
    /// Told whenever the phase goes back to idle.
    pub(crate) idle: Notify,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({})", self.group)
    }
}

impl Cell {
    pub(crate) fn new(
        group: GroupId,
        store: Arc<dyn StateStore>,
        poison: Poison,
        waiting: Arc<Waiting>,
        stored: Applied,
        lost: bool,
    ) -> Self {
        let state = State {
            applied: stored.clone(),
            flushed: stored,
            overlay: Overlay::default(),
            phase: if lost { Phase::Lost } else { Phase::Idle },
            sending: BTreeMap::new(),
        };
        Self {
            group,
            store,
            poison,
            waiting,
            state: RwLock::new(state),
            idle: Notify::new(),
        }
    }

    /// Turns an error of the store into poison.
    pub(crate) fn guard<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| self.poison.set(format!("state of group {}: {error}", self.group)))
    }

    /// Errs when there is no state to read.
    pub(crate) fn check(&self, state: &State) -> io::Result<()> {
        self.poison.check()?;
        let why = match state.phase {
            Phase::Idle | Phase::Checkpointing => return Ok(()),
            Phase::Installing => "is being replaced by a snapshot",
            Phase::Lost => "was lost and must be rebuilt from a peer",
        };
        Err(io::Error::other(format!(
            "the state of group {} {why}",
            self.group
        )))
    }

    /// Errs when the state must not be served.
    pub(crate) fn check_ready(&self, state: &State) -> io::Result<()> {
        self.check(state)?;
        if state.applied.is_whole() {
            return Ok(());
        }
        let (applied, end) = (state.applied.index(), state.applied.fuzzy_end);
        let text = format!(
            "group {} is at entry {applied:?} and serves from {end:?} on",
            self.group
        );
        Err(io::Error::new(io::ErrorKind::WouldBlock, text))
    }

    pub(crate) fn get(&self, state: &State, key: &[u8]) -> io::Result<Option<Bytes>> {
        match state.overlay.get(key) {
            Some(held) => Ok(held.value.clone()),
            None => self.guard(self.store.get(&keys::data(self.group, key))),
        }
    }

    /// Up to `limit` pairs of a range; stops early once they have `bytes_max` bytes.
    pub(crate) fn scan(&self, state: &State, scan: Scan<'_>) -> io::Result<Vec<(Bytes, Bytes)>> {
        let mut out = Output {
            pairs: Vec::new(),
            bytes: 0,
            scan,
        };
        if scan.limit == 0 || is_empty_range(scan.start, scan.end) {
            return Ok(out.pairs);
        }
        let mut overlay = state.overlay.range(scan.start, scan.end, scan.reverse).peekable();
        let (mut low, mut high) = keys::data_range(self.group, scan.start, scan.end);
        let mut fetch = FETCH_MIN;
        loop {
            let want = fetch.min(scan.limit);
            let found = self
                .store
                .scan(keys::as_slice(&low), keys::as_slice(&high), want, scan.reverse);
            let found = self.guard(found)?;
            let more = found.len() == want;
            let bytes: usize = found.iter().map(|(k, v)| k.len() + v.len()).sum();
            if bytes < FETCH_SMALL {
                fetch = (fetch * 2).min(FETCH_MAX);
            }
            if let Some((last, _)) = found.last() {
                let next = Bound::Excluded(last.clone());
                if scan.reverse { high = next } else { low = next }
            }
            for (key, value) in found {
                let key = key.slice(PREFIX..);
                while let Some((newer, held)) = overlay.next_if(|(newer, _)| scan.before(newer, &key)) {
                    if out.add_held(newer, held) {
                        return Ok(out.pairs);
                    }
                }
                let full = match overlay.next_if(|(newer, _)| **newer == key) {
                    Some((newer, held)) => out.add_held(newer, held),
                    None => out.add(key, value),
                };
                if full {
                    return Ok(out.pairs);
                }
            }
            if !more {
                for (newer, held) in overlay {
                    if out.add_held(newer, held) {
                        break;
                    }
                }
                return Ok(out.pairs);
            }
        }
    }

    /// Goes from idle (or, for an install, lost) into a phase; false when something else is under way.
    pub(crate) fn enter(&self, state: &mut State, phase: Phase) -> bool {
        let free = match state.phase {
            Phase::Idle => true,
            Phase::Lost => phase == Phase::Installing,
            Phase::Checkpointing | Phase::Installing => false,
        };
        if free {
            state.phase = phase;
        }
        free
    }
}

/// What [`Cell::scan`] looks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub(crate) start: Bound<&'a [u8]>,
    pub(crate) end: Bound<&'a [u8]>,
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
    pub(crate) reverse: bool,
}

impl Scan<'_> {
    fn before(&self, a: &[u8], b: &[u8]) -> bool {
        if self.reverse { a > b } else { a < b }
    }
}

struct Output<'a> {
    pairs: Vec<(Bytes, Bytes)>,
    bytes: usize,
    scan: Scan<'a>,
}

impl Output<'_> {
    fn add_held(&mut self, key: &Bytes, held: &Held) -> bool {
        match &held.value {
            Some(value) => self.add(key.clone(), value.clone()),
            None => false,
        }
    }

    /// Whether that was enough.
    fn add(&mut self, key: Bytes, value: Bytes) -> bool {
        self.bytes += key.len() + value.len();
        self.pairs.push((key, value));
        self.pairs.len() >= self.scan.limit || self.bytes >= self.scan.bytes_max
    }
}
