//! What owners warn of: each warning is provoked, and a quiet actor sees none.

use std::time::Duration;

use crate::common::{Counter, TestCluster, eventually, http};
use clinch::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Does everything that one is warned of.
#[derive(Default, Serialize, Deserialize)]
struct God {
    notes: String,
}

#[clinch::actor(name = "god")]
impl God {
    /// Takes the shard's time.
    #[action]
    fn think(&mut self) {
        std::thread::sleep(Duration::from_millis(40));
    }

    /// Holds the actor, not the shard.
    #[action]
    async fn wait(&mut self) {
        tokio::time::sleep(Duration::from_millis(1050)).await;
    }

    #[action]
    fn write(&mut self, bytes: usize) {
        self.notes = "x".repeat(bytes);
    }
}

/// Lives for one request.
#[derive(Default, Serialize, Deserialize)]
struct Job;

#[clinch::actor(name = "job")]
impl Job {
    #[action]
    fn work(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }

    #[action]
    fn stay(&self) {}
}

async fn start() -> TestCluster {
    let registry = Registry::new().actor::<God>().actor::<Job>().actor::<Counter>();
    let mut cluster = TestCluster::prepare(1, registry);
    cluster.configs[0].cluster.shards = 1;
    cluster.start_node(0).await;
    cluster.ready().await;
    cluster
}

async fn ask(cluster: &TestCluster, path: &str) -> Value {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (status, body) = http(cluster.node(0).gateways()[0], request.as_bytes()).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{body:?}: {e}"))
}

/// The codes of the warnings about an actor, and what they say.
async fn warnings(cluster: &TestCluster, name: &str, key: &str) -> Vec<(String, String)> {
    let path =
        format!("/gateway/{name}/inspector/summary?rvt-namespace=default&rvt-method=get&rvt-key={key}");
    said(&ask(cluster, &path).await["warnings"])
}

fn said(warnings: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let warnings = warnings.as_array().map(Vec::as_slice).unwrap_or_default();
    warnings
        .iter()
        .map(|warning| (text(&warning["code"]), text(&warning["message"])))
        .collect()
}

fn codes(warnings: &[(String, String)]) -> Vec<&str> {
    warnings.iter().map(|(code, _)| code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_takes_its_shards_time_is_hot_and_its_quiet_neighbour_is_not() {
    let cluster = start().await;
    let (god, counter) = (
        cluster.node(0).cluster().get::<God>("g"),
        cluster.node(0).cluster().get::<Counter>("c"),
    );
    let hot = || async {
        // Without a pause: nearly all of the time is its.
        for _ in 0..10 {
            god.think().await.unwrap();
        }
        counter.increment(1).await.unwrap();
        assert_eq!(warnings(&cluster, "counter", "c").await, [], "a quiet neighbour");
        codes(&warnings(&cluster, "god", "g").await) == ["hot-actor"]
    };
    eventually("it is hot", hot).await;
    let all = warnings(&cluster, "god", "g").await;
    assert!(
        all[0].1.contains("% of the time of its shard") && all[0].1.contains("ShardedKey"),
        "{all:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_hold_their_actor_are_slow() {
    let cluster = start().await;
    let god = cluster.node(0).cluster().get::<God>("g");
    for _ in 0..2 {
        god.wait().await.unwrap();
        assert_eq!(warnings(&cluster, "god", "g").await, [], "not often enough");
    }
    god.wait().await.unwrap();
    let all = warnings(&cluster, "god", "g").await;
    assert_eq!(codes(&all), ["slow-turns"]);
    assert!(all[0].1.contains("3 of its latest"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_above_its_limit_is_large() {
    let cluster = start().await;
    let god = cluster.node(0).cluster().get::<God>("g");
    god.write(200 << 10).await.unwrap();
    assert_eq!(warnings(&cluster, "god", "g").await, []);
    god.write(300 << 10).await.unwrap();
    let all = warnings(&cluster, "god", "g").await;
    assert_eq!(codes(&all), ["large-state"]);
    god.write(1).await.unwrap();
    assert_eq!(warnings(&cluster, "god", "g").await, [], "it was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_whose_actors_live_for_one_request_is_short_lived() {
    let cluster = start().await;
    let jobs = cluster.node(0).cluster();
    jobs.get::<Job>("stays").stay().await.unwrap();
    for key in 0..19 {
        jobs.get::<Job>(key.to_string()).work().await.unwrap();
    }
    let listed = || async { said(&ask(&cluster, "/actors?name=job").await["warnings"]) };
    assert_eq!(listed().await, [], "nineteen are not enough");
    jobs.get::<Job>("19").work().await.unwrap();
    let all = listed().await;
    assert_eq!(codes(&all), ["short-lived"]);
    assert!(all[0].1.contains("about 20 actors \"job\""), "{all:?}");
    // One that stayed is of the type, too; others are not.
    assert_eq!(codes(&warnings(&cluster, "job", "stays").await), ["short-lived"]);
    jobs.get::<God>("g").write(1).await.unwrap();
    assert_eq!(warnings(&cluster, "god", "g").await, []);
    assert_eq!(said(&ask(&cluster, "/actors?name=god").await["warnings"]), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_well_made_actor_is_never_warned_of() {
    let cluster = start().await;
    let counter = cluster.node(0).cluster().get::<Counter>("c");
    for by in 0..100 {
        counter.increment(by).await.unwrap();
        counter.get_count().await.unwrap();
        counter.add_then_fail(1).await.unwrap_err();
        if by % 25 == 0 {
            assert_eq!(warnings(&cluster, "counter", "c").await, []);
        }
    }
    assert_eq!(warnings(&cluster, "counter", "c").await, []);
    assert_eq!(said(&ask(&cluster, "/actors?name=counter").await["warnings"]), []);
}
