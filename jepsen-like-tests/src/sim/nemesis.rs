//! What goes wrong, and when: draws events from the plan of a seed, and undoes each after a while.
//!
//! Invariant: after [`Nemesis::heal`] nothing is wrong any more, and every node runs again. Each event is in the history
//! as a mark, and counted when it really strikes.

use std::collections::BTreeMap;
use std::time::Duration;

use clinch::simulate::{LinkRule, Machine, Simulation};
use clinch_storage::{SimCounts, SimFaults};
use clinch_types::{NodeId, ShardId};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::Broken;
use super::faults::{Fault, Plan};
use super::fired::Fired;
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
}

/// Bytes that a file had before one was changed.
struct Rot {
    node: usize,
    name: String,
    bytes: Vec<u8>,
}

/// Everything that goes wrong in one run.
pub(super) struct Nemesis {
    plan: Plan,
    rng: StdRng,
    recorder: Recorder,
    places: Places,
    clients: Vec<Machine>,
    shards: u32,
    next: Duration,
    undo: BTreeMap<(Duration, u64), Undo>,
    undos: u64,
    /// Nodes that are off, and when they are started again.
    down: BTreeMap<usize, Duration>,
    disks: Vec<SimFaults>,
    rot: Option<Rot>,
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
        recorder: Recorder,
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
            recorder,
            places,
            clients: Vec::new(),
            shards,
            undo: BTreeMap::new(),
            undos: 0,
            down: BTreeMap::new(),
            disks,
            rot: None,
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

    /// A node whose files were changed runs again: it has noticed and serves no more what it lost, or its log had all of it.
    fn look_at_rot(&mut self, sim: &mut Simulation) {
        let Some(node) = self.rot.as_ref().map(|rot| rot.node) else {
            return;
        };
        if sim.node(node).is_none() {
            return;
        }
        let Some(rot) = self.rot.take() else { return };
        if !sim.has_lost_state(node) {
            self.fired.add("rot-repaired", 1);
            return;
        }
        self.recorder
            .mark(format!("node {} serves no more what it lost", node + 1));
        self.fired.add("state-rot-detected", 1);
        // An operator brings the store back.
        sim.kill(node);
        sim.disk(node).overwrite(&rot.name, rot.bytes);
        self.restart_within(sim, node, 1000);
    }

    fn judge_failure(&mut self, sim: &mut Simulation, node: usize, reason: &str) {
        if let Some(rot) = self.rot.take_if(|rot| rot.node == node) {
            // It noticed: what an operator does then is to bring the file back.
            self.fired.add("bit-rot-detected", 1);
            sim.disk(node).overwrite(&rot.name, rot.bytes);
            return;
        }
        let faults = [Fault::FailingSync, Fault::FullDisk, Fault::LyingSync];
        if !faults.iter().any(|fault| self.plan.faults.contains(fault)) {
            self.broken.push(Broken {
                law: "A13 a sound node goes on".into(),
                text: format!("node {} gave up: {reason}", node + 1),
            });
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
        let node = running[self.rng.random_range(0..running.len())];
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
            Fault::BitRot | Fault::StateRot => self.rot(sim, fault, node),
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
        let place = places::ALL[self.rng.random_range(0..places::ALL.len())];
        let place = self.rng.random_bool(0.9).then_some(place);
        // Soon at a place that is seldom come by, else it would never happen there; and then to whoever comes by.
        let times = place.map_or(2000, |place| self.places.seen(place));
        let after = self.rng.random_range(0..=(times / 20).min(2000));
        let node = (times > 200).then_some(node);
        self.places.arm(sim, node, place, after);
    }

    /// An owner stands still for longer than its lease and then does not hear what has become of it.
    fn zombie(&mut self, sim: &mut Simulation) -> Option<String> {
        let shard = ShardId(self.rng.random_range(0..self.shards));
        let seer = self.running(sim).into_iter().find_map(|node| sim.node(node))?;
        let owner = usize::try_from(seer.owner_of(shard)?.0).ok()?.checked_sub(1)?;
        if !self.running(sim).contains(&owner) {
            return None;
        }
        let time = Duration::from_millis(self.rng.random_range(1200..5000));
        sim.pause(owner, time);
        let links = self.cut_inward(sim, owner);
        let deaf = u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        self.later(sim, deaf + 200..deaf + 2500, Undo::Join(links));
        Some(format!("node {}, owner of shard {shard}, for {time:?}", owner + 1))
    }

    /// Loses everything that other nodes send to this one.
    fn cut_inward(&self, sim: &mut Simulation, node: usize) -> Vec<(Machine, Machine)> {
        let me = sim.machine(node);
        let links = self.links_of(sim, node).into_iter().filter(|(_, to)| *to == me);
        let links: Vec<(Machine, Machine)> = links.collect();
        for (from, to) in &links {
            sim.world().cut(*from, *to);
        }
        links
    }

    /// Something is wrong with a disk for a while.
    fn trouble_disk(&mut self, sim: &Simulation, fault: Fault, node: usize) {
        match fault {
            Fault::SlowSync => {
                self.disks[node].sync_latency = (Duration::from_millis(1), Duration::from_millis(30));
                self.set_disk(sim, node);
                self.later(sim, 200..5000, Undo::Disk(node, calm_sync));
            }
            Fault::FailingSync => {
                self.disks[node].sync_fails = 0.3;
                self.set_disk(sim, node);
                self.later(sim, 50..1000, Undo::Disk(node, |faults| faults.sync_fails = 0.0));
            }
            Fault::FullDisk => {
                let disk = sim.disk(node);
                let used: usize = disk
                    .names()
                    .iter()
                    .filter_map(|n| disk.read(n))
                    .map(|b| b.len())
                    .sum();
                self.disks[node].capacity = Some(used as u64 + self.rng.random_range(0..100_000));
                self.set_disk(sim, node);
                self.later(sim, 500..6000, Undo::Disk(node, |faults| faults.capacity = None));
            }
            _ => {}
        }
    }

    fn end_node(&mut self, sim: &mut Simulation, node: usize, kill: bool) {
        match kill {
            true => sim.kill(node),
            false => sim.power_loss(node),
        }
        self.restart_within(sim, node, 4000);
    }

    /// Moves a shard to another node; often the old owner is cut off while that happens, and hears nothing of its end.
    fn hand_over(&mut self, sim: &mut Simulation, node: usize) -> Option<String> {
        let shard = ShardId(self.rng.random_range(0..self.shards));
        let owner = sim.node(node)?.owner_of(shard)?;
        let from = usize::try_from(owner.0).ok()?.checked_sub(1)?;
        let to = (from + self.rng.random_range(1..sim.len())) % sim.len();
        sim.node(from)?.hand_over(shard, NodeId(to as u64 + 1));
        if self.rng.random_bool(0.5) {
            self.later(sim, 1..12, Undo::Deafen(from));
        }
        Some(format!("shard {shard} from node {} to node {}", from + 1, to + 1))
    }

    /// Changes one bit in the log or the state store of a node that is off. One such file at a time: a minority may be
    /// damaged.
    fn rot(&mut self, sim: &mut Simulation, fault: Fault, node: usize) -> Option<String> {
        if self.rot.is_some() {
            return None;
        }
        sim.kill(node);
        self.restart_within(sim, node, 1000);
        let disk = sim.disk(node);
        let names: Vec<String> = disk
            .names()
            .into_iter()
            .filter(|name| match fault {
                Fault::StateRot => name == "state.map",
                _ => name.starts_with("log/"),
            })
            .collect();
        if names.is_empty() {
            return None;
        }
        let name = names[self.rng.random_range(0..names.len())].clone();
        let bytes = disk.read(&name)?;
        // Mostly where something is written.
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        let mut changed = bytes.clone();
        changed[self.rng.random_range(0..used)] ^= 1 << self.rng.random_range(0..8u8);
        disk.overwrite(&name, changed);
        self.rot = Some(Rot {
            node,
            name: name.clone(),
            bytes,
        });
        Some(format!("node {}, {name}", node + 1))
    }

    /// Both directions between a node and every other node.
    fn links_of(&self, sim: &Simulation, node: usize) -> Vec<(Machine, Machine)> {
        let me = sim.machine(node);
        let others = (0..sim.len())
            .filter(|other| *other != node)
            .map(|other| sim.machine(other));
        others.flat_map(|other| [(me, other), (other, me)]).collect()
    }

    fn partition(&mut self, sim: &mut Simulation, fault: Fault, node: usize) -> Option<String> {
        let count = sim.len();
        let machine = |index: usize| sim.machine(index % count);
        let both = |a: Machine, b: Machine| [(a, b), (b, a)];
        let links: Vec<(Machine, Machine)> = match fault {
            Fault::Isolate => self.links_of(sim, node),
            Fault::IsolateAll => {
                let me = sim.machine(node);
                let clients = self.clients.iter().flat_map(|client| both(me, *client));
                self.links_of(sim, node).into_iter().chain(clients).collect()
            }
            Fault::Bridge => both(machine(node), machine(node + 1)).to_vec(),
            Fault::Ring => (0..count)
                .flat_map(|a| (a + 2..count).map(move |b| (a, b)))
                .filter(|(a, b)| (b + 1) % count != *a)
                .flat_map(|(a, b)| both(sim.machine(a), sim.machine(b)))
                .collect(),
            Fault::OneWay => vec![(
                machine(node),
                machine(node + 1 + self.rng.random_range(0..count - 1)),
            )],
            Fault::ClientCut => {
                let share = self.rng.random_range(0.2..0.8);
                let mut links = Vec::new();
                for client in &self.clients {
                    for other in 0..count {
                        if self.rng.random_bool(share) {
                            links.extend(both(sim.machine(other), *client));
                        }
                    }
                }
                links
            }
            _ => return None,
        };
        if links.is_empty() {
            return None;
        }
        for (from, to) in &links {
            sim.world().cut(*from, *to);
        }
        let what = format!("node {}, {} directions", node + 1, links.len());
        self.later(sim, 100..6000, Undo::Join(links));
        Some(what)
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
            Undo::Deafen(node) => {
                let links = self.cut_inward(sim, node);
                self.fired.count(Fault::OneWay);
                self.recorder.mark(format!("node {} hears nobody", node + 1));
                self.later(sim, 100..2000, Undo::Join(links));
            }
            Undo::Stutter(node, left) => {
                sim.pause(node, Duration::from_millis(self.rng.random_range(20..250)));
                if left > 0 {
                    self.later(sim, 30..400, Undo::Stutter(node, left - 1));
                }
            }
        }
    }

    fn set_disk(&self, sim: &Simulation, node: usize) {
        sim.disk(node).set_faults(self.disks[node].clone());
    }

    /// Ends everything that is wrong and starts every node that is off.
    pub(super) fn heal(&mut self, sim: &mut Simulation) {
        self.plan.faults.clear();
        self.undo.clear();
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
        self.bury(sim);
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

fn calm_sync(faults: &mut SimFaults) {
    faults.sync_latency = (Duration::from_micros(100), Duration::from_millis(2));
}
