//! Bytes that change behind the log's back: cuts are healed, damage is reported, nothing is wrong in silence.

use std::sync::Arc;

use clinch_storage::raft::{Entry, LeaderId, Vote, log_id};
use clinch_storage::{Driver, GroupId, MemStore, OpenError, SimDisk, Storage};
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};

use crate::util::{append, entries, entry, open, queue};

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);
const FIRST: &str = "log/0000000000000001.seg";
/// Bytes of a frame's header, and where in it kind, group and index are.
const HEADER: usize = 44;

struct Frame {
    start: usize,
    end: usize,
    kind: u8,
    group: GroupId,
    index: u64,
}

const KIND_ENTRY: u8 = 3;
const KIND_VOTE: u8 = 4;
const KIND_SYNCED: u8 = 9;

/// The frames of a segment that is whole.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut out, mut start) = (Vec::new(), 0);
    while start + HEADER <= bytes.len() && u32_at(start) != 0 {
        let end = start + u32_at(start) as usize;
        let index = u64::from_le_bytes(bytes[start + 36..start + 44].try_into().unwrap());
        out.push(Frame {
            start,
            end,
            kind: bytes[start + 16],
            group: GroupId(u32_at(start + 12)),
            index,
        });
        start = end;
    }
    out
}

fn on(disk: &SimDisk) -> Result<Storage, OpenError> {
    open(Driver::Task, disk.mount(), Arc::new(MemStore::new()))
}

fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId { term, voted_for: 1 },
        committed: true,
    }
}

/// A log whose every record was acknowledged: batches of one and of several entries of two groups, and votes.
async fn written() -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::new(1);
    let storage = on(&disk).unwrap();
    let (mut a, ..) = storage.group(A).unwrap();
    let (mut b, ..) = storage.group(B).unwrap();
    for index in 0..4 {
        append(&mut a, vec![entry(A, 1, index, 20)]).await.unwrap();
    }
    a.save_vote(&vote(2)).await.unwrap();
    let (mut answers, mut next) = (Vec::new(), 0);
    for index in 4..7 {
        answers.push(queue(&mut a, vec![entry(A, 2, index, 30)]).await.unwrap());
        answers.push(
            queue(&mut b, vec![entry(B, 1, next, 5), entry(B, 1, next + 1, 5)])
                .await
                .unwrap(),
        );
        next += 2;
    }
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    b.save_vote(&vote(3)).await.unwrap();
    append(&mut a, vec![entry(A, 2, 7, 40)]).await.unwrap();
    drop((a, b, storage));
    // The writer ends: nothing is written after this.
    tokio::task::yield_now().await;
    disk.kill();
    let bytes = disk.read(FIRST).unwrap();
    (disk, bytes)
}

async fn log_of(storage: &Storage, group: GroupId) -> (Vec<Entry>, Option<Vote>) {
    let (mut log, ..) = storage.group(group).unwrap();
    (entries(&mut log).await.unwrap(), log.read_vote().await.unwrap())
}

/// What the frames that lie whole before `cut` say.
fn expected(frames: &[Frame], group: GroupId, cut: usize) -> (Vec<Entry>, Option<Vote>) {
    let (mut log, mut last_vote) = (Vec::new(), None);
    for frame in frames
        .iter()
        .filter(|frame| frame.end <= cut && frame.group == group)
    {
        match frame.kind {
            KIND_ENTRY => log.push(original(group, frame.index)),
            KIND_VOTE => last_vote = Some(vote(if group == A { 2 } else { 3 })),
            _ => {}
        }
    }
    (log, last_vote)
}

fn original(group: GroupId, index: u64) -> Entry {
    match (group, index) {
        (A, 0..4) => entry(A, 1, index, 20),
        (A, 7) => entry(A, 2, index, 40),
        (A, _) => entry(A, 2, index, 30),
        (_, _) => entry(B, 1, index, 5),
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_cut_at_any_byte_has_every_record_before_the_cut_and_nothing_else() {
    let (_, whole) = written().await;
    let frames = frames(&whole);
    let data_end = frames.last().unwrap().end;
    for cut in 0..=data_end {
        for zeroed in [false, true] {
            let mut bytes = whole[..cut].to_vec();
            if zeroed {
                bytes.resize(whole.len(), 0);
            }
            let disk = SimDisk::new(2);
            disk.overwrite(FIRST, bytes);
            let storage = on(&disk).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            for group in [A, B] {
                let found = log_of(&storage, group).await;
                assert_eq!(
                    found,
                    expected(&frames, group, cut),
                    "cut at {cut}, group {group}"
                );
            }
            // And the log goes on from there: what was cut never comes back.
            let (mut log, ..) = storage.group(A).unwrap();
            let (mut all, _) = log_of(&storage, A).await;
            all.push(entry(A, 9, all.len() as u64, 3));
            append(&mut log, vec![all.last().unwrap().clone()]).await.unwrap();
            disk.crash();
            drop((log, storage));
            let storage = on(&disk).unwrap_or_else(|e| panic!("cut at {cut}, second start: {e}"));
            assert_eq!(log_of(&storage, A).await.0, all, "cut at {cut}, second start");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_any_flipped_byte_every_acknowledged_record_is_there_or_the_damage_is_reported() {
    let (_, whole) = written().await;
    let frames = frames(&whole);
    let data_end = frames.last().unwrap().end;
    let (mut reported, mut healed) = (0, 0);
    for at in 0..data_end + 60 {
        for flip in [1u8 << (at % 8), 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let disk = SimDisk::new(2);
            disk.overwrite(FIRST, bytes);
            match on(&disk) {
                Ok(storage) => {
                    healed += 1;
                    for group in [A, B] {
                        let found = log_of(&storage, group).await;
                        assert_eq!(
                            found,
                            expected(&frames, group, data_end),
                            "byte {at}, group {group}"
                        );
                    }
                }
                Err(OpenError::Damaged { file, offset, .. }) => {
                    reported += 1;
                    assert_eq!(file, FIRST);
                    let hit = frames
                        .iter()
                        .find(|frame| frame.end > at)
                        .map_or(0, |frame| frame.start);
                    assert_eq!(
                        offset, hit as u64,
                        "the report names the frame that holds byte {at}"
                    );
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }
    let last = frames.last().unwrap();
    assert_eq!(last.kind, KIND_SYNCED);
    // Only what holds no record may be damaged without a report: the last mark, and what follows it.
    assert_eq!(
        (reported, healed),
        (2 * last.start, 2 * (data_end + 60 - last.start))
    );
}

/// A device may write the parts of an unfinished batch in any order: that is a torn tail, not damage.
#[tokio::test(start_paused = true)]
async fn a_hole_in_the_last_batch_is_damage_only_if_the_batch_was_synced() {
    let (_, whole) = written().await;
    let frames = frames(&whole);
    // The batch of nine entries: the run of entries that is longest.
    let first = frames
        .windows(3)
        .position(|w| w.iter().all(|f| f.kind == KIND_ENTRY))
        .unwrap();
    let end = frames[first..].iter().position(|f| f.kind != KIND_ENTRY).unwrap() + first;
    assert_eq!(frames[end].kind, KIND_SYNCED);
    let hole = &frames[first + 2];
    for keep_mark in [false, true] {
        let mut bytes = whole.clone();
        bytes[hole.start..hole.end].fill(0);
        let cut = if keep_mark {
            frames[end].end
        } else {
            frames[end].start
        };
        bytes[cut..].fill(0);
        let disk = SimDisk::new(2);
        disk.overwrite(FIRST, bytes);
        match on(&disk) {
            Ok(storage) => {
                assert!(!keep_mark, "the mark proves that the batch was synced");
                for group in [A, B] {
                    assert_eq!(
                        log_of(&storage, group).await,
                        expected(&frames, group, hole.start)
                    );
                }
                let rest = disk.read(FIRST).unwrap();
                assert!(
                    rest[hole.start + HEADER..].iter().all(|&b| b == 0),
                    "frames behind the hole are erased"
                );
            }
            Err(error) => {
                assert!(keep_mark, "{error}");
                assert!(
                    error.to_string().contains("a bad frame with valid ones after it"),
                    "{error}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn damage_in_an_older_segment_and_a_lost_segment_are_reported() {
    let disk = SimDisk::new(1);
    let storage = on(&disk).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    for index in 0..60 {
        append(&mut log, vec![entry(A, 1, index, 400)]).await.unwrap();
    }
    drop((log, storage));
    tokio::task::yield_now().await;
    disk.kill();
    let second = "log/0000000000000002.seg";
    let bytes = disk.read(second).unwrap();
    for frame in frames(&bytes) {
        let damaged = disk.fork(2);
        let mut bytes = bytes.clone();
        bytes[frame.start + 30] ^= 1;
        damaged.overwrite(second, bytes);
        let error = on(&damaged).unwrap_err();
        assert!(
            matches!(&error, OpenError::Damaged { file, .. } if file == second),
            "{error}"
        );
    }
    let lost = disk.fork(3);
    let mounted = lost.mount();
    mounted.remove(second).unwrap();
    let error = on(&lost).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    assert!(on(&disk).is_ok(), "the original is whole");
}

/// The creation of a segment is cut short at any byte: nothing in it was acknowledged, all before it is there.
#[tokio::test(start_paused = true)]
async fn a_segment_whose_creation_was_cut_short_is_dropped() {
    let disk = SimDisk::new(1);
    let storage = on(&disk).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    log.save_vote(&vote(4)).await.unwrap();
    let second = "log/0000000000000002.seg";
    let mut index = 0;
    while disk.read(second).is_none() {
        append(&mut log, vec![entry(A, 1, index, 400)]).await.unwrap();
        index += 1;
    }
    drop((log, storage));
    tokio::task::yield_now().await;
    disk.kill();
    let bytes = disk.read(second).unwrap();
    let first_entry = frames(&bytes)
        .into_iter()
        .find(|frame| frame.kind == KIND_ENTRY)
        .unwrap();
    for cut in 0..first_entry.end {
        let torn = disk.fork(2);
        torn.overwrite(second, bytes[..cut].to_vec());
        let storage = on(&torn).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let (found, found_vote) = log_of(&storage, A).await;
        assert_eq!(found.len() as u64, index - 1, "cut at {cut}");
        assert_eq!(found_vote, Some(vote(4)));
        let (mut log, ..) = storage.group(A).unwrap();
        append(
            &mut log,
            vec![entry(A, 1, index - 1, 400), entry(A, 1, index, 400)],
        )
        .await
        .unwrap();
        torn.crash();
        drop((log, storage));
        let storage = on(&torn).unwrap_or_else(|e| panic!("cut at {cut}, second start: {e}"));
        assert_eq!(
            log_of(&storage, A).await.0.last().unwrap().log_id,
            log_id(1, index)
        );
    }
}

/// A batch of which recovery kept a part is whole for ever after, even when nothing is written behind that part.
#[tokio::test(start_paused = true)]
async fn a_batch_cut_short_is_no_damage_once_the_next_segment_has_begun() {
    let (_, whole) = written().await;
    let frames = frames(&whole);
    let first = frames
        .windows(3)
        .position(|w| w.iter().all(|f| f.kind == KIND_ENTRY))
        .unwrap();
    let disk = SimDisk::new(2);
    disk.overwrite(FIRST, whole[..frames[first + 1].end + 5].to_vec());
    let storage = on(&disk).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    let mut all = entries(&mut log).await.unwrap();
    // Does not fit into what is left of the segment.
    all.push(entry(A, 5, all.len() as u64, 7800));
    append(&mut log, vec![all.last().unwrap().clone()]).await.unwrap();
    assert!(disk.names().contains(&"log/0000000000000002.seg".to_string()));
    disk.crash();
    let storage = on(&disk).unwrap();
    assert_eq!(log_of(&storage, A).await.0, all);
}
