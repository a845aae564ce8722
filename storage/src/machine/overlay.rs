//! What has been applied to a group but is not in the state store yet.
//!
//! Two generations: `active` takes the writes, `flushing` is on its way into the store. Invariant: while a
//! generation is being written to the store it still shadows every key it touches, so readers see one state,
//! however far the store is.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::Write;
use crate::store::is_empty_range;

/// What a key takes beside its bytes and those of its value: its place in the map, about.
const KEY_COST: u64 = 128;

/// What a key has become.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// `None`: it has no value any more.
    pub(crate) value: Option<Bytes>,
    /// Neither the store nor the older generation has a value: a delete needs no trace.
    fresh: bool,
}

/// One generation.
pub(crate) type Generation = BTreeMap<Bytes, Held>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    active: Generation,
    flushing: Option<Arc<Generation>>,
    active_bytes: u64,
    flushing_cost: u64,
}

impl Overlay {
    /// Applies one write. With `trust_fresh`, the hint that a key had no value before is believed.
    pub(crate) fn apply(&mut self, key: Bytes, write: Write, trust_fresh: bool) {
        let (value, hint) = match write {
            Write::Put(value) => (Some(value), false),
            Write::PutFresh(value) => (Some(value), trust_fresh),
            Write::Delete => (None, false),
        };
        let added = (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
        if let Some(held) = self.active.get_mut(&key) {
            self.active_bytes -= (key.len() + held.value.as_ref().map_or(0, Bytes::len)) as u64;
            if value.is_none() && held.fresh {
                self.active.remove(&key);
                return;
            }
            held.value = value;
        } else {
            let older = || self.flushing.as_ref().and_then(|flushing| flushing.get(&key));
            let fresh = hint && older().is_none_or(|held| held.value.is_none());
            self.active.insert(key, Held { value, fresh });
        }
        self.active_bytes += added;
    }

    /// What a key has become; `None` when only the store knows.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Held> {
        self.active.get(key).or_else(|| self.flushing.as_ref()?.get(key))
    }

    /// The keys of a range, in the order of the scan, the newer generation winning.
    pub(crate) fn range<'a>(
        &'a self,
        start: Bound<&'a [u8]>,
        end: Bound<&'a [u8]>,
        reverse: bool,
    ) -> Merged<'a> {
        let of = |map: &'a Generation| -> Box<dyn Iterator<Item = Pair<'a>> + 'a> {
            if is_empty_range(start, end) {
                return Box::new(std::iter::empty());
            }
            let range = map.range::<[u8], _>((start, end));
            if reverse {
                Box::new(range.rev())
            } else {
                Box::new(range)
            }
        };
        let newer = of(&self.active).peekable();
        let older = match &self.flushing {
            Some(flushing) => of(flushing),
            None => Box::new(std::iter::empty()),
        };
        Merged {
            newer,
            older: older.peekable(),
            reverse,
        }
    }

    /// Starts a checkpoint: what has been applied so far becomes the older generation.
    pub(crate) fn freeze(&mut self) -> Arc<Generation> {
        debug_assert!(self.flushing.is_none(), "one checkpoint at a time");
        self.flushing_cost = self.active_cost();
        self.active_bytes = 0;
        let frozen = Arc::new(std::mem::take(&mut self.active));
        self.flushing = Some(Arc::clone(&frozen));
        frozen
    }

    /// Ends a checkpoint: the store has the older generation.
    pub(crate) fn thaw(&mut self) {
        self.flushing = None;
        self.flushing_cost = 0;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Memory that both generations take, about, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        self.active_cost() + self.flushing_cost
    }

    fn active_cost(&self) -> u64 {
        self.active_bytes + self.active.len() as u64 * KEY_COST
    }

    /// Keys waiting for a checkpoint.
    pub(crate) fn keys(&self) -> usize {
        self.active.len()
    }

    /// Bytes of keys and values waiting for a checkpoint.
    pub(crate) fn bytes(&self) -> u64 {
        self.active_bytes
    }
}

type Pair<'a> = (&'a Bytes, &'a Held);

/// Both generations as one sequence.
pub(crate) struct Merged<'a> {
    newer: Peekable<Box<dyn Iterator<Item = Pair<'a>> + 'a>>,
    older: Peekable<Box<dyn Iterator<Item = Pair<'a>> + 'a>>,
    reverse: bool,
}

impl<'a> Iterator for Merged<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        let (Some((newer, _)), Some((older, _))) = (self.newer.peek(), self.older.peek()) else {
            return self.newer.next().or_else(|| self.older.next());
        };
        let order = if self.reverse {
            older.cmp(newer)
        } else {
            newer.cmp(older)
        };
        match order {
            std::cmp::Ordering::Less => self.newer.next(),
            std::cmp::Ordering::Greater => self.older.next(),
            std::cmp::Ordering::Equal => {
                self.older.next();
                self.newer.next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_fresh(overlay: &mut Overlay, key: &'static str, trust: bool) {
        overlay.apply(key.into(), Write::PutFresh("v".into()), trust);
    }

    fn delete(overlay: &mut Overlay, key: &'static str) {
        overlay.apply(key.into(), Write::Delete, true);
    }

    #[test]
    fn a_key_born_and_deleted_between_two_checkpoints_leaves_no_trace() {
        let mut overlay = Overlay::default();
        put_fresh(&mut overlay, "k", true);
        overlay.apply("k".into(), Write::Put("w".into()), true);
        delete(&mut overlay, "k");
        assert_eq!((overlay.keys(), overlay.bytes()), (0, 0));
    }

    #[test]
    fn a_delete_leaves_a_trace_when_the_hint_is_not_trusted_or_an_older_trace_is_there() {
        let mut overlay = Overlay::default();
        put_fresh(&mut overlay, "untrusted", false);
        delete(&mut overlay, "untrusted");
        delete(&mut overlay, "stored");
        put_fresh(&mut overlay, "stored", true);
        delete(&mut overlay, "stored");
        put_fresh(&mut overlay, "frozen", true);
        overlay.freeze();
        delete(&mut overlay, "frozen");
        overlay.apply("wrong".into(), Write::Put("v".into()), true);
        overlay.thaw();
        assert!(overlay.get(b"frozen").is_some_and(|held| held.value.is_none()));
        assert!(overlay.get(b"untrusted").is_none(), "went with its generation");
        let mut overlay = Overlay::default();
        overlay.apply("k".into(), Write::Put("v".into()), true);
        overlay.freeze();
        put_fresh(&mut overlay, "k", true);
        delete(&mut overlay, "k");
        assert!(overlay.get(b"k").is_some_and(|held| held.value.is_none()));
    }
}
