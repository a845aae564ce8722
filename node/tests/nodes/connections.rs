//! Connections and events: who is let in, what a connection is told and in which order, and what is left of it when its
//! owner or its gateway goes.

use std::time::Duration;

use crate::common::{PATIENCE, TestCluster, eventually};
use clinch::prelude::*;
use clinch::{ConnId, Frame};
use clinch_client::RoutedCall;
use clinch_types::{
    CallError, CallOp, CallReply, ConnItem, ConnKind, ConnReply, Door, Epoch, HttpBody, HttpReply,
    HttpRequest, Key, Polled, RequestId, Target, codec, limits,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Default, Serialize, Deserialize)]
struct Room {
    log: Vec<String>,
}

#[derive(Deserialize)]
struct Params {
    user: String,
}

#[derive(Serialize, Deserialize)]
struct Seat {
    user: String,
    said: u32,
}

#[derive(Event)]
struct Said(String);

#[derive(Event)]
struct Left(String);

#[clinch::actor(
    name = "room",
    events(Said, Left),
    sleep_after = "1s",
    disconnect_timeout = "300ms"
)]
impl Room {
    #[hook]
    async fn before_connect(&self, c: &Ctx<Self>, params: Params) -> Result<()> {
        match (params.user.as_str(), c.header("authorization")) {
            ("mallory", _) => Err(Error::user("forbidden", "not you").with("user", "mallory")),
            ("bearer", header) if header != Some("Bearer sesame") => {
                Err(Error::user("unauthorized", "no bearer"))
            }
            _ => Ok(()),
        }
    }

    #[hook]
    fn conn_state(&self, params: Params) -> Seat {
        Seat {
            user: params.user,
            said: 0,
        }
    }

    #[hook]
    async fn on_connect(&mut self, c: &Ctx<Self>, conn: &Conn<Self>) -> Result<()> {
        let user = conn.state()?.user;
        if user == "unwelcome" {
            return Err(Error::user("not_welcome", "full"));
        }
        conn.send(Said(format!("welcome {user}, {} here", c.conns().len())));
        self.log.push(format!("+{user}"));
        Ok(())
    }

    #[hook]
    fn can_subscribe(&self, _c: &Ctx<Self>, event: &str) -> bool {
        event != "secret"
    }

    #[hook]
    async fn on_disconnect(&mut self, c: &Ctx<Self>, conn: &Conn<Self>) -> Result<()> {
        let user = conn.state()?.user;
        if user == "stuck" {
            std::future::pending::<()>().await;
        }
        self.log.push(format!("-{user}"));
        c.broadcast(Left(user));
        Ok(())
    }

    #[action]
    fn say(&mut self, c: &Ctx<Self>, text: String) -> Result<u32> {
        c.broadcast(Said(text));
        c.conn()?.update(|seat| {
            seat.said += 1;
            seat.said
        })
    }

    #[action]
    fn say_to_others(&mut self, c: &Ctx<Self>, text: String) -> Result<()> {
        c.broadcast_except(c.conn()?.id(), Said(text));
        Ok(())
    }

    #[action]
    fn say_and_fail(&mut self, c: &Ctx<Self>, text: String) -> Result<()> {
        c.broadcast(Said(text));
        Err(Error::user("no", "changed my mind"))
    }

    #[action]
    fn kick(&mut self, c: &Ctx<Self>, user: String, reason: String) -> Result<usize> {
        let mut kicked = 0;
        for conn in c.conns() {
            if conn.state()?.user == user {
                conn.disconnect(reason.as_str());
                kicked += 1;
            }
        }
        Ok(kicked)
    }

    #[action]
    fn users(&self, c: &Ctx<Self>) -> Result<Vec<String>> {
        let mut users = c
            .conns()
            .iter()
            .map(|conn| Ok(conn.state()?.user))
            .collect::<Result<Vec<_>>>()?;
        users.sort();
        Ok(users)
    }

    #[action]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }

    #[action]
    fn end(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }
}

/// What raw clients see.
#[derive(Default, Serialize, Deserialize)]
struct Raw {
    hits: u32,
}

#[clinch::actor(name = "raw")]
impl Raw {
    #[hook]
    fn on_websocket(&mut self, conn: &Conn<Self>) {
        conn.send_text(format!("welcome to {}", conn.path()));
    }

    #[hook]
    fn on_message(&mut self, conn: &Conn<Self>, frame: Frame) -> Result<()> {
        match frame {
            Frame::Text(text) if text == "bye" => conn.close(4001, "bye now"),
            Frame::Text(text) if text == "fail" => return Err(Error::user("bad", "no")),
            Frame::Text(text) => conn.send_text(text.to_uppercase()),
            Frame::Binary(bytes) => conn.send_binary(bytes.iter().rev().copied().collect::<Vec<u8>>()),
        }
        Ok(())
    }

    #[hook]
    fn on_request(
        &mut self,
        request: clinch::http::Request<bytes::Bytes>,
    ) -> Result<clinch::http::Response<String>> {
        if request.uri().path() == "/fail" {
            return Err(Error::user("nope", "no"));
        }
        self.hits += 1;
        let header = request
            .headers()
            .get("x-test")
            .map_or("none", |value| value.to_str().unwrap_or("?"));
        let text = format!(
            "{} {} {header} {}",
            request.method(),
            request.uri(),
            request.body().len()
        );
        let response = clinch::http::Response::builder()
            .status(201)
            .header("x-hits", self.hits);
        response.body(text).map_err(Error::internal)
    }

    #[action]
    fn hits(&self) -> u32 {
        self.hits
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Room>().actor::<Raw>()
}

fn target(name: &str, key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: name.into(),
        key: Key::new([key]).expect("a short key"),
        create: Some(Default::default()),
    }
}

fn drawn() -> ConnId {
    ConnId(rand::random())
}

/// A connection as its gateway has it, on the node of this index.
struct Socket<'a> {
    cluster: &'a TestCluster,
    node: usize,
    conn: ConnId,
    actor: Target,
    seen: u64,
    epoch: Epoch,
}

async fn call(cluster: &TestCluster, node: usize, call: RoutedCall) -> Result<CallReply, CallError> {
    cluster.node(node).cluster().router().call(call).await
}

fn params(user: &str) -> Option<bytes::Bytes> {
    Some(
        clinch_actor::encode(&json!({ "user": user }))
            .expect("CBOR")
            .into(),
    )
}

impl<'a> Socket<'a> {
    async fn open(
        cluster: &'a TestCluster,
        node: usize,
        room: &Target,
        user: &str,
    ) -> Result<Socket<'a>, CallError> {
        Self::open_with(cluster, node, room, params(user), ConnKind::Events, Vec::new()).await
    }

    async fn open_with(
        cluster: &'a TestCluster,
        node: usize,
        room: &Target,
        params: Option<bytes::Bytes>,
        kind: ConnKind,
        headers: Vec<(String, String)>,
    ) -> Result<Socket<'a>, CallError> {
        let conn = drawn();
        let path = match kind {
            ConnKind::Raw => "/websocket/x?y=1",
            _ => "",
        };
        let path = path.into();
        let open = RoutedCall {
            params,
            door: Some(Box::new(Door { conn: None, headers })),
            ..RoutedCall::new(room.clone(), CallOp::Connect { conn, kind, path })
        };
        let reply = call(cluster, node, open).await?;
        Ok(Self {
            cluster,
            node,
            conn,
            actor: Target::Id(reply.meta.actor),
            seen: 0,
            epoch: Epoch(0),
        })
    }

    async fn op(&self, op: CallOp) -> Result<CallReply, CallError> {
        call(self.cluster, self.node, RoutedCall::new(self.actor.clone(), op)).await
    }

    async fn subscribe(&self, event: &str) -> Result<CallReply, CallError> {
        let (conn, event) = (self.conn, event.to_owned());
        self.op(CallOp::Subscribe {
            conn,
            event,
            on: true,
        })
        .await
    }

    /// Calls an action over the connection: its result, and the number of what must be told before.
    async fn act(&self, name: &str, args: impl Serialize) -> Result<(serde_json::Value, u64), CallError> {
        let args = clinch_actor::encode(&args).expect("arguments");
        let name = name.to_owned();
        let conn = Some(self.conn);
        let routed = RoutedCall {
            door: Some(Box::new(Door {
                conn,
                headers: Vec::new(),
            })),
            ..RoutedCall::new(self.actor.clone(), CallOp::Action { name, args })
        };
        let reply = call(self.cluster, self.node, routed).await?;
        let reply: ConnReply = codec::decode(&reply.output).expect("an answer of a connection");
        let value = clinch_actor::decode("the result", &reply.output).expect("a result");
        Ok((value, reply.after))
    }

    /// Asks once.
    async fn poll(&mut self) -> Result<Vec<(u64, ConnItem)>, CallError> {
        let (conn, seen, epoch) = (self.conn, self.seen, self.epoch);
        let routed = RoutedCall {
            request: Some((RequestId::default(), 0)),
            ..RoutedCall::new(self.actor.clone(), CallOp::Poll { conn, seen, epoch })
        };
        let reply = call(self.cluster, self.node, routed).await?;
        let polled: Polled = codec::decode(&reply.output).expect("items");
        self.epoch = polled.epoch;
        self.seen = polled.items.last().map_or(self.seen, |(version, _)| *version);
        Ok(polled.items)
    }

    /// The next items, as text: `said:hello`, `text:..`, `close:1000:reason`.
    async fn next(&mut self) -> Vec<String> {
        loop {
            let items = self.poll().await.expect("items");
            if !items.is_empty() {
                return items.into_iter().map(|(_, item)| shown(item)).collect();
            }
        }
    }

    /// So many items.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.next().await);
        }
        all
    }

    async fn leave(&self) {
        self.op(CallOp::Disconnect { conn: self.conn })
            .await
            .expect("the end");
    }
}

fn shown(item: ConnItem) -> String {
    match item {
        ConnItem::Event { name, args } => {
            let (text,): (String,) = clinch_actor::decode("an event", &args).expect("one text");
            format!("{name}:{text}")
        }
        ConnItem::Message { text: true, data } => format!("text:{}", String::from_utf8_lossy(&data)),
        ConnItem::Message { text: false, data } => format!("bytes:{data:?}"),
        ConnItem::Close { code, reason } => format!("close:{code}:{reason}"),
    }
}

fn refusal(result: Result<impl Sized, CallError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(CallError::Failed(error)) => format!("{}.{}", error.group, error.code),
        Err(other) => panic!("{other}"),
    }
}

async fn log(cluster: &TestCluster, key: &str) -> Vec<String> {
    cluster
        .node(0)
        .cluster()
        .get::<Room>(key)
        .log()
        .await
        .expect("the log")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_let_in_by_its_actor_and_told_what_it_listens_to() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let mut amy = Socket::open(&cluster, 0, &room, "amy").await.unwrap();
    assert_eq!(amy.next().await, ["said:welcome amy, 1 here"]);
    let mut bob = Socket::open(&cluster, 0, &room, "bob").await.unwrap();
    assert_eq!(bob.next().await, ["said:welcome bob, 2 here"]);
    amy.subscribe("said").await.unwrap();

    let (count, after) = bob.act("say", ("hello",)).await.unwrap();
    assert_eq!(count, 1);
    assert_eq!(bob.act("say", ("again",)).await.unwrap().0, 2);
    assert_eq!(amy.take(2).await, ["said:hello", "said:again"]);
    assert!(amy.seen > after, "an event is under the number of its turn");
    // Bob does not listen, so he is told nothing; what he is told alone he is told all the same.
    bob.act("sayToOthers", ("psst",)).await.unwrap();
    assert_eq!(amy.next().await, ["said:psst"]);
    amy.act("sayToOthers", ("not to me",)).await.unwrap();
    amy.act("say", ("to me",)).await.unwrap();
    assert_eq!(amy.next().await, ["said:to me"]);
    assert_eq!(amy.act("users", ()).await.unwrap().0, json!(["amy", "bob"]));

    bob.leave().await;
    assert_eq!(amy.act("users", ()).await.unwrap().0, json!(["amy"]));
    assert_eq!(log(&cluster, "a").await, ["+amy", "+bob", "-bob"]);
    assert_eq!(refusal(bob.act("users", ()).await), "actor.connection_ended");
    assert_eq!(refusal(bob.poll().await), "actor.connection_ended");
    bob.leave().await;
    assert_eq!(
        log(&cluster, "a").await,
        ["+amy", "+bob", "-bob"],
        "the hook ran once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_leaves_no_trace() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let refused = |user: &'static str| {
        let (cluster, room) = (&cluster, &room);
        async move { refusal(Socket::open(cluster, 0, room, user).await) }
    };
    assert_eq!(refused("mallory").await, "user.forbidden");
    assert_eq!(refused("unwelcome").await, "user.not_welcome");
    assert_eq!(refused("bearer").await, "user.unauthorized");
    let open = |headers| Socket::open_with(&cluster, 0, &room, params("bearer"), ConnKind::Events, headers);
    open(vec![("authorization".into(), "Bearer sesame".into())])
        .await
        .unwrap();
    let nothing = Socket::open_with(&cluster, 0, &room, None, ConnKind::Events, Vec::new()).await;
    assert_eq!(refusal(nothing), "actor.invalid_request");
    let raw = Socket::open_with(&cluster, 0, &room, params("amy"), ConnKind::Raw, Vec::new()).await;
    assert_eq!(refusal(raw), "handler.websocket_not_defined");
    assert_eq!(log(&cluster, "a").await, ["+bearer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_g6_events_of_a_turn_that_failed_reach_nobody() {
    let cluster = TestCluster::start(1, registry()).await;
    let mut amy = Socket::open(&cluster, 0, &target("room", "a"), "amy")
        .await
        .unwrap();
    amy.subscribe("said").await.unwrap();
    amy.next().await;
    assert_eq!(refusal(amy.act("sayAndFail", ("never",)).await), "user.no");
    let (_, after) = amy.act("say", ("this",)).await.unwrap();
    assert_eq!(amy.next().await, ["said:this"]);
    assert_eq!(amy.seen, after, "the answer names the event of its turn");
    assert_eq!(refusal(amy.subscribe("secret").await), "auth.forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_socket_is_a_connection_as_long_as_it_lasts() {
    let cluster = TestCluster::start(1, registry()).await;
    let once = |user: &str, action: &str| {
        let op = CallOp::Action {
            name: action.into(),
            args: clinch_actor::encode(&("hi",)).expect("arguments"),
        };
        let routed = RoutedCall {
            params: params(user),
            door: Some(Box::default()),
            ..RoutedCall::new(target("room", "a"), op)
        };
        call(&cluster, 0, routed)
    };
    let reply = once("amy", "say").await.unwrap();
    assert_eq!(
        clinch_actor::decode::<u32>("the count", &reply.output).unwrap(),
        1
    );
    let reply = once("bob", "users").await.unwrap();
    assert_eq!(
        clinch_actor::decode::<Vec<String>>("users", &reply.output).unwrap(),
        ["bob"]
    );
    assert_eq!(refusal(once("mallory", "say").await), "user.forbidden");
    assert_eq!(log(&cluster, "a").await, ["+amy", "-amy", "+bob", "-bob"]);
    // Other actors, and programs of the cluster, are not visitors.
    assert!(
        cluster
            .node(0)
            .cluster()
            .get::<Room>("a")
            .users()
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_ends_a_connection_with_a_reason_and_its_own_end_ends_all() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let mut amy = Socket::open(&cluster, 0, &room, "amy").await.unwrap();
    let mut bob = Socket::open(&cluster, 0, &room, "bob").await.unwrap();
    amy.next().await;
    bob.next().await;
    amy.subscribe("left").await.unwrap();
    assert_eq!(amy.act("kick", ("bob", "too loud")).await.unwrap().0, 1);
    assert_eq!(amy.act("users", ()).await.unwrap().0, json!(["amy"]));
    assert_eq!(bob.next().await, ["close:1000:too loud"]);
    assert_eq!(amy.next().await, ["left:bob"]);
    assert_eq!(amy.act("kick", ("bob", "again")).await.unwrap().0, 0);
    assert_eq!(log(&cluster, "a").await, ["+amy", "+bob", "-bob"]);
    amy.act("end", ()).await.unwrap();
    assert_eq!(amy.next().await, ["close:1000:"]);
    assert!(matches!(amy.poll().await, Err(CallError::Failed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_actor_keeps_its_connections_and_a_message_wakes_it() {
    let cluster = TestCluster::start(1, registry()).await;
    let mut amy = Socket::open(&cluster, 0, &target("room", "a"), "amy")
        .await
        .unwrap();
    amy.subscribe("said").await.unwrap();
    amy.next().await;
    assert_eq!(amy.act("say", ("one",)).await.unwrap().0, 1);
    let Target::Id(id) = amy.actor else { panic!() };
    amy.next().await;
    // Asking for events keeps nobody awake.
    let (conn, seen, epoch) = (amy.conn, amy.seen, amy.epoch);
    let poll = || RoutedCall {
        request: Some((RequestId::default(), 0)),
        ..RoutedCall::new(amy.actor.clone(), CallOp::Poll { conn, seen, epoch })
    };
    let waiting = call(&cluster, 0, poll());
    tokio::pin!(waiting);
    let asleep = eventually("the actor sleeps", || async { !cluster.awake(0, id).await });
    tokio::select! {
        () = asleep => {}
        answer = &mut waiting => panic!("an item out of nothing: {answer:?}"),
    }
    assert_eq!(
        amy.act("say", ("two",)).await.unwrap().0,
        2,
        "its state is as it was"
    );
    let polled: Polled = codec::decode(&waiting.await.unwrap().output).unwrap();
    assert_eq!(
        polled
            .items
            .into_iter()
            .map(|(_, item)| shown(item))
            .collect::<Vec<_>>(),
        ["said:two"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_gateway_is_silent_is_ended_and_a_stuck_hook_holds_nobody_up() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let _silent = Socket::open(&cluster, 0, &room, "silent").await.unwrap();
    let stuck = Socket::open(&cluster, 0, &room, "stuck").await.unwrap();
    stuck.leave().await;
    let mut amy = Socket::open(&cluster, 0, &room, "amy").await.unwrap();
    amy.subscribe("left").await.unwrap();
    assert_eq!(amy.act("users", ()).await.unwrap().0, json!(["amy", "silent"]));
    amy.next().await;
    assert_eq!(amy.next().await, ["left:silent"]);
    assert_eq!(amy.act("users", ()).await.unwrap().0, json!(["amy"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_sockets_and_raw_requests_reach_their_actor() {
    let cluster = TestCluster::start(1, registry()).await;
    let target = target("raw", "a");
    let mut socket = Socket::open_with(&cluster, 0, &target, None, ConnKind::Raw, Vec::new())
        .await
        .unwrap();
    assert_eq!(socket.next().await, ["text:welcome to /websocket/x?y=1"]);
    let conn = socket.conn;
    let message = |text, data: &[u8]| CallOp::Message {
        conn,
        text,
        data: data.to_vec(),
    };
    socket.op(message(true, b"hi")).await.unwrap();
    socket.op(message(false, &[1, 2])).await.unwrap();
    assert_eq!(socket.take(2).await, ["text:HI", "bytes:[2, 1]"]);
    assert_eq!(refusal(socket.op(message(true, b"fail")).await), "user.bad");
    assert_eq!(
        refusal(socket.op(message(true, &[0xff])).await),
        "actor.invalid_request"
    );
    let long = vec![b'x'; limits::RAW_MESSAGE_MAX + 1];
    assert_eq!(
        refusal(socket.op(message(false, &long)).await),
        "actor.invalid_request"
    );
    socket.op(message(true, b"bye")).await.unwrap();
    assert_eq!(socket.next().await, ["close:4001:bye now"]);

    let request = |uri: &str| {
        let request = HttpRequest {
            method: "POST".into(),
            uri: uri.into(),
            body: HttpBody::Whole(b"abc".to_vec()),
        };
        let headers = vec![("x-test".into(), "1".into())];
        let routed = RoutedCall {
            door: Some(Box::new(Door { conn: None, headers })),
            ..RoutedCall::new(target.clone(), CallOp::Http(Box::new(request)))
        };
        call(&cluster, 0, routed)
    };
    let reply: HttpReply = codec::decode(&request("/p?q=1").await.unwrap().output).unwrap();
    assert_eq!(
        (reply.status, reply.body),
        (201, HttpBody::Whole(b"POST /p?q=1 1 3".to_vec()))
    );
    assert!(reply.headers.contains(&("x-hits".into(), b"1".to_vec())));
    assert_eq!(refusal(request("/fail").await), "user.nope");
    assert_eq!(cluster.node(0).cluster().get::<Raw>("a").hits().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_parameters_are_bounded_and_the_error_names_both_numbers() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let amy = Socket::open(&cluster, 0, &room, "amy").await.unwrap();
    for number in 0..limits::SUBSCRIPTIONS_MAX {
        amy.subscribe(&format!("event-{number}")).await.unwrap();
    }
    amy.subscribe("event-0").await.unwrap();
    assert_eq!(
        refusal(amy.subscribe("one-more").await),
        "actor.too_many_subscriptions"
    );
    let long = "x".repeat(limits::EVENT_NAME_MAX + 1);
    assert_eq!(refusal(amy.subscribe(&long).await), "actor.invalid_request");
    let user = "x".repeat(limits::PARAMS_MAX);
    match Socket::open(&cluster, 0, &room, &user).await {
        Err(CallError::Failed(error)) => {
            assert!(error.message.contains(&limits::PARAMS_MAX.to_string()), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("parameters over the limit are let in"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_ended_and_told_so() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let mut slow = Socket::open(&cluster, 0, &room, "slow").await.unwrap();
    slow.subscribe("said").await.unwrap();
    slow.next().await;
    let mut quick = Socket::open(&cluster, 0, &room, "quick").await.unwrap();
    quick.next().await;
    // It says what it has with its next question.
    let asked = tokio::time::timeout(Duration::from_millis(100), quick.poll()).await;
    assert!(asked.is_err(), "{asked:?}");
    let text = "x".repeat(512 << 10);
    let mut told = 0;
    while quick.act("users", ()).await.unwrap().0 == json!(["quick", "slow"]) {
        quick.act("say", (text.as_str(),)).await.unwrap();
        told += 1;
        assert!(told < 40, "it is never ended");
    }
    assert!(told > 4, "ended after {told} events");
    let items = slow.next().await;
    assert_eq!(items, ["close:1013:too slow: too many events were waiting"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_shows_its_state_connections_and_queues() {
    let cluster = TestCluster::start(1, registry()).await;
    let room = target("room", "a");
    let amy = Socket::open(&cluster, 0, &room, "amy").await.unwrap();
    amy.subscribe("said").await.unwrap();
    let rooms = cluster.node(0).cluster().get::<Room>("a");
    rooms.queue::<u32>("later").push(7).await.unwrap();
    let reply = call(&cluster, 0, RoutedCall::new(room, CallOp::Inspect))
        .await
        .unwrap();
    let shown: serde_json::Value = clinch_actor::decode("the actor", &reply.output).unwrap();
    assert_eq!(shown["state"], json!({"log": ["+amy"]}));
    let conn = &shown["connections"][0];
    assert_eq!(conn["id"], amy.conn.to_string());
    assert_eq!(conn["details"]["state"], json!({"user": "amy", "said": 0}));
    assert_eq!(conn["details"]["subscriptions"], json!(["said"]));
    assert_eq!(
        (&shown["queue"]["size"], &shown["queue"]["messages"][0]["name"]),
        (&json!(1), &json!("later"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_no_event_is_lost_or_doubled_when_the_owner_goes() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let room = target("room", "a");
    let (_, owner) = cluster.owner(0, &room).expect("an owner");
    let gateway = (owner + 1) % 3;
    let speaker = (owner + 2) % 3;
    let mut amy = Socket::open(&cluster, gateway, &room, "amy").await.unwrap();
    amy.subscribe("said").await.unwrap();
    amy.next().await;
    let bob = Socket::open(&cluster, speaker, &room, "bob").await.unwrap();
    bob.act("say", ("0",)).await.unwrap();
    bob.act("say", ("1",)).await.unwrap();
    assert_eq!(amy.take(2).await, ["said:0", "said:1"]);
    // Told, but not fetched when the owner goes: the next one has them.
    for number in 2..5 {
        bob.act("say", (number.to_string(),)).await.unwrap();
    }
    let (amy_parts, bob_parts) = (
        (amy.conn, amy.actor.clone(), amy.seen, amy.epoch),
        (bob.conn, bob.actor.clone()),
    );
    cluster.stop_node(owner).await;
    let bob = Socket {
        cluster: &cluster,
        node: speaker,
        conn: bob_parts.0,
        actor: bob_parts.1,
        seen: 0,
        epoch: Epoch(0),
    };
    let mut amy = Socket {
        cluster: &cluster,
        node: gateway,
        conn: amy_parts.0,
        actor: amy_parts.1,
        seen: amy_parts.2,
        epoch: amy_parts.3,
    };
    for number in 5..8 {
        let (said, _) = bob.act("say", (number.to_string(),)).await.unwrap();
        assert_eq!(said, number + 1, "the state of the connection is as it was");
    }
    let told = tokio::time::timeout(PATIENCE, amy.take(6))
        .await
        .expect("the events");
    let expected: Vec<String> = (2..8).map(|number| format!("said:{number}")).collect();
    assert_eq!(told, expected);
    assert_eq!(amy.act("users", ()).await.unwrap().0, json!(["amy", "bob"]));
    let none = tokio::time::timeout(Duration::from_millis(300), amy.next()).await;
    assert!(none.is_err(), "an event came twice: {none:?}");
}
