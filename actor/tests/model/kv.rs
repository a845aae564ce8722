//! The key-value store: what a turn sees of its own writes, and every limit at its edge.

use std::collections::BTreeMap;

use bytes::Bytes;
use clinch_actor::{ActionKind, Ctx, KV_LIST_MAX, Kv, KvEntry, Origin};
use clinch_types::limits;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Default, Serialize, Deserialize)]
struct Shelf {}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Shelf {
    #[action]
    fn put(&mut self, c: &Ctx<Self>, key: String, value: u32) -> clinch_actor::Result<Option<u32>> {
        let old = c.kv().get(&key)?;
        c.kv().put(&key, &value)?;
        assert_eq!(c.kv().get(&key)?, Some(value));
        Ok(old)
    }

    #[action]
    fn put_and_fail(&mut self, c: &Ctx<Self>, key: String) -> clinch_actor::Result<()> {
        c.kv().put(&key, &1)?;
        Err(clinch_actor::Error::user("no", "no"))
    }
}

/// Runs `work` on the store of a turn and commits nothing.
async fn with_kv<T>(stored: &[(&[u8], &[u8])], work: impl FnOnce(Kv<'_>) -> T) -> T {
    let node = Node::start::<Shelf>().await;
    for (key, value) in stored {
        node.store
            .lock()
            .kv
            .insert(key.to_vec(), Bytes::copy_from_slice(value));
    }
    let turn = node.turn(ActionKind::Exclusive, Origin::Call, None);
    let c = Ctx::<Shelf>::new(turn);
    work(c.kv())
}

fn keys(entries: Vec<KvEntry>) -> Vec<String> {
    entries
        .into_iter()
        .map(|entry| entry.key_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn writes_are_seen_at_once_and_commit_with_the_turn() {
    let node = Node::start::<Shelf>().await;
    assert_eq!(node.call::<Option<u32>>("put", ("k", 1)).await.unwrap(), None);
    assert_eq!(node.call::<Option<u32>>("put", ("k", 2)).await.unwrap(), Some(1));
    assert!(node.call::<()>("putAndFail", ("lost",)).await.is_err());
    assert_eq!(node.store.lock().kv.keys().collect::<Vec<_>>(), [b"k"]);
}

#[tokio::test]
async fn keys_and_values_are_bounded_at_their_limits() {
    with_kv(&[], |kv| {
        let (key, value) = (vec![b'k'; limits::KV_KEY_MAX], vec![0; limits::KV_VALUE_MAX]);
        kv.put_bytes(&key, value.clone()).unwrap();
        assert_eq!(kv.get_bytes(&key).unwrap().unwrap().len(), value.len());
        let (long, large) = ([&key[..], b"k"].concat(), [&value[..], b"0"].concat());
        for error in [
            kv.put_bytes(&long, "x").unwrap_err(),
            kv.get_bytes(&long).unwrap_err(),
            kv.delete(&long).unwrap_err(),
            kv.list(&long).unwrap_err(),
            kv.delete_range("a", &long).unwrap_err(),
            kv.list_range(&long, "z", 1, false).unwrap_err(),
        ] {
            assert!(error.is("kv", "key_too_large"));
            assert_eq!(error.message(), "KV key has 2049 bytes, at most 2048 are allowed");
        }
        let error = kv.put_bytes("k", large).unwrap_err();
        assert!(error.is("kv", "value_too_large"));
        assert_eq!(
            error.message(),
            "KV value has 131073 bytes, at most 131072 are allowed"
        );
    })
    .await;
}

#[tokio::test]
async fn batches_are_bounded_and_all_or_nothing() {
    with_kv(&[], |kv| {
        let entries =
            |count: usize, bytes: usize| (0..count).map(move |i| (format!("{i:04}"), vec![0; bytes]));
        kv.put_batch(entries(limits::KV_BATCH_KEYS_MAX, 1)).unwrap();
        assert_eq!(kv.list("").unwrap().len(), 128);
        let got = kv.get_batch(["0001", "none", "0127"]).unwrap();
        assert_eq!(
            got.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert!(kv.get_batch(vec!["k"; 128]).is_ok());
        assert!(
            kv.get_batch(vec!["k"; 129])
                .unwrap_err()
                .is("kv", "batch_too_large")
        );
        assert!(
            kv.put_batch(entries(129, 1))
                .unwrap_err()
                .is("kv", "batch_too_large")
        );

        // Eight entries of exactly 122 KiB with their keys are 976 KiB.
        let each = limits::KV_BATCH_BYTES_MAX / 8 - 4;
        kv.put_batch(entries(8, each)).unwrap();
        let error = kv
            .put_batch(entries(8, each).chain([("z".to_owned(), Vec::new())]))
            .unwrap_err();
        assert!(error.is("kv", "batch_too_large"));
        assert_eq!(
            error.message(),
            "KV batch has 999425 bytes, at most 999424 are allowed"
        );
        assert_eq!(kv.get_bytes("z").unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn listings_strip_their_prefix_and_ranges_keep_keys_whole() {
    with_kv(
        &[
            (b"a/1", b"x"),
            (b"a/2", b"x"),
            (b"b/1", b"x"),
            (b"\xff\xff", b"x"),
        ],
        |kv| {
            assert_eq!(keys(kv.list("a/").unwrap()), ["1", "2"]);
            kv.put("a/3", "own").unwrap();
            kv.delete("a/1").unwrap();
            assert_eq!(keys(kv.list("a/").unwrap()), ["2", "3"]);
            assert_eq!(kv.list("a/3").unwrap()[0].decode::<String>().unwrap(), "own");
            assert_eq!(
                keys(kv.list_range("a/2", "b/1", 9, false).unwrap()),
                ["a/2", "a/3"]
            );
            assert_eq!(keys(kv.list_range("a", "c", 2, true).unwrap()), ["b/1", "a/3"]);
            assert_eq!(kv.list([0xff]).unwrap().len(), 1);
            assert_eq!(kv.list_range("b", "a", 9, false).unwrap(), []);
            assert_eq!(kv.list_range("a", "a", 9, true).unwrap(), []);
            assert_eq!(kv.delete_range("a/2", "c").unwrap(), 3);
            assert_eq!(kv.list("").unwrap().len(), 1);
        },
    )
    .await;
}

#[tokio::test]
async fn a_range_of_too_many_keys_is_not_deleted_in_part() {
    let node = Node::start::<Shelf>().await;
    for i in 0..=KV_LIST_MAX {
        node.store
            .lock()
            .kv
            .insert(format!("{i:05}").into_bytes(), Bytes::new());
    }
    let turn = node.turn(ActionKind::Exclusive, Origin::Call, None);
    let c = Ctx::<Shelf>::new(turn.clone());
    assert_eq!(c.kv().list("").unwrap().len(), KV_LIST_MAX);
    assert!(
        c.kv()
            .delete_range("0", "9")
            .unwrap_err()
            .is("kv", "range_too_large")
    );
    assert_eq!(c.kv().delete_range("00001", "9").unwrap(), KV_LIST_MAX);
    assert_eq!(turn.take_effects().kv.len(), KV_LIST_MAX);
}

fn small_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..4)
}

proptest! {
    /// Law: a turn sees the store as if its own writes so far had been applied.
    #[test]
    fn a_turn_sees_its_own_writes_laid_over_the_store(
        stored in prop::collection::btree_map(small_key(), any::<u8>(), 0..12),
        writes in prop::collection::vec((small_key(), prop::option::of(any::<u8>())), 0..12),
        (start, end, prefix) in (small_key(), small_key(), small_key()),
        limit in 0usize..8,
        reverse in any::<bool>(),
    ) {
        let mut model: BTreeMap<Vec<u8>, Bytes> =
            stored.iter().map(|(key, value)| (key.clone(), Bytes::from(vec![*value]))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let node = runtime.block_on(Node::start::<Shelf>());
        let _guard = runtime.enter();
        node.store.lock().kv = model.clone();
        let c = Ctx::<Shelf>::new(node.turn(ActionKind::Exclusive, Origin::Call, None));
        for (key, value) in writes {
            match value {
                Some(value) => {
                    c.kv().put_bytes(&key, vec![value]).unwrap();
                    model.insert(key, Bytes::from(vec![value]));
                }
                None => {
                    c.kv().delete(&key).unwrap();
                    model.remove(&key);
                }
            }
        }
        let pair = |entry: KvEntry| (entry.key, entry.value);
        let in_range = |key: &Vec<u8>| *key >= start && *key < end;
        let mut expected: Vec<_> = model.clone().into_iter().filter(|(key, _)| in_range(key)).collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        let got: Vec<_> = c.kv().list_range(&start, &end, limit, reverse).unwrap().into_iter().map(pair).collect();
        prop_assert_eq!(got, expected);

        let with_prefix = |(key, value): (&Vec<u8>, &Bytes)| Some((key.strip_prefix(&prefix[..])?.to_vec(), value.clone()));
        let expected: Vec<_> = model.iter().filter_map(with_prefix).collect();
        let got: Vec<_> = c.kv().list(&prefix).unwrap().into_iter().map(pair).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(c.kv().get_bytes(&start).unwrap(), model.get(&start).cloned());
    }
}
