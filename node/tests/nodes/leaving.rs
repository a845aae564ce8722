//! A node that stops while others go on: what it owns moves on in order, with the last words of its actors.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{Probe, TestCluster, eventually, gate, http, ran, runs};
use clinch::prelude::*;
use clinch_types::{Key, Target};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Nobody elects sooner: what is served within less was handed over.
const LEASE: Duration = Duration::from_secs(10);

/// Writes down when it is put to sleep.
#[derive(Default, Serialize, Deserialize)]
struct Sleeper {
    slept: u32,
}

#[clinch::actor(name = "last-words", sleep_after = "never")]
impl Sleeper {
    #[hook]
    async fn on_sleep(&mut self) {
        self.slept += 1;
    }

    #[action]
    fn slept(&self) -> u32 {
        self.slept
    }
}

/// Asks another actor in the middle of a turn.
#[derive(Default, Serialize, Deserialize)]
struct Asker {
    asked: u32,
}

#[clinch::actor(name = "asker")]
impl Asker {
    #[action]
    async fn ask(&mut self, c: &Ctx<Self>, when: String, whom: String) -> Result<i64> {
        ran(&c.key().to_string());
        self.asked += 1;
        gate(&when).acquire().await.map_err(Error::internal)?.forget();
        c.get::<Probe>(whom).add(1).await
    }
}

fn registry() -> Registry {
    Registry::new()
        .actor::<Sleeper>()
        .actor::<Asker>()
        .actor::<Probe>()
}

async fn start() -> TestCluster {
    let mut cluster = TestCluster::prepare(3, registry());
    for config in &mut cluster.configs {
        config.cluster.shards = 8;
        config.raft.election_min_ms = 5_000;
        config.raft.election_max_ms = u64::try_from(LEASE.as_millis()).expect("it fits");
    }
    for index in 0..3 {
        cluster.start_node(index).await;
    }
    cluster.ready().await;
    cluster.settled().await;
    cluster
}

fn target(name: &str, key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: name.into(),
        key: Key::new([key]).expect("a short key"),
        create: None,
    }
}

/// The first of many keys whose actor node `owner` owns (and, if asked for, in this shard), with the shard.
fn key_at(cluster: &TestCluster, owner: usize, name: &str, shard: Option<u64>) -> (String, u64) {
    let keys = (0..1000).map(|number| format!("{name}-{number}"));
    let mut found = keys.filter_map(|key| {
        let (at, node) = cluster.owner(0, &target(name, &key))?;
        (node == owner && shard.is_none_or(|shard| shard == at)).then_some((key, at))
    });
    found.next().expect("each node owns actors")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_its_shards_over_with_the_last_words_of_their_actors() {
    let mut cluster = start().await;
    let leaving = 1;
    let (key, _) = key_at(&cluster, leaving, "last-words", None);
    let sleeper = cluster.node(0).cluster().get::<Sleeper>(key.as_str());
    assert_eq!(sleeper.slept().await.expect("it is awake"), 0);
    let begun = Instant::now();
    cluster.stop_node(leaving).await;
    assert_eq!(sleeper.slept().await.expect("the next owner has it"), 1);
    assert!(begun.elapsed() < LEASE, "it took {:?}", begun.elapsed());
    let status = cluster.node(0).status();
    let shards = status["shards"].as_array().expect("shards");
    assert!(shards.iter().all(|shard| shard["owner"] != 2), "{status}");

    // Those that stay do not give anything back before it has started again; then they do.
    cluster.start_all(registry()).await;
    cluster.settled().await;
    assert_eq!(sleeper.slept().await.expect("it is back"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_does_not_end_is_left_behind_and_begins_again_at_the_next_owner() {
    let mut cluster = start().await;
    let leaving = 2;
    let (key, _) = key_at(&cluster, leaving, "probe", None);
    let probe = cluster.node(0).cluster().get::<Probe>(key.as_str());
    let held = tokio::spawn(async move { probe.add_held(1, "left-behind".into()).await });
    eventually("the turn has begun", || async { runs(&key) == 1 }).await;
    let begun = Instant::now();
    let node = cluster.nodes[leaving].take().expect("it runs");
    let stopping = tokio::spawn(node.stop());
    // The one shard takes its time, longer than the balance of the other nodes: nothing comes back meanwhile.
    let mut moved = BTreeSet::new();
    while !stopping.is_finished() {
        for shard in cluster.node(0).status()["shards"].as_array().expect("shards") {
            let (id, owner) = (shard["id"].as_u64(), shard["owner"].as_u64());
            match owner {
                Some(3) => assert!(!moved.contains(&id), "shard {id:?} came back"),
                Some(_) => drop(moved.insert(id)),
                None => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("it has begun again", || async { runs(&key) == 2 }).await;
    assert!(begun.elapsed() < LEASE, "it took {:?}", begun.elapsed());
    gate("left-behind").add_permits(1);
    assert_eq!(held.await.expect("no panic").expect("an answer"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_asks_an_actor_of_its_own_shard_ends_before_the_shard_moves() {
    let mut cluster = start().await;
    let leaving = 1;
    let (asker, shard) = key_at(&cluster, leaving, "asker", None);
    let (asked, _) = key_at(&cluster, leaving, "probe", Some(shard));
    let outside = cluster.node(0).cluster().clone();
    let handle = outside.get::<Asker>(asker.as_str());
    let whom = asked.clone();
    let asking = tokio::spawn(async move { handle.ask("chain".into(), whom).await });
    eventually("the turn has begun", || async { runs(&asker) == 1 }).await;
    let gateway = cluster.node(leaving).gateways()[0];
    let node = cluster.nodes[leaving].take().expect("it runs");
    let stopping = tokio::spawn(node.stop());
    let ready = b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    eventually("it is about to stop", || async {
        http(gateway, ready).await.0 == 503
    })
    .await;
    // What nobody of the shard waits for has to wait itself. A machine that stood still looks so once, and not twice.
    let other = outside.get::<Probe>(asked.as_str());
    let waits = || async { other.get().timeout(Duration::from_millis(100)).await.is_err() };
    eventually("the shard is on its way", || async {
        waits().await && waits().await
    })
    .await;
    gate("chain").add_permits(1);
    assert_eq!(asking.await.expect("no panic").expect("an answer"), 1);
    assert_eq!(runs(&asker), 1, "the turn was left behind");
    stopping.await.expect("it stops");
    assert_eq!(other.get().await.expect("it has moved"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_stop_together_do_not_wait_for_each_other() {
    let mut cluster = start().await;
    let asked = cluster.node(0).cluster().get::<Probe>("together");
    assert_eq!(asked.add(1).await.expect("an answer"), 1);
    drop(asked);
    let begun = Instant::now();
    cluster.stop_all().await;
    // Actors are waited for four seconds, and a stage that waits in vain takes ten.
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_shards_have_no_other_replica_stops_at_once() {
    let mut cluster = TestCluster::prepare(3, registry());
    for config in &mut cluster.configs {
        config.cluster.replicas = 1;
    }
    for index in 0..3 {
        cluster.start_node(index).await;
    }
    cluster.ready().await;
    // Only the one replica of a shard knows of its owner.
    let key = || {
        let mut keys = (0..100).map(|number| format!("alone-{number}"));
        keys.find(|key| {
            cluster
                .owner(2, &target("last-words", key))
                .is_some_and(|(_, owner)| owner == 2)
        })
    };
    eventually("the node owns something", || async { key().is_some() }).await;
    let key = key().expect("it owns something");
    let sleeper = cluster.node(0).cluster().get::<Sleeper>(key.as_str());
    assert_eq!(sleeper.slept().await.expect("it is awake"), 0);
    let begun = Instant::now();
    cluster.stop_node(2).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        begun.elapsed()
    );
    cluster.start_all(registry()).await;
    assert_eq!(sleeper.slept().await.expect("it is back"), 1);
}
