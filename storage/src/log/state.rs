//! The log as raft sees it: which entries each group has, and the queue of what is not on disk yet.
//!
//! Invariant: the queue is in the order of the changes made here, because both happen under one lock; so the disk
//! sees the same history as the readers. Entries without a place on disk are always in memory.
//! Not here: bytes and files (`writer`, `frame`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::frame::HEADER;
use super::segment::Segment;
use crate::GroupId;
use crate::raft::{Entry, EntryPayload, IoFlushed, LogId, LogState as RaftLogState, Vote, log_id, term_of};
use crate::wire::payload_len;

/// Largest body of one frame: segments are addressed with 32 bits and read as a whole.
const ENTRY_MAX: usize = 256 << 20;

/// Something the writer must bring to disk.
pub(crate) enum Op {
    Entries {
        group: GroupId,
        ticket: u64,
        entries: Vec<Entry>,
        done: IoFlushed,
    },
    Vote {
        group: GroupId,
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// `last` is the last index there is then; `None` when no entry is left.
    Truncate {
        group: GroupId,
        last: Option<u64>,
        released: Released,
    },
    Purge {
        group: GroupId,
        upto: LogId,
        released: Released,
    },
    Forget {
        group: GroupId,
        released: Released,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Nothing to write: answers when everything queued before it is durable.
    Barrier { done: oneshot::Sender<io::Result<()>> },
}

/// How many entries of which segments are no longer needed once the operation that says so is durable.
pub(crate) type Released = BTreeMap<u64, u64>;

/// Where an entry is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Queued,
    At { segment: u64, offset: u64 },
}

/// One entry of a group.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    /// Tells this append from an earlier one of the same index.
    pub(crate) ticket: u64,
    /// Bytes of the frame, near enough while it is queued.
    pub(crate) bytes: u64,
    pub(crate) place: Place,
    pub(crate) body: Option<EntryPayload>,
}

/// The log of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// Index of `slots[0]`.
    pub(crate) first: u64,
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) bytes: u64,
}

impl GroupIndex {
    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(log_id(slot.term, self.first + self.slots.len() as u64 - 1)),
            None => self.purged,
        }
    }

    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The index the next entry must have; `None` when any will do.
    fn next_index(&self) -> Option<u64> {
        self.last_log_id().map(|id| id.index + 1)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// The log id of the last entry of each term in a range. (openraft's text says "first", its code "last".)
    pub(crate) fn key_log_ids(&self, first: u64, last: u64) -> Vec<LogId> {
        let mut out: Vec<LogId> = Vec::new();
        for index in first.max(self.first)..last.saturating_add(1).min(self.end()) {
            let id = log_id(self.slots[(index - self.first) as usize].term, index);
            match out.last_mut() {
                Some(prev) if term_of(prev) == term_of(&id) => *prev = id,
                _ => out.push(id),
            }
        }
        out
    }
}

/// A segment in use.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) segment: Arc<Segment>,
    /// Entries in it that are still needed.
    pub(crate) entries: u64,
}

/// One entry as found by [`LogState::read`].
pub(crate) enum Found {
    Memory(Entry),
    Disk {
        segment: Arc<Segment>,
        offset: u64,
        term: u64,
        index: u64,
    },
}

/// All groups, the queue, and the segments in use.
pub(crate) struct LogState {
    pub(crate) groups: BTreeMap<GroupId, GroupIndex>,
    pub(crate) queue: VecDeque<Op>,
    pub(crate) segments: BTreeMap<u64, Live>,
    /// Groups whose commit hint is newer than what the writer has seen.
    pub(crate) committed_dirty: BTreeSet<GroupId>,
    pub(crate) stopping: bool,
    /// Entries in memory, oldest first; may name entries that are gone.
    cache: VecDeque<(GroupId, u64, u64)>,
    cached_bytes: u64,
    cache_max: u64,
    next_ticket: u64,
}

impl LogState {
    pub(crate) fn new(
        groups: BTreeMap<GroupId, GroupIndex>,
        segments: BTreeMap<u64, Live>,
        cache_max: u64,
    ) -> Self {
        Self {
            groups,
            queue: VecDeque::new(),
            segments,
            committed_dirty: BTreeSet::new(),
            stopping: false,
            cache: VecDeque::new(),
            cached_bytes: 0,
            cache_max,
            // Recovered entries have ticket 0.
            next_ticket: 1,
        }
    }

    /// Makes entries readable and queues them. On error nothing has changed.
    pub(crate) fn append(&mut self, group: GroupId, entries: Vec<Entry>, done: IoFlushed) -> io::Result<()> {
        let index = self.groups.entry(group).or_default();
        let Some(head) = entries.first() else {
            self.queue.push_back(Op::Entries {
                group,
                ticket: self.next_ticket,
                entries,
                done,
            });
            return Ok(());
        };
        let start = head.log_id.index;
        let next = index.next_index().unwrap_or(start);
        if let Some((expected, entry)) = (next..)
            .zip(&entries)
            .find(|(expected, e)| e.log_id.index != *expected)
        {
            let text = format!(
                "group {group}: entry {} does not follow index {expected}",
                entry.log_id.index
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if let Some(len) = entries
            .iter()
            .map(|e| payload_len(&e.payload))
            .find(|len| *len > ENTRY_MAX)
        {
            let text = format!("group {group}: an entry has {len} bytes, at most {ENTRY_MAX} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if index.slots.is_empty() {
            index.first = start;
        }
        let ticket = self.next_ticket;
        self.next_ticket += entries.len() as u64;
        for (entry, ticket) in entries.iter().zip(ticket..) {
            let bytes = (HEADER + payload_len(&entry.payload)) as u64;
            index.bytes += bytes;
            self.cached_bytes += bytes;
            self.cache.push_back((group, entry.log_id.index, ticket));
            let (term, body) = (term_of(&entry.log_id), Some(entry.payload.clone()));
            index.slots.push_back(Slot {
                term,
                ticket,
                bytes,
                place: Place::Queued,
                body,
            });
        }
        self.queue.push_back(Op::Entries {
            group,
            ticket,
            entries,
            done,
        });
        Ok(())
    }

    pub(crate) fn truncate(&mut self, group: GroupId, last: Option<u64>) {
        let index = self.groups.entry(group).or_default();
        let mut released = Released::new();
        while !index.slots.is_empty() && last.is_none_or(|last| index.end() > last + 1) {
            let slot = index.slots.pop_back().expect("checked to be there");
            drop_slot(slot, &mut index.bytes, &mut self.cached_bytes, &mut released);
        }
        let last = index.slots.len().checked_sub(1).map(|at| index.first + at as u64);
        self.queue.push_back(Op::Truncate {
            group,
            last,
            released,
        });
    }

    pub(crate) fn purge(&mut self, group: GroupId, upto: LogId) {
        let index = self.groups.entry(group).or_default();
        if index.purged.is_some_and(|purged| purged >= upto) {
            return;
        }
        let mut released = Released::new();
        while !index.slots.is_empty() && index.first <= upto.index {
            let slot = index.slots.pop_front().expect("checked to be there");
            index.first += 1;
            drop_slot(slot, &mut index.bytes, &mut self.cached_bytes, &mut released);
        }
        index.purged = Some(upto);
        self.queue.push_back(Op::Purge {
            group,
            upto,
            released,
        });
    }

    pub(crate) fn forget(&mut self, group: GroupId, done: oneshot::Sender<io::Result<()>>) {
        let mut released = Released::new();
        if let Some(mut index) = self.groups.remove(&group) {
            for slot in index.slots.drain(..) {
                drop_slot(slot, &mut index.bytes, &mut self.cached_bytes, &mut released);
            }
        }
        self.committed_dirty.remove(&group);
        self.queue.push_back(Op::Forget {
            group,
            released,
            done,
        });
    }

    /// What is known of the entries of a range, in order, without a gap; stops once `bytes_max` is exceeded.
    pub(crate) fn read(&self, group: GroupId, start: u64, end: u64, bytes_max: u64) -> Vec<Found> {
        let Some(index) = self.groups.get(&group) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        let mut bytes = 0u64;
        for at in start.max(index.first)..end.min(index.end()) {
            let slot = &index.slots[(at - index.first) as usize];
            bytes += slot.bytes;
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(match (&slot.body, slot.place) {
                (Some(payload), _) => Found::Memory(Entry {
                    log_id: log_id(slot.term, at),
                    payload: payload.clone(),
                }),
                (None, Place::At { segment, offset }) => Found::Disk {
                    segment: Arc::clone(
                        &self
                            .segments
                            .get(&segment)
                            .expect("a segment with entries is kept")
                            .segment,
                    ),
                    offset,
                    term: slot.term,
                    index: at,
                },
                (None, Place::Queued) => unreachable!("queued entries are in memory"),
            });
        }
        out
    }

    /// The entry is on disk now. It may be gone from the log meanwhile: then it is dead where it lies.
    pub(crate) fn placed(
        &mut self,
        group: GroupId,
        index: u64,
        ticket: u64,
        segment: u64,
        offset: u64,
        bytes: u64,
    ) {
        let Some(log) = self.groups.get_mut(&group) else {
            return;
        };
        let Some(slot) = log.slot_mut(index).filter(|slot| slot.ticket == ticket) else {
            return;
        };
        slot.place = Place::At { segment, offset };
        let old = std::mem::replace(&mut slot.bytes, bytes);
        if slot.body.is_some() {
            self.cached_bytes = self.cached_bytes - old + bytes;
        }
        log.bytes = log.bytes - old + bytes;
        if let Some(live) = self.segments.get_mut(&segment) {
            live.entries += 1;
        }
    }

    /// Forgets bodies, oldest first, until the budget is met or an entry is reached that is not on disk yet.
    pub(crate) fn shrink_cache(&mut self) {
        while self.cached_bytes > self.cache_max {
            let Some(&(group, index, ticket)) = self.cache.front() else {
                return;
            };
            let slot = self.groups.get_mut(&group).and_then(|log| log.slot_mut(index));
            if let Some(slot) = slot.filter(|slot| slot.ticket == ticket) {
                if slot.place == Place::Queued {
                    return;
                }
                if slot.body.take().is_some() {
                    self.cached_bytes -= slot.bytes;
                }
            }
            self.cache.pop_front();
        }
    }

    /// Whether the writer may end: asked to stop, and nothing left to write.
    pub(crate) fn finished(&self) -> bool {
        self.stopping && self.queue.is_empty() && self.committed_dirty.is_empty()
    }

    pub(crate) fn raft_state(&self, group: GroupId) -> RaftLogState {
        let index = self.groups.get(&group);
        RaftLogState {
            last_purged_log_id: index.and_then(|g| g.purged),
            last_log_id: index.and_then(GroupIndex::last_log_id),
        }
    }
}

fn drop_slot(slot: Slot, bytes: &mut u64, cached_bytes: &mut u64, released: &mut Released) {
    *bytes -= slot.bytes;
    if slot.body.is_some() {
        *cached_bytes -= slot.bytes;
    }
    if let Place::At { segment, .. } = slot.place {
        *released.entry(segment).or_default() += 1;
    }
}
