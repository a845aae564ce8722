//! The clients of a simulated cluster, each on a machine of its own.
//!
//! Roaming clients find the owner and run away from a sick node; pinned ones ask one node for ever, and so see what a
//! sick node says; repeating ones send one request again and again, to several nodes at once, under one request id.
//!
//! Invariant: every call is in the history before it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clinch::simulate::{Machine, Simulation};
use clinch_client::{Client, ClientConfig};
use clinch_transport::{CertBundle, Sockets, TransportConfig};
use clinch_types::{NodeId, SessionId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Broken;
use super::lookers::{Looker, Suspects};
use super::programs::Program;
use super::roles::Role;
use crate::doors::{Direct, Door, Wire};
use crate::history::{Answer, Op, Outcome};
use crate::workload::Calls;

/// What the clients of one run share.
#[derive(Clone)]
pub(super) struct Crew {
    pub(super) calls: Calls,
    pub(super) keys: Arc<Vec<String>>,
    pub(super) stop: Arc<AtomicBool>,
    /// The ids of actors that tell events, by key.
    pub(super) actors: Arc<Mutex<BTreeMap<String, String>>>,
    /// Clients that have not ended.
    pub(super) working: Arc<Mutex<usize>>,
    /// Nodes that are looked at more closely.
    pub(super) suspects: Suspects,
    /// What clients see themselves that no checker of one history could.
    pub(super) broken: Arc<Mutex<Vec<Broken>>>,
}

/// How one client behaves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// As applications do.
    Roaming,
    /// Asks this node only, and has a second one beside it that looks more closely when there is reason to.
    Pinned(usize),
    /// Stays connected to halls.
    Staying,
    /// Repeats its requests at any node.
    Repeating,
}

/// One client.
struct Member {
    crew: Crew,
    name: String,
    rng: StdRng,
    /// Longest pause between two calls, in ms.
    pause_ms: u64,
    /// Share of reads, in percent.
    reads: u32,
    /// What it last knew of registers: what it compares with.
    seen: BTreeMap<String, i64>,
}

impl Crew {
    /// Starts a client on a new machine.
    pub(super) fn join(
        &self,
        sim: &mut Simulation,
        number: usize,
        manner: Manner,
    ) -> anyhow::Result<Machine> {
        let machine = sim.add_machine()?;
        let addresses = sim.addresses().to_vec();
        let mut rng = StdRng::seed_from_u64(sim.seed().wrapping_mul(77).wrapping_add(number as u64));
        let member = Member {
            crew: self.clone(),
            name: match manner {
                Manner::Roaming => format!("{number}-roaming"),
                Manner::Pinned(node) => format!("{number}-pinned-{}", node + 1),
                Manner::Staying => format!("{number}-staying"),
                Manner::Repeating => format!("{number}-repeating"),
            },
            pause_ms: rng.random_range(2..60),
            reads: rng.random_range(20..80),
            seen: BTreeMap::new(),
            rng,
        };
        let working = self.working.clone();
        let ended = move || *working.lock() -= 1;
        *self.working.lock() += 1;
        match manner {
            Manner::Roaming => {
                let config = sim.client_config(machine, addresses);
                sim.world().spawn(machine, async move {
                    member.roam(config).await;
                    ended();
                });
            }
            Manner::Staying => {
                let config = sim.client_config(machine, addresses);
                let Member { crew, rng, .. } = member;
                sim.world().spawn(machine, async move {
                    Program { crew, rng }.run(config).await;
                    ended();
                });
            }
            Manner::Pinned(node) => {
                let (way, other) = (
                    self.way(sim, machine, number as u128),
                    self.way(sim, machine, (1 << 32) + number as u128),
                );
                let looker = Looker {
                    crew: self.clone(),
                    name: format!("{number}-looking-{}", node + 1),
                    node,
                    rng: StdRng::seed_from_u64(sim.seed().wrapping_mul(79).wrapping_add(number as u64)),
                };
                sim.world().spawn(machine, async move {
                    let look = async {
                        if let Some(door) = other.door(node) {
                            looker.look(door).await;
                        }
                    };
                    tokio::select! {
                        biased;
                        () = member.stay(way, node) => {}
                        () = look => {}
                    }
                    ended();
                });
            }
            Manner::Repeating => {
                let way = self.way(sim, machine, number as u128);
                sim.world().spawn(machine, async move {
                    member.repeat(way).await;
                    ended();
                });
            }
        }
        Ok(machine)
    }

    /// A client as applications have it; tried until it is there, or everybody stops.
    pub(super) async fn connect(&self, config: ClientConfig) -> Option<Client> {
        while !self.stop.load(Ordering::Relaxed) {
            let again = ClientConfig {
                transport: config.transport.clone(),
                sockets: config.sockets.clone(),
                session: config.session,
                ..ClientConfig::new(config.identity.clone(), config.seeds.clone())
            };
            if let Ok(client) = Client::connect(again).await {
                return Some(client);
            }
        }
        None
    }

    fn way(&self, sim: &mut Simulation, machine: Machine, number: u128) -> Way {
        let (config, identity) = (sim.client_transport(machine), sim.client_identity());
        let sockets: Arc<dyn Sockets> = Arc::new(sim.world().sockets(machine));
        Way {
            config,
            identity,
            sockets,
            addresses: sim.addresses().to_vec(),
            session: SessionId((1 << 64) + number),
        }
    }
}

/// What a direct client reaches nodes with.
struct Way {
    config: TransportConfig,
    identity: CertBundle,
    sockets: Arc<dyn Sockets>,
    addresses: Vec<SocketAddr>,
    session: SessionId,
}

impl Way {
    /// To this node only.
    fn door(self, node: usize) -> Option<Door> {
        let doors = self.doors()?;
        doors.into_iter().nth(node).map(Door::Direct)
    }

    fn doors(self) -> Option<Vec<Direct>> {
        let wire = Wire::on(self.config, self.identity, self.sockets).ok()?;
        let first = Direct::to(NodeId(1), self.addresses.first()?.to_string(), wire, self.session);
        let doors = (1..).zip(&self.addresses);
        Some(
            doors
                .map(|(id, address)| first.turned_to(NodeId(id), address.to_string()))
                .collect(),
        )
    }
}

impl Member {
    fn stopped(&self) -> bool {
        self.crew.stop.load(Ordering::Relaxed)
    }

    async fn rest(&mut self, answered: bool) {
        let longest = if answered { self.pause_ms } else { 40 };
        let pause = self.rng.random_range(1..=longest);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn draw(&mut self) -> (String, Op) {
        let key = self.crew.keys[self.rng.random_range(0..self.crew.keys.len())].clone();
        let read = self.rng.random_range(0..100) < self.reads;
        let number = self.crew.calls.number();
        let seldom = self.rng.random_range(0..100) < 6;
        let op = match (Role::of(&key), read) {
            (Role::Counter, true) => Op::Read,
            (Role::Counter, false) => Op::Increment(number),
            (Role::Till, _) => Op::Till,
            (Role::Churn, _) if seldom => Op::End,
            (_, false) if seldom => Op::Spoil(number),
            (Role::Register, true) => Op::Get,
            (Role::Register, false) => match self.rng.random_bool(0.5) {
                true => Op::Cas(self.seen.get(&key).copied().unwrap_or(0), number),
                false => Op::Write(number),
            },
            (Role::List, true) => Op::List,
            (Role::List, false) => Op::Append(number),
            (Role::Stamp, true) => Op::Stamps,
            (Role::Stamp, false) => Op::Stamp(number),
            (Role::Schedule, true) => Op::Fired,
            (Role::Schedule, false) => Op::Remind(number, self.rng.random_range(0..3000)),
            (Role::Churn, true) => Op::Sum,
            (Role::Churn, false) => Op::Add(number),
            (Role::Account, true) => Op::Account,
            (Role::Account, false) => Op::Pay(number, self.another(&key)),
            (Role::Chain, true) => Op::List,
            (Role::Chain, false) => Op::Relay(number, self.another(&key)),
            (Role::Queue, _) => match self.rng.random_range(0..10) {
                0 => Op::Works,
                1..=3 => Op::Push(number),
                4 => Op::Enqueue(number),
                5 | 6 => Op::Pop,
                _ => Op::Work(self.rng.random_range(0..5)),
            },
            (Role::Ticker, true) => Op::Ticks,
            (Role::Ticker, false) => Op::Begin(number),
            (Role::Buyer, true) => Op::Bought,
            (Role::Buyer, false) => Op::Buy(number),
            (Role::Hall, true) if self.rng.random_bool(0.5) => Op::Visits,
            (Role::Events | Role::Hall, true) => Op::List,
            (Role::Events | Role::Hall, false) => Op::Tell(number),
        };
        (key, op)
    }

    /// The number of another actor of the same role.
    fn another(&mut self, key: &str) -> i64 {
        let role = Role::of(key);
        let others: Vec<i64> = self
            .crew
            .keys
            .iter()
            .filter(|other| *other != key && Role::of(other) == role)
            .filter_map(|other| other[1..].parse().ok())
            .collect();
        others[self.rng.random_range(0..others.len())]
    }

    fn learn(&mut self, key: &str, answer: &Answer) {
        if let Outcome::Ok(value) = answer.outcome
            && Role::of(key) == Role::Register
        {
            self.seen.insert(key.to_owned(), value);
        }
        if let Some(meta) = answer.meta.as_ref().filter(|_| Role::of(key) == Role::Events) {
            let actors = &mut self.crew.actors.lock();
            actors.insert(key.to_owned(), meta.incarnation.clone());
        }
    }

    async fn roam(mut self, config: ClientConfig) {
        let Some(client) = self.crew.connect(config).await else {
            return;
        };
        let door = Door::Roaming(client.cluster().clone());
        while !self.stopped() {
            let (key, op) = self.draw();
            let timeout = Duration::from_millis(self.rng.random_range(200..6000));
            let answer = self.crew.calls.call(&door, &self.name, &key, op, timeout).await;
            self.learn(&key, &answer);
            self.rest(answer.is_ok()).await;
        }
    }

    async fn stay(mut self, way: Way, node: usize) {
        let Some(door) = way.door(node) else { return };
        // Mostly reads: a stale one is what such a client is there to see.
        self.reads = self.reads.max(60);
        while !self.stopped() {
            let (key, op) = self.draw();
            let timeout = Duration::from_millis(self.rng.random_range(100..2000));
            let answer = self.crew.calls.call(&door, &self.name, &key, op, timeout).await;
            self.learn(&key, &answer);
            self.rest(answer.is_ok()).await;
        }
    }

    async fn repeat(mut self, way: Way) {
        let Some(doors) = way.doors() else { return };
        self.reads = self.reads.min(30);
        while !self.stopped() {
            let (key, op) = self.draw();
            let id = self.crew.calls.recorder.invoke(&self.name, &key, op);
            let answer = self.insist(&doors, &key, op).await;
            let answered = answer.is_ok();
            self.learn(&key, &answer);
            self.crew.calls.recorder.complete(id, answer);
            self.rest(answered).await;
        }
    }

    /// One intention, sent until it is answered; sometimes to several nodes at once, sometimes once more afterwards.
    async fn insist(&mut self, doors: &[Direct], key: &str, op: Op) -> Answer {
        // Any door: they share one session and one counter of requests.
        let request = doors[0].request(key, op);
        let attempts = self.rng.random_range(3..40);
        let mut perhaps = false;
        let mut error = String::new();
        for _ in 0..attempts {
            let timeout = Duration::from_millis(self.rng.random_range(30..800));
            let (one, two) = (
                self.rng.random_range(0..doors.len()),
                self.rng.random_range(0..doors.len()),
            );
            let twice = self.rng.random_bool(0.3);
            let second = async {
                match twice {
                    true => Some(doors[two].send(&request, timeout).await),
                    false => None,
                }
            };
            let (first, second) = tokio::join!(doors[one].send(&request, timeout), second);
            let mut answers = Vec::new();
            for result in [Some(first), second].into_iter().flatten() {
                match result {
                    Ok(answer) => answers.push(answer),
                    Err(no) => {
                        perhaps |= no.perhaps;
                        error = no.text;
                    }
                }
            }
            if let Some(answer) = answers.pop() {
                if self.rng.random_bool(0.2) {
                    let again = doors[self.rng.random_range(0..doors.len())]
                        .send(&request, timeout)
                        .await;
                    answers.extend(again.ok());
                }
                self.compare(key, op, &answer, &answers);
                return answer;
            }
            let pause = self.rng.random_range(1..60);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Answer::error(perhaps, error)
    }

    /// G5: a repeated request gets the first answer. What changed nothing leaves no record: it may be answered anew.
    fn compare(&self, key: &str, op: Op, first: &Answer, others: &[Answer]) {
        if !op.is_remembered(&first.list) {
            return;
        }
        for other in others {
            let same_version = |a: &Answer| a.meta.as_ref().map(|m| m.version);
            let same_value = other.outcome == first.outcome && other.list == first.list;
            if !same_value || same_version(other) != same_version(first) {
                self.crew.broken.lock().push(Broken {
                    law: "A5 exactly once (G5)".into(),
                    text: format!(
                        "{} asked {key} for {op:?} under one id and was told {} and {}",
                        self.name,
                        told(first),
                        told(other)
                    ),
                });
            }
        }
    }
}

fn told(answer: &Answer) -> String {
    match (answer.outcome, &answer.meta) {
        (Outcome::Ok(value), Some(meta)) => format!("{value} (version {})", meta.version),
        (outcome, _) => format!("{outcome:?}"),
    }
}
