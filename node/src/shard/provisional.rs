//! What executed turns have written and the log has not yet committed.
//!
//! Turns run on this view: the next turn of an actor starts on the effects of the one before, long before they are
//! durable. Nobody outside the shard's owner ever reads it.
//! Not here: actors' states (their activation holds them) and dedup records (`dedup`).

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use bytes::Bytes;
use clinch_storage::GroupReader;
use parking_lot::Mutex;

/// Key → batch and value; `None` is a deletion.
type Writes = BTreeMap<Vec<u8>, (u64, Option<Bytes>)>;

/// Pending writes over the applied store. Shared between the shard's task and the turns it spawned.
pub(crate) struct Provisional {
    reader: GroupReader,
    writes: Mutex<Writes>,
}

impl Provisional {
    pub(crate) fn new(reader: GroupReader) -> Self {
        Self {
            reader,
            writes: Mutex::new(BTreeMap::new()),
        }
    }

    /// A turn whose effects travel in batch `seq` has written this.
    pub(crate) fn put(&self, key: Vec<u8>, seq: u64, value: Option<Bytes>) {
        self.writes.lock().insert(key, (seq, value));
    }

    /// Batch `seq` is applied: the store now has what it wrote.
    pub(crate) fn applied(&self, seq: u64, keys: impl IntoIterator<Item = Vec<u8>>) {
        let mut writes = self.writes.lock();
        for key in keys {
            if writes.get(&key).is_some_and(|(at, _)| *at <= seq) {
                writes.remove(&key);
            }
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        if let Some((_, value)) = self.writes.lock().get(key) {
            return Ok(value.clone());
        }
        // Between the two looks the batch may have been applied: then the store has it.
        self.reader.get(key)
    }

    /// Every applied pair whose key starts with `prefix`. For take-over only: nothing is pending then.
    pub(crate) fn scan_all(&self, prefix: &[u8]) -> io::Result<Vec<(Bytes, Bytes)>> {
        let end = super::keys::end_of(prefix);
        self.reader
            .scan(Bound::Included(prefix), Bound::Excluded(&end), usize::MAX, false)
    }

    /// Up to `limit` pairs of the range, in order (or from its end).
    pub(crate) fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        let pending: BTreeMap<Vec<u8>, Option<Bytes>> = {
            let writes = self.writes.lock();
            writes
                .range::<[u8], _>((start, end))
                .map(|(key, (_, value))| (key.clone(), value.clone()))
                .collect()
        };
        // Each pending deletion may hide one stored pair.
        let stored = self
            .reader
            .scan(start, end, limit.saturating_add(pending.len()), reverse)?;
        let mut merged: BTreeMap<Bytes, Bytes> = stored.into_iter().collect();
        for (key, value) in pending {
            match value {
                Some(value) => drop(merged.insert(Bytes::from(key), value)),
                None => drop(merged.remove(&key[..])),
            }
        }
        Ok(if reverse {
            merged.into_iter().rev().take(limit).collect()
        } else {
            merged.into_iter().take(limit).collect()
        })
    }
}
