//! Clients that stay: connections at the gateway of every node, by the protocol of real clients.
//!
//! A visitor runs on the machine of its gateway, over a pipe instead of a socket, and ends with it: between the two there
//! is the product's HTTP and WebSocket code, unchanged. What goes wrong happens between gateways and owners.
//!
//! Invariant: what a client asks for is in the history before it is sent, and what it hears is when it is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clinch::Node;
use clinch::simulate::Simulation;
use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Broken;
use super::clients::Crew;
use super::roles::Role;
use crate::history::{Answer, Op, Outcome};

type Socket = WebSocketStream<DuplexStream>;

/// How long an upgrade may take, and how long a gateway may let its client wait to be let in.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// How long the other end may take to agree to a close.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Actions of one connection without an answer.
const ACTIONS_MAX: usize = 4;

/// The visitors of one run.
pub(super) struct Visitors {
    /// How many at each node.
    each: usize,
    made: u64,
    running: BTreeMap<(usize, usize), JoinHandle<()>>,
}

impl Visitors {
    /// As many as the seed wants; none without a hall.
    pub(super) fn draw(rng: &mut StdRng, crew: &Crew) -> Self {
        let each = rng.random_range(1..3);
        let has_halls = crew.keys.iter().any(|key| Role::of(key) == Role::Hall);
        Self {
            each: if has_halls { each } else { 0 },
            made: 0,
            running: BTreeMap::new(),
        }
    }

    /// Sends new ones to nodes that run again.
    pub(super) fn tend(&mut self, sim: &mut Simulation, crew: &Crew) {
        for node in 0..sim.len() {
            for place in 0..self.each {
                if self
                    .running
                    .get(&(node, place))
                    .is_some_and(|task| !task.is_finished())
                {
                    continue;
                }
                let Some(running) = sim.node(node) else { continue };
                self.made += 1;
                let seed = sim.seed().wrapping_mul(131).wrapping_add(self.made);
                let visitor = Visitor {
                    crew: crew.clone(),
                    at: running,
                    node,
                    rng: StdRng::seed_from_u64(seed),
                };
                let machine = sim.machine(node);
                if let Some(task) = sim.world().spawn(machine, visitor.stay()) {
                    self.running.insert((node, place), task);
                }
            }
        }
    }

    /// Those that have not gone.
    pub(super) fn left(&self) -> usize {
        self.running.values().filter(|task| !task.is_finished()).count()
    }
}

struct Visitor {
    crew: Crew,
    at: Arc<Node>,
    node: usize,
    rng: StdRng,
}

impl Visitor {
    fn stopped(&self) -> bool {
        self.crew.stop.load(Ordering::Relaxed)
    }

    /// One connection after the other.
    async fn stay(mut self) {
        let halls: Vec<String> = self
            .crew
            .keys
            .iter()
            .filter(|key| Role::of(key) == Role::Hall)
            .cloned()
            .collect();
        while !self.stopped() && !halls.is_empty() {
            let key = halls[self.rng.random_range(0..halls.len())].clone();
            self.visit(key).await;
            let pause = self.rng.random_range(1..400);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn visit(&mut self, key: String) {
        let number = self.crew.calls.number();
        let name = format!("conn-{number}-at-{}", self.node + 1);
        let enter = self.crew.calls.recorder.invoke(&name, &key, Op::Enter(number));
        let upgrade = tokio::time::timeout(OPEN_MAX, open(&self.at, &key, number)).await;
        let Ok(Ok(socket)) = upgrade else {
            let answer = Answer::error(true, "no upgrade");
            self.crew.calls.recorder.complete(enter, answer);
            return;
        };
        let mut visit = Visit {
            crew: self.crew.clone(),
            key,
            name,
            number,
            enter: Some(enter),
            listens: false,
            heard: 0,
            asked: 0,
            actions: BTreeMap::new(),
        };
        visit.run(socket, &mut self.rng).await;
        visit.end();
    }
}

/// A WebSocket to a gateway, by the protocol of clients.
async fn open(node: &Node, key: &str, number: i64) -> anyhow::Result<Socket> {
    let uri = format!(
        "ws://simulated/gateway/hall/connect?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key={key}"
    );
    let mut request = uri.into_client_request()?;
    let protocols = format!("rivet,rivet_encoding.json,rivet_conn_params.%7B%22number%22%3A{number}%7D");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", HeaderValue::from_str(&protocols)?);
    let (socket, _) = client_async(request, node.dial()).await?;
    Ok(socket)
}

/// One connection.
struct Visit {
    crew: Crew,
    key: String,
    name: String,
    number: i64,
    /// The operation that opens it, while it is not open.
    enter: Option<usize>,
    /// Whether it has asked for events.
    listens: bool,
    /// The place of the last event.
    heard: i64,
    asked: u64,
    /// By the number of the request: the operation, and whether events were asked for before it.
    actions: BTreeMap<u64, (usize, bool)>,
}

impl Visit {
    async fn run(&mut self, mut socket: Socket, rng: &mut StdRng) {
        let begun = Instant::now();
        let until = begun + Duration::from_millis(rng.random_range(200..15_000));
        let eager = rng.random_range(10..200);
        let mut act_at = begun;
        loop {
            tokio::select! {
                biased;
                read = socket.next() => match read {
                    Some(Ok(message)) if self.message(&message) => {}
                    _ => return,
                },
                () = tokio::time::sleep_until(act_at) => {
                    act_at = Instant::now() + Duration::from_millis(rng.random_range(1..=eager));
                    let stopped = self.crew.stop.load(Ordering::Relaxed);
                    let patience = if self.enter.is_some() { begun + OPEN_MAX } else { until };
                    if Instant::now() >= patience || (stopped && self.enter.is_none()) {
                        break;
                    }
                    if self.enter.is_none() && !self.act(&mut socket, rng).await {
                        return;
                    }
                }
            }
        }
        // The end of some is seen, that of others is not.
        if rng.random_bool(0.5) {
            let close = async {
                if socket.close(None).await.is_ok() {
                    while let Some(Ok(_)) = socket.next().await {}
                }
            };
            drop(tokio::time::timeout(CLOSE_MAX, close).await);
        }
    }

    /// Does something; `false`: the connection is gone.
    async fn act(&mut self, socket: &mut Socket, rng: &mut StdRng) -> bool {
        if !self.listens && rng.random_bool(0.4) {
            let recorder = &self.crew.calls.recorder;
            recorder.invoke(&self.name, &self.key, Op::Hark(self.number));
            self.listens = true;
            let value = json!({ "eventName": "put", "subscribe": true });
            return send(socket, "SubscriptionRequest", &value).await;
        }
        if rng.random_bool(0.03) {
            // Reads nothing for a while.
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..2500))).await;
        }
        if self.actions.len() >= ACTIONS_MAX {
            return true;
        }
        let number = self.crew.calls.number();
        let (name, op) = match rng.random_range(0..10) {
            0 => ("spoil", Op::Spoil(number)),
            _ => ("tell", Op::Tell(number)),
        };
        self.asked += 1;
        let id = self.crew.calls.recorder.invoke(&self.name, &self.key, op);
        self.actions.insert(self.asked, (id, self.listens));
        let value = json!({ "id": ["$BigInt", self.asked.to_string()], "name": name, "args": [number] });
        send(socket, "ActionRequest", &value).await
    }

    /// What came; `false`: it was the end.
    fn message(&mut self, message: &Message) -> bool {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                if frame
                    .as_ref()
                    .is_some_and(|frame| frame.reason.as_str() == "spoilt")
                {
                    self.broken(
                        "A6 atomic turns (G4)",
                        "a turn that failed has ended a connection",
                    );
                }
                return false;
            }
            _ => return true,
        };
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let (tag, value) = (&frame["body"]["tag"], &frame["body"]["val"]);
        match tag.as_str() {
            Some("Init") => {
                if let Some(enter) = self.enter.take() {
                    self.complete(enter, ok(self.number, Vec::new()));
                }
            }
            Some("Event") => self.event(&value["args"][0]),
            Some("ActionResponse") => {
                let told = value["output"][0].as_i64();
                if let (Some((id, listened)), Some(told)) = (self.action(&value["id"]), told) {
                    let heard = listened.then_some(self.heard);
                    self.complete(id, ok(told, Vec::from_iter(heard)));
                }
            }
            Some("Error") => self.error(value),
            _ => self.broken("simulator", &format!("a frame that is none: {text}")),
        }
        true
    }

    fn event(&mut self, put: &Value) {
        let (Some(place), Some(number)) = (put["place"].as_i64(), put["number"].as_i64()) else {
            return self.broken("simulator", &format!("an event that is none: {put}"));
        };
        self.heard = self.heard.max(place);
        let op = Op::Got(place, number);
        let id = self.crew.calls.recorder.invoke(&self.name, &self.key, op);
        self.complete(id, ok(number, Vec::new()));
    }

    fn error(&mut self, value: &Value) {
        let (group, code) = (
            value["group"].as_str().unwrap_or_default(),
            value["code"].as_str().unwrap_or_default(),
        );
        let text = format!(
            "{group}.{code}: {}",
            value["message"].as_str().unwrap_or_default()
        );
        match self.action(&value["actionId"]) {
            Some((id, _)) => {
                // As with requests over HTTP: the only error of an action that leaves its effect open.
                let perhaps = group.is_empty() || (group, code) == ("guard", "request_timeout");
                self.complete(id, Answer::error(perhaps, text));
            }
            None => {
                if let Some(enter) = self.enter.take() {
                    self.complete(enter, Answer::error(code != "unwelcome", text));
                }
            }
        }
    }

    /// The operation that a frame answers.
    fn action(&mut self, id: &Value) -> Option<(usize, bool)> {
        let id = id[1].as_str().and_then(|id| id.parse().ok())?;
        self.actions.remove(&id)
    }

    fn complete(&self, id: usize, answer: Answer) {
        self.crew.calls.recorder.complete(id, answer);
    }

    fn broken(&self, law: &str, text: &str) {
        self.crew.broken.lock().push(Broken {
            law: law.into(),
            text: format!("{}: {text}", self.name),
        });
    }

    /// Whoever waits waits no more.
    fn end(&mut self) {
        let waiting = std::mem::take(&mut self.actions);
        for id in waiting.into_values().map(|(id, _)| id).chain(self.enter.take()) {
            self.complete(id, Answer::error(true, "the connection has ended"));
        }
    }
}

fn ok(value: i64, list: Vec<i64>) -> Answer {
    // Clients of this protocol are not told where an answer was made.
    Answer {
        outcome: Outcome::Ok(value),
        meta: None,
        list,
        error: None,
    }
}

async fn send(socket: &mut Socket, tag: &str, value: &Value) -> bool {
    let frame = json!({ "body": { "tag": tag, "val": value } });
    let sent = tokio::time::timeout(OPEN_MAX, socket.send(Message::text(frame.to_string()))).await;
    matches!(sent, Ok(Ok(())))
}
