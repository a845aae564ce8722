//! The StateStore seam: an ordered map that survives a crash, if not the last moments before it.
//!
//! Invariant, held by one contract suite over all implementations: writes happen one after the other, and readers are not
//! held up by them; after [`StateStore::flush`] everything applied before survives power loss; without it, what survives is
//! the state after some earlier write, which may be one in the middle of a call.
//! Not here: which keys there are (`machine::keys`). The store is a checkpoint of the log, never the truth.

#[cfg(any(test, feature = "test-util"))]
mod disk;
mod mem;
mod sled;

use std::fmt;
use std::io;
use std::ops::Bound;

use bytes::Bytes;

#[cfg(any(test, feature = "test-util"))]
pub use self::disk::DiskStore;
pub use self::mem::MemStore;
pub use self::sled::SledStore;

/// One write: a key, and its value or none.
pub type KeyWrite = (Bytes, Option<Bytes>);

/// An ordered map of bytes. All calls may block. After an error the store is not used again.
pub trait StateStore: Send + Sync + fmt::Debug + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;
    /// The first `limit` pairs of a range in ascending order of keys, or the last ones in descending order.
    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> io::Result<Vec<(Bytes, Bytes)>>;
    /// Applies writes, in order, each for itself.
    fn apply(&self, writes: Vec<KeyWrite>) -> io::Result<()>;
    /// Makes everything applied so far durable.
    fn flush(&self) -> io::Result<()>;
}

/// Whether a range can hold a key at all; ordered maps panic on ranges that end before they start.
pub(crate) fn is_empty_range(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Included(s), Bound::Included(e)) => s > e,
        (Bound::Included(s), Bound::Excluded(e))
        | (Bound::Excluded(s), Bound::Included(e))
        | (Bound::Excluded(s), Bound::Excluded(e)) => s >= e,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
