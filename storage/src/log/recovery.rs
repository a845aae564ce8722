//! Reading the log back after a stop or a crash.
//!
//! Invariant: the result is what the writer had made durable, and possibly a prefix of its last, unfinished batch;
//! otherwise [`OpenError::Damaged`]. A bad frame is a torn tail only if nothing proves that its batch was synced:
//! the sync of batch n is proven by any valid frame of a later batch, and by the mark of n.
//!
//! Segments are freed out of order, so an old one may hold entries that were truncated, purged or overwritten
//! since. That is safe because every segment starts with all that older ones say besides entries: each group's
//! range cuts what is stale.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use clinch_types::{codec, fp, planted};

use super::frame::{self, HEADER, Header, Kind};
use super::segment::{self, Segment};
use super::state::{GroupIndex, Live, Place, Slot};
use super::writer::{Current, GroupHead, SegmentHead, WriterGroup, WriterState};
use crate::disk::{self, Disk};
use crate::raft::log_id;
use crate::wire::decode_vote;
use crate::{GroupId, OpenError};

/// The greatest index and number of a batch, with room for all that is counted from there. No writer gets that far, so what
/// is beyond is damage that the checksums did not see.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// What the log holds.
pub(super) struct Recovered {
    pub(super) groups: BTreeMap<GroupId, GroupIndex>,
    pub(super) segments: BTreeMap<u64, Live>,
    pub(super) writer: WriterState,
}

/// Where an entry is, and how long its frame.
struct Found {
    term: u64,
    segment: u64,
    offset: u64,
    bytes: u64,
}

#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupId, (WriterGroup, BTreeMap<u64, Found>)>,
    /// Groups the head of the segment being replayed has not named yet.
    unnamed: BTreeSet<GroupId>,
}

/// One segment, read.
struct Scan {
    bytes: Vec<u8>,
    frames: Vec<(usize, Header)>,
    /// Where the valid frames end.
    end: usize,
    /// Valid frames behind that end: offset after the frame, and the newest batch they prove to be synced.
    tail: Option<(usize, u64)>,
    /// The head of the segment, when all of it is there.
    head: Option<SegmentHead>,
}

impl Scan {
    /// The oldest batch of which there may be no frame, or not all.
    fn open_batch(&self) -> u64 {
        let ended = |h: &Header| h.last || h.kind == Kind::Synced;
        self.frames
            .last()
            .map_or(0, |(_, h)| h.batch + u64::from(ended(h)))
    }

    /// Where the bytes begin that one sync, the last one, was to make durable: the last batch, and the mark before it.
    fn unproven_from(&self) -> usize {
        let oldest = self.frames.last().map_or(0, |(_, h)| h.batch.saturating_sub(1));
        let first = self.frames.iter().find(|(_, h)| h.batch >= oldest);
        first.map_or(self.end, |(at, _)| *at)
    }

    /// The number of the next batch: what is there is ended by a mark, if not by itself.
    fn next_batch(&self) -> u64 {
        self.frames.last().map_or(0, |(_, h)| h.batch + 1)
    }
}

/// Reads the log and cuts its torn tail. Keeps at most `free_max` segments for reuse.
pub(super) fn recover(disk: &dyn Disk, free_max: usize) -> Result<Recovered, OpenError> {
    let listed = disk.list(segment::DIR).map_err(OpenError::io("list the log"))?;
    let mut free: VecDeque<String> = listed
        .iter()
        .filter(|n| n.starts_with("free-"))
        .map(|n| format!("{}/{n}", segment::DIR))
        .collect();
    let mut seqs: Vec<u64> = listed.iter().filter_map(|n| segment::seq_of(n)).collect();
    seqs.sort_unstable();
    let next_seq = seqs.last().map_or(1, |seq| seq + 1);
    // Names that a crash left in doubt must not vanish later.
    if !listed.is_empty() {
        disk.sync_dir(segment::DIR)
            .map_err(OpenError::io("sync the log's folder"))?;
    }
    drop_torn_creation(disk, &mut seqs)?;

    let mut replay = Replay::default();
    let mut segments = BTreeMap::new();
    let mut prev: Option<(u64, Scan)> = None;
    for (at, &seq) in seqs.iter().enumerate() {
        let name = segment::name(seq);
        let file = disk
            .open(&name, false)
            .map_err(OpenError::io(format!("open {name}")))?;
        let scan = scan(
            disk::read_all(&*file).map_err(OpenError::io(format!("read {name}")))?,
            seq,
        );
        check(&name, &scan, prev.as_ref(), at + 1 == seqs.len())?;
        replay.segment(seq, &scan)?;
        segments.insert(
            seq,
            Live {
                segment: Arc::new(Segment { seq, file }),
                entries: 0,
            },
        );
        // Only the ends are needed from here on.
        prev = Some((
            seq,
            Scan {
                bytes: Vec::new(),
                ..scan
            },
        ));
    }
    let (groups, writer_groups) = replay.finish(&mut segments)?;
    let mut writer = WriterState {
        groups: writer_groups,
        next_seq,
        next_batch: 1,
        ..WriterState::default()
    };
    if let Some((seq, scan)) = prev {
        let segment = Arc::clone(&segments[&seq].segment);
        writer.current = Some(cut(segment, &scan)?);
        writer.next_batch = scan.next_batch();
    }
    free_dead(
        disk,
        &mut segments,
        &mut free,
        writer.current.as_ref().map(|c| c.segment.seq),
    );
    while free.len() > free_max {
        if let Some(name) = free.pop_back()
            && let Err(error) = disk.remove(&name)
        {
            tracing::warn!(%name, %error, "free log segment cannot be removed");
        }
    }
    writer.free = free;
    Ok(Recovered {
        groups,
        segments,
        writer,
    })
}

/// Removes the newest segment when the crash came before its head was durable: nothing in it was acknowledged.
fn drop_torn_creation(disk: &dyn Disk, seqs: &mut Vec<u64>) -> Result<(), OpenError> {
    let Some(&seq) = seqs.last() else { return Ok(()) };
    let name = segment::name(seq);
    let file = disk
        .open(&name, false)
        .map_err(OpenError::io(format!("open {name}")))?;
    let scan = scan(
        disk::read_all(&*file).map_err(OpenError::io(format!("read {name}")))?,
        seq,
    );
    if scan.head.is_some() {
        return Ok(());
    }
    let first_batch = scan.frames.first().map(|(_, h)| h.batch);
    if let Some((_, proven)) = scan.tail
        && first_batch.is_none_or(|first| proven >= first)
        && (first_batch.is_some() || scan.tail_spans_batches(seq))
    {
        return Err(OpenError::damaged(
            name,
            scan.end as u64,
            "the head of the segment is damaged",
        ));
    }
    // Not kept for reuse: under a number used again, its frames could be taken for new ones.
    tracing::info!(%name, "removing a log segment whose creation was cut short");
    disk.remove(&name)
        .map_err(OpenError::io(format!("remove {name}")))?;
    disk.sync_dir(segment::DIR)
        .map_err(OpenError::io("sync the log's folder"))?;
    seqs.pop();
    Ok(())
}

impl Scan {
    /// Whether the valid frames behind a bad first one belong to more than one batch, or one of them is a mark:
    /// either proves that the first batch was synced.
    fn tail_spans_batches(&self, seq: u64) -> bool {
        let seed = frame::seed(seq);
        let mut first = None;
        let mut at = self.end;
        while at + HEADER <= self.bytes.len() {
            match frame::parse(&self.bytes[at..], seed) {
                Some((h, _)) if h.kind == Kind::Synced || first.is_some_and(|batch| batch != h.batch) => {
                    return true;
                }
                Some((h, _)) => {
                    first = Some(h.batch);
                    at += h.len;
                }
                None => at += 1,
            }
        }
        false
    }
}

fn scan(bytes: Vec<u8>, seq: u64) -> Scan {
    let seed = frame::seed(seq);
    let mut frames: Vec<(usize, Header)> = Vec::new();
    let mut at = 0;
    while let Some((header, _)) = frame::parse(&bytes[at..], seed) {
        let follows = match frames.last() {
            None => header.kind == Kind::Segment,
            // Also after a batch that recovery cut short: the mark ends it.
            Some((_, prev)) if header.kind == Kind::Synced => {
                prev.kind != Kind::Synced && header.batch == prev.batch
            }
            Some((_, prev)) if prev.last || prev.kind == Kind::Synced => header.batch == prev.batch + 1,
            Some((_, prev)) => header.batch == prev.batch,
        };
        if !follows || header.batch > NUMBER_MAX || (header.kind == Kind::Segment && at > 0) {
            break;
        }
        frames.push((at, header));
        at += header.len;
    }
    let mut scan = Scan {
        bytes,
        frames,
        end: at,
        tail: None,
        head: None,
    };
    while at + HEADER <= scan.bytes.len() {
        match frame::parse(&scan.bytes[at..], seed) {
            Some((header, _)) => {
                at += header.len;
                let proven = if header.kind == Kind::Synced {
                    header.batch
                } else {
                    header.batch.saturating_sub(1)
                };
                let proven = scan.tail.map_or(proven, |(_, p)| p.max(proven));
                scan.tail = Some((at, proven));
            }
            None => at += 1,
        }
    }
    scan.head = read_head(&scan);
    scan
}

fn read_head(scan: &Scan) -> Option<SegmentHead> {
    let (at, header) = scan.frames.first()?;
    let head: SegmentHead = codec::decode(&scan.bytes[at + HEADER..at + header.len]).ok()?;
    let groups = scan.frames[1..]
        .iter()
        .take_while(|(_, h)| h.kind == Kind::Group)
        .count();
    (groups == head.groups as usize).then_some(head)
}

/// Refuses a segment that lost something which was synced, or whose predecessor did.
fn check(name: &str, scan: &Scan, prev: Option<&(u64, Scan)>, newest: bool) -> Result<(), OpenError> {
    if planted!("damage-ignored") && scan.head.is_some() {
        return Ok(());
    }
    let Some(head) = scan.head else {
        return Err(OpenError::damaged(
            name,
            scan.end as u64,
            "the head of the segment is damaged",
        ));
    };
    if let Some((prev_seq, prev)) = prev {
        let prev_name = segment::name(*prev_seq);
        match head.prev {
            Some((seq, end)) if seq == *prev_seq && end != prev.end as u64 => {
                let reason = format!("its data reach to byte {end}");
                return Err(OpenError::damaged(prev_name, prev.end as u64, reason));
            }
            Some((seq, _)) if seq == *prev_seq && scan.frames[0].1.batch != prev.next_batch() => {
                return Err(OpenError::damaged(
                    name,
                    0,
                    "its first batch does not follow the segment before",
                ));
            }
            _ => {}
        }
    }
    if let Some((_, proven)) = scan.tail
        && proven >= scan.open_batch()
    {
        return Err(OpenError::damaged(
            name,
            scan.end as u64,
            "a bad frame with valid ones after it",
        ));
    }
    if !newest
        && scan
            .frames
            .last()
            .is_some_and(|(_, h)| !h.last && h.kind != Kind::Synced)
    {
        return Err(OpenError::damaged(
            name,
            scan.end as u64,
            "its last batch is cut short",
        ));
    }
    Ok(())
}

/// Makes what was found durable, and erases what follows it.
fn cut(segment: Arc<Segment>, scan: &Scan) -> Result<Current, OpenError> {
    fp!("log.before_cut");
    let name = segment::name(segment.seq);
    let failed = |source| OpenError::Io {
        action: format!("cut {name}"),
        source,
    };
    let filled = segment.file.len().map_err(failed)?;
    let end = scan.end as u64;
    let mut head = [0; HEADER];
    let there = segment.file.read_at(end, &mut head).map_err(failed)?;
    // Valid frames of the torn batch must not come to life behind shorter new ones; a remnant of anything else
    // can never become valid, so the next header is enough.
    let erase_to = scan.tail.map_or(
        if frame::is_end(&head[..there]) {
            end
        } else {
            end + HEADER as u64
        },
        |t| t.0 as u64,
    );
    if erase_to > end {
        tracing::info!(%name, end, "cutting the torn tail of the log");
        let len =
            usize::try_from(erase_to.min(filled) - end).map_err(|e| failed(std::io::Error::other(e)))?;
        segment.file.write_at(end, &vec![0; len]).map_err(failed)?;
    }
    // After a mere crash of the process the bytes may be in the page cache only, and raft will rely on them. If that
    // crash was a failed sync, the kernel may even count them as written: only writing them again makes them so.
    let unproven = match planted!("sync-not-repeated") {
        true => scan.end,
        false => scan.unproven_from(),
    };
    let mut again = vec![0; scan.end - unproven];
    disk::read_exact_at(&*segment.file, unproven as u64, &mut again).map_err(failed)?;
    segment.file.write_at(unproven as u64, &again).map_err(failed)?;
    segment.file.sync_data().map_err(failed)?;
    let marked = scan.frames.last().map(|(_, h)| h.batch);
    let mut current = Current {
        segment,
        pos: end,
        filled,
        dirty: false,
        marked,
    };
    if scan.frames.last().is_some_and(|(_, h)| h.kind != Kind::Synced) {
        // Now it is synced, and if it was cut short, this is where it ends.
        let mark = frame::synced_mark(frame::seed(current.segment.seq), scan.next_batch() - 1);
        current.segment.file.write_at(end, &mark).map_err(failed)?;
        current.pos += mark.len() as u64;
        current.filled = current.filled.max(current.pos);
        current.dirty = true;
        if scan.open_batch() != scan.next_batch() {
            // A batch without an end must get it before the next one begins, or the next one would prove that
            // something is missing here.
            current.segment.file.sync_data().map_err(failed)?;
            current.dirty = false;
        }
    }
    Ok(current)
}

fn free_dead(
    disk: &dyn Disk,
    segments: &mut BTreeMap<u64, Live>,
    free: &mut VecDeque<String>,
    current: Option<u64>,
) {
    let dead: Vec<u64> = segments
        .iter()
        .filter(|(s, l)| l.entries == 0 && Some(**s) != current)
        .map(|(s, _)| *s)
        .collect();
    for seq in dead {
        segments.remove(&seq);
        let (name, free_name) = (segment::name(seq), segment::free_name(seq));
        match disk.rename(&name, &free_name) {
            Ok(()) => free.push_back(free_name),
            Err(error) => tracing::warn!(%name, %error, "free log segment cannot be put aside"),
        }
    }
}

impl Replay {
    fn segment(&mut self, seq: u64, scan: &Scan) -> Result<(), OpenError> {
        for (at, header) in &scan.frames {
            let body = &scan.bytes[at + HEADER..at + header.len];
            self.frame(seq, *at as u64, header, body)
                .map_err(|reason| OpenError::damaged(segment::name(seq), *at as u64, reason))?;
        }
        Ok(())
    }

    fn frame(&mut self, seq: u64, offset: u64, header: &Header, body: &[u8]) -> Result<(), String> {
        if !matches!(header.kind, Kind::Segment | Kind::Group) {
            for gone in std::mem::take(&mut self.unnamed) {
                self.groups.remove(&gone);
            }
        }
        if header.index > NUMBER_MAX {
            return Err(format!(
                "index {}, at most {NUMBER_MAX} is possible",
                header.index
            ));
        }
        let id = log_id(header.term, header.index);
        match header.kind {
            Kind::Segment => {
                self.unnamed = self.groups.keys().copied().collect();
                return Ok(());
            }
            Kind::Synced => return Ok(()),
            Kind::Forget => {
                self.groups.remove(&header.group);
                return Ok(());
            }
            Kind::Group | Kind::Entry | Kind::Vote | Kind::Committed | Kind::Truncate | Kind::Purge => {}
        }
        let (group, entries) = self.groups.entry(header.group).or_default();
        match header.kind {
            Kind::Group => {
                self.unnamed.remove(&header.group);
                let head: GroupHead = codec::decode(body).map_err(|e| e.to_string())?;
                group.vote = head
                    .vote
                    .map(|v| decode_vote(&v))
                    .transpose()
                    .map_err(|e| e.to_string())?;
                group.committed = head.committed.map(Into::into);
                group.purged = head.purged.map(Into::into);
                group.range = head.range;
                check_range(group)?;
                keep_range(group, entries);
            }
            Kind::Entry => {
                let expected = group
                    .range
                    .map(|(_, last)| last)
                    .max(group.purged.map(|p| p.index))
                    .map(|i| i + 1);
                if expected.is_some_and(|expected| expected != header.index) {
                    return Err(format!(
                        "entry {} of group {} out of order",
                        header.index, header.group
                    ));
                }
                let bytes = header.len as u64;
                entries.insert(
                    header.index,
                    Found {
                        term: header.term,
                        segment: seq,
                        offset,
                        bytes,
                    },
                );
                group.appended(header.index);
            }
            Kind::Vote => group.vote = Some(decode_vote(body).map_err(|e| e.to_string())?),
            Kind::Committed => group.committed = Some(id),
            Kind::Truncate => {
                group.truncated((header.term == 1).then_some(header.index));
                keep_range(group, entries);
            }
            Kind::Purge => {
                group.purged(id);
                keep_range(group, entries);
            }
            Kind::Segment | Kind::Synced | Kind::Forget => unreachable!("handled above"),
        }
        Ok(())
    }

    /// Checks that no entry is missing, and builds what the log works with.
    #[expect(clippy::type_complexity, reason = "the two halves of one result")]
    fn finish(
        mut self,
        segments: &mut BTreeMap<u64, Live>,
    ) -> Result<(BTreeMap<GroupId, GroupIndex>, BTreeMap<GroupId, WriterGroup>), OpenError> {
        for gone in std::mem::take(&mut self.unnamed) {
            self.groups.remove(&gone);
        }
        let (mut indexes, mut writer) = (BTreeMap::new(), BTreeMap::new());
        for (id, (mut group, entries)) in self.groups {
            let (first, end) = group.range.map_or((0, 0), |(first, last)| (first, last + 1));
            let front = group.purged.map_or(first, |purged| purged.index + 1);
            if let Some(hole) = (front.min(end)..end).find(|index| !entries.contains_key(index)) {
                let reason = format!(
                    "entry {hole} of group {id} is missing, the log holds {front} to {}",
                    end - 1
                );
                return Err(OpenError::damaged(segment::DIR, 0, reason));
            }
            let mut index = GroupIndex {
                vote: group.vote,
                purged: group.purged,
                first,
                ..GroupIndex::default()
            };
            for found in entries.into_values() {
                if let Some(live) = segments.get_mut(&found.segment) {
                    live.entries += 1;
                }
                index.bytes += found.bytes;
                let place = Place::At {
                    segment: found.segment,
                    offset: found.offset,
                };
                let slot = Slot {
                    term: found.term,
                    ticket: 0,
                    bytes: found.bytes,
                    place,
                    body: None,
                };
                index.slots.push_back(slot);
            }
            // The hint may be ahead of a log whose tail was cut.
            group.committed = group.committed.min(index.last_log_id());
            index.committed = group.committed;
            indexes.insert(id, index);
            writer.insert(id, group);
        }
        Ok((indexes, writer))
    }
}

/// Refuses a range that no group can have: backwards, beyond all numbers, or of entries that are purged.
fn check_range(group: &WriterGroup) -> Result<(), String> {
    let purged = group.purged.map(|id| id.index);
    let sound = match (purged, group.range) {
        (None, None) => true,
        (Some(purged), None) => purged <= NUMBER_MAX,
        (purged, Some((first, last))) => {
            first <= last && last <= NUMBER_MAX && purged.is_none_or(|purged| purged < first)
        }
    };
    match sound {
        true => Ok(()),
        false => Err(format!(
            "entries {:?} behind {purged:?} are impossible",
            group.range
        )),
    }
}

fn keep_range(group: &WriterGroup, entries: &mut BTreeMap<u64, Found>) {
    match group.range {
        None => entries.clear(),
        Some((first, last)) => entries.retain(|index, _| (first..=last).contains(index)),
    }
}
