//! What goes wrong with the disks of nodes, and how it shows that they have noticed.

use std::time::Duration;

use clinch::simulate::Simulation;
use clinch_storage::SimFaults;
use rand::Rng as _;

use super::{Nemesis, Rot, Undo};
use crate::sim::{Broken, Fault};

/// The file of the state store.
const STATE: &str = "state.map";

impl Nemesis {
    /// Something is wrong with a disk for a while.
    pub(super) fn trouble_disk(&mut self, sim: &Simulation, fault: Fault, node: usize) {
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

    /// Keeps what the state stores are now, to bring one back later.
    pub(super) fn copy_states(&mut self, sim: &Simulation) {
        if sim.now() < self.copy_at || !self.plan.faults.contains(&Fault::StateBack) {
            return;
        }
        self.copy_at = sim.now() + Duration::from_millis(self.rng.random_range(1000..8000));
        for node in 0..sim.len() {
            if let Some(bytes) = sim.disk(node).read(STATE) {
                self.copies.insert(node, bytes);
            }
        }
    }

    /// Kills a node and changes one bit in its log or its state store, or brings an older state store back. One such file
    /// at a time: a minority may be damaged.
    pub(super) fn rot(&mut self, sim: &mut Simulation, fault: Fault, node: usize) -> Option<String> {
        if self.rot.is_some() {
            return None;
        }
        // First: a node with nothing to damage goes on.
        let (rot, changed) = self.damage(sim, fault, node)?;
        sim.kill(node);
        self.restart_within(sim, node, 1000);
        sim.disk(node).overwrite(&rot.name, changed);
        let what = format!("node {}, {}", node + 1, rot.name);
        self.rot = Some(rot);
        Some(what)
    }

    /// A file of a node as it is, and as it shall be; `None`: there is nothing to damage.
    fn damage(&mut self, sim: &Simulation, fault: Fault, node: usize) -> Option<(Rot, Vec<u8>)> {
        let disk = sim.disk(node);
        let names: Vec<String> = disk
            .names()
            .into_iter()
            .filter(|name| match fault {
                Fault::StateRot | Fault::StateBack => name == STATE,
                _ => name.starts_with("log/"),
            })
            .collect();
        if names.is_empty() {
            return None;
        }
        let name = names[self.rng.random_range(0..names.len())].clone();
        let bytes = disk.read(&name)?;
        let changed = match fault {
            Fault::StateBack => self.copies.get(&node).filter(|copy| **copy != bytes)?.clone(),
            _ => {
                // Mostly where something is written.
                let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
                let mut changed = bytes.clone();
                changed[self.rng.random_range(0..used)] ^= 1 << self.rng.random_range(0..8u8);
                changed
            }
        };
        Some((Rot { node, name, bytes }, changed))
    }

    /// A node whose files were changed runs again: it has noticed and serves no more what it lost, or its log had all of it.
    pub(super) fn look_at_rot(&mut self, sim: &mut Simulation) {
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

    pub(super) fn judge_failure(&mut self, sim: &mut Simulation, node: usize, reason: &str) {
        if let Some(rot) = self.rot.take_if(|rot| rot.node == node) {
            // It noticed: what an operator does then is to bring the file back.
            self.fired.add("bit-rot-detected", 1);
            sim.disk(node).overwrite(&rot.name, rot.bytes);
            return;
        }
        if self.plan.faults.contains(&Fault::FailingSync) && self.rng.random_bool(0.5) {
            // What its disk has lost without a word shows when its memory is gone, too.
            self.later(sim, 100..4000, Undo::Darken(node));
        }
        let faults = [Fault::FailingSync, Fault::FullDisk, Fault::LyingSync];
        if !faults.iter().any(|fault| self.plan.faults.contains(fault)) {
            self.broken.push(Broken {
                law: "A13 a sound node goes on".into(),
                text: format!("node {} gave up: {reason}", node + 1),
            });
        }
    }

    /// A node whose disk is sound never loses its state.
    pub(in crate::sim) fn look_at_states(&mut self, sim: &Simulation) {
        let faults = [Fault::StateRot, Fault::StateBack, Fault::BitRot, Fault::LyingSync];
        if faults.iter().any(|fault| self.plan.faults.contains(fault)) {
            return;
        }
        const LAW: &str = "A1 what is durable stays (G1)";
        if self.broken.iter().any(|broken| broken.law == LAW) {
            return;
        }
        let lost = (0..sim.len()).find(|node| sim.has_lost_state(*node));
        if let Some(node) = lost {
            self.broken.push(Broken {
                law: LAW.into(),
                text: format!(
                    "node {} has lost the state of a shard at {:.3} s, and its disk is sound",
                    node + 1,
                    sim.now().as_secs_f64()
                ),
            });
        }
    }

    pub(super) fn set_disk(&self, sim: &Simulation, node: usize) {
        sim.disk(node).set_faults(self.disks[node].clone());
    }
}

fn calm_sync(faults: &mut SimFaults) {
    faults.sync_latency = (Duration::from_micros(100), Duration::from_millis(2));
}
