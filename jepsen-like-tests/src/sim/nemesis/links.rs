//! What goes wrong between machines: partitions of every kind, owners that are replaced without hearing of it.

use std::time::Duration;

use clinch::simulate::{Machine, Simulation};
use clinch_types::{NodeId, ShardId};
use rand::Rng as _;

use super::{Nemesis, Parting, Undo};
use crate::sim::Fault;

/// Where an owner has nothing left to do but to name its successor.
const PARTING: &str = "shard.before_transfer";
/// Longest time for which a node that was led astray is looked at more closely.
const SUSPECT_MAX: Duration = Duration::from_millis(2200);

impl Nemesis {
    /// Looked at more closely from now on.
    pub(super) fn suspect(&self, sim: &Simulation, node: usize, time: Duration) {
        self.suspects.add(node, sim.now() + time.min(SUSPECT_MAX));
    }

    /// A shard, and the running node that owns it.
    pub(super) fn draw_owner(&mut self, sim: &Simulation) -> Option<(ShardId, usize)> {
        let shard = ShardId(self.rng.random_range(0..self.shards));
        let running = self.running(sim);
        let seer = running.iter().find_map(|node| sim.node(*node))?;
        let owner = usize::try_from(seer.owner_of(shard)?.0).ok()?.checked_sub(1)?;
        running.contains(&owner).then_some((shard, owner))
    }

    /// Cuts an owner off when it has named its successor, before the votes are asked for.
    pub(super) fn part(&mut self, sim: &mut Simulation) {
        let Some(parting) = self.parting.take() else {
            return;
        };
        if self.places.seen(PARTING) > parting.seen {
            self.deafen(sim, parting.node);
        } else if sim.now() < parting.until {
            self.parting = Some(parting);
        }
    }

    /// A node hears no other node for a while.
    pub(super) fn deafen(&mut self, sim: &mut Simulation, node: usize) {
        let links = self.cut_inward(sim, node);
        self.fired.count(Fault::OneWay);
        self.recorder.mark(format!("node {} hears nobody", node + 1));
        self.suspect(sim, node, SUSPECT_MAX);
        self.later(sim, 100..2000, Undo::Join(links));
    }

    /// Moves a shard to another node; often the old owner is cut off while that happens, and hears nothing of its end.
    pub(super) fn hand_over(&mut self, sim: &mut Simulation, node: usize) -> Option<String> {
        let shard = ShardId(self.rng.random_range(0..self.shards));
        let owner = sim.node(node)?.owner_of(shard)?;
        let from = usize::try_from(owner.0).ok()?.checked_sub(1)?;
        let to = (from + self.rng.random_range(1..sim.len())) % sim.len();
        sim.node(from)?.hand_over(shard, NodeId(to as u64 + 1));
        let second = Duration::from_secs(1);
        self.suspect(sim, from, second);
        match self.rng.random_range(0..10) {
            // It has said who shall be the owner, and does not hear who is.
            0..5 => {
                self.parting = Some(Parting {
                    node: from,
                    seen: self.places.seen(PARTING),
                    until: sim.now() + second,
                });
            }
            5..7 => self.later(sim, 1..12, Undo::Deafen(from)),
            _ => {}
        }
        if self.rng.random_bool(0.4) {
            // An owner that comes back has kept nothing of what it knew.
            self.later(sim, 150..2500, Undo::HandBack(shard, from));
        }
        Some(format!("shard {shard} from node {} to node {}", from + 1, to + 1))
    }

    /// Whoever has a shard hands it to this node.
    pub(super) fn hand_back(&mut self, sim: &Simulation, shard: ShardId, to: usize) -> Option<String> {
        let seer = self.running(sim).into_iter().find_map(|node| sim.node(node))?;
        let from = usize::try_from(seer.owner_of(shard)?.0).ok()?.checked_sub(1)?;
        if from == to {
            return None;
        }
        sim.node(from)?.hand_over(shard, NodeId(to as u64 + 1));
        Some(format!(
            "shard {shard} from node {} back to node {}",
            from + 1,
            to + 1
        ))
    }

    /// An owner stands still for longer than its lease and then does not hear what has become of it.
    pub(super) fn zombie(&mut self, sim: &mut Simulation) -> Option<String> {
        let (shard, owner) = self.draw_owner(sim)?;
        // From about when the others have another owner.
        let time = Duration::from_millis(self.rng.random_range(800..4000));
        sim.pause(owner, time);
        self.suspects
            .add(owner, sim.now() + time + Duration::from_secs(2));
        let links = self.cut_inward(sim, owner);
        let deaf = u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        self.later(sim, deaf + 200..deaf + 2500, Undo::Join(links));
        Some(format!(
            "node {}, owner of shard {shard}, for {time:?}",
            owner + 1
        ))
    }

    /// Loses everything that other nodes send to this one.
    pub(super) fn cut_inward(&self, sim: &mut Simulation, node: usize) -> Vec<(Machine, Machine)> {
        let me = sim.machine(node);
        let links = self.links_of(sim, node).into_iter().filter(|(_, to)| *to == me);
        let links: Vec<(Machine, Machine)> = links.collect();
        for (from, to) in &links {
            sim.world().cut(*from, *to);
        }
        links
    }

    /// Both directions between a node and every other node.
    pub(super) fn links_of(&self, sim: &Simulation, node: usize) -> Vec<(Machine, Machine)> {
        let me = sim.machine(node);
        let others = (0..sim.len())
            .filter(|other| *other != node)
            .map(|other| sim.machine(other));
        others.flat_map(|other| [(me, other), (other, me)]).collect()
    }

    pub(super) fn partition(&mut self, sim: &mut Simulation, fault: Fault, node: usize) -> Option<String> {
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
        if matches!(fault, Fault::Isolate | Fault::OneWay) {
            self.suspect(sim, node, SUSPECT_MAX);
        }
        for (from, to) in &links {
            sim.world().cut(*from, *to);
        }
        let what = format!("node {}, {} directions", node + 1, links.len());
        self.later(sim, 100..6000, Undo::Join(links));
        Some(what)
    }
}
