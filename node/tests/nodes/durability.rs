//! Actors that chose to lose something lose no more than they said.

use crate::common::{TestCluster, eventually, proposed};
use clinch::prelude::*;
use serde::{Deserialize, Serialize};

macro_rules! tally {
    ($name:ident, $text:literal, $durability:literal) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $name {
            count: u64,
        }

        #[clinch::actor(name = $text, durability = $durability)]
        impl $name {
            #[action]
            fn add(&mut self) -> u64 {
                self.count += 1;
                self.count
            }

            #[action]
            fn add_and_fail(&mut self) -> Result<()> {
                self.count += 100;
                Err(Error::user("no", "changed my mind"))
            }

            #[action]
            fn add_saved(&mut self, c: &Ctx<Self>) -> u64 {
                self.count += 1;
                c.save();
                self.count
            }

            #[action]
            fn add_noted(&mut self, c: &Ctx<Self>) -> Result<u64> {
                self.count += 1;
                c.kv().put("note", &self.count)?;
                Ok(self.count)
            }

            #[action]
            fn get(&self, c: &Ctx<Self>) -> Result<(u64, Option<u64>)> {
                Ok((self.count, c.kv().get("note")?))
            }

            #[action]
            fn doze(&mut self, c: &Ctx<Self>) {
                c.sleep();
            }
        }
    };
}

tally!(Sometimes, "sometimes", "may lose 1h");
tally!(Soon, "soon", "may lose 300ms");
tally!(Cache, "cache", "may lose everything");

fn registry() -> Registry {
    Registry::new()
        .actor::<Sometimes>()
        .actor::<Soon>()
        .actor::<Cache>()
}

/// Held alone by tests that count entries: other tests of this process make some.
static METRICS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_may_be_lost_is_answered_at_once_rolled_back_and_never_goes_backwards() {
    let _shared = METRICS.read().await;
    let cluster = TestCluster::start(1, registry()).await;
    let tally = cluster.node(0).cluster().get::<Sometimes>("a");
    for n in 1..=20 {
        let (count, meta) = tally.add().meta().await.unwrap();
        assert_eq!(count, n);
        assert!(meta.version.0 >= n);
    }
    tally.add_and_fail().await.unwrap_err();
    assert_eq!(
        tally.get().await.unwrap(),
        (20, None),
        "back to the last good one, not to the stored one"
    );
    // Asleep and awake again: what was in memory was written before.
    let id = tally.resolve().await.unwrap();
    tally.doze().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    assert_eq!(tally.get().await.unwrap(), (20, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_order_loses_nothing_that_is_ever_written() {
    let _shared = METRICS.read().await;
    let mut cluster = TestCluster::start(1, registry()).await;
    {
        let handle = cluster.node(0).cluster().clone();
        // Behind its creation on the way to the log, a turn of a cache commits as well.
        handle.get::<Cache>("stop").resolve().await.unwrap();
        for _ in 0..5 {
            handle.get::<Sometimes>("stop").add().await.unwrap();
            handle.get::<Cache>("stop").add().await.unwrap();
        }
    }
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let handle = cluster.node(0).cluster();
    assert_eq!(handle.get::<Sometimes>("stop").get().await.unwrap(), (5, None));
    assert_eq!(
        handle.get::<Cache>("stop").get().await.unwrap(),
        (0, None),
        "a cache begins anew"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_forgotten_by_sleep_but_what_it_saved_or_committed_is_not() {
    let _shared = METRICS.read().await;
    let cluster = TestCluster::start(1, registry()).await;
    let cache = cluster.node(0).cluster().get::<Cache>("forget");
    let id = cache.resolve().await.unwrap();
    let sleep = || async {
        cache.doze().await.unwrap();
        eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    };
    cache.add().await.unwrap();
    assert_eq!(cache.get().await.unwrap().0, 1);
    sleep().await;
    assert_eq!(cache.get().await.unwrap().0, 0);
    cache.add().await.unwrap();
    cache.add_saved().await.unwrap();
    sleep().await;
    assert_eq!(cache.get().await.unwrap().0, 2, "saved");
    cache.add_noted().await.unwrap();
    cache.add().await.unwrap();
    sleep().await;
    assert_eq!(
        cache.get().await.unwrap(),
        (3, Some(3)),
        "a turn with other effects commits as a whole"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_may_be_lost_costs_no_entry_until_its_interval_is_over() {
    let _alone = METRICS.write().await;
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let (sometimes, soon, cache) = (
        handle.get::<Sometimes>("m"),
        handle.get::<Soon>("m"),
        handle.get::<Cache>("m"),
    );
    sometimes.resolve().await.unwrap();
    soon.resolve().await.unwrap();
    cache.resolve().await.unwrap();
    let before = proposed(&cluster).await;
    for _ in 0..20 {
        sometimes.add().await.unwrap();
        cache.add().await.unwrap();
    }
    assert_eq!(proposed(&cluster).await, before);
    for _ in 0..5 {
        soon.add().await.unwrap();
    }
    eventually("it is written", || async {
        proposed(&cluster).await.0 > before.0
    })
    .await;
    assert_eq!(
        proposed(&cluster).await,
        (before.0 + 1.0, before.1 + 1.0),
        "once, for all turns"
    );
    sometimes.add_saved().await.unwrap();
    assert!(
        proposed(&cluster).await.0 > before.0 + 1.0,
        "saved before its answer"
    );
}
