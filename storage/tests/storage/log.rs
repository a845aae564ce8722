//! The log as raft uses it, while nothing fails.

use std::sync::Arc;
use std::time::Duration;

use clinch_storage::raft::{LeaderId, Vote, log_id, term_of};
use clinch_storage::{Driver, GroupId, MemStore, SimDisk, SimFaults, Storage};
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};

use crate::util::{append, apply, entries, entry, open, queue};

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

fn on(disk: &SimDisk) -> Storage {
    open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap()
}

async fn reopen(storage: Storage, disk: &SimDisk) -> Storage {
    storage.sync_log().await.unwrap();
    drop(storage);
    disk.crash();
    on(disk)
}

#[tokio::test(start_paused = true)]
async fn votes_entries_and_purges_of_all_groups_survive_power_loss() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let vote = Vote {
        leader_id: LeaderId {
            term: 3,
            voted_for: 2,
        },
        committed: true,
    };
    for group in [A, B] {
        let (mut log, ..) = storage.group(group).unwrap();
        log.save_vote(&vote).await.unwrap();
        for index in 0..60 {
            append(&mut log, vec![entry(group, 1, index, 400)]).await.unwrap();
        }
        log.save_committed(Some(log_id(1, 40))).await.unwrap();
        log.purge(log_id(1, 29)).await.unwrap();
        log.truncate_after(Some(log_id(1, 49))).await.unwrap();
        append(&mut log, vec![entry(group, 2, 50, 10)]).await.unwrap();
    }
    let storage = reopen(storage, &disk).await;
    assert_eq!(storage.groups(), [A, B]);
    for group in [A, B] {
        let (mut log, ..) = storage.group(group).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 40)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!(
            (state.last_purged_log_id, state.last_log_id),
            (Some(log_id(1, 29)), Some(log_id(2, 50)))
        );
        let mut expected: Vec<_> = (30..50).map(|index| entry(group, 1, index, 400)).collect();
        expected.push(entry(group, 2, 50, 10));
        assert_eq!(entries(&mut log).await.unwrap(), expected);
        let keys = log.get_key_log_ids(log_id(1, 30)..=log_id(2, 50)).await.unwrap();
        assert_eq!(keys, [log_id(1, 49), log_id(2, 50)]);
    }
}

#[tokio::test(start_paused = true)]
async fn appended_entries_are_readable_before_they_are_durable_and_acknowledged_in_order() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut log, ..) = storage.group(A).unwrap();
    let before = disk.syncs();
    let mut answers = Vec::new();
    for index in 0..50 {
        answers.push(queue(&mut log, vec![entry(A, 1, index, 20)]).await.unwrap());
        assert_eq!(
            log.get_log_state().await.unwrap().last_log_id,
            Some(log_id(1, index))
        );
    }
    assert_eq!(entries(&mut log).await.unwrap().len(), 50);
    assert_eq!(disk.syncs(), before, "nothing is on disk yet");
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(disk.syncs(), before + 1, "one sync for everybody who waited");
}

#[tokio::test(start_paused = true)]
async fn the_log_reuses_its_segments_instead_of_growing() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut log, ..) = storage.group(A).unwrap();
    for index in 0..600 {
        append(&mut log, vec![entry(A, 1, index, 500)]).await.unwrap();
        if index % 10 == 9 {
            log.purge(log_id(1, index)).await.unwrap();
        }
    }
    storage.sync_log().await.unwrap();
    let files = disk
        .names()
        .into_iter()
        .filter(|name| name.starts_with("log/"))
        .count();
    assert!(files <= 6, "{files} files for an almost empty log");
    assert!(
        disk.names()
            .iter()
            .any(|name| name > &"log/0000000000000030.seg".to_string()),
        "segments were rolled"
    );
    let storage = reopen(storage, &disk).await;
    let (mut log, ..) = storage.group(A).unwrap();
    assert_eq!(
        log.get_log_state().await.unwrap().last_log_id,
        Some(log_id(1, 599))
    );
}

/// Segments are freed out of order: a slow group keeps its old ones, and what was truncated or removed in freed
/// segments in between must not come back.
#[tokio::test(start_paused = true)]
async fn what_a_freed_segment_truncated_or_removed_stays_gone() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut slow, ..) = storage.group(A).unwrap();
    let (mut log, ..) = storage.group(B).unwrap();
    let (mut removed, mut machine, _) = storage.group(GroupId(3)).unwrap();
    // All three in the first segment, where the slow group stays.
    append(&mut slow, vec![entry(A, 1, 0, 10)]).await.unwrap();
    append(&mut log, (0..8).map(|index| entry(B, 1, index, 10)).collect())
        .await
        .unwrap();
    append(
        &mut removed,
        (0..8).map(|index| entry(GroupId(3), 1, index, 10)).collect(),
    )
    .await
    .unwrap();
    apply(&mut machine, vec![entry(GroupId(3), 1, 0, 10)])
        .await
        .unwrap();
    drop((removed, machine));
    let (mut filler, ..) = storage.group(GroupId(4)).unwrap();
    let mut next = 0;
    for round in 0..2 {
        // Rolls, does something that is said only in the new segment, and frees that segment.
        for _ in 0..40 {
            append(&mut filler, vec![entry(GroupId(4), 1, next, 500)])
                .await
                .unwrap();
            next += 1;
        }
        if round == 0 {
            log.truncate_after(Some(log_id(1, 3))).await.unwrap();
            storage.remove_group(GroupId(3)).await.unwrap();
        }
        for _ in 0..40 {
            append(&mut filler, vec![entry(GroupId(4), 1, next, 500)])
                .await
                .unwrap();
            next += 1;
        }
        filler.purge(log_id(1, next - 1)).await.unwrap();
        storage.sync_log().await.unwrap();
    }
    let segments = disk
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".seg"))
        .count();
    assert!(segments <= 3, "{segments} segments: those in between were freed");
    let storage = reopen(storage, &disk).await;
    assert_eq!(storage.groups(), [A, B, GroupId(4)]);
    let (mut slow, ..) = storage.group(A).unwrap();
    assert_eq!(entries(&mut slow).await.unwrap(), [entry(A, 1, 0, 10)]);
    let (mut log, ..) = storage.group(B).unwrap();
    assert_eq!(
        entries(&mut log).await.unwrap(),
        (0..4).map(|i| entry(B, 1, i, 10)).collect::<Vec<_>>()
    );
    append(&mut log, vec![entry(B, 2, 4, 10)]).await.unwrap();
    assert_eq!(
        log.get_log_state()
            .await
            .unwrap()
            .last_log_id
            .map(|id| term_of(&id)),
        Some(2)
    );
}

#[tokio::test(start_paused = true)]
async fn entries_beyond_the_memory_budget_are_read_back_from_disk() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut log, ..) = storage.group(A).unwrap();
    let expected: Vec<_> = (0..100).map(|index| entry(A, 1, index, 300)).collect();
    for chunk in expected.chunks(7) {
        append(&mut log, chunk.to_vec()).await.unwrap();
    }
    assert_eq!(entries(&mut log).await.unwrap(), expected);
    // The budget holds a handful; bytes flipped on disk must show, which proves where the entry came from.
    let name = disk
        .names()
        .into_iter()
        .find(|name| name.ends_with("01.seg"))
        .unwrap();
    let mut bytes = disk.read(&name).unwrap();
    bytes[300] ^= 1;
    disk.overwrite(&name, bytes);
    let error = entries(&mut log).await.unwrap_err();
    assert!(error.to_string().contains("wrong checksum"), "{error}");
    assert!(storage.poisoned().borrow().is_some(), "never go on with a guess");
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_the_log_is_refused_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut log, ..) = storage.group(A).unwrap();
    append(&mut log, vec![entry(A, 1, 0, 10), entry(A, 1, 1, 10)])
        .await
        .unwrap();
    let error = append(&mut log, vec![entry(A, 1, 3, 10)]).await.unwrap_err();
    assert!(error.to_string().contains("does not follow index 2"), "{error}");
    append(&mut log, vec![entry(A, 1, 2, 10)]).await.unwrap();
    assert_eq!(entries(&mut log).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_entry_larger_than_a_segment_is_kept() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut log, ..) = storage.group(A).unwrap();
    let expected = vec![entry(A, 1, 0, 10), entry(A, 1, 1, 50_000), entry(A, 1, 2, 10)];
    append(&mut log, expected.clone()).await.unwrap();
    let storage = reopen(storage, &disk).await;
    let (mut log, ..) = storage.group(A).unwrap();
    assert_eq!(entries(&mut log).await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn reads_for_replication_are_bounded_but_never_empty() {
    let disk = SimDisk::new(1);
    let mut options = crate::util::small_options(Driver::Task);
    options.read_bytes_max = 1000;
    let storage = Storage::open(options, disk.mount(), Arc::new(MemStore::new())).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    append(
        &mut log,
        (0..10)
            .map(|index| entry(A, 1, index, if index == 5 { 4000 } else { 300 }))
            .collect(),
    )
    .await
    .unwrap();
    assert_eq!(log.limited_get_log_entries(0, 10).await.unwrap().len(), 2);
    assert_eq!(log.limited_get_log_entries(5, 10).await.unwrap().len(), 1);
    use futures_util::TryStreamExt as _;
    let all: Vec<_> = log.entries_stream(2..9).await.try_collect().await.unwrap();
    assert_eq!(
        all,
        (2..9)
            .map(|i| entry(A, 1, i, if i == 5 { 4000 } else { 300 }))
            .collect::<Vec<_>>()
    );
}

/// A purge arrives while an earlier batch is being synced, and the power fails before the purge is: the segments it
/// empties must still be there, because the entries come back.
#[tokio::test(start_paused = true)]
async fn a_segment_is_not_given_away_before_the_purge_that_emptied_it_is_durable() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let storage = on(&disk);
        let (mut log, ..) = storage.group(A).unwrap();
        for index in 0..60 {
            append(&mut log, vec![entry(A, 1, index, 400)]).await.unwrap();
        }
        let latency = Duration::from_millis(10);
        disk.set_faults(SimFaults {
            sync_latency: (latency, latency),
            ..SimFaults::default()
        });
        let answer = queue(&mut log, vec![entry(A, 1, 60, 400)]).await.unwrap();
        tokio::time::sleep(latency / 2).await;
        log.purge(log_id(1, 59)).await.unwrap();
        answer.await.unwrap().unwrap();
        // The batch with the purge is being synced now.
        tokio::time::sleep(latency / 2).await;
        disk.crash();
        drop((log, storage));
        let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new()));
        let storage = storage.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let (mut log, ..) = storage.group(A).unwrap();
        assert_eq!(
            log.get_log_state().await.unwrap().last_log_id,
            Some(log_id(1, 60))
        );
        let first = if entries(&mut log).await.unwrap().len() == 1 {
            60
        } else {
            0
        };
        assert_eq!(
            entries(&mut log).await.unwrap(),
            (first..61).map(|i| entry(A, 1, i, 400)).collect::<Vec<_>>()
        );
    }
}
