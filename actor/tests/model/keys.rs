//! Structs as keys.

use clinch_actor::{ActorKey, FromKey, IntoKey, ShardedKey};
use clinch_types::Key;

#[derive(Debug, Clone, PartialEq, ActorKey)]
struct RoomKey {
    org: String,
    room: u32,
}

#[derive(Debug, PartialEq, ActorKey)]
struct Pair(String, i64);

#[test]
fn a_struct_is_a_key_of_its_fields_in_order_and_is_read_back() {
    let room = RoomKey {
        org: "a/b,c".into(),
        room: 7,
    };
    let key = room.clone().into_key().unwrap();
    assert_eq!(key, Key::new(["a/b,c", "7"]).unwrap());
    assert_eq!(RoomKey::from_key(&key), Some(room));
    let pair = Pair("x".into(), -1).into_key().unwrap();
    assert_eq!(Pair::from_key(&pair), Some(Pair("x".into(), -1)));
    for other in [&["a"][..], &["a", "no number"], &["a", "1", "b"]] {
        assert_eq!(
            RoomKey::from_key(&Key::new(other.iter().copied()).unwrap()),
            None,
            "{other:?}"
        );
    }
    assert_eq!(u32::from_key(&Key::new(["12"]).unwrap()), Some(12));
    let long = RoomKey {
        org: "x".repeat(129),
        room: 1,
    };
    assert!(long.into_key().is_err());
}

#[test]
fn a_sharded_key_is_always_the_same_and_spreads() {
    let shard = |of: &str| ShardedKey::hash("views", of, 16);
    assert_eq!(shard("u1"), shard("u1"));
    let all: Vec<_> = ShardedKey::all("views", 16).collect();
    let mut hits = vec![0; 16];
    for n in 0..1600 {
        let key = shard(&n.to_string());
        hits[all.iter().position(|k| *k == key).expect("one of them")] += 1;
    }
    assert!(hits.iter().all(|n| (50..200).contains(n)), "{hits:?}");
    // Where data lies depends on it for ever.
    assert_eq!(shard("u1").into_key().unwrap().components(), ["views", GOLDEN]);
}

const GOLDEN: &str = "9";
