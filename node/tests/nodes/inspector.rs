//! What operators change by hand, by way of a gateway: as durable as what an action changes, and refused to others.

use std::net::SocketAddr;

use crate::common::{TestCluster, eventually, gate, http, ran, runs, token};
use clinch::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Default, Serialize, Deserialize)]
struct Shop {
    count: i64,
    price: f64,
    note: Option<String>,
}

#[clinch::actor(name = "shop", state_max = 100)]
impl Shop {
    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    #[action]
    fn price(&self) -> f64 {
        self.price
    }
}

/// Keeps its state in memory, whatever it does.
#[derive(Default, Serialize, Deserialize)]
struct Cache {
    count: i64,
}

#[clinch::actor(name = "cache", durability = "may lose everything")]
impl Cache {
    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }
}

/// Has no state, and works off one of its queues.
#[derive(Default, Serialize, Deserialize)]
struct Clerk;

#[clinch::actor(name = "clerk")]
impl Clerk {
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        let mut orders = c.queue::<String>("orders");
        while let Some(order) = orders.next().await? {
            ran(&order);
            gate(&order)
                .acquire()
                .await
                .expect("gates are never closed")
                .forget();
            order.ack().await?;
        }
        Ok(())
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Shop>().actor::<Cache>().actor::<Clerk>()
}

async fn start() -> TestCluster {
    let mut cluster = TestCluster::prepare(1, registry());
    cluster.configs[0].tokens = vec![
        token("publishable", "for-browsers"),
        token("secret", "for-operators"),
    ];
    cluster.start_node(0).await;
    cluster.ready().await;
    cluster
}

/// Somebody who asks the inspector of one actor.
struct Operator {
    to: SocketAddr,
    actor: &'static str,
    key: &'static str,
}

impl Operator {
    fn of(cluster: &TestCluster, actor: &'static str, key: &'static str) -> Self {
        let to = cluster.node(0).gateways()[0];
        Self { to, actor, key }
    }

    async fn ask_with(&self, token: &str, method: &str, part: &str, body: &Value) -> (u16, Value) {
        let (Self { actor, key, .. }, body) = (self, body.to_string());
        let request = format!(
            "{method} /gateway/{actor}/inspector/{part}?rvt-namespace=default&rvt-method=getOrCreate\
             &rvt-runner=default&rvt-key={key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}\
             content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        let (status, body) = http(self.to, request.as_bytes()).await;
        let body = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{status} {body:?}: {e}"));
        (status, body)
    }

    /// With a token that allows it; gives what is answered.
    async fn ask(&self, method: &str, part: &str, body: Value) -> Value {
        let token = "authorization: Bearer for-operators\r\n";
        let (status, answer) = self.ask_with(token, method, part, &body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// As [`Operator::ask`], for what is a mistake: the error, and its message.
    async fn refused(&self, method: &str, part: &str, body: Value) -> (String, String) {
        let token = "authorization: Bearer for-operators\r\n";
        let (status, answer) = self.ask_with(token, method, part, &body).await;
        assert_eq!(status, 400, "{answer}");
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        (format!("{}.{}", text("group"), text("code")), text("message"))
    }

    /// Nobody else gets through.
    async fn is_guarded(&self, method: &str, part: &str, body: Value) {
        for token in [
            "",
            "authorization: Bearer for-browsers\r\n",
            "authorization: Bearer for-operator\r\n",
        ] {
            let (status, answer) = self.ask_with(token, method, part, &body).await;
            assert_eq!((status, &answer["group"]), (401, &json!("inspector")), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_written_by_hand_is_seen_by_the_next_action_and_outlives_the_node() {
    let mut cluster = start().await;
    let operator = Operator::of(&cluster, "shop", "a");
    let shop = cluster.node(0).cluster().get::<Shop>("a");
    assert_eq!(shop.add(2).await.unwrap(), 2);

    let patch = json!({"state": {"count": 40, "price": 3, "note": "by hand"}});
    operator.is_guarded("PATCH", "state", patch.clone()).await;
    assert_eq!(shop.add(0).await.unwrap(), 2);
    assert_eq!(operator.ask("PATCH", "state", patch).await, json!({"ok": true}));
    assert_eq!(shop.add(1).await.unwrap(), 41);
    assert_eq!(shop.price().await.unwrap(), 3.0, "read as arguments are");
    let shown = operator.ask("GET", "state", Value::Null).await;
    let state = json!({"count": 41, "price": 3, "note": "by hand"});
    assert_eq!(shown, json!({"isStateEnabled": true, "state": state}));

    let (error, message) = operator
        .refused("PATCH", "state", json!({"state": {"count": "many", "price": 1}}))
        .await;
    assert_eq!(error, "actor.invalid_request");
    assert!(message.contains("\"many\""), "{message}");
    let (error, message) = operator
        .refused(
            "PATCH",
            "state",
            json!({"state": {"count": 1, "price": 1, "note": "x".repeat(100)}}),
        )
        .await;
    assert_eq!(error, "actor.state_too_large");
    assert!(message.contains("at most 100 are allowed"), "{message}");
    let shown = operator.ask("GET", "state", Value::Null).await;
    assert_eq!(shown["state"], state, "what was refused left nothing");
    assert_eq!(shop.add(1).await.unwrap(), 42);

    // Durable also where nothing else is.
    let hand = Operator::of(&cluster, "cache", "a");
    let cache = cluster.node(0).cluster().get::<Cache>("a");
    assert_eq!(cache.add(1).await.unwrap(), 1);
    hand.ask("PATCH", "state", json!({"state": {"count": 40}})).await;
    assert_eq!(cache.add(1).await.unwrap(), 41);

    let clerk = Operator::of(&cluster, "clerk", "a");
    assert_eq!(
        clerk.ask("GET", "state", Value::Null).await,
        json!({"isStateEnabled": false, "state": null})
    );
    let (error, message) = clerk.refused("PATCH", "state", json!({"state": null})).await;
    assert_eq!(error, "actor.state_not_enabled");
    assert!(message.contains("clerk"), "{message}");

    drop((shop, cache));
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let node = cluster.node(0).cluster();
    assert_eq!(node.get::<Shop>("a").add(0).await.unwrap(), 42);
    let count = node.get::<Cache>("a").add(0).await.unwrap();
    assert_eq!(count, 40, "written by hand, not what came after");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_filled_and_emptied_by_hand_but_for_what_somebody_works_on() {
    let mut cluster = start().await;
    let operator = Operator::of(&cluster, "clerk", "q");
    let message = |name: &str, body: &str| json!({"name": name, "body": body});
    operator
        .is_guarded("POST", "queue", message("orders", "not-let-in"))
        .await;
    let held = operator
        .ask("POST", "queue", message("orders", "held-by-clerk"))
        .await;
    eventually("the clerk works on it", || async { runs("held-by-clerk") == 1 }).await;
    operator
        .ask("POST", "queue", message("orders", "never-begun"))
        .await;
    operator
        .ask("POST", "queue", message("letters", "never-read"))
        .await;
    let (error, _) = operator.refused("POST", "queue", message("", "x")).await;
    assert_eq!(error, "actor.invalid_request");
    let clerk = cluster.node(0).cluster().get::<Clerk>("q");
    let waits = clerk
        .queue::<String>("orders")
        .push_and_wait::<()>("never-begun".into());
    let waits = tokio::spawn(waits.into_future());
    let shown = || operator.ask("GET", "queue", Value::Null);
    eventually("four messages", || async { shown().await["size"] == 4 }).await;

    operator.is_guarded("DELETE", "queue", Value::Null).await;
    assert_eq!(shown().await["size"], 4);
    let cleared = operator.ask("DELETE", "queue", Value::Null).await;
    assert_eq!(cleared, json!({"ok": true, "removed": 3}));
    let error = waits.await.unwrap().unwrap_err();
    assert!(error.is("queue", "removed"), "{error}");
    let left = shown().await;
    assert_eq!(
        (&left["size"], &left["messages"][0]["id"]),
        (&json!(1), &held["id"])
    );
    gate("held-by-clerk").add_permits(1);
    eventually("its work is over", || async { shown().await["size"] == 0 }).await;

    operator.ask("POST", "queue", message("letters", "kept")).await;
    drop(clerk);
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let operator = Operator::of(&cluster, "clerk", "q");
    let left = operator.ask("GET", "queue", Value::Null).await;
    assert_eq!(
        (&left["size"], &left["messages"][0]["name"]),
        (&json!(1), &json!("letters"))
    );
    // Orders are worked off one by one: whatever was before this one would have been begun.
    operator.ask("POST", "queue", message("orders", "the-next")).await;
    eventually("the next order is begun", || async { runs("the-next") == 1 }).await;
    gate("the-next").add_permits(1);
    assert_eq!((runs("never-begun"), runs("not-let-in")), (0, 0));
}
