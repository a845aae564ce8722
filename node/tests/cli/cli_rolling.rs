//! Each node restarted in turn, as an upgrade does it, while clients call at the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cli_support::{PATIENCE, program};
use clinch::cli::actors::Counter;
use clinch::cli::local::{LocalCluster, LocalOptions};
use clinch_client::{Client, Cluster, HttpClient};
use clinch_types::NodeId;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long followers vote for nobody else after their leader's last word: no election can end a pause sooner.
const LEASE: Duration = Duration::from_secs(4);
/// Callers at each gateway, and as many of the Rust client.
const CALLERS: usize = 3;
/// Calls that each of them makes before, during and after a restart.
const CALLS: u64 = 15;

/// Whom a caller calls through.
enum Door {
    Http(Box<HttpClient>),
    Client(Cluster),
}

impl Door {
    async fn increment(&self, key: &str) -> i64 {
        let answer = match self {
            Self::Http(http) => http
                .call("counter", &[key.into()], "increment", json!([1]))
                .await
                .map(|count| count.as_i64().expect("a count"))
                .map_err(|error| error.to_string()),
            Self::Client(cluster) => {
                let counter = cluster.get::<Counter>(key);
                counter
                    .increment(Some(1))
                    .await
                    .map_err(|error| error.to_string())
            }
        };
        answer.unwrap_or_else(|error| panic!("a call on {key} failed: {error}"))
    }
}

/// The counter that all callers increment while this node is restarted.
fn shared_by(restarted: NodeId) -> String {
    format!("shared-{restarted}")
}

/// The load while one node is restarted.
struct Load {
    shared: String,
    stop: Arc<AtomicBool>,
    /// Calls answered, by caller.
    answered: Vec<Arc<AtomicU64>>,
    callers: JoinSet<Calls>,
}

/// What one caller has seen.
struct Calls {
    longest: Duration,
    /// Values of the counter that all share.
    shared: Vec<i64>,
}

impl Load {
    fn begin(cluster: &LocalCluster, client: &Client, restarted: NodeId) -> Self {
        let mut load = Self {
            shared: shared_by(restarted),
            stop: Arc::default(),
            answered: Vec::new(),
            callers: JoinSet::new(),
        };
        let others = cluster.nodes().into_iter().filter(|node| *node != restarted);
        for node in others {
            for number in 0..CALLERS {
                let http = cluster.http(node).unwrap();
                load.call(
                    Door::Http(Box::new(http)),
                    format!("{restarted}-http-{node}-{number}"),
                );
            }
        }
        for number in 0..CALLERS {
            load.call(
                Door::Client(client.cluster().clone()),
                format!("{restarted}-rust-{number}"),
            );
        }
        load
    }

    /// Increments a counter of one's own and the one of all in turns; of the own one, no value may be left out or come twice.
    fn call(&mut self, door: Door, own: String) {
        let (shared, stop, answered) = (
            self.shared.clone(),
            self.stop.clone(),
            Arc::new(AtomicU64::new(0)),
        );
        self.answered.push(answered.clone());
        self.callers.spawn(async move {
            let mut calls = Calls {
                longest: Duration::ZERO,
                shared: Vec::new(),
            };
            for number in 1.. {
                let begun = Instant::now();
                assert_eq!(door.increment(&own).await, number, "{own}");
                let between = Instant::now();
                calls.shared.push(door.increment(&shared).await);
                let ended = Instant::now();
                calls.longest = calls.longest.max(between - begun).max(ended - between);
                answered.store(2 * number.unsigned_abs(), Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            calls
        });
    }

    /// Waits until each caller has had this many more answers.
    async fn more(&mut self, calls: u64) {
        let counts = || self.answered.iter().map(|count| count.load(Ordering::Relaxed));
        let wanted: Vec<u64> = counts().map(|count| count + calls).collect();
        let deadline = Instant::now() + PATIENCE;
        while counts().zip(&wanted).any(|(count, wanted)| count < *wanted) {
            if let Some(ended) = self.callers.try_join_next() {
                ended.expect("no call fails");
            }
            assert!(Instant::now() < deadline, "calls are not answered any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it: the longest time a call took, and how often the counter of all was incremented.
    async fn end(self) -> (Duration, i64) {
        self.stop.store(true, Ordering::Relaxed);
        let calls = self.callers.join_all().await;
        let mut values: Vec<i64> = calls.iter().flat_map(|c| c.shared.iter().copied()).collect();
        values.sort_unstable();
        let count = i64::try_from(values.len()).unwrap();
        assert!(
            values.iter().copied().eq(1..=count),
            "a value was given twice, or left out"
        );
        let longest = calls.iter().map(|c| c.longest).max().unwrap();
        (longest, count)
    }
}

/// A client of the protocol that listens to a counter at a gateway.
struct Listener(WebSocketStream<TcpStream>);

impl Listener {
    async fn open(gateway: &str, key: &str) -> Self {
        let address = gateway.strip_prefix("http://").unwrap();
        let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=";
        let url = format!("ws://{address}/gateway/counter/connect?{query}{key}");
        let mut request = url.into_client_request().unwrap();
        let protocols = "rivet,rivet_encoding.json".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocols);
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = client_async(request, stream).await.unwrap();
        let mut listener = Self(socket);
        assert_eq!(listener.frame().await["tag"], "Init");
        let subscribe = json!({ "eventName": "newCount", "subscribe": true });
        listener.send("SubscriptionRequest", &subscribe).await;
        // Frames are done in order: once this is answered, it is subscribed.
        let look = json!({ "id": 1, "name": "getCount", "args": [] });
        listener.send("ActionRequest", &look).await;
        assert_eq!(listener.frame().await["tag"], "ActionResponse");
        listener
    }

    async fn send(&mut self, tag: &str, value: &Value) {
        let frame = json!({ "body": { "tag": tag, "val": value } });
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn frame(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
            match next.expect("a frame in time").expect("it is open").unwrap() {
                Message::Text(text) => {
                    return serde_json::from_str::<Value>(&text).unwrap()["body"].take();
                }
                Message::Close(frame) => panic!("a connection was closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Hears the counts from 1 on, each once and in order, up to the one that it is told in the end.
    async fn hears(mut self, mut last: watch::Receiver<Option<i64>>) {
        let mut heard = 0;
        loop {
            let known = *last.borrow_and_update();
            if known.is_some_and(|last| heard >= last) {
                return;
            }
            let frame = tokio::select! {
                frame = self.frame() => frame,
                changed = last.changed(), if known.is_none() => {
                    changed.expect("the test goes on");
                    continue;
                }
            };
            heard += 1;
            assert_eq!(frame["tag"], "Event", "{frame}");
            assert_eq!(frame["val"]["args"][0], heard, "{frame}");
        }
    }
}

/// Waits until every shard is back where it should be.
async fn settled(cluster: &LocalCluster) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cluster.status().await.unwrap();
        let shards = status["shards"].as_array().unwrap();
        if !shards.is_empty() && shards.iter().all(|shard| shard["owner"] == shard["preferred"]) {
            return;
        }
        assert!(Instant::now() < deadline, "not where they should be: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_restarts_in_turn_and_no_call_fails_is_lost_or_waits_for_an_election() {
    let dir = tempfile::tempdir().unwrap();
    let lease = LEASE.as_millis();
    let raft = format!(
        "raft.heartbeat-ms = 200\nraft.election-min-ms = {}\nraft.election-max-ms = {lease}",
        lease / 2
    );
    let cluster = LocalCluster::start(LocalOptions {
        settings: toml::from_str(&raft).unwrap(),
        ..LocalOptions::new(dir.path().join("c"), program())
    })
    .await
    .unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = cluster.client().await.unwrap();
    let mut counts = BTreeMap::new();
    for node in cluster.nodes() {
        settled(&cluster).await;
        let (last, heard) = watch::channel(None);
        let mut listeners = JoinSet::new();
        for (at, gateway) in cluster.gateways() {
            if at != node {
                let listener = Listener::open(&gateway, &shared_by(node)).await;
                listeners.spawn(listener.hears(heard.clone()));
            }
        }
        let mut load = Load::begin(&cluster, &client, node);
        load.more(CALLS).await;
        let asked = Instant::now();
        cluster.stop(node).await.unwrap();
        let stopped = asked.elapsed();
        let status = cluster.exited(node).await.unwrap();
        assert!(status.success(), "node {node} ended with {status}");
        load.more(CALLS).await;
        cluster.restart(node).unwrap();
        cluster.wait_node_ready(node, PATIENCE).await.unwrap();
        settled(&cluster).await;
        load.more(CALLS).await;
        let (longest, count) = load.end().await;
        eprintln!(
            "node {node}: stopped within {stopped:?}; of {count} calls and as many, the longest took {longest:?}"
        );
        assert!(longest < LEASE, "a call took {longest:?}");
        let log = std::fs::read_to_string(cluster.log(node)).unwrap();
        assert!(log.contains("all shards are handed over"), "{log}");
        last.send_replace(Some(count));
        listeners.join_all().await;
        counts.insert(shared_by(node), count);
    }
    for (key, count) in counts {
        for node in cluster.nodes() {
            let http = cluster.http(node).unwrap();
            let found = http
                .call("counter", std::slice::from_ref(&key), "getCount", json!([]))
                .await
                .unwrap();
            assert_eq!(found, count, "{key} at node {node}");
        }
    }
    cluster.stop_all().await;
}
