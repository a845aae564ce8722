//! Snapshots: taken while writes go on, carried in chunks, installed as a whole.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use clinch_storage::raft::{Entry, EntryPayload, Snapshot, SnapshotMeta, log_id};
use clinch_storage::{
    BatchBuilder, DiskStore, Driver, GroupId, GroupMachine, GroupReader, SimDisk, SimFaults, SnapshotData,
    SnapshotSink, Storage,
};
use openraft::storage::{RaftLogStorage as _, RaftSnapshotBuilder as _, RaftStateMachine as _};

use crate::util::{append, apply, entry, get, open, put};

const A: GroupId = GroupId(1);

fn on(disk: &SimDisk) -> Storage {
    open(
        Driver::Task,
        disk.mount(),
        Arc::new(DiskStore::open(disk.mount()).unwrap()),
    )
    .unwrap()
}

async fn build(machine: &mut GroupMachine) -> Snapshot {
    machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap()
}

fn chunks(data: SnapshotData) -> Vec<Bytes> {
    let mut source = data.into_source().unwrap();
    std::iter::from_fn(|| source.next_chunk().unwrap()).collect()
}

fn receive(storage: &Storage, meta: &SnapshotMeta, chunks: &[Bytes]) -> SnapshotData {
    let mut sink = SnapshotSink::begin(storage, A, meta.clone()).unwrap();
    for chunk in chunks {
        sink.write_chunk(chunk.clone()).unwrap();
    }
    sink.finish().unwrap()
}

/// As [`receive`], in pieces that have nothing to do with the chunks.
fn receive_cut(storage: &Storage, meta: &SnapshotMeta, chunks: &[Bytes], piece: usize) -> SnapshotData {
    let mut sink = SnapshotSink::begin(storage, A, meta.clone()).unwrap();
    for piece in chunks.concat().chunks(piece) {
        sink.write(piece).unwrap();
    }
    sink.finish().unwrap()
}

fn all(reader: &GroupReader) -> Vec<(Bytes, Bytes)> {
    reader
        .scan(Bound::Unbounded, Bound::Unbounded, usize::MAX, false)
        .unwrap()
}

/// An entry that writes some keys of a hundred and deletes others.
fn churn(index: u64) -> Entry {
    let mut builder = BatchBuilder::new();
    for n in 0..20 {
        let key = (index * 37 + n * 11) % 100;
        if (index + n).is_multiple_of(3) {
            builder.delete(format!("k{key:02}").as_bytes());
        } else {
            builder.put(
                format!("k{key:02}").as_bytes(),
                vec![index as u8; 20_000].as_slice(),
            );
        }
    }
    Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(builder.finish()),
    }
}

/// The law: a snapshot walked while writes go on, plus the entries from its start to its end, is the state at its
/// end; and nothing is served in between.
#[tokio::test(start_paused = true)]
async fn a_snapshot_taken_during_writes_and_replayed_to_its_end_is_the_state() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, leader_reader) = source.group(A).unwrap();
    apply(&mut leader, (0..10).map(churn).collect()).await.unwrap();
    let snapshot = build(&mut leader).await;
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 9)));
    let mut walk = snapshot.snapshot.into_source().unwrap();
    let (mut received, mut next) = (Vec::new(), 10);
    while let Some(chunk) = walk.next_chunk().unwrap() {
        assert!(chunk.len() <= (256 << 10) + 8);
        received.push(chunk);
        apply(&mut leader, vec![churn(next)]).await.unwrap();
        next += 1;
        if next == 13 {
            source.checkpoint_blocking().unwrap();
        }
    }
    assert!(next > 13, "the walk took {} chunks", received.len());
    let target = on(&to);
    let (_, mut follower, reader) = target.group(A).unwrap();
    apply(
        &mut follower,
        vec![put(1, 0, &[("stale", Some("gone afterwards"))])],
    )
    .await
    .unwrap();
    let data = receive_cut(&target, &snapshot.meta, &received, 1200);
    follower.install_snapshot(&snapshot.meta, data).await.unwrap();
    let (applied, _) = follower.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 9)));
    let mut at = 10;
    while !reader.ready() {
        assert!(
            reader.get(b"k00").is_err() && reader.scan(Bound::Unbounded, Bound::Unbounded, 1, false).is_err()
        );
        apply(&mut follower, vec![churn(at)]).await.unwrap();
        at += 1;
    }
    assert!(at > 10 && at <= next, "ready at {at} of {next}");
    while at < next {
        apply(&mut follower, vec![churn(at)]).await.unwrap();
        at += 1;
    }
    assert_eq!(all(&reader), all(&leader_reader));
    target.checkpoint_blocking().unwrap();
    assert_eq!(all(&reader), all(&leader_reader));
}

/// The store may already hold a key that is "fresh" at an entry below the snapshot's end: a delete must reach it.
#[tokio::test(start_paused = true)]
async fn the_hint_that_a_key_is_fresh_is_ignored_below_the_end_of_a_snapshot() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, _) = source.group(A).unwrap();
    apply(&mut leader, vec![put(1, 0, &[("a", Some("1"))])])
        .await
        .unwrap();
    let snapshot = build(&mut leader).await;
    let mut born = BatchBuilder::new();
    born.put_fresh(b"request", b"dedup record");
    let born = Entry {
        log_id: log_id(1, 1),
        payload: EntryPayload::Normal(born.finish()),
    };
    // Born after the snapshot's start, seen by its walk, deleted after.
    apply(&mut leader, vec![born.clone()]).await.unwrap();
    let received = chunks(snapshot.snapshot);
    let target = on(&to);
    let (_, mut follower, reader) = target.group(A).unwrap();
    let data = receive(&target, &snapshot.meta, &received);
    follower.install_snapshot(&snapshot.meta, data).await.unwrap();
    assert!(!reader.ready());
    apply(&mut follower, vec![born]).await.unwrap();
    assert_eq!(get(&reader, "request").as_deref(), Some("dedup record"));
    apply(&mut follower, vec![put(1, 2, &[("request", None)])])
        .await
        .unwrap();
    assert_eq!(
        get(&reader, "request"),
        None,
        "the old value must not shine through"
    );
    target.checkpoint_blocking().unwrap();
    assert_eq!(get(&reader, "request"), None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_anywhere_is_received_and_one_that_ends_in_a_chunk_is_refused() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, _) = source.group(A).unwrap();
    apply(&mut leader, vec![churn(0)]).await.unwrap();
    let snapshot = build(&mut leader).await;
    let meta = snapshot.meta.clone();
    let chunks = chunks(snapshot.snapshot);
    let whole = chunks.concat();
    let target = on(&to);
    for piece in [1, 7, 8, 9, 1200, whole.len()] {
        receive_cut(&target, &meta, &chunks, piece);
    }
    let mut sink = SnapshotSink::begin(&target, A, meta.clone()).unwrap();
    sink.write(&whole).unwrap();
    sink.write(&[9]).unwrap();
    assert!(sink.finish().unwrap_err().to_string().contains("not complete"));
    let mut sink = SnapshotSink::begin(&target, A, meta).unwrap();
    let error = sink.write(&u32::MAX.to_le_bytes().repeat(2)).unwrap_err();
    assert!(error.to_string().contains("chunk 0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn chunks_that_are_damaged_missing_or_of_another_snapshot_are_refused() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, _) = source.group(A).unwrap();
    apply(&mut leader, (0..20).map(churn).collect()).await.unwrap();
    let snapshot = build(&mut leader).await;
    let meta = snapshot.meta.clone();
    let chunks = chunks(snapshot.snapshot);
    assert!(chunks.len() > 2);
    let target = on(&to);
    let mut flipped = chunks[0].to_vec();
    flipped[100] ^= 1;
    let mut sink = SnapshotSink::begin(&target, A, meta.clone()).unwrap();
    assert!(
        sink.write_chunk(flipped.into())
            .unwrap_err()
            .to_string()
            .contains("chunk 0")
    );
    drop(sink);
    let mut sink = SnapshotSink::begin(&target, A, meta.clone()).unwrap();
    sink.write_chunk(chunks[0].clone()).unwrap();
    assert!(
        sink.write_chunk(chunks[2].clone())
            .unwrap_err()
            .to_string()
            .contains("chunk 1")
    );
    drop(sink);
    let mut sink = SnapshotSink::begin(&target, A, meta.clone()).unwrap();
    sink.write_chunk(chunks[0].clone()).unwrap();
    assert!(sink.finish().unwrap_err().to_string().contains("not complete"));
    let other = SnapshotMeta {
        last_log_id: Some(log_id(7, 7)),
        ..meta.clone()
    };
    let mut sink = SnapshotSink::begin(&target, A, other).unwrap();
    assert!(
        sink.write_chunk(chunks[0].clone())
            .unwrap_err()
            .to_string()
            .contains("another snapshot")
    );
    drop(sink);
    assert!(target.poisoned().borrow().is_none(), "a bad peer does not poison");
    drop(receive(&target, &meta, &chunks));
    assert!(
        !to.names().iter().any(|name| name.starts_with("snap/")),
        "nothing is left over: {:?}",
        to.names()
    );
}

/// Power fails at every single operation of an install: afterwards the group has the old state or the new one, and
/// once the marker is there it is the new one.
#[tokio::test(start_paused = true)]
async fn an_install_cut_short_anywhere_is_redone_at_the_next_start() {
    let from = SimDisk::new(1);
    let source = on(&from);
    let (_, mut leader, leader_reader) = source.group(A).unwrap();
    apply(&mut leader, (0..20).map(churn).collect()).await.unwrap();
    let snapshot = build(&mut leader).await;
    let meta = snapshot.meta.clone();
    let chunks = chunks(snapshot.snapshot);
    let expected = all(&leader_reader);

    let (mut redone, mut old, mut finished) = (0, 0, false);
    for operation in 0.. {
        for seed in 0..3 {
            let disk = SimDisk::new(seed);
            let storage = on(&disk);
            let (mut log, mut machine, reader) = storage.group(A).unwrap();
            append(&mut log, (0..3).map(|i| entry(A, 1, i, 5)).collect())
                .await
                .unwrap();
            apply(&mut machine, vec![put(1, 0, &[("old", Some("state"))])])
                .await
                .unwrap();
            storage.checkpoint_blocking().unwrap();
            let data = receive(&storage, &meta, &chunks);
            disk.set_faults(SimFaults {
                power_fails_after: Some(operation),
                ..SimFaults::default()
            });
            let installed = machine.install_snapshot(&meta, data).await;
            finished |= installed.is_ok();
            assert_eq!(installed.is_ok(), !disk.is_off());
            if installed.is_err() {
                assert!(reader.get(b"old").is_err(), "half a state is not served");
            }
            disk.crash();
            let marker = disk
                .names()
                .iter()
                .any(|name| name.starts_with("snap/install-") && !name.ends_with(".tmp"));
            let storage = on(&disk);
            let (_, mut machine, reader) = storage.group(A).unwrap();
            assert_eq!(storage.needs_rebuild(), []);
            assert!(reader.ready());
            if machine.applied_state().await.unwrap().0 == meta.last_log_id {
                assert_eq!(all(&reader), expected);
                redone += u32::from(marker);
            } else {
                assert!(!marker && installed.is_err());
                assert_eq!(get(&reader, "old").as_deref(), Some("state"));
                assert_eq!(all(&reader).len(), 1);
                old += 1;
            }
            assert!(
                !disk.names().iter().any(|name| name.starts_with("snap/")),
                "{:?}",
                disk.names()
            );
        }
        if finished {
            break;
        }
    }
    assert!(redone > 10 && old > 2, "{redone} redone, {old} not begun");
}

/// An error would end the group's replica: whoever wants a snapshot in the middle of an install gets one of its end.
#[tokio::test(start_paused = true)]
async fn a_snapshot_asked_for_during_an_install_waits_for_it() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, _) = source.group(A).unwrap();
    apply(&mut leader, (0..20).map(churn).collect()).await.unwrap();
    let snapshot = build(&mut leader).await;
    let meta = snapshot.meta.clone();
    let target = on(&to);
    let (_, mut machine, reader) = target.group(A).unwrap();
    apply(&mut machine, vec![put(1, 0, &[("old", Some("state"))])])
        .await
        .unwrap();
    let data = receive(&target, &meta, &chunks(snapshot.snapshot));
    let mut builder = machine.get_snapshot_builder().await;
    let wanted = async {
        assert!(reader.get(b"old").is_err(), "the install has not begun");
        builder.build_snapshot().await
    };
    let (installed, built) = tokio::join!(machine.install_snapshot(&meta, data), wanted);
    installed.unwrap();
    assert_eq!(built.unwrap().meta.last_log_id, meta.last_log_id);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_file_that_rots_during_an_install_leaves_a_group_to_be_rebuilt() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, leader_reader) = source.group(A).unwrap();
    apply(&mut leader, (0..20).map(churn).collect()).await.unwrap();
    let snapshot = build(&mut leader).await;
    let meta = snapshot.meta.clone();
    let chunks = chunks(snapshot.snapshot);
    let target = on(&to);
    let (mut log, mut machine, _) = target.group(A).unwrap();
    append(&mut log, (0..3).map(|i| entry(A, 1, i, 5)).collect())
        .await
        .unwrap();
    apply(&mut machine, (0..3).map(|i| entry(A, 1, i, 5)).collect())
        .await
        .unwrap();
    target.checkpoint_blocking().unwrap();
    log.purge(log_id(1, 2)).await.unwrap();
    target.sync_log().await.unwrap();
    let data = receive(&target, &meta, &chunks);
    // After the marker, in the middle of the load.
    to.set_faults(SimFaults {
        power_fails_after: Some(9),
        ..SimFaults::default()
    });
    machine.install_snapshot(&meta, data).await.unwrap_err();
    to.crash();
    let file = to
        .names()
        .into_iter()
        .find(|name| name.ends_with(".snap"))
        .unwrap();
    let mut bytes = to.read(&file).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    to.overwrite(&file, bytes);
    let target = on(&to);
    assert_eq!(target.needs_rebuild(), [A]);
    let (mut log, mut machine, reader) = target.group(A).unwrap();
    assert!(machine.applied_state().await.is_err() && !reader.ready());
    // Too old a snapshot does not help; a good one brings the group back, with its log and vote as they were.
    let old = SnapshotMeta {
        last_log_id: Some(log_id(1, 1)),
        ..meta.clone()
    };
    let stale_disk = SimDisk::new(5);
    let stale = on(&stale_disk);
    let (_, mut stale_machine, _) = stale.group(A).unwrap();
    apply(&mut stale_machine, vec![put(1, 1, &[("x", Some("y"))])])
        .await
        .unwrap();
    let stale_snapshot = build(&mut stale_machine).await;
    assert_eq!(stale_snapshot.meta.last_log_id, old.last_log_id);
    let error = machine
        .install_snapshot(&stale_snapshot.meta, stale_snapshot.snapshot)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("a newer snapshot is needed"),
        "{error}"
    );
    let data = receive(&target, &meta, &chunks);
    machine.install_snapshot(&meta, data).await.unwrap();
    assert_eq!(target.needs_rebuild(), []);
    assert_eq!(all(&reader), all(&leader_reader));
    assert_eq!(
        log.get_log_state().await.unwrap().last_purged_log_id,
        Some(log_id(1, 2))
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_older_than_the_state_is_refused_and_the_state_kept() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, _) = source.group(A).unwrap();
    apply(&mut leader, vec![put(1, 5, &[("k", Some("leader"))])])
        .await
        .unwrap();
    let snapshot = build(&mut leader).await;
    let target = on(&to);
    let (_, mut follower, reader) = target.group(A).unwrap();
    apply(&mut follower, vec![put(1, 6, &[("k", Some("newer"))])])
        .await
        .unwrap();
    let error = follower
        .install_snapshot(&snapshot.meta, snapshot.snapshot)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("older than the state"), "{error}");
    assert_eq!(get(&reader, "k").as_deref(), Some("newer"));
}

/// A checkpoint on another thread while a snapshot is installed, many times over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the race is between real threads")]
async fn checkpoints_and_installs_do_not_step_on_each_other() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = on(&from);
    let (_, mut leader, leader_reader) = source.group(A).unwrap();
    let target = on(&to);
    let (_, mut follower, reader) = target.group(A).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let checkpointer = std::thread::spawn({
        let (target, stop) = (target.clone(), Arc::clone(&stop));
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                target.checkpoint_blocking().unwrap();
                std::thread::yield_now();
            }
        }
    });
    for round in 0..15u64 {
        apply(&mut leader, (round * 2..round * 2 + 2).map(churn).collect())
            .await
            .unwrap();
        let snapshot = build(&mut leader).await;
        let meta = snapshot.meta.clone();
        follower.install_snapshot(&meta, snapshot.snapshot).await.unwrap();
        assert_eq!(all(&reader), all(&leader_reader), "round {round}");
        let state = (all(&reader), reader.applied());
        apply(
            &mut leader,
            vec![put(1, round * 2 + 1, &[("extra", Some(&round.to_string()))])],
        )
        .await
        .unwrap();
        apply(
            &mut follower,
            vec![put(1, round * 2 + 1, &[("extra", Some(&round.to_string()))])],
        )
        .await
        .unwrap();
        assert_eq!(state.1, reader.applied());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    checkpointer.join().unwrap();
    assert_eq!(all(&reader), all(&leader_reader));
}
