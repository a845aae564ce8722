//! Programs that stay: connections of the Rust client to halls, over QUIC, from machines of their own.
//!
//! They outlive gateways and owners: whoever owns the hall next must go on where the last owner was, without a gap and
//! without a word twice, or end the connection.
//!
//! Invariant: what a program asks for is in the history before it is sent, and what it hears is when it is read. The laws
//! are those of visitors ([`super::visitors`]).

use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clinch_actor::{Connection, Error, Events};
use clinch_client::{ClientConfig, Cluster};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::Broken;
use super::clients::Crew;
use super::roles::Role;
use crate::actors::{Hall, Put, Told, Visitor};
use crate::history::{Answer, Op, Outcome};

/// How long a program waits to be let in, and to be told that it listens.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// Calls of one connection without an answer.
const CALLS_MAX: usize = 4;

/// One program.
pub(super) struct Program {
    pub(super) crew: Crew,
    pub(super) rng: StdRng,
}

/// A call over a connection: its operation, whether events were asked for before it, and what came of it.
type Called = (usize, bool, Result<Told, Error>);

/// One connection.
struct Stay<'a> {
    program: &'a mut Program,
    key: String,
    name: String,
    number: i64,
    events: Option<Events<Put>>,
    /// The place of the last event.
    heard: i64,
    calls: FuturesUnordered<BoxFuture<'static, Called>>,
}

/// What happened to a connection.
enum Next {
    Heard(Option<Result<Put, Error>>),
    Answered(Called),
    Ended(Error),
    Act,
}

impl Program {
    /// One connection after the other, until everybody stops.
    pub(super) async fn run(mut self, config: ClientConfig) {
        let Some(client) = self.crew.connect(config).await else {
            return;
        };
        let keys = self.crew.keys.clone();
        let halls: Vec<&String> = keys.iter().filter(|key| Role::of(key) == Role::Hall).collect();
        while !self.crew.stop.load(Ordering::Relaxed) && !halls.is_empty() {
            let key = halls[self.rng.random_range(0..halls.len())].clone();
            self.visit(client.cluster(), key).await;
            let pause = self.rng.random_range(1..400);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn visit(&mut self, cluster: &Cluster, key: String) {
        let recorder = self.crew.calls.recorder.clone();
        let number = self.crew.calls.number();
        let name = format!("conn-{number}-program");
        let enter = recorder.invoke(&name, &key, Op::Enter(number));
        let hall = cluster.get::<Hall>(key.as_str()).with_params(Visitor { number });
        let conn = match tokio::time::timeout(OPEN_MAX, hall.connect()).await {
            Ok(Ok(conn)) => conn,
            Ok(Err(error)) => {
                let perhaps = !error.is("user", "unwelcome");
                return recorder.complete(enter, Answer::error(perhaps, error.to_string()));
            }
            Err(_) => return recorder.complete(enter, Answer::error(true, "not let in in time")),
        };
        recorder.complete(enter, ok(number, Vec::new()));
        let mut stay = Stay {
            program: self,
            key,
            name,
            number,
            events: None,
            heard: 0,
            calls: FuturesUnordered::new(),
        };
        // Calls without an answer at its end stay in the history as such.
        stay.run(conn).await;
    }
}

impl Stay<'_> {
    async fn run(&mut self, conn: Connection<Hall>) {
        let begun = Instant::now();
        let until = begun + Duration::from_millis(self.program.rng.random_range(200..15_000));
        let eager = self.program.rng.random_range(10..200);
        let mut act_at = begun;
        loop {
            let next = tokio::select! {
                // Events first: those that an action caused are there before its answer.
                biased;
                put = hear(&mut self.events) => Next::Heard(put),
                // The end of the connection ends the wait for events, so that answers behind it prove nothing.
                error = conn.ended() => Next::Ended(error),
                Some(called) = self.calls.next(), if !self.calls.is_empty() => Next::Answered(called),
                () = tokio::time::sleep_until(act_at) => Next::Act,
            };
            match next {
                Next::Heard(Some(Ok(put))) => self.event(&put),
                Next::Heard(Some(Err(error))) => self.broken("simulator", &format!("no event: {error}")),
                Next::Heard(None) => self.events = None,
                Next::Answered(called) => self.answer(called),
                Next::Ended(error) => {
                    if error.message() == "spoilt" {
                        self.broken(
                            "A6 atomic turns (G4)",
                            "a turn that failed has ended a connection",
                        );
                    }
                    return;
                }
                Next::Act => {
                    let stopped = self.program.crew.stop.load(Ordering::Relaxed);
                    if stopped || Instant::now() >= until || !self.act(&conn).await {
                        return;
                    }
                    act_at = Instant::now() + Duration::from_millis(self.program.rng.random_range(1..=eager));
                }
            }
        }
    }

    /// Does something; `false`: there is no going on.
    async fn act(&mut self, conn: &Connection<Hall>) -> bool {
        let rng = &mut self.program.rng;
        let calls = &self.program.crew.calls;
        if self.events.is_none() && rng.random_bool(0.4) {
            calls
                .recorder
                .invoke(&self.name, &self.key, Op::Hark(self.number));
            let events = tokio::time::timeout(OPEN_MAX, conn.on::<Put>()).await;
            self.events = events.ok().and_then(Result::ok);
            return self.events.is_some();
        }
        if rng.random_bool(0.03) {
            // Reads nothing for a while.
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..2500))).await;
        }
        if self.calls.len() >= CALLS_MAX {
            return true;
        }
        let timeout = Duration::from_millis(rng.random_range(200..6000));
        let number = calls.number();
        let (op, call) = match rng.random_range(0..10) {
            0 => (Op::Spoil(number), conn.spoil(number)),
            _ => (Op::Tell(number), conn.tell(number)),
        };
        let id = calls.recorder.invoke(&self.name, &self.key, op);
        let listens = self.events.is_some();
        let called = async move { (id, listens, call.timeout(timeout).await) };
        self.calls.push(Box::pin(called));
        true
    }

    fn event(&mut self, put: &Put) {
        self.heard = self.heard.max(put.place);
        let recorder = &self.program.crew.calls.recorder;
        let id = recorder.invoke(&self.name, &self.key, Op::Got(put.place, put.number));
        recorder.complete(id, ok(put.number, Vec::new()));
    }

    fn answer(&self, (id, listened, result): Called) {
        let answer = match result {
            Ok((told, _)) => ok(told, Vec::from_iter(listened.then_some(self.heard))),
            Err(error) => Answer::error(error.is_perhaps(), error.to_string()),
        };
        self.program.crew.calls.recorder.complete(id, answer);
    }

    fn broken(&self, law: &str, text: &str) {
        self.program.crew.broken.lock().push(Broken {
            law: law.into(),
            text: format!("{}: {text}", self.name),
        });
    }
}

/// The next event; never one of a connection that does not listen.
async fn hear(events: &mut Option<Events<Put>>) -> Option<Result<Put, Error>> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}

fn ok(value: i64, list: Vec<i64>) -> Answer {
    Answer {
        outcome: Outcome::Ok(value),
        meta: None,
        list,
        error: None,
    }
}
