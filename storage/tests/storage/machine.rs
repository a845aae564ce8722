//! Applied state: what readers see, what checkpoints leave behind, what the log may forget.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_storage::raft::{Entry, EntryPayload, log_id};
use clinch_storage::{
    BatchBuilder, DiskStore, Driver, GroupId, MemStore, SimDisk, StateStore, Storage, StorageOptions,
};
use openraft::storage::{RaftLogStorage as _, RaftSnapshotBuilder as _, RaftStateMachine as _};
use proptest::prelude::*;

use crate::util::{append, apply, entry, get, open, put, small_options};

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

/// Log and state store on one disk.
fn on(disk: &SimDisk) -> Storage {
    open(
        Driver::Task,
        disk.mount(),
        Arc::new(DiskStore::open(disk.mount()).unwrap()),
    )
    .unwrap()
}

/// All keys of the state store, with their prefixes.
fn stored(store: &dyn StateStore) -> Vec<Bytes> {
    store
        .scan(Bound::Unbounded, Bound::Unbounded, usize::MAX, false)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn applied_state_is_read_at_once_and_survives_power_loss_after_a_checkpoint() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (_, mut machine, reader) = storage.group(A).unwrap();
    apply(
        &mut machine,
        vec![put(1, 1, &[("a", Some("1")), ("b", Some("1"))])],
    )
    .await
    .unwrap();
    assert_eq!(
        (get(&reader, "a").as_deref(), storage.dirty_keys()),
        (Some("1"), 2)
    );
    storage.checkpoint_blocking().unwrap();
    assert_eq!((reader.stats().flushed, storage.dirty_keys()), (Some(1), 0));
    apply(&mut machine, vec![put(1, 2, &[("a", None), ("b", Some("2"))])])
        .await
        .unwrap();
    assert_eq!(
        (get(&reader, "a"), get(&reader, "b").as_deref()),
        (None, Some("2"))
    );
    disk.crash();
    let storage = on(&disk);
    let (_, mut machine, reader) = storage.group(A).unwrap();
    assert_eq!(
        machine.applied_state().await.unwrap().0,
        Some(log_id(1, 1)),
        "the rest is replayed from the log"
    );
    assert_eq!(
        (get(&reader, "a").as_deref(), get(&reader, "b").as_deref()),
        (Some("1"), Some("1"))
    );
    assert_eq!(storage.groups(), [A]);
}

#[tokio::test(start_paused = true)]
async fn groups_do_not_see_each_others_keys() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (_, mut a, reader_a) = storage.group(A).unwrap();
    let (_, mut b, reader_b) = storage.group(B).unwrap();
    apply(&mut a, vec![put(1, 1, &[("k", Some("a"))])]).await.unwrap();
    apply(&mut b, vec![put(1, 1, &[("k", Some("b")), ("l", Some("b"))])])
        .await
        .unwrap();
    for checkpointed in [false, true] {
        if checkpointed {
            storage.checkpoint_blocking().unwrap();
        }
        assert_eq!(
            (get(&reader_a, "k").as_deref(), get(&reader_b, "k").as_deref()),
            (Some("a"), Some("b"))
        );
        let all = reader_a
            .scan(Bound::Unbounded, Bound::Unbounded, 9, false)
            .unwrap();
        assert_eq!(all, [(Bytes::from("k"), Bytes::from("a"))]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_presses_when_many_bytes_wait_and_no_more_after_it() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (_, mut machine, _) = storage.group(A).unwrap();
    let mebibyte = "x".repeat(1 << 20);
    let mut index = 0;
    while !storage.checkpoint_presses() {
        index += 1;
        assert!(index <= 40, "40 MiB wait, and no checkpoint presses");
        let key = format!("k{index}");
        apply(&mut machine, vec![put(1, index, &[(&key, Some(&mebibyte))])])
            .await
            .unwrap();
    }
    assert!(index >= 30, "pressed at {index} MiB already");
    storage.checkpoint_blocking().unwrap();
    assert!(!storage.checkpoint_presses());
}

#[tokio::test(start_paused = true)]
async fn applying_waits_for_a_checkpoint_when_too_much_waits_already_and_goes_on_after_it() {
    let disk = SimDisk::new(1);
    let options = StorageOptions {
        waiting_bytes_max: 64 << 10,
        ..small_options(Driver::Task)
    };
    let state = Arc::new(DiskStore::open(disk.mount()).unwrap());
    let storage = Storage::open(options, disk.mount(), state).unwrap();
    let (_, mut control, _) = storage.group(GroupId::CONTROL).unwrap();
    let (_, mut machine, reader) = storage.group(A).unwrap();
    let large = "x".repeat(16 << 10);
    let writing = tokio::spawn(async move {
        for index in 1..=32 {
            let key = format!("k{index}");
            apply(&mut machine, vec![put(1, index, &[(&key, Some(&large))])])
                .await
                .unwrap();
        }
    });
    for round in 1..=20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let applied = reader.stats().applied.unwrap();
        assert!(
            applied <= round * 5,
            "{applied} entries of 16 KiB after {round} rounds"
        );
        if writing.is_finished() {
            break;
        }
        // What all groups depend on does not wait for them.
        apply(&mut control, vec![put(1, round, &[("c", Some("v"))])])
            .await
            .unwrap();
        storage.checkpoint_blocking().unwrap();
    }
    writing.await.unwrap();
    assert_eq!(reader.stats().applied, Some(32));
}

#[tokio::test(start_paused = true)]
async fn a_key_born_and_deleted_between_checkpoints_never_touches_the_store() {
    let store = Arc::new(MemStore::new());
    let storage = open(
        Driver::Task,
        SimDisk::new(1).mount(),
        Arc::clone(&store) as Arc<dyn StateStore>,
    )
    .unwrap();
    let (_, mut machine, _) = storage.group(A).unwrap();
    let mut born = BatchBuilder::new();
    born.put_fresh(b"short", b"v");
    born.put_fresh(b"long", b"v");
    let mut gone = BatchBuilder::new();
    gone.delete(b"short");
    for (index, builder) in [born, gone].into_iter().enumerate() {
        let payload = EntryPayload::Normal(builder.finish());
        apply(
            &mut machine,
            vec![Entry {
                log_id: log_id(1, index as u64),
                payload,
            }],
        )
        .await
        .unwrap();
    }
    assert_eq!(storage.dirty_keys(), 1, "not even as a trace to be deleted");
    storage.checkpoint_blocking().unwrap();
    assert!(!stored(&*store).iter().any(|key| key.ends_with(b"short")));
    assert!(stored(&*store).iter().any(|key| key.ends_with(b"long")));
}

#[tokio::test(start_paused = true)]
async fn the_log_may_be_purged_up_to_the_checkpoint_keeping_what_followers_may_need() {
    let disk = SimDisk::new(1);
    let mut options = small_options(Driver::Task);
    options.retain_bytes = 3000;
    options.log_bytes_max = 64 << 10;
    let storage = Storage::open(options, disk.mount(), Arc::new(MemStore::new())).unwrap();
    let (mut log, mut machine, _) = storage.group(A).unwrap();
    let all: Vec<_> = (0..40).map(|index| entry(A, 1, index, 440)).collect();
    append(&mut log, all.clone()).await.unwrap();
    apply(&mut machine, all).await.unwrap();
    assert_eq!(storage.purge_target(A), None, "nothing is in the store");
    storage.checkpoint_blocking().unwrap();
    let per_entry = storage.log_bytes(A) / 40;
    let kept = 3000_u64.div_ceil(per_entry);
    assert_eq!(storage.purge_target(A), Some(39 - kept));
    let more: Vec<_> = (40..60).map(|index| entry(A, 1, index, 440)).collect();
    append(&mut log, more).await.unwrap();
    assert_eq!(
        storage.purge_target(A),
        Some(39),
        "what is not applied stays, and is more than enough"
    );
    // A log that grows beyond its limit is purged as far as possible.
    let filler: Vec<_> = (60..140).map(|index| entry(A, 1, index, 440)).collect();
    append(&mut log, filler.clone()).await.unwrap();
    apply(&mut machine, filler).await.unwrap();
    storage.checkpoint_blocking().unwrap();
    assert!(storage.log_disk_bytes() > 64 << 10);
    assert_eq!(storage.purge_target(A), Some(139));
    log.purge(log_id(1, 139)).await.unwrap();
    storage.sync_log().await.unwrap();
    assert_eq!(storage.log_bytes(A), 0);
    assert!(
        storage.log_disk_bytes() <= 8 << 10,
        "only the segment being written"
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_being_sent_holds_the_log_after_its_start() {
    let disk = SimDisk::new(1);
    let storage = on(&disk);
    let (mut log, mut machine, _) = storage.group(A).unwrap();
    let all: Vec<_> = (0..20).map(|index| entry(A, 1, index, 10)).collect();
    append(&mut log, all.clone()).await.unwrap();
    apply(&mut machine, all[..5].to_vec()).await.unwrap();
    let snapshot = machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 4)));
    apply(&mut machine, all[5..].to_vec()).await.unwrap();
    storage.checkpoint_blocking().unwrap();
    assert_eq!(storage.purge_target(A), Some(4));
    let second = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(second.meta.last_log_id, Some(log_id(1, 19)));
    assert_eq!(storage.purge_target(A), Some(4), "the oldest counts");
    drop(snapshot);
    assert_eq!(storage.purge_target(A), Some(19));
}

#[tokio::test(start_paused = true)]
async fn a_large_checkpoint_cut_short_by_power_loss_is_healed_by_replay_and_not_served_before() {
    let mut cut = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let storage = on(&disk);
        let (_, mut machine, _) = storage.group(A).unwrap();
        let first = put(1, 0, &[("k-00000", Some("old")), ("k-05999", Some("old"))]);
        apply(&mut machine, vec![first]).await.unwrap();
        storage.checkpoint_blocking().unwrap();
        // Several batches of the store, written but not flushed.
        let mut builder = BatchBuilder::new();
        for n in 0..6000 {
            let key = format!("k-{n:05}");
            match n {
                0 | 5999 => builder.put(key.as_bytes(), b"new"),
                _ => builder.put_fresh(key.as_bytes(), b"new"),
            }
        }
        let second = Entry {
            log_id: log_id(1, 1),
            payload: EntryPayload::Normal(builder.finish()),
        };
        apply(&mut machine, vec![second.clone()]).await.unwrap();
        disk.set_faults(clinch_storage::SimFaults {
            power_fails_after: Some(seed % 4),
            ..Default::default()
        });
        let _ = storage.checkpoint_blocking();
        disk.crash();
        let storage = on(&disk);
        let (_, mut machine, reader) = storage.group(A).unwrap();
        let applied = reader.applied().unwrap().index;
        if applied == 0 && !reader.ready() {
            cut += 1;
            assert!(
                reader
                    .get(b"k-00000")
                    .unwrap_err()
                    .to_string()
                    .contains("serves from Some(1) on")
            );
        }
        if applied == 0 {
            apply(&mut machine, vec![second]).await.unwrap();
            // The hint that the keys are new must not be believed now: the delete has to reach the store.
            apply(
                &mut machine,
                vec![put(1, 2, &[("k-00000", None), ("k-01000", None)])],
            )
            .await
            .unwrap();
        } else {
            apply(
                &mut machine,
                vec![put(1, 2, &[("k-00000", None), ("k-01000", None)])],
            )
            .await
            .unwrap();
        }
        assert!(reader.ready());
        for _ in 0..2 {
            assert_eq!((get(&reader, "k-00000"), get(&reader, "k-01000")), (None, None));
            assert_eq!(get(&reader, "k-05999").as_deref(), Some("new"));
            assert_eq!(
                reader
                    .scan(Bound::Unbounded, Bound::Unbounded, usize::MAX, true)
                    .unwrap()
                    .len(),
                5998
            );
            storage.checkpoint_blocking().unwrap();
        }
    }
    assert!(cut > 3, "only {cut} of the crashes fell between two batches");
}

/// A scripted step of the test below.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, Option<u8>)>),
    Checkpoint,
    Scan {
        low: Option<u8>,
        high: Option<u8>,
        limit: usize,
        reverse: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = prop::collection::vec((0u8..40, prop::option::of(any::<u8>())), 1..30).prop_map(Step::Write);
    let bound = || prop::option::of(0u8..40);
    let scan =
        (bound(), bound(), 0usize..60, any::<bool>()).prop_map(|(low, high, limit, reverse)| Step::Scan {
            low,
            high,
            limit,
            reverse,
        });
    prop::collection::vec(
        prop_oneof![2 => write, 1 => Just(Step::Checkpoint), 3 => scan],
        1..20,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Overlay and store together behave as one ordered map, wherever the checkpoints fall.
    #[test]
    fn reads_match_an_ordered_map(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let storage = open(Driver::Task, SimDisk::new(1).mount(), Arc::new(MemStore::new())).unwrap();
            let (_, mut machine, reader) = storage.group(A).unwrap();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut index = 0;
            for step in steps {
                match step {
                    Step::Write(writes) => {
                        let mut builder = BatchBuilder::new();
                        for (key, value) in writes {
                            let key = vec![key];
                            match value {
                                Some(value) if model.contains_key(&key) => builder.put(&key, &[value]),
                                Some(value) => builder.put_fresh(&key, &[value]),
                                None => builder.delete(&key),
                            }
                            match value {
                                Some(value) => model.insert(key, vec![value]),
                                None => model.remove(&key),
                            };
                        }
                        let payload = EntryPayload::Normal(builder.finish());
                        apply(&mut machine, vec![Entry { log_id: log_id(1, index), payload }]).await.unwrap();
                        index += 1;
                    }
                    Step::Checkpoint => storage.checkpoint_blocking().unwrap(),
                    Step::Scan { low, high, limit, reverse } => {
                        let (low, high) = (low.map(|k| [k]), high.map(|k| [k]));
                        let start = low.as_ref().map_or(Bound::Unbounded, |k| Bound::Included(&k[..]));
                        let end = high.as_ref().map_or(Bound::Unbounded, |k| Bound::Excluded(&k[..]));
                        let found = reader.scan(start, end, limit, reverse).unwrap();
                        let found: Vec<_> = found.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                        let inside = |k: &[u8]| low.is_none_or(|l| k >= &l[..]) && high.is_none_or(|h| k < &h[..]);
                        let mut expected: Vec<_> =
                            model.iter().filter(|(k, _)| inside(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
                        if reverse {
                            expected.reverse();
                        }
                        expected.truncate(limit);
                        assert_eq!(found, expected);
                    }
                }
                for key in 0u8..40 {
                    let found = reader.get(&[key]).unwrap();
                    assert_eq!(found.as_deref(), model.get(&vec![key]).map(|v| &v[..]));
                }
            }
        });
    }
}
