//! Tokens of actors in a whole cluster: one for each actor's life, whichever gateway is asked and whoever owns the actor.

use std::net::SocketAddr;

use crate::common::{TestCluster, eventually, http, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clinch::TokenConfig;
use clinch::prelude::*;
use clinch_types::{ActorId, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Default, Serialize, Deserialize)]
struct Till {
    coins: i64,
}

#[clinch::actor(name = "till")]
impl Till {
    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.coins += by;
        self.coins
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Till>()
}

async fn ask(to: SocketAddr, token: &str, line: &str) -> (u16, Value) {
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
    );
    let (status, body) = http(to, request.as_bytes()).await;
    let body = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{status} {body:?}: {e}"));
    (status, body)
}

/// The actor's token, as an operator reads it at this node.
async fn read(cluster: &TestCluster, node: usize, id: &str) -> String {
    let line = format!("GET /actors/{id}/kv/keys/Aw%3D%3D?namespace=default");
    let (status, answer) = ask(cluster.node(node).gateways()[0], "for-operators", &line).await;
    assert_eq!(status, 200, "{answer}");
    let value = STANDARD
        .decode(answer["value"].as_str().expect("a text"))
        .expect("base64");
    String::from_utf8(value).expect("ASCII")
}

/// What the inspector of an actor says to a token at this node.
async fn state(cluster: &TestCluster, node: usize, id: &str, token: &str) -> (u16, Value) {
    let line = format!("GET /gateway/{id}/inspector/state");
    let (status, mut answer) = ask(cluster.node(node).gateways()[0], token, &line).await;
    (status, answer["state"]["coins"].take())
}

async fn made(cluster: &TestCluster, key: &str) -> String {
    let till = cluster.node(0).cluster().get::<Till>(key);
    till.add(3).await.unwrap();
    let line = format!("GET /actors?namespace=default&name=till&key={key}");
    let (_, found) = ask(cluster.node(0).gateways()[0], "for-operators", &line).await;
    found["actors"][0]["actor_id"]
        .as_str()
        .expect("it is there")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_an_actor_is_one_at_every_gateway_and_outlives_owners_and_restarts() {
    let mut cluster = TestCluster::prepare(3, registry());
    for index in 0..3 {
        cluster.configs[index].tokens = vec![
            token("secret", "for-operators"),
            token("publishable", "for-browsers"),
        ];
    }
    for index in 0..3 {
        cluster.start_node(index).await;
    }
    cluster.ready().await;
    cluster.settled().await;
    let (id, other) = (made(&cluster, "a").await, made(&cluster, "b").await);
    // Before there is a secret nothing opens anything.
    assert_eq!(state(&cluster, 0, &id, &"A".repeat(43)).await.0, 401);

    // All ask at once for what is made only now.
    let (own, second, third) = tokio::join!(
        read(&cluster, 0, &id),
        read(&cluster, 1, &id),
        read(&cluster, 2, &id)
    );
    assert_eq!((&own, &own), (&second, &third));
    let of_other = read(&cluster, 1, &other).await;
    assert_ne!(own, of_other);
    for node in 0..3 {
        let shown = || state(&cluster, node, &id, &own);
        eventually("the gateway knows the secret", || async {
            shown().await.0 == 200
        })
        .await;
        assert_eq!(shown().await, (200, 3.into()));
        assert_eq!(state(&cluster, node, &id, &of_other).await.0, 401);
        assert_eq!(state(&cluster, node, &id, "for-browsers").await.0, 401);
    }

    // Another owner.
    let target = Target::Id(id.parse::<ActorId>().unwrap());
    let (_, owner) = cluster.owner(0, &target).expect("it has an owner");
    cluster.stop_node(owner).await;
    let left = (owner + 1) % 3;
    eventually("it has another owner", || async {
        state(&cluster, left, &id, &own).await == (200, 3.into())
    })
    .await;
    assert_eq!(read(&cluster, left, &id).await, own);

    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    for node in 0..3 {
        assert_eq!(state(&cluster, node, &id, &own).await, (200, 3.into()));
        assert_eq!(read(&cluster, node, &id).await, own);
    }

    let gateway = cluster.node(1).gateways()[0];
    let (status, answer) = ask(gateway, "for-operators", &format!("DELETE /actors/{id}")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(state(&cluster, 2, &id, &own).await.0, 404);
    let again = made(&cluster, "a").await;
    assert_eq!(
        state(&cluster, 2, &again, &own).await.0,
        401,
        "the same key, another actor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_two_namespaces_together_open_no_more_than_each_alone() {
    let mut cluster = TestCluster::prepare(1, registry());
    let of = |kind: &str, text: &str, namespace: Option<&str>| TokenConfig {
        namespace: namespace.map(str::to_owned),
        ..token(kind, text)
    };
    cluster.configs[0].tokens = vec![
        of("secret", "of-shop", Some("shop")),
        of("secret", "of-default", Some("default")),
        of("publishable", "for-browsers", None),
    ];
    cluster.start_node(0).await;
    cluster.ready().await;
    let till = cluster.node(0).cluster().get::<Till>("a");
    till.add(3).await.unwrap();
    let id = till.resolve().await.unwrap();
    // In the address what a browser has, beside it what opens another namespace.
    let line = format!("GET /gateway/{id}@for-browsers/inspector/state");
    let gateway = cluster.node(0).gateways()[0];
    let (status, body) = ask(gateway, "of-shop", &line).await;
    // What is in another namespace is not there.
    assert_eq!(
        (status, &body["group"], &body["code"]),
        (404, &"actor".into(), &"not_found".into()),
        "{body}"
    );
    assert_eq!(ask(gateway, "of-default", &line).await.0, 200);
}
