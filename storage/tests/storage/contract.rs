//! One contract for every implementation of `StateStore`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use clinch_storage::{DiskStore, FileDisk, KeyWrite, MemStore, SimDisk, SledStore, StateStore};
use proptest::prelude::*;
use tempfile::TempDir;

/// A store that can be closed and opened again.
trait Subject {
    const DURABLE: bool;
    fn fresh() -> Self;
    fn open(&self) -> Arc<dyn StateStore>;
}

struct Memory(Arc<MemStore>);

impl Subject for Memory {
    const DURABLE: bool = false;

    fn fresh() -> Self {
        Self(Arc::default())
    }

    fn open(&self) -> Arc<dyn StateStore> {
        Arc::clone(&self.0) as Arc<dyn StateStore>
    }
}

struct OnSimDisk(SimDisk);

impl Subject for OnSimDisk {
    const DURABLE: bool = true;

    fn fresh() -> Self {
        Self(SimDisk::new(7))
    }

    fn open(&self) -> Arc<dyn StateStore> {
        // Each opening is after a power loss, so only what was flushed counts.
        self.0.crash();
        Arc::new(DiskStore::open(self.0.mount()).unwrap())
    }
}

struct Sled(TempDir);

impl Subject for Sled {
    const DURABLE: bool = true;

    fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Arc<dyn StateStore> {
        let disk = FileDisk::open(self.0.path()).unwrap();
        Arc::new(SledStore::open(&disk, 1 << 20).unwrap())
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn write(key: &str, value: Option<&str>) -> KeyWrite {
    (bytes(key), value.map(bytes))
}

fn keys(found: Vec<(Bytes, Bytes)>) -> Vec<String> {
    found
        .into_iter()
        .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

fn writes_of_a_call_are_applied_in_order<S: Subject>() {
    let subject = S::fresh();
    let store = subject.open();
    store
        .apply(vec![
            write("k", Some("1")),
            write("k", None),
            write("k", Some("2")),
            write("gone", None),
        ])
        .unwrap();
    assert_eq!(store.get(b"k").unwrap(), Some(bytes("2")));
    assert_eq!(store.get(b"gone").unwrap(), None);
    store
        .apply(vec![write("k", Some("")), write("", Some("empty key"))])
        .unwrap();
    assert_eq!(store.get(b"k").unwrap(), Some(Bytes::new()));
    assert_eq!(store.get(b"").unwrap(), Some(bytes("empty key")));
}

fn scans_honour_bounds_limit_and_direction<S: Subject>() {
    let subject = S::fresh();
    let store = subject.open();
    store
        .apply(
            ["a", "b", "b\0", "c", "d"]
                .map(|key| write(key, Some("v")))
                .to_vec(),
        )
        .unwrap();
    let scan = |start, end, limit, reverse| keys(store.scan(start, end, limit, reverse).unwrap());
    let (unbounded, b, c) = (Bound::Unbounded, &b"b"[..], &b"c"[..]);
    assert_eq!(scan(unbounded, unbounded, 9, false), ["a", "b", "b\0", "c", "d"]);
    assert_eq!(scan(unbounded, unbounded, 2, false), ["a", "b"]);
    assert_eq!(scan(unbounded, unbounded, 2, true), ["d", "c"]);
    assert_eq!(
        scan(Bound::Included(b), Bound::Excluded(c), 9, false),
        ["b", "b\0"]
    );
    assert_eq!(
        scan(Bound::Excluded(b), Bound::Included(c), 9, true),
        ["c", "b\0"]
    );
    assert_eq!(scan(Bound::Included(c), Bound::Included(b), 9, false), [""; 0]);
    assert_eq!(scan(Bound::Excluded(b), Bound::Excluded(b), 9, true), [""; 0]);
    assert_eq!(scan(Bound::Included(b), Bound::Included(b), 9, true), ["b"]);
    assert_eq!(scan(unbounded, unbounded, 0, false), [""; 0]);
}

fn flushed_writes_are_there_after_opening_again<S: Subject>() {
    let subject = S::fresh();
    let large = "x".repeat(3 << 20);
    let store = subject.open();
    store
        .apply(vec![
            write("large", Some(&large)),
            write("a", Some("1")),
            write("b", Some("1")),
        ])
        .unwrap();
    store
        .apply(vec![write("a", None), write("b", Some("2"))])
        .unwrap();
    store.flush().unwrap();
    drop(store);
    let store = subject.open();
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(store.get(b"b").unwrap(), Some(bytes("2")));
    assert_eq!(store.get(b"large").unwrap(), Some(bytes(&large)));
}

/// What is there after a loss of power is the state after some write, no earlier than the last flush.
fn what_survives_is_a_prefix_of_the_writes<S: Subject>() {
    for flushed in 0..6u8 {
        let subject = S::fresh();
        let store = subject.open();
        for n in 1..=6u8 {
            let value = n.to_string();
            store
                .apply(vec![write("x", Some(&value)), write("y", Some(&value))])
                .unwrap();
            if n == flushed {
                store.flush().unwrap();
            }
        }
        drop(store);
        let store = subject.open();
        let survived = |key: &[u8]| store.get(key).unwrap().map_or(0, |v| v[0] - b'0');
        let (x, y) = (survived(b"x"), survived(b"y"));
        assert!(x == y || x == y + 1, "x was written before y: {x}, {y}");
        assert!(y >= flushed, "flushed {flushed}, found {y}");
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

type RawWrite = (Vec<u8>, Option<Vec<u8>>);

fn batches() -> impl Strategy<Value = Vec<Vec<RawWrite>>> {
    let key = prop::collection::vec(0u8..4, 0..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    prop::collection::vec(prop::collection::vec((key, value), 0..12), 0..12)
}

fn every_history_matches_an_ordered_map<S: Subject>(cases: u32) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let range = (
        prop::collection::vec(0u8..4, 0..3),
        prop::collection::vec(0u8..4, 0..3),
        0usize..9,
        any::<bool>(),
    );
    runner
        .run(&(batches(), range), |(batches, (low, high, limit, reverse))| {
            let subject = S::fresh();
            let mut store = subject.open();
            let mut model = Model::new();
            for (n, batch) in batches.into_iter().enumerate() {
                let writes = batch
                    .iter()
                    .map(|(k, v)| (Bytes::from(k.clone()), v.clone().map(Bytes::from)))
                    .collect();
                store.apply(writes).unwrap();
                for (key, value) in batch {
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
                if n % 4 == 3 {
                    store.flush().unwrap();
                    drop(store);
                    store = subject.open();
                }
            }
            let found = store
                .scan(Bound::Included(&low), Bound::Excluded(&high), limit, reverse)
                .unwrap();
            let found: Vec<_> = found.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(k, _)| **k >= low && **k < high)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit);
            prop_assert_eq!(found, expected);
            for (key, value) in &model {
                prop_assert_eq!(store.get(key).unwrap(), Some(Bytes::from(value.clone())));
            }
            Ok(())
        })
        .unwrap();
}

fn whole_contract<S: Subject>(cases: u32) {
    writes_of_a_call_are_applied_in_order::<S>();
    scans_honour_bounds_limit_and_direction::<S>();
    if S::DURABLE {
        flushed_writes_are_there_after_opening_again::<S>();
        what_survives_is_a_prefix_of_the_writes::<S>();
    }
    every_history_matches_an_ordered_map::<S>(cases);
}

#[test]
fn the_map_in_memory_keeps_the_contract() {
    whole_contract::<Memory>(200);
}

#[test]
fn the_map_on_a_simulated_disk_keeps_the_contract_through_power_loss() {
    whole_contract::<OnSimDisk>(200);
}

#[test]
fn sled_keeps_the_contract() {
    whole_contract::<Sled>(12);
}

#[test]
fn a_store_on_a_simulated_disk_is_rewritten_when_most_of_it_is_history() {
    let subject = OnSimDisk::fresh();
    let store = subject.open();
    let value = "x".repeat(100 << 10);
    for n in 0..60 {
        store
            .apply(vec![write("k", Some(&value)), write("n", Some(&n.to_string()))])
            .unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let size = subject.0.read("state.map").unwrap().len();
    assert!(size < 2 << 20, "{size} bytes for 100 KiB of data");
    assert_eq!(subject.open().get(b"n").unwrap(), Some(bytes("59")));
}

#[test]
fn a_damaged_sled_database_is_set_aside_and_an_empty_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(dir.path()).unwrap();
    let store = SledStore::open(&disk, 1 << 20).unwrap();
    store.apply(vec![write("k", Some("v"))]).unwrap();
    store.flush().unwrap();
    assert_eq!(store.set_aside(), None);
    drop(store);
    std::fs::write(
        dir.path().join("state/conf"),
        b"segment_size: nonsense\nversion: 9.9\n",
    )
    .unwrap();
    let store = SledStore::open(&disk, 1 << 20).unwrap();
    assert_eq!(store.set_aside(), Some(&*dir.path().join("state.damaged-1")));
    assert_eq!(store.get(b"k").unwrap(), None);
    store.apply(vec![write("k", Some("w"))]).unwrap();
    store.flush().unwrap();
}
