//! How an actor is, as its owner tells: to every gateway, and without waking it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::common::{PATIENCE, RawClient, TestCluster, eventually, gate, http};
use clinch::prelude::*;
use clinch_client::{RoutedCall, Router, RouterConfig};
use clinch_transport::{
    CertBundle, Handler, Inbound, InboundStream, PeerId, Refusal, RefusalCode, Transport, TransportConfig,
    UdpSockets,
};
use clinch_types::{
    ActorInfo, ActorStatus, CallError, CallOp, Key, ListReply, ListRequest, NodeId, NodeRoute, RouteMap,
    SessionId, ShardId, ShardRoute, Slot, Target, codec, kind,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the hooks of an actor do, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// They wait for the gate of the key.
    Slow,
    /// They fail.
    Broken,
}

static MOODS: Mutex<BTreeMap<String, Mood>> = Mutex::new(BTreeMap::new());

fn set(key: &str, mood: Mood) {
    MOODS.lock().insert(key.to_owned(), mood);
}

async fn follow(key: &Key) -> Result<()> {
    let key = key.to_string();
    let mood = MOODS.lock().get(&key).copied().unwrap_or(Mood::Well);
    match mood {
        Mood::Well => Ok(()),
        Mood::Slow => {
            gate(&key)
                .acquire()
                .await
                .expect("gates are never closed")
                .forget();
            Ok(())
        }
        Mood::Broken => Err(Error::user("no_mood", "not today")),
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Moody {
    rings: u32,
}

#[clinch::actor(name = "moody")]
impl Moody {
    #[hook]
    async fn on_wake(&mut self, c: &Ctx<Self>) -> Result<()> {
        follow(c.key()).await
    }

    #[hook]
    async fn on_sleep(&mut self, c: &Ctx<Self>) -> Result<()> {
        follow(c.key()).await
    }

    #[action]
    fn rings(&self) -> u32 {
        self.rings
    }

    #[action]
    fn ring(&mut self) {
        self.rings += 1;
    }

    #[action]
    fn doze(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }

    /// Sleeps, and has something to do soon.
    #[action]
    fn nap(&mut self, c: &Ctx<Self>) -> Result<()> {
        c.me().ring().after(std::time::Duration::from_millis(200))?;
        c.sleep();
        Ok(())
    }
}

/// Has work beside its turns.
#[derive(Default, Serialize, Deserialize)]
struct Worker;

#[clinch::actor(name = "worker")]
impl Worker {
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        follow(c.key()).await?;
        c.cancelled().await;
        Ok(())
    }

    #[action]
    fn touch(&self) {}
}

fn registry() -> Registry {
    Registry::new().actor::<Moody>().actor::<Worker>()
}

async fn ask(to: SocketAddr, path: &str) -> Value {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (status, body) = http(to, request.as_bytes()).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{body:?}: {e}"))
}

/// The actor as every gateway tells, found by its key and in the listing of its type: all say the same.
async fn told(cluster: &TestCluster, name: &str, key: &str) -> Value {
    let mut said = Vec::new();
    for node in cluster.nodes.iter().flatten() {
        let to = node.gateways()[0];
        let found = ask(to, &format!("/actors?name={name}&key={key}")).await;
        said.push(found["actors"][0].clone());
        let listed = ask(to, &format!("/actors?name={name}")).await;
        let listed = listed["actors"].as_array().cloned().unwrap_or_default();
        said.push(
            listed
                .into_iter()
                .find(|actor| actor["key"] == key)
                .unwrap_or_default(),
        );
    }
    let differs = said.iter().any(|actor| *actor != said[0]);
    match differs {
        true => json!({ "status": "not all say the same yet", "said": said }),
        false => said.swap_remove(0),
    }
}

async fn becomes(cluster: &TestCluster, name: &str, key: &str, status: &str) -> Value {
    let what = format!("{name} {key} is {status}");
    let last = Mutex::new(Value::Null);
    eventually(&what, || async {
        let actor = told(cluster, name, key).await;
        let holds = actor["status"] == status;
        *last.lock() = actor;
        holds
    })
    .await;
    last.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_tells_how_an_actor_is_and_looking_does_not_wake_it() {
    let cluster = TestCluster::start(3, registry()).await;
    for key in ["amy", "bob", "cleo"] {
        let moody = cluster.node(0).cluster().get::<Moody>(key);
        moody.rings().await.unwrap();
        let running = becomes(&cluster, "moody", key, "running").await;
        assert_eq!(running.get("crash"), None, "{running}");

        set(key, Mood::Slow);
        moody.doze().await.unwrap();
        becomes(&cluster, "moody", key, "stopping").await;
        gate(key).add_permits(1);
        // Looked at several times, which does not wake it.
        becomes(&cluster, "moody", key, "sleeping").await;
        becomes(&cluster, "moody", key, "sleeping").await;

        let woken = tokio::spawn({
            let moody = moody.clone();
            async move { moody.rings().await }
        });
        becomes(&cluster, "moody", key, "starting").await;
        gate(key).add_permits(1);
        woken.await.unwrap().unwrap();
        becomes(&cluster, "moody", key, "running").await;

        let id = moody.resolve().await.unwrap();
        moody.destroy().await.unwrap();
        let to = cluster.node(1).gateways()[0];
        for path in [
            format!("/actors?name=moody&key={key}"),
            format!("/actors?actor_ids={id}"),
        ] {
            assert_eq!(ask(to, &path).await["actors"], json!([]), "gone is not found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_cannot_be_woken_is_crashed_until_it_can_and_says_why() {
    let cluster = TestCluster::start(1, registry()).await;
    let moody = cluster.node(0).cluster().get::<Moody>("eve");
    moody.doze().await.unwrap();
    becomes(&cluster, "moody", "eve", "sleeping").await;
    set("eve", Mood::Broken);
    let mut since = Value::Null;
    for failures in 1..=3 {
        let error = moody.rings().await.unwrap_err();
        assert!(error.is("user", "no_mood"), "{error}");
        let actor = becomes(&cluster, "moody", "eve", "crashed").await;
        let crash = &actor["crash"];
        assert_eq!(
            (&crash["group"], &crash["code"], &crash["failures"]),
            (&json!("user"), &json!("no_mood"), &json!(failures)),
            "{actor}"
        );
        assert_eq!(crash["next_try_ts"], Value::Null, "only a call tries again");
        if failures == 1 {
            since = crash["since_ts"].clone();
        }
        assert_eq!((crash["since_ts"].is_u64(), &crash["since_ts"]), (true, &since));
    }
    // Who looks into it tries as well, and is told instead of refused.
    let path = "/gateway/moody/inspector/summary?rvt-namespace=default&rvt-method=get&rvt-key=eve";
    let summary = ask(cluster.node(0).gateways()[0], path).await;
    assert_eq!(
        (
            &summary["status"],
            &summary["crash"]["code"],
            &summary["crash"]["failures"]
        ),
        (&json!("crashed"), &json!("no_mood"), &json!(4)),
        "{summary}"
    );
    assert_eq!(
        (&summary["state"], &summary["rpcs"][0]),
        (&Value::Null, &json!("rings")),
        "{summary}"
    );

    set("eve", Mood::Well);
    moody.rings().await.unwrap();
    let actor = becomes(&cluster, "moody", "eve", "running").await;
    assert_eq!(actor.get("crash"), None, "{actor}");
    let summary = ask(cluster.node(0).gateways()[0], path).await;
    assert_eq!(
        (&summary["status"], &summary["crash"]),
        (&json!("running"), &Value::Null),
        "{summary}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_finds_its_actor_broken_says_when_it_tries_again() {
    let cluster = TestCluster::start(1, registry()).await;
    let moody = cluster.node(0).cluster().get::<Moody>("fay");
    moody.rings().await.unwrap();
    // It wakes to this mood, and naps in any.
    set("fay", Mood::Broken);
    moody.nap().await.unwrap();
    let next = || async { told(&cluster, "moody", "fay").await["crash"]["next_try_ts"].clone() };
    eventually("it is crashed, and will be tried again", || async {
        next().await.is_u64()
    })
    .await;
    let actor = told(&cluster, "moody", "fay").await;
    assert!(
        actor["crash"]["next_try_ts"].as_u64() > actor["crash"]["since_ts"].as_u64(),
        "{actor}"
    );
    set("fay", Mood::Well);
    // Without any call.
    becomes(&cluster, "moody", "fay", "running").await;
    assert_eq!(moody.rings().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_whose_run_hook_failed_backs_off_and_serves() {
    let cluster = TestCluster::start(1, registry()).await;
    set("gus", Mood::Broken);
    let worker = cluster.node(0).cluster().get::<Worker>("gus");
    worker.touch().await.unwrap();
    let actor = becomes(&cluster, "worker", "gus", "backing-off").await;
    let crash = &actor["crash"];
    assert_eq!(
        (&crash["group"], &crash["code"]),
        (&json!("user"), &json!("no_mood")),
        "{actor}"
    );
    // The first pause is a second, each further one is longer.
    let pause = |actor: &Value| {
        let at = |name: &str| actor["crash"][name].as_u64().unwrap_or_default();
        at("next_try_ts").saturating_sub(at("since_ts"))
    };
    assert!(pause(&actor) >= 1000, "{actor}");
    worker.touch().await.unwrap();
    let again = || async { told(&cluster, "worker", "gus").await["crash"]["failures"].as_u64() >= Some(2) };
    eventually("it failed again", again).await;
    set("gus", Mood::Well);
    let actor = becomes(&cluster, "worker", "gus", "running").await;
    assert_eq!(actor.get("crash"), None, "{actor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_an_earlier_release_lists_actors_as_it_always_did() {
    let cluster = TestCluster::start(1, registry()).await;
    let moody = cluster.node(0).cluster().get::<Moody>("ida");
    let id = moody.resolve().await.unwrap();
    let routes = cluster.node(0).cluster().router().routes();
    let shard = routes.shard_of(id.slot()).unwrap();
    let request = ListRequest {
        shard,
        namespace: "default".into(),
        name: Some("moody".into()),
        ids: Vec::new(),
        after: None,
        limit: 10,
    };
    let client = RawClient::new(&cluster);
    let body = codec::encode(&request).unwrap();
    let answer = client
        .ask(cluster.node(0).address(), kind::LIST, body)
        .await
        .unwrap();
    let listed = codec::decode::<Result<ListReply, CallError>>(&answer)
        .unwrap()
        .unwrap();
    let seen: Vec<_> = listed
        .actors
        .iter()
        .map(|actor| (actor.id, actor.awake))
        .collect();
    assert_eq!(seen, [(id, true)]);
}

/// A node of an earlier release: it lists one actor, and knows of no looks.
struct Earlier(ListReply);

impl Handler for Earlier {
    fn request(&self, inbound: Inbound) {
        match inbound.kind {
            kind::LIST => {
                let answer = Ok::<_, CallError>(self.0.clone());
                inbound.respond(codec::encode(&answer).expect("a small answer").into());
            }
            other => {
                let text = format!("no service for kind {other}");
                inbound.refuse(Refusal::new(RefusalCode::UnknownKind, text));
            }
        }
    }

    fn stream(&self, _: InboundStream) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_an_earlier_release_is_asked_in_words_it_knows() {
    let cluster = TestCluster::prepare(1, registry());
    let (node, address) = (NodeId(1), cluster.configs[0].listen);
    let info = |number: u128, awake| ActorInfo {
        id: clinch_types::ActorId::new(Default::default(), Slot(0), number),
        namespace: "default".into(),
        name: "moody".into(),
        key: Key::new([number.to_string()]).unwrap(),
        region: Default::default(),
        created: Default::default(),
        awake,
    };
    let actors = vec![info(1, true), info(2, false)];
    let id = actors[0].id;
    let stop = CancellationToken::new();
    let identity = CertBundle::load(&cluster.certs(), &PeerId::Node(node)).unwrap();
    let _earlier = Transport::start(
        TransportConfig::default(),
        identity,
        Arc::new(UdpSockets::default()),
        Some(address),
        Arc::new(Earlier(ListReply { actors, next: None })),
        TaskTracker::new(),
        stop.clone(),
    )
    .unwrap();
    let client = RawClient::new(&cluster);
    let router = Router::new(
        RouterConfig::default(),
        client.transport(),
        SessionId(7),
        None,
        Vec::new(),
    );
    let shard = ShardId(0);
    let (replicas, gateway) = (vec![node], None);
    router.set_routes(RouteMap {
        cluster: Default::default(),
        version: 1,
        slots: vec![shard; usize::from(Slot::COUNT)],
        shards: BTreeMap::from([(
            shard,
            ShardRoute {
                replicas,
                owner: Some(node),
                ..ShardRoute::default()
            },
        )]),
        nodes: BTreeMap::from([(
            node,
            NodeRoute {
                address: address.to_string(),
                gateway,
            },
        )]),
    });

    let request = ListRequest {
        shard,
        namespace: "default".into(),
        name: None,
        ids: Vec::new(),
        after: None,
        limit: 10,
    };
    let listed = router.list(request, PATIENCE).await.unwrap();
    let told: Vec<_> = listed.actors.iter().map(|view| view.status.clone()).collect();
    assert_eq!(
        told,
        [ActorStatus::Running, ActorStatus::Sleeping],
        "as far as it tells"
    );
    // Said at once, and not asked again until time runs out.
    let looked = router.call(RoutedCall::new(Target::Id(id), CallOp::Look));
    let error = looked.await.unwrap_err().into_actor_error();
    assert!(error.is("guard", "not_supported"), "{error}");
    stop.cancel();
}
