//! What the production store keeps in memory.

use bytes::Bytes;
use clinch_storage::{FileDisk, KeyWrite, SledStore, StateStore};

/// Batches written, and keys in each: as many writes as would leave some 90 MiB behind if nothing were freed.
const BATCHES: u64 = 20;
const KEYS: u64 = 2048;
/// Cache given to the store.
const CACHE: u64 = 1 << 20;
/// Growth allowed: pages being written, a few times over, and the cache.
const GROWTH_MAX: u64 = 40 << 20;

/// Memory of this process that mirrors no file.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.expect("a field of every kernel since 4.5") << 10
}

#[test]
fn what_large_batches_replace_leaves_memory() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(folder.path()).unwrap();
    let store = SledStore::open(&disk, CACHE).unwrap();
    let before = own_memory();
    for batch in 0..BATCHES {
        let write = |n: u64| -> KeyWrite {
            // Spread over the key space, so that each batch changes pages of all the others.
            let key = (n * BATCHES + batch).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (
                Bytes::copy_from_slice(&key.to_be_bytes()),
                Some(Bytes::from_static(&[7; 32])),
            )
        };
        let mut writes: Vec<KeyWrite> = (0..KEYS).map(write).collect();
        writes.sort();
        store.apply(writes).unwrap();
    }
    let grown = own_memory().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{} MiB", grown >> 20);
}
