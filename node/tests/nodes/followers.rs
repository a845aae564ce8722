//! Connections of programs and of actors: typed events, actions over them, and what is left when an owner goes.

use crate::common::{PATIENCE, TestCluster, eventually, http};
use clinch::ConnStatus;
use clinch::prelude::*;
use clinch_types::{Key, Target};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

#[derive(Default, Serialize, Deserialize)]
struct Room {
    said: u64,
    log: Vec<String>,
}

#[derive(Deserialize)]
struct Params {
    user: String,
}

#[derive(Debug, Event, PartialEq, Serialize, Deserialize)]
struct Said {
    number: u64,
    text: String,
}

#[derive(Debug, Event, PartialEq)]
struct Welcome(String);

#[derive(Debug, Event)]
struct Secret();

#[clinch::actor(name = "room", events(Said, Welcome, Secret))]
impl Room {
    #[hook]
    fn before_connect(&self, params: Params) -> Result<()> {
        match params.user.as_str() {
            "mallory" => Err(Error::user("forbidden", "not you")),
            _ => Ok(()),
        }
    }

    #[hook]
    fn conn_state(&self, params: Params) -> String {
        params.user
    }

    #[hook]
    fn on_connect(&mut self, conn: &Conn<Self>) -> Result<()> {
        conn.send(Welcome(conn.state()?));
        Ok(())
    }

    #[hook]
    fn on_disconnect(&mut self, conn: &Conn<Self>) -> Result<()> {
        self.log.push(format!("-{}", conn.state()?));
        Ok(())
    }

    #[hook]
    fn can_subscribe(&self, _c: &Ctx<Self>, event: &str) -> bool {
        event != "secret"
    }

    #[action]
    fn say(&mut self, c: &Ctx<Self>, text: String) -> Result<(u64, String)> {
        self.said += 1;
        c.broadcast(Said {
            number: self.said,
            text,
        });
        Ok((
            self.said,
            c.conn()
                .map_or_else(|_| Ok("nobody".into()), |conn| conn.state())?,
        ))
    }

    #[action]
    fn kick(&mut self, c: &Ctx<Self>, reason: String) -> usize {
        let conns = c.conns();
        conns.iter().for_each(|conn| conn.disconnect(reason.as_str()));
        conns.len()
    }

    #[action]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }
}

/// Hears what is said in a room, and keeps it.
#[derive(Default, Serialize, Deserialize)]
struct Clerk {
    room: String,
    heard: Vec<u64>,
}

#[clinch::actor(name = "clerk", sleep_after = "never")]
impl Clerk {
    #[action]
    fn follow(&mut self, c: &Ctx<Self>, room: String) {
        self.room = room.clone();
        c.spawn(move |c| async move {
            let room = c
                .get::<Room>(room.as_str())
                .with_params(serde_json::json!({ "user": "clerk" }));
            let Ok(room) = room.connect().await else { return };
            let Ok(mut said) = room.on::<Said>().await else {
                return;
            };
            let _ = c.update(|clerk| clerk.heard.push(0)).await;
            while let Some(Ok(event)) = said.next().await {
                let _ = c.update(move |clerk| clerk.heard.push(event.number)).await;
            }
        });
    }

    #[action]
    fn heard(&self) -> Vec<u64> {
        self.heard.clone()
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Room>().actor::<Clerk>()
}

fn room_of(cluster: &Cluster, user: &str) -> RoomHandle {
    cluster
        .get::<Room>("lobby")
        .with_params(serde_json::json!({ "user": user }))
}

fn lobby() -> Target {
    Target::Key {
        namespace: "default".into(),
        name: "room".into(),
        key: Key::new(["lobby"]).expect("a short key"),
        create: None,
    }
}

#[tokio::test]
async fn a_connection_is_one_to_its_actor_and_events_come_before_the_answer_that_follows_them() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = room_of(cluster.node(0).cluster(), "ada");
    let ada = room.connect().await.expect("a connection");
    let mut welcome = ada.on::<Welcome>().await.expect("a subscription");
    let first = timeout(PATIENCE, welcome.next()).await.expect("in time");
    assert_eq!(first.expect("an event").expect("readable"), Welcome("ada".into()));

    let mut said = ada.on::<Said>().await.expect("a subscription");
    for number in 1..=5 {
        let text = format!("line {number}");
        assert_eq!(ada.say(text.clone()).await.expect("said"), (number, "ada".into()));
        // Not waited for: it was here first.
        let event = futures_util::FutureExt::now_or_never(said.next()).expect("no wait");
        assert_eq!(event.expect("an event").expect("readable"), Said { number, text });
    }
    let outside = cluster.node(0).cluster().get::<Room>("lobby");
    // Without the connection the same caller is nobody.
    assert_eq!(
        outside.say("from outside".into()).await.expect("said").1,
        "nobody"
    );
    assert_eq!(said.next().await.expect("an event").expect("readable").number, 6);
}

#[tokio::test]
async fn who_may_not_come_in_or_hear_is_told_why_and_who_leaves_is_seen_off_once() {
    let cluster = TestCluster::start(1, registry()).await;
    let outside = cluster.node(0).cluster();
    let refused = room_of(outside, "mallory")
        .connect()
        .await
        .err()
        .expect("a refusal");
    assert!(refused.is("user", "forbidden"), "{refused}");

    let ada = room_of(outside, "ada").connect().await.expect("a connection");
    let refused = ada.on::<Secret>().await.err().expect("a refusal");
    assert!(refused.message().contains("secret"), "{refused}");
    drop(ada);
    let log = || async { outside.get::<Room>("lobby").log().await.expect("a log") };
    eventually("ada left", || async { log().await == ["-ada"] }).await;

    let bob = room_of(outside, "bob").connect().await.expect("a connection");
    let mut said = bob.on::<Said>().await.expect("a subscription");
    assert_eq!(
        outside
            .get::<Room>("lobby")
            .kick("too loud".into())
            .await
            .expect("kicked"),
        1
    );
    let ended = timeout(PATIENCE, bob.ended()).await.expect("in time");
    assert!(
        ended.is("actor", "connection_closed") && ended.message() == "too loud",
        "{ended}"
    );
    assert!(said.next().await.is_none(), "events end with the connection");
    assert!(bob.say("late".into()).await.is_err(), "calls over it, too");
    eventually("bob left", || async { log().await == ["-ada", "-bob"] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_tells_how_it_is() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let outside = cluster.node(0).cluster().clone();
    let ada = room_of(&outside, "ada").connect().await.expect("a connection");
    let mut status = ada.status();
    assert_eq!(*status.borrow_and_update(), ConnStatus::Connected);
    // Without a majority nobody answers for the actor; with one again, somebody does.
    cluster.stop_node(1).await;
    cluster.stop_node(2).await;
    let becomes = |wanted| {
        let mut status = ada.status();
        async move {
            timeout(PATIENCE * 2, status.wait_for(|now| *now == wanted))
                .await
                .expect("in time")
                .is_ok()
        }
    };
    assert!(becomes(ConnStatus::Reconnecting).await);
    cluster.start_node(1).await;
    cluster.start_node(2).await;
    assert!(becomes(ConnStatus::Connected).await);
    outside
        .get::<Room>("lobby")
        .kick("too loud".into())
        .await
        .expect("kicked");
    assert!(becomes(ConnStatus::Ended).await);
    assert_eq!(ada.ended().await.message(), "too loud");
}

#[tokio::test]
async fn an_unread_event_holds_up_neither_answers_nor_other_readers() {
    let cluster = TestCluster::start(1, registry()).await;
    let ada = room_of(cluster.node(0).cluster(), "ada")
        .connect()
        .await
        .expect("a connection");
    let unread = ada.on::<Said>().await.expect("a subscription");
    let lines = 1500;
    for _ in 0..lines {
        timeout(PATIENCE, ada.say("x".into()))
            .await
            .expect("in time")
            .expect("said");
    }
    // What waited is still all there and in order.
    let mut unread = unread;
    for number in 1..=lines {
        let event = timeout(PATIENCE, unread.next()).await.expect("in time");
        assert_eq!(event.expect("an event").expect("readable").number, number);
    }
}

#[tokio::test]
async fn g6_g8_a_connection_of_a_program_hears_everything_once_and_in_order_while_owners_die() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    eventually("an owner is known", || async {
        cluster.owner(0, &lobby()).is_some()
    })
    .await;
    let (_, owner) = cluster.owner(0, &lobby()).expect("an owner");
    let (listens, speaks) = ((owner + 1) % 3, (owner + 2) % 3);
    let ada = room_of(cluster.node(listens).cluster(), "ada")
        .connect()
        .await
        .expect("a connection");
    let mut said = ada.on::<Said>().await.expect("a subscription");
    let speaker = cluster.node(speaks).cluster().get::<Room>("lobby");
    for number in 1..=40 {
        if number == 20 {
            cluster.stop_node(owner).await;
        }
        timeout(PATIENCE, speaker.say(format!("{number}")))
            .await
            .expect("in time")
            .expect("said");
    }
    for number in 1..=40 {
        let event = timeout(PATIENCE, said.next()).await.expect("in time");
        assert_eq!(event.expect("an event").expect("readable").number, number);
    }
    // The same connection goes on, and over the network, too, an answer comes behind the events before it.
    for number in 41..=140 {
        assert_eq!(
            ada.say(String::new()).await.expect("said"),
            (number, "ada".into())
        );
        let event = futures_util::FutureExt::now_or_never(said.next()).expect("no wait");
        assert_eq!(event.expect("an event").expect("readable").number, number);
    }
}

#[tokio::test]
async fn an_actor_follows_another_one() {
    let cluster = TestCluster::start(1, registry()).await;
    let outside = cluster.node(0).cluster();
    let clerk = outside.get::<Clerk>("c");
    clerk.follow("lobby".into()).await.expect("followed");
    eventually("the clerk listens", || async {
        clerk.heard().await.expect("heard") == [0]
    })
    .await;
    for _ in 0..3 {
        outside
            .get::<Room>("lobby")
            .say("hello".into())
            .await
            .expect("said");
    }
    eventually("the clerk heard it", || async {
        clerk.heard().await.expect("heard") == [0, 1, 2, 3]
    })
    .await;
}

#[tokio::test]
async fn the_address_of_an_actor_works_for_tools_that_know_nothing_of_keys() {
    let cluster = TestCluster::start(1, registry()).await;
    let outside = cluster.node(0).cluster();
    let gateway = cluster.node(0).gateways()[0];
    let by_key = outside.get::<Clerk>(("north", "a/b? c&d"));
    let ask = |url: String| async move {
        let path = url.strip_prefix("http://gateway").expect("the base").to_owned();
        let body = r#"{"args":[]}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        http(gateway, request.as_bytes()).await
    };
    let base = "http://gateway/";
    let url = clinch::gateway_url(base, &by_key, "action/heard").expect("an address");
    assert_eq!(ask(url).await, (200, r#"{"output":[]}"#.into()));
    let id = by_key.resolve().await.expect("an id");
    let url = clinch::gateway_url(base, &outside.get_by_id::<Clerk>(id), "action/heard").expect("an address");
    assert_eq!(ask(url).await.0, 200, "the same actor by its id");
    let missing = outside.get::<Clerk>(("south", "x")).existing();
    let url = clinch::gateway_url(base, &missing, "action/heard").expect("an address");
    assert_eq!(ask(url).await.0, 404, "nobody is made by `get`");
    let error = clinch::gateway_url(base, &outside.get::<Clerk>("a,b"), "x").expect_err("a comma");
    assert!(error.message().contains("\"a,b\""), "{error}");
}
