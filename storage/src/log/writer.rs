//! The log writer: takes what is queued, writes it in one piece, syncs once, answers in order.
//!
//! Invariant: nothing is answered before the sync that covers it, and a segment is reused only after what made it
//! free is durable. There is no timer: a batch is whatever queued while the previous sync ran.
//! After the first error nothing is written any more; everything queued is answered with the reason.
//! Not here: who calls it (`driver`) and what readers see meanwhile (`state`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use clinch_types::{codec, fp, planted};

use super::Shared;
use super::frame::{self, HEADER, Head, Kind};
use super::segment::{self, Segment};
use super::state::{Live, LogState, Op, Released};
use crate::disk::Disk;
use crate::raft::{LogId, Vote, term_of};
use crate::wire::{LogIdWire, encode_payload, encode_vote};
use crate::{GroupId, StorageOptions, metric_names};

/// A segment's first life is filled with zeros this far ahead, so that a sync seldom has to write a new length.
const ZERO_STEP: u64 = 1 << 20;

/// Body of [`Kind::Segment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentHead {
    /// The segment before this one, and where its data end.
    pub(crate) prev: Option<(u64, u64)>,
    /// How many [`Kind::Group`] frames follow; a group without one is gone.
    pub(crate) groups: u32,
}

/// Body of [`Kind::Group`]: what older segments say about a group besides its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct GroupHead {
    pub(crate) vote: Option<[u8; crate::wire::VOTE_LEN]>,
    pub(crate) committed: Option<LogIdWire>,
    pub(crate) purged: Option<LogIdWire>,
    /// First and last index of the entries.
    pub(crate) range: Option<(u64, u64)>,
}

/// A group as of the last frame that was encoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriterGroup {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) range: Option<(u64, u64)>,
}

impl WriterGroup {
    fn head(&self) -> GroupHead {
        GroupHead {
            vote: self.vote.as_ref().map(encode_vote),
            committed: self.committed.map(LogIdWire::from),
            purged: self.purged.map(LogIdWire::from),
            range: self.range,
        }
    }

    pub(crate) fn appended(&mut self, index: u64) {
        self.range = Some((self.range.map_or(index, |(first, _)| first), index));
    }

    pub(crate) fn truncated(&mut self, last: Option<u64>) {
        self.range = match (self.range, last) {
            (Some((first, old)), Some(last)) if last >= first => Some((first, last.min(old))),
            _ => None,
        };
    }

    pub(crate) fn purged(&mut self, upto: LogId) {
        self.purged = Some(upto);
        self.range = self
            .range
            .filter(|(_, last)| *last > upto.index)
            .map(|(first, last)| (first.max(upto.index + 1), last));
    }

    /// The last index there is, purged or not.
    fn last(&self) -> Option<u64> {
        self.range
            .map(|(_, last)| last)
            .max(self.purged.map(|id| id.index))
    }
}

/// The segment being written.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) segment: Arc<Segment>,
    /// Where the next frame goes.
    pub(crate) pos: u64,
    /// Bytes of the file that are there, as zeros or data.
    pub(crate) filled: u64,
    /// Whether something was written since the last sync.
    pub(crate) dirty: bool,
    /// The batch whose [`Kind::Synced`] mark was written last.
    pub(crate) marked: Option<u64>,
}

/// Where the writer goes on after recovery.
#[derive(Debug, Default)]
pub(crate) struct WriterState {
    pub(crate) current: Option<Current>,
    pub(crate) groups: BTreeMap<GroupId, WriterGroup>,
    pub(crate) next_seq: u64,
    /// From 1, so that a frame of the first batch proves nothing about a batch before it.
    pub(crate) next_batch: u64,
    /// Names of files that can be reused.
    pub(crate) free: VecDeque<String>,
}

/// What [`LogWriter::begin`] wrote and [`LogWriter::finish`] must sync and answer.
pub(crate) struct Work {
    ops: Vec<Op>,
    placed: Vec<Placed>,
    result: io::Result<()>,
    began: tokio::time::Instant,
}

struct Placed {
    group: GroupId,
    index: u64,
    ticket: u64,
    segment: u64,
    offset: u64,
    bytes: u64,
}

/// See the module.
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    options: StorageOptions,
    state: WriterState,
    buf: Vec<u8>,
    /// Where the last frame in `buf` starts.
    last_frame: usize,
    /// `buf` holds nothing but the head of a new segment.
    only_head: bool,
    /// Free segments some reader still holds.
    doomed: Vec<Arc<Segment>>,
}

impl LogWriter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        options: StorageOptions,
        state: WriterState,
    ) -> Self {
        Self {
            shared,
            disk,
            options,
            state,
            buf: Vec::new(),
            last_frame: 0,
            only_head: false,
            doomed: Vec::new(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn sync_latency(&self) -> Duration {
        self.disk.sync_latency()
    }

    /// Takes what is queued, up to the batch limit, and writes it. `None` when there is nothing to do.
    pub(crate) fn begin(&mut self) -> Option<Work> {
        let (ops, hints) = self.take();
        if ops.is_empty() && hints.is_empty() {
            return None;
        }
        fp!("log.before_write");
        let mut work = Work {
            ops,
            placed: Vec::new(),
            result: Ok(()),
            began: tokio::time::Instant::now(),
        };
        work.result = self
            .shared
            .poison
            .check()
            .and_then(|()| self.write(&work.ops, hints, &mut work.placed));
        fp!("log.after_write");
        Some(work)
    }

    /// Syncs what [`Self::begin`] wrote and answers everybody.
    pub(crate) fn finish(&mut self, mut work: Work) {
        fp!("log.before_sync");
        let synced = std::mem::replace(&mut work.result, Ok(())).and_then(|()| {
            if planted!("no-sync") {
                return Ok(true);
            }
            self.sync()
        });
        fp!("log.after_sync");
        match &synced {
            Err(error) => drop(
                self.shared
                    .poison
                    .set(format!("the log cannot be written: {error}")),
            ),
            Ok(_) => {
                metrics::histogram!(metric_names::LOG_SYNC_SECONDS)
                    .record(work.began.elapsed().as_secs_f64());
                self.settle(&mut work);
            }
        }
        let answer = || self.shared.poison.check();
        for op in work.ops {
            match op {
                Op::Entries { done, .. } => {
                    fp!("log.before_answer");
                    done.io_completed(answer());
                }
                Op::Vote { done, .. } | Op::Forget { done, .. } | Op::Barrier { done } => {
                    // Whoever asked may be gone; the write stands.
                    let _ = done.send(answer());
                }
                Op::Truncate { .. } | Op::Purge { .. } => {}
            }
        }
        fp!("log.before_retire");
        self.retire_doomed();
        // More work proves the same by its own existence.
        if synced.is_ok_and(|synced| synced)
            && self.shared.state.lock().queue.is_empty()
            && let Err(error) = self.write_synced_mark()
        {
            self.shared
                .poison
                .set(format!("the log cannot be written: {error}"));
        }
    }

    fn take(&mut self) -> (Vec<Op>, BTreeMap<GroupId, LogId>) {
        let mut state = self.shared.state.lock();
        let mut ops = Vec::with_capacity(state.queue.len().min(1024));
        let mut bytes = 0;
        while bytes < self.options.batch_bytes
            && let Some(op) = state.queue.pop_front()
        {
            if let Op::Entries { entries, .. } = &op {
                bytes += entries
                    .iter()
                    .map(|e| HEADER + crate::wire::payload_len(&e.payload))
                    .sum::<usize>();
            }
            ops.push(op);
        }
        let mut hints = BTreeMap::new();
        // A hint alone is not worth a sync: it travels with the next batch, or with the last one.
        if !ops.is_empty() || state.stopping {
            for group in std::mem::take(&mut state.committed_dirty) {
                if let Some(committed) = state.groups.get(&group).and_then(|g| g.committed) {
                    hints.insert(group, committed);
                }
            }
        }
        (ops, hints)
    }

    fn write(
        &mut self,
        ops: &[Op],
        hints: BTreeMap<GroupId, LogId>,
        placed: &mut Vec<Placed>,
    ) -> io::Result<()> {
        for op in ops {
            self.encode(op, placed)?;
        }
        let mut later = BTreeSet::new();
        for (group, committed) in hints {
            // Entries up to the hint may still be queued; a hint beyond the log would be nonsense after a crash.
            let Some(known) = self
                .state
                .groups
                .get_mut(&group)
                .filter(|g| g.last() >= Some(committed.index))
            else {
                later.insert(group);
                continue;
            };
            known.committed = Some(committed);
            let head = Head {
                group,
                kind: Kind::Committed,
                term: term_of(&committed),
                index: committed.index,
            };
            self.frame(head, |_| Ok(()))?;
        }
        if !later.is_empty() {
            let mut state = self.shared.state.lock();
            // When stopping, nothing will come that could make the hint true.
            if !state.stopping {
                state.committed_dirty.append(&mut later);
            }
        }
        self.flush_buf()
    }

    fn encode(&mut self, op: &Op, placed: &mut Vec<Placed>) -> io::Result<()> {
        match op {
            Op::Entries {
                group,
                ticket,
                entries,
                ..
            } => {
                for (entry, ticket) in entries.iter().zip(*ticket..) {
                    let (group, index) = (*group, entry.log_id.index);
                    let head = Head {
                        group,
                        kind: Kind::Entry,
                        term: term_of(&entry.log_id),
                        index,
                    };
                    let (segment, offset, bytes) = self.frame(head, |buf| {
                        encode_payload(&entry.payload, buf).map_err(io::Error::other)
                    })?;
                    placed.push(Placed {
                        group,
                        index,
                        ticket,
                        segment,
                        offset,
                        bytes,
                    });
                    self.group(group).appended(index);
                }
            }
            Op::Vote { .. } if planted!("vote-forgotten") => {}
            Op::Vote { group, vote, .. } => {
                fp!("log.vote");
                let head = Head {
                    group: *group,
                    kind: Kind::Vote,
                    term: vote.leader_id.term,
                    index: 0,
                };
                self.frame(head, |buf| {
                    buf.extend_from_slice(&encode_vote(vote));
                    Ok(())
                })?;
                self.group(*group).vote = Some(*vote);
            }
            Op::Truncate { group, last, .. } => {
                fp!("log.truncate");
                // "Nothing is kept" is told by the term, which is not used otherwise.
                let (term, index) = last.map_or((0, 0), |last| (1, last));
                self.frame(
                    Head {
                        group: *group,
                        kind: Kind::Truncate,
                        term,
                        index,
                    },
                    |_| Ok(()),
                )?;
                self.group(*group).truncated(*last);
            }
            Op::Purge { group, upto, .. } => {
                fp!("log.purge");
                let head = Head {
                    group: *group,
                    kind: Kind::Purge,
                    term: term_of(upto),
                    index: upto.index,
                };
                self.frame(head, |_| Ok(()))?;
                self.group(*group).purged(*upto);
            }
            Op::Forget { group, .. } => {
                self.frame(
                    Head {
                        group: *group,
                        kind: Kind::Forget,
                        term: 0,
                        index: 0,
                    },
                    |_| Ok(()),
                )?;
                self.state.groups.remove(group);
            }
            Op::Barrier { .. } => {}
        }
        Ok(())
    }

    fn group(&mut self, group: GroupId) -> &mut WriterGroup {
        self.state.groups.entry(group).or_default()
    }

    /// Puts a frame into the buffer, in a new segment when the current one is full. Gives its segment, offset and
    /// length.
    fn frame(
        &mut self,
        head: Head,
        body: impl Fn(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<(u64, u64, u64)> {
        loop {
            let Some(current) = &self.state.current else {
                self.roll()?;
                continue;
            };
            let at = frame::open(&mut self.buf);
            body(&mut self.buf)?;
            // Room for the mark that the batch was synced is always kept.
            let end = current.pos + (self.buf.len() + HEADER) as u64;
            if end > self.options.segment_bytes && !self.only_head {
                self.buf.truncate(at);
                self.roll()?;
                continue;
            }
            let seq = current.segment.seq;
            frame::close(&mut self.buf, at, frame::seed(seq), self.state.next_batch, head);
            self.last_frame = at;
            self.only_head = false;
            return Ok((seq, current.pos + at as u64, (self.buf.len() - at) as u64));
        }
    }

    /// Finishes the current segment and starts the next one with its head.
    fn roll(&mut self) -> io::Result<()> {
        self.flush_buf()?;
        self.sync()?;
        let prev = self
            .state
            .current
            .take()
            .map(|current| (current.segment.seq, current.pos));
        let seq = self.state.next_seq;
        let name = segment::name(seq);
        fp!("log.roll");
        if let Some(free) = self.state.free.pop_front() {
            self.disk.rename(&free, &name)?;
            fp!("log.segment_renamed");
        }
        let file = self.disk.open(&name, true)?;
        // The new name must be durable before the first byte under it: under the old name these bytes would be
        // damage.
        self.disk.sync_dir(segment::DIR)?;
        fp!("log.segment_named");
        self.state.next_seq = seq + 1;
        let filled = file.len()?;
        let segment = Arc::new(Segment { seq, file });
        let live = Live {
            segment: Arc::clone(&segment),
            entries: 0,
        };
        self.shared.state.lock().segments.insert(seq, live);
        self.state.current = Some(Current {
            segment,
            pos: 0,
            filled,
            dirty: false,
            marked: None,
        });
        let groups = std::mem::take(&mut self.state.groups);
        let head = Head {
            group: GroupId::CONTROL,
            kind: Kind::Segment,
            term: 0,
            index: seq,
        };
        self.only_head = true;
        let count = u32::try_from(groups.len()).expect("group ids have 32 bits");
        self.head_frame(head, &SegmentHead { prev, groups: count })?;
        for (&group, state) in &groups {
            self.head_frame(
                Head {
                    group,
                    kind: Kind::Group,
                    term: 0,
                    index: 0,
                },
                &state.head(),
            )?;
        }
        self.state.groups = groups;
        Ok(())
    }

    fn head_frame<T: Encode>(&mut self, head: Head, value: &T) -> io::Result<()> {
        let body = codec::encode(value).map_err(io::Error::other)?;
        // However small the segment, its head goes into it.
        self.only_head = true;
        self.frame(head, |buf| {
            buf.extend_from_slice(&body);
            Ok(())
        })?;
        self.only_head = true;
        Ok(())
    }

    /// Writes the buffer as one batch, not yet synced.
    fn flush_buf(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let current = self
            .state
            .current
            .as_ref()
            .expect("frames are made for a segment");
        frame::mark_last(&mut self.buf, self.last_frame, frame::seed(current.segment.seq));
        metrics::histogram!(metric_names::LOG_BATCH_BYTES).record(self.buf.len() as f64);
        self.write_buf()?;
        self.state.next_batch += 1;
        Ok(())
    }

    fn write_buf(&mut self) -> io::Result<()> {
        let current = self
            .state
            .current
            .as_mut()
            .expect("frames are made for a segment");
        let end = current.pos + self.buf.len() as u64;
        if end > current.filled {
            let filled = (current.filled + ZERO_STEP)
                .min(self.options.segment_bytes)
                .max(end);
            let zeros = vec![0; usize::try_from(filled - end).map_err(io::Error::other)?];
            current.segment.file.write_at(end, &zeros)?;
            current.filled = filled;
        }
        current.segment.file.write_at(current.pos, &self.buf)?;
        current.dirty = true;
        current.pos = end;
        self.buf.clear();
        self.only_head = false;
        Ok(())
    }

    /// Makes the current segment durable; whether there was anything to do.
    fn sync(&mut self) -> io::Result<bool> {
        let Some(current) = self.state.current.as_mut().filter(|current| current.dirty) else {
            return Ok(false);
        };
        current.segment.file.sync_data()?;
        current.dirty = false;
        Ok(true)
    }

    /// Proof, for recovery, that the last batch was synced: without it, damage in that batch would look like a torn
    /// tail and an acknowledged entry would vanish in silence. Needs no sync of its own.
    fn write_synced_mark(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.state.current else {
            return Ok(());
        };
        let batch = self.state.next_batch - 1;
        // A sync of nothing but the mark itself needs no second one.
        if current.marked.replace(batch) == Some(batch) {
            return Ok(());
        }
        self.buf = frame::synced_mark(frame::seed(current.segment.seq), batch);
        self.write_buf()
    }

    /// Tells the readers where the entries are, and frees what is no longer needed.
    fn settle(&mut self, work: &mut Work) {
        let current = self.state.current.as_ref().map(|current| current.segment.seq);
        let mut state = self.shared.state.lock();
        for p in work.placed.drain(..) {
            state.placed(p.group, p.index, p.ticket, p.segment, p.offset, p.bytes);
        }
        for op in &mut work.ops {
            if let Op::Truncate { released, .. } | Op::Purge { released, .. } | Op::Forget { released, .. } =
                op
            {
                release(&mut state, released);
            }
        }
        state.shrink_cache();
        let dead: Vec<u64> = state
            .segments
            .iter()
            .filter(|(seq, live)| live.entries == 0 && Some(**seq) != current)
            .map(|(seq, _)| *seq)
            .collect();
        for seq in dead {
            if let Some(live) = state.segments.remove(&seq) {
                self.doomed.push(live.segment);
            }
        }
    }

    /// Makes segments nobody reads any more available for reuse.
    fn retire_doomed(&mut self) {
        // They are out of the shared map, so a count of one cannot grow again.
        let (ready, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.doomed)
            .into_iter()
            .partition(|segment| Arc::strong_count(segment) == 1);
        self.doomed = held;
        for segment in ready {
            let name = segment::name(segment.seq);
            let keep = self.state.free.len() < self.options.free_segments_max
                && segment
                    .file
                    .len()
                    .is_ok_and(|len| len <= self.options.segment_bytes);
            let free = segment::free_name(segment.seq);
            let result = if keep {
                self.disk.rename(&name, &free)
            } else {
                self.disk.remove(&name)
            };
            match result {
                Ok(()) if keep => self.state.free.push_back(free),
                Ok(()) => {}
                // Harmless: every frame in it is superseded, and the next start tries again.
                Err(error) => tracing::warn!(%name, %error, "free log segment cannot be put aside"),
            }
        }
    }
}

fn release(state: &mut LogState, released: &mut Released) {
    for (seq, entries) in std::mem::take(released) {
        if let Some(live) = state.segments.get_mut(&seq) {
            live.entries -= entries;
        }
    }
}
