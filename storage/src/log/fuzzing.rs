//! Whole segment files for the fuzzer: what recovery makes of arbitrary ones, on a disk in memory.

use std::fmt::Write as _;

use clinch_types::codec;

use super::frame::{self, HEADER, Head, Kind};
use super::recovery::{Recovered, recover};
use super::segment;
use super::state::Place;
use super::writer::{GroupHead, SegmentHead};
use crate::disk::SimDisk;
use crate::raft::{EntryPayload, LeaderId, Vote, log_id};
use crate::wire::{encode_payload, encode_vote, le_u32};
use crate::{BatchBuilder, GroupId};

/// Free segments that are kept.
const FREE_MAX: usize = 4;

/// Bytes as the only file of a log, and as files with sound checksums: nothing that was mutated would get past those.
pub(crate) fn segments(bytes: &[u8]) -> String {
    format!("{}; {}", ended(&sealed(bytes)), ended(&[bytes.to_vec()]))
}

/// What recovery finds can be read, and is found again after a power failure.
fn ended(files: &[Vec<u8>]) -> String {
    let disk = SimDisk::new(files.iter().map(|file| file.len() as u64).sum());
    for (seq, bytes) in (1..).zip(files) {
        disk.overwrite(&segment::name(seq), bytes.clone());
    }
    let first = match recover(&*disk.mount(), FREE_MAX) {
        Ok(found) => held(&found),
        Err(error) => return error.to_string(),
    };
    disk.crash();
    let again = recover(&*disk.mount(), FREE_MAX).expect("what was recovered is recovered again");
    assert_eq!(held(&again), first, "after a power failure");
    let (groups, entries) = (first.lines().count(), first.matches(" at ").count());
    // In letters: ways that differ in numbers alone count as one.
    format!("read {}{}", "g".repeat(groups.min(3)), "e".repeat(entries.min(3)))
}

/// All that is known of each group, in a line.
fn held(found: &Recovered) -> String {
    let mut text = String::new();
    let written = "a text can be written to";
    for (id, group) in &found.groups {
        let (vote, committed, purged) = (group.vote, group.committed, group.purged);
        write!(text, "{id}: {vote:?} {committed:?} {purged:?}").expect(written);
        for (index, slot) in (group.first..).zip(&group.slots) {
            let Place::At { segment, offset } = slot.place else {
                panic!("entry {index} of group {id} is not on the disk");
            };
            let segment = &found.segments[&segment].segment;
            let read = segment.read(offset, *id, slot.term, index);
            let read = read.map(|entry| format!("{entry:?}")).unwrap_or_else(|e| {
                // The frame is sound, so only what is in it may be wrong.
                let misplaced = ["impossible length", "wrong checksum", "another frame"];
                assert!(!misplaced.iter().any(|why| e.to_string().contains(why)), "{e}");
                "no entry".to_owned()
            });
            write!(text, " at {index} {read}").expect(written);
        }
        text.push('\n');
    }
    text
}

/// Cuts bytes into files wherever a frame begins a segment, and makes the checksums right. A frame that is longer than what
/// there is ends with it.
fn sealed(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let len = (le_u32(rest, 0) as usize).clamp(HEADER, rest.len());
        let (frame, behind) = rest.split_at(len);
        if frame[frame::KIND_AT] == Kind::Segment as u8 && files.iter().any(|file| !file.is_empty()) {
            files.push(Vec::new());
        }
        let seed = frame::seed(files.len() as u64);
        if let Some(file) = files.last_mut() {
            let at = file.len();
            file.extend_from_slice(frame);
            frame::seal(&mut file[at..], seed);
        }
        rest = behind;
    }
    if let Some(file) = files.last_mut() {
        file.extend_from_slice(rest);
    }
    files
}

/// A log as its writer leaves it: two segments, one behind the other.
pub(crate) fn sample() -> Vec<u8> {
    let group = GroupId(7);
    let vote = encode_vote(&Vote {
        leader_id: LeaderId {
            term: 2,
            voted_for: 1,
        },
        committed: true,
    });
    let mut put = BatchBuilder::new();
    put.put(b"k", b"v");
    let entry = |payload| {
        let mut body = Vec::new();
        encode_payload(&payload, &mut body).expect("a short payload");
        body
    };
    let batch = entry(EntryPayload::Normal(put.finish()));
    let start = |prev, groups| {
        let head = SegmentHead { prev, groups };
        codec::encode(&head).expect("a short head")
    };
    let group_head = |range| {
        let head = GroupHead {
            vote: Some(vote),
            committed: Some(log_id(2, 2).into()),
            purged: None,
            range,
        };
        codec::encode(&head).expect("a short head")
    };
    let mut first = Vec::new();
    append(
        &mut first,
        1,
        1,
        false,
        (GroupId::CONTROL, Kind::Segment, 0, 1),
        &start(None, 0),
    );
    append(&mut first, 1, 1, false, (group, Kind::Vote, 2, 0), &vote);
    append(
        &mut first,
        1,
        1,
        false,
        (group, Kind::Entry, 2, 1),
        &entry(EntryPayload::Blank),
    );
    append(&mut first, 1, 1, true, (group, Kind::Entry, 2, 2), &batch);
    append(&mut first, 1, 2, false, (group, Kind::Committed, 2, 2), &[]);
    append(&mut first, 1, 2, true, (group, Kind::Entry, 2, 3), &batch);
    first.extend(frame::synced_mark(frame::seed(1), 2));
    let end = first.len() as u64;
    let mut second = Vec::new();
    append(
        &mut second,
        2,
        3,
        false,
        (GroupId::CONTROL, Kind::Segment, 0, 2),
        &start(Some((1, end)), 1),
    );
    append(
        &mut second,
        2,
        3,
        false,
        (group, Kind::Group, 0, 0),
        &group_head(Some((1, 3))),
    );
    append(&mut second, 2, 3, false, (group, Kind::Truncate, 1, 2), &[]);
    append(&mut second, 2, 3, false, (group, Kind::Entry, 3, 3), &batch);
    append(&mut second, 2, 3, false, (group, Kind::Purge, 2, 1), &[]);
    append(&mut second, 2, 3, true, (GroupId(8), Kind::Forget, 0, 0), &[]);
    [first, second].concat()
}

/// Adds a frame of group, kind, term and index.
fn append(
    file: &mut Vec<u8>,
    seq: u64,
    batch: u64,
    last: bool,
    (group, kind, term, index): (GroupId, Kind, u64, u64),
    body: &[u8],
) {
    let head = Head {
        group,
        kind,
        term,
        index,
    };
    let at = frame::open(file);
    file.extend_from_slice(body);
    frame::close(file, at, frame::seed(seq), batch, head);
    if last {
        frame::mark_last(file, at, frame::seed(seq));
    }
}
