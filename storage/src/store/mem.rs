//! An ordered map in memory: for model tests, and for nodes that keep nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{KeyWrite, StateStore, is_empty_range};

/// A store without durability: [`StateStore::flush`] does nothing.
#[derive(Default)]
pub struct MemStore {
    map: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl fmt::Debug for MemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemStore")
    }
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateStore for MemStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.map.read().get(key).cloned())
    }

    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        Ok(scan_map(&self.map.read(), start, end, limit, reverse))
    }

    fn apply(&self, writes: Vec<KeyWrite>) -> io::Result<()> {
        apply_map(&mut self.map.write(), writes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn scan_map(
    map: &BTreeMap<Bytes, Bytes>,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
    limit: usize,
    reverse: bool,
) -> Vec<(Bytes, Bytes)> {
    if is_empty_range(start, end) {
        return Vec::new();
    }
    let pairs = map
        .range::<[u8], _>((start, end))
        .map(|(k, v)| (k.clone(), v.clone()));
    if reverse {
        pairs.rev().take(limit).collect()
    } else {
        pairs.take(limit).collect()
    }
}

pub(super) fn apply_map(map: &mut BTreeMap<Bytes, Bytes>, writes: Vec<KeyWrite>) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}
