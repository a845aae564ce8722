//! A session: the source of request ids, and the knowledge of which of them are settled.
//!
//! Invariant: a number is settled only when its caller has the answer or has given up for good; owners forget the
//! dedup records below the lowest number that is not.

use std::collections::BTreeSet;

use clinch_types::{RequestId, SessionId};
use parking_lot::Mutex;

/// Draws request ids.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

/// A request id in use; settles its number when dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    session: &'a Session,
    seq: u64,
}

impl Session {
    /// A session under this id; the id must not be in use elsewhere.
    pub fn new(id: SessionId) -> Self {
        Self {
            id,
            numbers: Mutex::new(Numbers {
                next: 1,
                open: BTreeSet::new(),
            }),
        }
    }

    /// Opens the next number. Returns it with the number below which all are settled.
    pub(crate) fn open(&self) -> (Ticket<'_>, u64) {
        let mut numbers = self.numbers.lock();
        let seq = numbers.next;
        numbers.next += 1;
        numbers.open.insert(seq);
        let acked_below = numbers.open.first().copied().unwrap_or(seq);
        (Ticket { session: self, seq }, acked_below)
    }
}

impl Ticket<'_> {
    pub(crate) fn request(&self) -> RequestId {
        RequestId {
            session: self.session.id,
            seq: self.seq,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.session.numbers.lock().open.remove(&self.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_stays_below_every_open_number() {
        let session = Session::new(SessionId(7));
        let (first, floor) = session.open();
        assert_eq!((first.seq, floor), (1, 1));
        let (second, floor) = session.open();
        assert_eq!((second.seq, floor), (2, 1));
        drop(second);
        let (third, floor) = session.open();
        assert_eq!((third.seq, floor), (3, 1));
        drop(first);
        let (_fourth, floor) = session.open();
        assert_eq!(floor, 3);
    }
}
