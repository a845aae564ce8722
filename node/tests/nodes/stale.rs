//! Reads that may be of an older state, and those that may not.

use std::time::Duration;

use crate::common::{Probe, TestCluster, eventually, gate, probe_target, runs};
use clinch::Consistency;
use clinch::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// Much more than a heartbeat, much less than the patience of a test.
const AGE: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(700);

fn old() -> Consistency {
    Consistency::stale(AGE)
}

/// State and KV entry say the same after every turn; it also remembers how often it was made ready.
#[derive(Default, Serialize, Deserialize)]
struct Pair {
    count: u64,
}

#[clinch::actor(name = "pair")]
impl Pair {
    #[action]
    fn add(&mut self, c: &Ctx<Self>) -> Result<u64> {
        self.count += 1;
        c.kv().put("count", &self.count)?;
        Ok(self.count)
    }

    /// Slow enough for turns to commit between its two looks.
    #[action]
    async fn both(&self, c: &Ctx<Self>) -> Result<(u64, u64)> {
        tokio::task::yield_now().await;
        Ok((self.count, c.kv().get("count")?.unwrap_or(0)))
    }
}

/// Keeps something beside its state.
#[derive(Default, Serialize, Deserialize)]
struct Cached {
    count: u64,
}

#[clinch::actor(name = "cached", vars = String)]
impl Cached {
    #[action]
    fn look(&self, c: &Ctx<Self>) -> String {
        c.vars().clone()
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Probe>().actor::<Pair>().actor::<Cached>()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_read_waits_for_no_turn_and_a_read_that_does_not_ask_for_it_does() {
    let cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let key = "stale-held";
    let probe = cluster.node(0).cluster().get::<Probe>(key);
    assert_eq!(probe.add(3).await.unwrap(), 3);
    let held = {
        let probe = probe.clone();
        tokio::spawn(async move { probe.add_held(4, "stale-gate".into()).await })
    };
    eventually("the turn runs", || async { runs(key) == 2 }).await;
    for node in 0..3 {
        let probe = cluster.node(node).cluster().get::<Probe>(key);
        let read = timeout(AGE, probe.get().consistency(old())).await;
        assert_eq!(read.expect("it waits for no turn").unwrap(), 3);
    }
    // Unasked, or asked for nothing that old: it is fresh, so it waits.
    let fresh = timeout(MOMENT, probe.get()).await;
    assert!(fresh.is_err(), "{fresh:?}");
    let fresh = timeout(
        MOMENT,
        probe.get().consistency(Consistency::stale(Duration::ZERO)),
    )
    .await;
    assert!(fresh.is_err(), "{fresh:?}");
    gate("stale-gate").add_permits(1);
    assert_eq!(held.await.unwrap().unwrap(), 7);
    assert_eq!(probe.get().await.unwrap(), 7);
    // What has been answered is seen: the next stale read is of the owner, and the owner has it.
    assert_eq!(probe.get().consistency(old()).await.unwrap(), 7);
    // A write is a write.
    assert_eq!(probe.add(1).consistency(old()).await.unwrap(), 8);
    assert_eq!(probe.get().await.unwrap(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_read_of_an_owner_that_is_cut_off_shows_what_is_committed_for_so_long_and_no_longer() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let key = "stale-cut";
    let probe = cluster.node(0).cluster().get::<Probe>(key);
    assert_eq!(probe.add(3).await.unwrap(), 3);
    let (_, owner) = cluster.owner(0, &probe_target(key)).expect("an owner");
    drop(probe);
    for node in (0..3).filter(|node| *node != owner) {
        cluster.stop_node(node).await;
    }
    let probe = cluster.node(owner).cluster().get::<Probe>(key);
    let adding = {
        let probe = probe.clone();
        tokio::spawn(async move { probe.add(4).timeout(Duration::from_secs(8)).await })
    };
    // Under its lease it may still answer for a moment, as long as the addition has not begun.
    let soon = Duration::from_millis(300);
    while probe.get().timeout(soon).await.is_ok() {}
    // Executed, and never committed: nobody hears of it.
    let second = Duration::from_secs(1);
    for _ in 0..8 {
        let read = probe.get().consistency(old()).timeout(second).await;
        assert_eq!(read.unwrap(), 3);
        let fresh = probe.get().timeout(soon).await;
        assert!(fresh.is_err(), "{fresh:?}");
    }
    assert!(adding.await.unwrap().is_err());
    // Heard of the others too long ago for this one.
    let error = probe
        .get()
        .consistency(Consistency::stale(MOMENT))
        .timeout(second)
        .await
        .unwrap_err();
    assert!(error.is_retryable() || error.is_perhaps(), "{error}");
    assert_eq!(probe.get().consistency(old()).timeout(second).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_read_is_of_one_moment_and_wakes_nobody() {
    let cluster = TestCluster::start(3, registry()).await;
    let pair = cluster.node(0).cluster().get::<Pair>("a");
    let id = pair.resolve().await.unwrap();
    let writing = {
        let pair = pair.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                pair.add().await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while !writing.is_finished() {
        let (state, kv) = pair.both().consistency(old()).await.unwrap();
        assert_eq!(state, kv, "two moments in one answer");
        assert!(state >= seen, "from {seen} back to {state}");
        seen = state;
    }
    writing.await.unwrap();
    assert_eq!(pair.both().consistency(old()).await.unwrap(), (200, 200));
    assert!(cluster.awake(0, id).await);

    // One that is not awake stays so.
    let cached = cluster.node(0).cluster().get::<Cached>("b");
    assert_eq!(
        cached.look().consistency(old()).await.unwrap(),
        "",
        "made, and asked as usual"
    );
    let missing = cluster.node(0).cluster().get::<Pair>("none").existing();
    let error = missing.both().consistency(old()).await.unwrap_err();
    assert!(error.is("actor", "not_found"), "{error}");
}

#[derive(Default, Serialize, Deserialize)]
struct Sleeper {
    count: u64,
}

#[clinch::actor(name = "sleeper", sleep_after = "100ms")]
impl Sleeper {
    #[action]
    fn add(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    #[action]
    fn get(&self) -> u64 {
        self.count
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_read_lets_a_sleeping_actor_sleep() {
    let cluster = TestCluster::start(1, Registry::new().actor::<Sleeper>()).await;
    let sleeper = cluster.node(0).cluster().get::<Sleeper>("a");
    assert_eq!(sleeper.add().await.unwrap(), 1);
    let id = sleeper.resolve().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    assert_eq!(sleeper.get().consistency(old()).await.unwrap(), 1);
    assert!(!cluster.awake(0, id).await);
    assert_eq!(sleeper.get().await.unwrap(), 1);
    assert!(cluster.awake(0, id).await);
}
