//! How much one actor may keep in its KV store, to the byte, and whoever owns it.

use crate::common::TestCluster;
use clinch::prelude::*;
use serde::{Deserialize, Serialize};

const MAX: usize = 1000;

#[derive(Default, Serialize, Deserialize)]
struct Store {
    turns: u64,
}

#[clinch::actor(name = "store", kv_max = 1000)]
impl Store {
    #[action]
    fn put(&mut self, c: &Ctx<Self>, key: String, len: usize) -> Result<u64> {
        self.turns += 1;
        c.kv().put_bytes(&key, vec![7; len])?;
        Ok(self.turns)
    }

    /// One out, one in, in one turn.
    #[action]
    fn swap(&mut self, c: &Ctx<Self>, out: String, key: String, len: usize) -> Result<()> {
        c.kv().delete(&out)?;
        c.kv().put_bytes(&key, vec![7; len])
    }

    #[action]
    fn delete(&mut self, c: &Ctx<Self>, key: String) -> Result<()> {
        c.kv().delete(&key)
    }

    #[action]
    fn keys(&self, c: &Ctx<Self>) -> Result<usize> {
        Ok(c.kv().list("")?.len())
    }

    #[action]
    fn turns(&self) -> u64 {
        self.turns
    }
}

fn full(result: Result<u64>, would: usize) {
    let error = result.unwrap_err();
    assert!(error.is("kv", "full"), "{error}");
    let text = format!("would have {would} bytes, at most {MAX} are allowed");
    assert!(error.message().contains(&text), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kv_store_of_an_actor_is_bounded_to_the_byte_over_failover_and_restart() {
    let mut cluster = TestCluster::start(3, Registry::new().actor::<Store>()).await;
    cluster.settled().await;
    let store = cluster.node(0).cluster().get::<Store>("a");
    assert_eq!(store.put("a".into(), 499).await.unwrap(), 1);
    assert_eq!(
        store.put("b".into(), 499).await.unwrap(),
        2,
        "exactly as much as may be"
    );
    full(store.put("c".into(), 0).await, MAX + 1);
    // Another value of the same key counts once.
    full(store.put("b".into(), 500).await, MAX + 1);
    assert_eq!(store.put("b".into(), 498).await.unwrap(), 3);
    assert_eq!(store.put("b".into(), 499).await.unwrap(), 4);
    store.swap("a".into(), "c".into(), 499).await.unwrap();
    full(store.put("d".into(), 9).await, MAX + 10);
    assert_eq!(store.turns().await.unwrap(), 4, "what was refused left nothing");

    let target = clinch_types::Target::Key {
        namespace: "default".into(),
        name: "store".into(),
        key: clinch_types::Key::new(["a"]).unwrap(),
        create: None,
    };
    let (_, owner) = cluster.owner(0, &target).expect("an owner");
    drop(store);
    cluster.stop_node(owner).await;
    let other = (owner + 1) % 3;
    let store = cluster.node(other).cluster().get::<Store>("a");
    full(store.put("d".into(), 0).await, MAX + 1);
    store.delete("b".into()).await.unwrap();
    assert_eq!(store.put("d".into(), 499).await.unwrap(), 5);
    full(store.put("e".into(), 0).await, MAX + 1);
    drop(store);

    cluster.stop_all().await;
    cluster.start_all(Registry::new().actor::<Store>()).await;
    let store = cluster.node(0).cluster().get::<Store>("a");
    full(store.put("e".into(), 0).await, MAX + 1);
    // Gone with the actor; the next one under this key begins at nothing.
    store.destroy().await.unwrap();
    assert_eq!(store.put("e".into(), 999).await.unwrap(), 1);
    full(store.put("f".into(), 0).await, MAX + 1);
    assert_eq!(store.keys().await.unwrap(), 1);
}
