//! Disks that fail: the storage says so and stops; it never goes on with a guess.

use std::sync::Arc;

use clinch_storage::raft::{LeaderId, Vote, log_id};
use clinch_storage::{
    Driver, FileDisk, GroupId, MemStore, OpenError, Poisoned, SimDisk, SimFaults, Storage, StorageOptions,
};
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};

use crate::util::{append, apply, entries, entry, open, put, queue};

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

async fn everything_errs(storage: &Storage, why: &str) {
    let reason = storage
        .poisoned()
        .borrow()
        .clone()
        .expect("the storage is poisoned");
    assert!(reason.contains(why), "{reason}");
    for group in [A, B] {
        let (mut log, mut machine, reader) = match storage.group(group) {
            Ok(handles) => handles,
            Err(error) => {
                assert_poisoned(&error, why);
                return;
            }
        };
        assert_poisoned(
            &append(&mut log, vec![entry(group, 1, 99, 1)]).await.unwrap_err(),
            why,
        );
        assert_poisoned(&log.save_vote(&vote()).await.unwrap_err(), why);
        assert_poisoned(&log.read_vote().await.unwrap_err(), why);
        assert_poisoned(&entries(&mut log).await.unwrap_err(), why);
        assert_poisoned(
            &apply(&mut machine, vec![entry(group, 1, 0, 1)])
                .await
                .unwrap_err(),
            why,
        );
        assert_poisoned(&reader.get(b"k").unwrap_err(), why);
    }
}

fn assert_poisoned(error: &std::io::Error, why: &str) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Poisoned>());
    assert!(inner.is_some_and(|p| p.reason.contains(why)), "{error}");
}

fn vote() -> Vote {
    Vote {
        leader_id: LeaderId {
            term: 1,
            voted_for: 1,
        },
        committed: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_sync_poisons_even_if_the_next_one_would_succeed() {
    let disk = SimDisk::new(1);
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    let (mut log, mut machine, reader) = storage.group(A).unwrap();
    append(&mut log, vec![entry(A, 1, 0, 10)]).await.unwrap();
    apply(&mut machine, vec![entry(A, 1, 0, 10)]).await.unwrap();
    disk.set_faults(SimFaults {
        sync_fails: 1.0,
        ..SimFaults::default()
    });
    let first = queue(&mut log, vec![entry(A, 1, 1, 10)]).await.unwrap();
    let second = queue(&mut log, vec![entry(A, 1, 2, 10)]).await.unwrap();
    assert_poisoned(&first.await.unwrap().unwrap_err(), "simulated failing sync");
    disk.set_faults(SimFaults::default());
    assert_poisoned(&second.await.unwrap().unwrap_err(), "simulated failing sync");
    assert_poisoned(
        &append(&mut log, vec![entry(A, 1, 3, 10)]).await.unwrap_err(),
        "simulated failing sync",
    );
    assert_poisoned(&reader.get(b"key-0000").unwrap_err(), "simulated failing sync");
    let syncs = disk.syncs();
    assert!(storage.group(B).is_err());
    assert!(storage.checkpoint_blocking().is_err());
    assert!(storage.node_meta_put("k", b"v").is_err());
    drop((log, machine, reader));
    everything_errs(&storage, "simulated failing sync").await;
    assert_eq!(disk.syncs(), syncs, "nothing is tried again");
    disk.crash();
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    assert_eq!(
        entries(&mut log).await.unwrap()[0],
        entry(A, 1, 0, 10),
        "what was acknowledged is there"
    );
}

/// After a failed sync the kernel counts the pages as clean: they can be read, and are not on the disk.
#[tokio::test(start_paused = true)]
async fn what_is_written_after_a_failed_sync_and_a_restart_survives_power_loss() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
        let (mut log, ..) = storage.group(A).unwrap();
        append(&mut log, vec![entry(A, 1, 0, 10)]).await.unwrap();
        disk.set_faults(SimFaults {
            sync_fails: 1.0,
            ..SimFaults::default()
        });
        assert!(append(&mut log, vec![entry(A, 1, 1, 10)]).await.is_err());
        disk.set_faults(SimFaults::default());
        disk.kill();
        let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
        let (mut log, ..) = storage.group(A).unwrap();
        let found = entries(&mut log).await.unwrap().len() as u64;
        append(&mut log, vec![entry(A, 1, found, 10)]).await.unwrap();
        disk.crash();
        let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
        let (mut log, ..) = storage.group(A).unwrap();
        let expected: Vec<_> = (0..=found).map(|index| entry(A, 1, index, 10)).collect();
        assert_eq!(entries(&mut log).await.unwrap(), expected, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_poisons_and_loses_nothing_acknowledged() {
    let disk = SimDisk::new(1);
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    disk.set_faults(SimFaults {
        capacity: Some(20 << 10),
        ..SimFaults::default()
    });
    let mut acknowledged = 0;
    let error = loop {
        match append(&mut log, vec![entry(A, 1, acknowledged, 300)]).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 10);
    assert_poisoned(&error, "simulated full disk");
    disk.set_faults(SimFaults::default());
    assert_poisoned(
        &append(&mut log, vec![entry(A, 1, 500, 1)]).await.unwrap_err(),
        "simulated full disk",
    );
    disk.kill();
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    let (mut log, ..) = storage.group(A).unwrap();
    let found = entries(&mut log).await.unwrap();
    assert_eq!(
        found[..acknowledged as usize],
        (0..acknowledged).map(|i| entry(A, 1, i, 300)).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_state_store_poisons() {
    let disk = SimDisk::new(1);
    let store = Arc::new(clinch_storage::DiskStore::open(disk.mount()).unwrap());
    let storage = open(Driver::Task, disk.mount(), store).unwrap();
    let (_, mut machine, _) = storage.group(A).unwrap();
    apply(&mut machine, vec![put(1, 0, &[("k", Some("v"))])])
        .await
        .unwrap();
    disk.set_faults(SimFaults {
        sync_fails: 1.0,
        ..SimFaults::default()
    });
    assert_poisoned(
        &storage.checkpoint_blocking().unwrap_err(),
        "simulated failing sync",
    );
    assert_eq!(
        storage.purge_target(A),
        None,
        "what is not durable in the store stays in the log"
    );
    everything_errs(&storage, "simulated failing sync").await;
}

/// Without the defence the state store would hold an acknowledged checkpoint that the disk forgot.
#[tokio::test(start_paused = true)]
async fn a_group_whose_state_was_lost_says_so_and_serves_nothing() {
    let disk = SimDisk::new(1);
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    for group in [A, B] {
        let (mut log, mut machine, _) = storage.group(group).unwrap();
        let all: Vec<_> = (0..4).map(|index| entry(group, 1, index, 10)).collect();
        append(&mut log, all.clone()).await.unwrap();
        apply(&mut machine, all).await.unwrap();
    }
    storage.checkpoint_blocking().unwrap();
    assert_eq!(storage.purge_target(A), Some(3));
    storage.group(A).unwrap().0.purge(log_id(1, 3)).await.unwrap();
    storage.sync_log().await.unwrap();
    disk.crash();
    // An empty store takes the place of the old one, as when sled was set aside.
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    assert_eq!(storage.needs_rebuild(), [A], "the log of B still has everything");
    let (_, mut machine, reader) = storage.group(A).unwrap();
    assert!(!reader.ready());
    assert!(
        reader
            .get(b"k")
            .unwrap_err()
            .to_string()
            .contains("must be rebuilt from a peer")
    );
    use openraft::storage::RaftStateMachine as _;
    assert!(
        machine.applied_state().await.is_err(),
        "raft does not start on it"
    );
    assert!(
        machine.get_current_snapshot().await.is_err(),
        "and it is no source of snapshots"
    );
    storage.checkpoint_blocking().unwrap();
    assert_eq!(storage.needs_rebuild(), [A]);
}

#[test]
fn a_second_process_on_the_same_directory_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = FileDisk::open(dir.path()).unwrap();
    let error = FileDisk::open(dir.path()).unwrap_err();
    let expected = format!(
        "{} is in use by process {}: two nodes cannot share a directory",
        dir.path().display(),
        std::process::id()
    );
    assert!(matches!(error, OpenError::InUse { .. }));
    assert_eq!(error.to_string(), expected);
    drop(first);
    FileDisk::open(dir.path()).unwrap();
}

#[tokio::test]
async fn facts_about_the_node_are_durable_and_their_damage_is_reported() {
    let disk = SimDisk::new(1);
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    assert_eq!(storage.node_meta_get("id"), None);
    storage.node_meta_put("id", b"7").unwrap();
    storage.node_meta_put("cluster", b"c").unwrap();
    storage.node_meta_put("id", b"8").unwrap();
    disk.crash();
    let storage = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap();
    assert_eq!(storage.node_meta_get("id").as_deref(), Some(&b"8"[..]));
    assert_eq!(storage.node_meta_get("cluster").as_deref(), Some(&b"c"[..]));
    let mut bytes = disk.read("node.meta").unwrap();
    bytes[9] ^= 1;
    disk.overwrite("node.meta", bytes);
    let error = open(Driver::Task, disk.mount(), Arc::new(MemStore::new())).unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged { file, .. } if file == "node.meta"),
        "{error}"
    );
}

#[test]
fn options_that_contradict_each_other_are_refused_by_name() {
    let options = StorageOptions {
        log_bytes_max: 1,
        ..StorageOptions::default()
    };
    let error = Storage::open(options, SimDisk::new(1).mount(), Arc::new(MemStore::new())).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("log_bytes_max is 1, must be at least twice segment_bytes"),
        "{error}"
    );
    let options = StorageOptions {
        segment_bytes: 1,
        ..StorageOptions::default()
    };
    assert!(
        options
            .validate()
            .unwrap_err()
            .to_string()
            .contains("segment_bytes is 1")
    );
}
