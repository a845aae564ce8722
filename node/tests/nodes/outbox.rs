//! One-way sends: they leave with their turn or not at all, arrive exactly once and in order, whatever fails meanwhile.

use std::time::Duration;

use crate::common::{TestCluster, eventually, gate};
use clinch::prelude::*;
use clinch_types::{Key, Target};
use serde::{Deserialize, Serialize};

/// Receives.
#[derive(Default, Serialize, Deserialize)]
struct Inbox {
    got: Vec<u64>,
}

#[clinch::actor(name = "inbox")]
impl Inbox {
    #[action]
    fn put(&mut self, n: u64) {
        self.got.push(n);
    }

    #[action]
    fn refuse(&mut self, _n: u64) -> Result<()> {
        Err(Error::user("no", "not this one"))
    }

    #[action]
    fn got(&self) -> Vec<u64> {
        self.got.clone()
    }

    /// Holds the actor until the gate opens.
    #[action]
    async fn hold(&mut self, name: String) {
        gate(&name)
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
    }

    #[action]
    fn numbers(&self, c: &Ctx<Self>) -> Result<usize> {
        c.queue::<u64>("numbers").len()
    }
}

/// Sends.
#[derive(Default, Serialize, Deserialize)]
struct Sender {
    sent: u64,
}

#[clinch::actor(name = "sender")]
impl Sender {
    #[action]
    fn send(&mut self, c: &Ctx<Self>, to: String, count: u64) -> Result<()> {
        for _ in 0..count {
            self.sent += 1;
            c.get::<Inbox>(to.as_str()).put(self.sent).send()?;
        }
        Ok(())
    }

    #[action]
    async fn send_then(&mut self, c: &Ctx<Self>, to: String, end: String) -> Result<()> {
        c.get::<Inbox>(to).put(999).send()?;
        match end.as_str() {
            "err" => Err(Error::user("no", "changed my mind")),
            _ => panic!("a bug in the application"),
        }
    }

    #[action]
    fn send_refused_then(&mut self, c: &Ctx<Self>, to: String, n: u64) -> Result<()> {
        c.get::<Inbox>(to.as_str()).refuse(n).send()?;
        c.get::<Inbox>(to).put(n).send()
    }

    #[action]
    fn push(&mut self, c: &Ctx<Self>, to: String, n: u64) -> Result<()> {
        c.get::<Inbox>(to).queue("numbers").push(n).send()
    }

    #[action]
    fn send_and_end(&mut self, c: &Ctx<Self>, to: String, n: u64) -> Result<()> {
        c.get::<Inbox>(to).put(n).send()?;
        c.destroy();
        Ok(())
    }

    #[action]
    async fn send_beside(c: Ctx<Self>, to: String, n: u64) -> Result<()> {
        c.get::<Inbox>(to).put(n).send()
    }

    #[action]
    fn note(&mut self, n: u64) {
        self.sent = n;
    }

    #[action]
    fn note_own(&mut self, c: &Ctx<Self>, n: u64) -> Result<()> {
        c.me().note(n).send()
    }

    #[action]
    fn sent(&self) -> u64 {
        self.sent
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Inbox>().actor::<Sender>()
}

fn target(name: &str, key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: name.into(),
        key: Key::new([key]).expect("a short key"),
        create: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_arrive_once_and_in_order_and_those_of_a_failed_turn_never() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let (sender, inbox) = (handle.get::<Sender>("a"), handle.get::<Inbox>("a"));
    for end in ["err", "panic"] {
        sender.send_then("a".into(), end.into()).await.unwrap_err();
    }
    sender.send("a".into(), 50).await.unwrap();
    sender.send("a".into(), 50).await.unwrap();
    eventually("all have arrived", || async {
        inbox.got().await.unwrap().len() >= 100
    })
    .await;
    assert_eq!(inbox.got().await.unwrap(), (1..=100).collect::<Vec<_>>());
    // A refused one does not hold up those behind it.
    sender.send_refused_then("a".into(), 7).await.unwrap();
    sender.send_beside("a".into(), 8).await.unwrap();
    sender.push("a".into(), 3).await.unwrap();
    sender.note_own(4711).await.unwrap();
    eventually("these too", || async {
        inbox.got().await.unwrap().len() >= 102
            && inbox.numbers().await.unwrap() == 1
            && sender.sent().await.unwrap() == 4711
    })
    .await;
    assert_eq!(inbox.got().await.unwrap()[100..], [7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_actor_sent_arrives_even_when_it_is_gone() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    handle
        .get::<Sender>("gone")
        .send_and_end("gone".into(), 5)
        .await
        .unwrap();
    let inbox = handle.get::<Inbox>("gone");
    eventually("it has arrived", || async { inbox.got().await.unwrap() == [5] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_whose_sends_do_not_arrive_is_told_when_they_are_too_many() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let inbox = handle.get::<Inbox>("full");
    let holding = tokio::spawn({
        let inbox = inbox.clone();
        async move { inbox.hold("full".into()).await }
    });
    let sender = handle.get::<Sender>("full");
    for _ in 0..10 {
        sender.send("full".into(), 100).await.unwrap();
    }
    let error = sender.send("full".into(), 1).await.unwrap_err();
    assert!(
        error.is("actor", "outbox_full") && error.message().contains("1000"),
        "{error}"
    );
    assert_eq!(
        sender.sent().await.unwrap(),
        1000,
        "the refused turn left no trace"
    );
    gate("full").add_permits(1);
    holding.await.unwrap().unwrap();
    eventually("all have arrived", || async {
        inbox.got().await.unwrap().len() >= 1000
    })
    .await;
    assert_eq!(inbox.got().await.unwrap(), (1..=1000).collect::<Vec<_>>());
    eventually("there is room again", || async {
        sender.send("full".into(), 1).await.is_ok()
    })
    .await;
}

/// Keys of a sender and an inbox whose shards have different owners.
fn apart(cluster: &TestCluster) -> (String, usize, String, usize) {
    let owner = |name, key: &str| {
        let (_, owner) = cluster
            .owner(0, &target(name, key))
            .expect("every shard has an owner");
        owner
    };
    let from = "mover".to_owned();
    let source = owner("sender", &from);
    let to = (0..)
        .map(|n| format!("inbox-{n}"))
        .find(|key| owner("inbox", key) != source);
    let to = to.expect("some key has another owner");
    let target = owner("inbox", &to);
    (from, source, to, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_sends_arrive_exactly_once_while_the_owners_of_both_ends_change() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    eventually("the routes name every owner", || async {
        let routes = cluster.node(0).cluster().router().routes();
        routes.shards.values().all(|shard| shard.owner.is_some())
    })
    .await;
    let (from, source, to, destination) = apart(&cluster);
    let asked = 3 - source - destination;
    let handle = cluster.node(asked).cluster().clone();
    let (sender, inbox) = (
        handle.get::<Sender>(from.as_str()),
        handle.get::<Inbox>(to.as_str()),
    );
    for round in 0..20 {
        sender.send(to.clone(), 10).await.unwrap();
        match round {
            5 => cluster.stop_node(destination).await,
            12 => {
                cluster.start_node(destination).await;
                cluster.ready().await;
                cluster.stop_node(source).await;
            }
            _ => {}
        }
    }
    eventually("all have arrived", || async {
        inbox.got().await.unwrap().len() >= 200
    })
    .await;
    // Copies on their way have time to arrive; a last one in order shows that they are over.
    sender.send(to.clone(), 1).await.unwrap();
    eventually("the last one", || async {
        inbox.got().await.unwrap().contains(&201)
    })
    .await;
    assert_eq!(inbox.got().await.unwrap(), (1..=201).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_sends_survive_a_stop_of_all_nodes_before_they_arrive() {
    let mut cluster = TestCluster::start(1, registry()).await;
    {
        let handle = cluster.node(0).cluster().clone();
        let inbox = handle.get::<Inbox>("stop");
        let holding =
            tokio::spawn(async move { inbox.hold("stop".into()).timeout(Duration::from_secs(5)).await });
        let sender = handle.get::<Sender>("stop");
        sender.send("stop".into(), 20).await.unwrap();
        cluster.stop_all().await;
        holding.await.unwrap().unwrap_err();
    }
    cluster.start_all(registry()).await;
    let inbox = cluster.node(0).cluster().get::<Inbox>("stop");
    eventually("all have arrived", || async {
        inbox.got().await.unwrap().len() >= 20
    })
    .await;
    assert_eq!(inbox.got().await.unwrap(), (1..=20).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(inbox.got().await.unwrap().len(), 20, "and none of them again");
}
