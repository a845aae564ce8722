//! What goes wrong, and when: draws events from the plan of a seed, and undoes each after a while.
//!
//! Invariant: after [`Nemesis::heal`] nothing is wrong any more, and every node runs again. Each event is in the history
//! as a mark, and counted when it really strikes.

mod disks;
mod links;

use std::collections::BTreeMap;
use std::time::Duration;

use clinch::simulate::{LinkRule, Machine, Simulation};
use clinch_storage::{SimCounts, SimFaults};
use clinch_types::ShardId;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::Broken;
use super::clients::Crew;
use super::faults::{Fault, Plan};
use super::fired::Fired;
use super::lookers::Suspects;
use super::places::{self, Places};
use crate::history::Recorder;

/// What clocks that run at different rates may differ by in a run of some minutes, in ms.
const DRIFT_MAX_MS: i64 = 30_000;

/// What ends an event.
enum Undo {
    Join(Vec<(Machine, Machine)>),
    Calm(Vec<(Machine, Machine)>),
    Disk(usize, fn(&mut SimFaults)),
    Stutter(usize, u32),
    /// No end, but the second half of an event: the node no longer hears the others.
    Deafen(usize),
    /// The same: whoever has the shard hands it to this node.
    HandBack(ShardId, usize),
    /// The same: the machine whose disk had failed loses its power.
    Darken(usize),
}

/// Bytes that a file had before one was changed.
struct Rot {
    node: usize,
    name: String,
    bytes: Vec<u8>,
}

/// An owner that is about to be replaced, and hears no more as soon as it has said so.
struct Parting {
    node: usize,
    /// How often owners had said so before.
    seen: u64,
    until: Duration,
}

/// Everything that goes wrong in one run.
pub(super) struct Nemesis {
    plan: Plan,
    rng: StdRng,
    recorder: Recorder,
    places: Places,
    suspects: Suspects,
    parting: Option<Parting>,
    clients: Vec<Machine>,
    shards: u32,
    next: Duration,
    undo: BTreeMap<(Duration, u64), Undo>,
    undos: u64,
    /// Nodes that are off, and when they are started again.
    down: BTreeMap<usize, Duration>,
    disks: Vec<SimFaults>,
    rot: Option<Rot>,
    /// What the state store of each node was a while ago.
    copies: BTreeMap<usize, Vec<u8>>,
    copy_at: Duration,
    /// Nodes that have never been started.
    spares: Vec<usize>,
    /// The furthest that any wall clock was ever ahead, in ms.
    furthest_ms: i64,
    /// Nodes that gave up by themselves while nothing was wrong with their disks.
    pub(super) broken: Vec<Broken>,
    pub(super) fired: Fired,
}

impl Nemesis {
    pub(super) fn new(
        sim: &mut Simulation,
        plan: Plan,
        mut rng: StdRng,
        crew: &Crew,
        places: Places,
        shards: u32,
    ) -> Self {
        let nodes = sim.len();
        let mut fired = Fired::default();
        sim.world().set_links(plan.links);
        for node in 0..nodes {
            if plan.faults.contains(&Fault::ClockSkew) {
                sim.jump_clock(node, rng.random_range(-600_000..600_000));
                fired.count(Fault::ClockSkew);
            }
            if plan.faults.contains(&Fault::ClockDrift) {
                let machine = sim.machine(node);
                sim.world().set_rate(machine, rng.random_range(0.93..1.07));
                fired.count(Fault::ClockDrift);
            }
        }
        let mut disks = vec![SimFaults::default(); nodes];
        for (node, faults) in disks.iter_mut().enumerate() {
            faults.sync_latency = (Duration::from_micros(100), Duration::from_millis(2));
            if plan.faults.contains(&Fault::LyingSync) {
                faults.sync_lies = rng.random_range(0.5..1.0);
            }
            sim.disk(node).set_faults(faults.clone());
        }
        Self {
            next: sim.now() + plan.gap.0,
            plan,
            rng,
            recorder: crew.calls.recorder.clone(),
            places,
            suspects: crew.suspects.clone(),
            parting: None,
            clients: Vec::new(),
            shards,
            undo: BTreeMap::new(),
            undos: 0,
            down: BTreeMap::new(),
            disks,
            rot: None,
            copies: BTreeMap::new(),
            copy_at: Duration::ZERO,
            spares: (0..nodes).filter(|node| !sim.is_on(*node)).collect(),
            furthest_ms: 0,
            broken: Vec::new(),
            fired,
        }
    }

    /// The machines that clients run on: they can be cut off, too.
    pub(super) fn set_clients(&mut self, clients: Vec<Machine>) {
        self.clients = clients;
    }

    /// Called between two steps.
    pub(super) fn tick(&mut self, sim: &mut Simulation) {
        let now = sim.now();
        self.bury(sim);
        self.part(sim);
        self.copy_states(sim);
        self.furthest_ms = skews(sim).into_iter().fold(self.furthest_ms, i64::max);
        while let Some(entry) = self.undo.first_entry()
            && entry.key().0 <= now
        {
            let undo = entry.remove();
            self.end(sim, undo);
        }
        let up: Vec<usize> = self
            .down
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(n, _)| *n)
            .collect();
        for node in up {
            self.down.remove(&node);
            self.start(sim, node);
        }
        if now >= self.next {
            let (least, most) = self.plan.gap;
            self.next = now + self.rng.random_range(least..=most);
            self.event(sim);
        }
    }

    /// Notices nodes that ended by themselves, and those whose power was cut at a place in the code.
    fn bury(&mut self, sim: &mut Simulation) {
        if let Some((node, place)) = self.places.struck() {
            self.fired.count(Fault::Place);
            self.recorder
                .mark(format!("power loss of node {} at {place}", node + 1));
            sim.power_loss(node);
            self.restart_within(sim, node, 2000);
        }
        self.look_at_rot(sim);
        for node in 0..sim.len() {
            let Some(reason) = sim.failure(node) else { continue };
            if self.down.contains_key(&node) {
                continue;
            }
            self.recorder.mark(format!("node {} gave up: {reason}", node + 1));
            sim.world().note("gave up", reason.as_bytes());
            self.judge_failure(sim, node, &reason);
            self.restart_within(sim, node, 1500);
        }
    }

    fn restart_within(&mut self, sim: &Simulation, node: usize, most_ms: u64) {
        let at = sim.now() + Duration::from_millis(self.rng.random_range(20..most_ms));
        self.down.insert(node, at);
    }

    fn start(&mut self, sim: &mut Simulation, node: usize) {
        self.recorder.mark(format!("start of node {}", node + 1));
        sim.world().note("start", &[node as u8]);
        if let Err(error) = sim.restart(node) {
            self.broken.push(Broken {
                law: "simulator".into(),
                text: format!("a machine cannot be started: {error}"),
            });
        }
    }

    fn running(&self, sim: &Simulation) -> Vec<usize> {
        (0..sim.len())
            .filter(|node| sim.is_on(*node) && !self.down.contains_key(node))
            .collect()
    }

    /// Draws one event and lets it happen, if it can.
    fn event(&mut self, sim: &mut Simulation) {
        let weights: Vec<(Fault, u32)> = self.plan.faults.iter().map(|f| (*f, f.weight())).collect();
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return;
        }
        let mut drawn = self.rng.random_range(0..total);
        let Some((fault, _)) = weights
            .into_iter()
            .find(|(_, weight)| match drawn.checked_sub(*weight) {
                Some(rest) => {
                    drawn = rest;
                    false
                }
                None => true,
            })
        else {
            return;
        };
        let running = self.running(sim);
        if running.is_empty() {
            return;
        }
        let any = running[self.rng.random_range(0..running.len())];
        // What happens to owners shows more.
        let owner = self.rng.random_bool(0.4).then(|| self.draw_owner(sim)).flatten();
        let node = owner.map_or(any, |(_, owner)| owner);
        if let Some(what) = self.strike(sim, fault, node, &running) {
            self.fired.count(fault);
            sim.world().note(fault.name(), &[node as u8]);
            self.recorder.mark(format!("{fault}: {what}"));
        }
    }

    /// Lets it happen; `None`: it cannot now, or it is counted when it strikes.
    fn strike(
        &mut self,
        sim: &mut Simulation,
        fault: Fault,
        node: usize,
        running: &[usize],
    ) -> Option<String> {
        match fault {
            Fault::PowerLoss | Fault::Kill => {
                self.end_node(sim, node, fault == Fault::Kill);
                Some(format!("node {}", node + 1))
            }
            Fault::PowerLossSeveral => {
                let many = self.rng.random_range(2..=sim.len().max(3) - 1);
                let chosen: Vec<usize> = running
                    .iter()
                    .copied()
                    .filter(|n| *n != node)
                    .take(many)
                    .collect();
                for other in &chosen {
                    self.end_node(sim, *other, false);
                }
                (!chosen.is_empty()).then(|| format!("{} nodes", chosen.len()))
            }
            Fault::PowerLossAll | Fault::KillAll => {
                for other in running {
                    self.end_node(sim, *other, fault == Fault::KillAll);
                }
                Some(format!("{} nodes", running.len()))
            }
            Fault::Place => {
                self.arm(sim, node);
                None
            }
            Fault::SlowSync | Fault::FailingSync | Fault::FullDisk => {
                self.trouble_disk(sim, fault, node);
                Some(format!("node {}", node + 1))
            }
            Fault::BitRot | Fault::StateRot | Fault::StateBack => self.rot(sim, fault, node),
            Fault::Zombie => self.zombie(sim),
            Fault::Join => {
                let node = self.spares.pop()?;
                self.start(sim, node);
                Some(format!("node {}", node + 1))
            }
            Fault::Isolate
            | Fault::IsolateAll
            | Fault::Bridge
            | Fault::Ring
            | Fault::OneWay
            | Fault::ClientCut => self.partition(sim, fault, node),
            Fault::Delay => {
                let rule = LinkRule {
                    delay_us: (20_000, 250_000),
                    ..self.plan.links
                };
                let links = self.links_of(sim, node);
                for (from, to) in &links {
                    sim.world().set_link(*from, *to, Some(rule));
                }
                self.later(sim, 200..4000, Undo::Calm(links));
                Some(format!("node {}", node + 1))
            }
            Fault::Pause => {
                let time = Duration::from_millis(self.rng.random_range(300..4000));
                sim.pause(node, time);
                self.suspect(sim, node, time + Duration::from_secs(1));
                Some(format!("node {} for {time:?}", node + 1))
            }
            Fault::Stutter => {
                let times = self.rng.random_range(3..20);
                self.later(sim, 1..100, Undo::Stutter(node, times));
                Some(format!("node {}, {times} times", node + 1))
            }
            Fault::ClockJump => {
                let by = self.rng.random_range(-120_000..120_000);
                sim.jump_clock(node, by);
                Some(format!("node {} by {by} ms", node + 1))
            }
            Fault::HandOver => self.hand_over(sim, node),
            Fault::Loss
            | Fault::Duplicate
            | Fault::Reorder
            | Fault::Corrupt
            | Fault::ClockSkew
            | Fault::ClockDrift
            | Fault::LyingSync => None,
        }
    }

    /// Cuts the power of a node at a named place in the code.
    fn arm(&mut self, sim: &Simulation, node: usize) {
        let choice: &[&'static str] = match self.rng.random_bool(0.5) {
            true => &places::SELDOM,
            false => &places::ALL,
        };
        let place = choice[self.rng.random_range(0..choice.len())];
        let place = self.rng.random_bool(0.9).then_some(place);
        // Soon at a place that is seldom come by, else it would never happen there; and then to whoever comes by.
        let times = place.map_or(2000, |place| self.places.seen(place));
        let after = self.rng.random_range(0..=(times / 20).min(2000));
        let node = (times > 200).then_some(node);
        self.places.arm(sim, node, place, after);
    }

    fn end_node(&mut self, sim: &mut Simulation, node: usize, kill: bool) {
        match kill {
            true => sim.kill(node),
            false => sim.power_loss(node),
        }
        self.restart_within(sim, node, 4000);
    }

    fn later(&mut self, sim: &Simulation, within_ms: std::ops::Range<u64>, undo: Undo) {
        let at = sim.now() + Duration::from_millis(self.rng.random_range(within_ms));
        self.undos += 1;
        self.undo.insert((at, self.undos), undo);
    }

    fn end(&mut self, sim: &mut Simulation, undo: Undo) {
        match undo {
            Undo::Join(links) => {
                for (from, to) in links {
                    sim.world().join(from, to);
                }
            }
            Undo::Calm(links) => {
                for (from, to) in links {
                    sim.world().set_link(from, to, None);
                }
            }
            Undo::Disk(node, change) => {
                change(&mut self.disks[node]);
                self.set_disk(sim, node);
            }
            Undo::Deafen(node) => self.deafen(sim, node),
            Undo::Darken(node) => {
                if sim.is_on(node) && !self.down.contains_key(&node) {
                    self.end_node(sim, node, false);
                    self.fired.count(Fault::PowerLoss);
                    self.recorder.mark(format!(
                        "power-loss: node {}, after its disk had failed",
                        node + 1
                    ));
                }
            }
            Undo::HandBack(shard, node) => {
                if let Some(what) = self.hand_back(sim, shard, node) {
                    self.fired.count(Fault::HandOver);
                    self.recorder.mark(format!("hand-over: {what}"));
                }
            }
            Undo::Stutter(node, left) => {
                sim.pause(node, Duration::from_millis(self.rng.random_range(20..250)));
                if left > 0 {
                    self.later(sim, 30..400, Undo::Stutter(node, left - 1));
                }
            }
        }
    }

    /// Ends everything that is wrong and starts every node that is off.
    pub(super) fn heal(&mut self, sim: &mut Simulation) {
        // Who gave up a moment ago did so for one of the faults.
        self.bury(sim);
        self.plan.faults.clear();
        self.undo.clear();
        self.parting = None;
        self.places.disarm();
        sim.heal();
        sim.world().set_links(LinkRule::default());
        // The clocks agree again, ahead of what any of them ever showed: whatever was due anywhere is due now.
        let furthest = self.furthest_ms + DRIFT_MAX_MS;
        for (node, skew) in skews(sim).into_iter().enumerate() {
            sim.jump_clock(node, furthest - skew);
        }
        for node in 0..sim.len() {
            let machine = sim.machine(node);
            sim.world().resume(machine);
            sim.world().set_rate(machine, 1.0);
            self.disks[node] = SimFaults::default();
            self.set_disk(sim, node);
        }
        // Who never came comes now.
        let down = std::mem::take(&mut self.down).into_keys();
        for node in down.chain(std::mem::take(&mut self.spares)) {
            self.start(sim, node);
        }
    }

    /// After the healing: only starts again what has ended by itself, which a disk that was bad may still cause once.
    pub(super) fn tend(&mut self, sim: &mut Simulation) {
        let broken = self.broken.len();
        self.bury(sim);
        // What it found on its disk may be older than the healing.
        self.broken.truncate(broken);
        let now = sim.now();
        let up: Vec<usize> = self
            .down
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(n, _)| *n)
            .collect();
        for node in up {
            self.down.remove(&node);
            self.start(sim, node);
        }
    }

    /// Everything that struck, with what disks and network tell.
    pub(super) fn fired(&self, sim: &mut Simulation) -> Fired {
        let mut fired = self.fired.clone();
        for node in 0..sim.len() {
            let SimCounts {
                syncs_failed,
                syncs_lied,
                writes_lost,
                writes_torn,
                names_lost,
                writes_refused,
                syncs: _,
            } = sim.disk(node).counts();
            fired.add("syncs-failed", syncs_failed);
            fired.add(Fault::LyingSync.name(), syncs_lied);
            fired.add("writes-lost", writes_lost);
            fired.add("writes-torn", writes_torn);
            fired.add("names-lost", names_lost);
            fired.add("writes-refused", writes_refused);
        }
        let net = sim.world().net_counts();
        // Conditions of a whole run: they strike packet by packet.
        fired.add("packets-cut", net.cut);
        fired.add(Fault::Loss.name(), net.lost);
        fired.add(Fault::Duplicate.name(), net.duplicated);
        fired.add(Fault::Reorder.name(), net.straggled);
        fired.add(Fault::Corrupt.name(), net.corrupted);
        fired
    }
}

/// How far every wall clock is ahead, in ms.
fn skews(sim: &mut Simulation) -> Vec<i64> {
    (0..sim.len())
        .map(|node| {
            let machine = sim.machine(node);
            sim.world().clock(machine).skew_ms()
        })
        .collect()
}
