//! The kinds of faults, and which of them a seed has.
//!
//! Swarm testing: each seed has each fault or not, and its own intensity, because faults hide each other: a cluster that
//! is always partitioned never gets far enough to lose a torn tail.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clinch::simulate::LinkRule;
use rand::Rng as _;
use rand::rngs::StdRng;

/// What can go wrong in a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// One node loses power: bytes that were not synced are lost, torn, or kept.
    PowerLoss,
    /// Several nodes, not all, lose power at once.
    PowerLossSeveral,
    /// All nodes lose power at once.
    PowerLossAll,
    /// `kill -9` of one node.
    Kill,
    /// `kill -9` of all nodes at once.
    KillAll,
    /// A power loss at a named place in the code.
    Place,
    /// Syncs take up to 30 ms.
    SlowSync,
    /// A sync fails, and what it should have written is lost.
    FailingSync,
    /// Syncs answer and do nothing: no program survives that; only on demand, to see that the checkers notice.
    LyingSync,
    /// A disk is full for a while.
    FullDisk,
    /// A bit flips in the files of a node that is off.
    BitRot,
    /// One node is cut off from the others.
    Isolate,
    /// One node is cut off from the others and from all clients.
    IsolateAll,
    /// Two nodes do not reach each other; the others reach both.
    Bridge,
    /// Every node reaches its two neighbours only.
    Ring,
    /// Packets from one node to another are lost, those back are not.
    OneWay,
    /// Some clients do not reach some nodes.
    ClientCut,
    /// Packets are lost.
    Loss,
    /// Packets arrive twice.
    Duplicate,
    /// Packets overtake each other.
    Reorder,
    /// Packets arrive with a flipped bit.
    Corrupt,
    /// Packets take long.
    Delay,
    /// A node stands still for longer than its lease.
    Pause,
    /// A node stands still for a moment, again and again.
    Stutter,
    /// A wall clock jumps, forwards or backwards.
    ClockJump,
    /// Wall clocks are off by minutes.
    ClockSkew,
    /// Clocks run at different rates.
    ClockDrift,
    /// A shard is handed over in the middle of everything, and sometimes back a moment later.
    HandOver,
    /// An owner stands still for longer than its lease, and then hears no other node for a while: clients find it awake,
    /// and it cannot learn that it was replaced.
    Zombie,
    /// A node joins: one that is new, and those that form the cluster one after the other, through power losses.
    Join,
    /// A bit flips in the state store of a node that is off.
    StateRot,
    /// A node that is off gets back the state store that it had a while ago, as from a copy.
    StateBack,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 32] = [
        Self::PowerLoss,
        Self::PowerLossSeveral,
        Self::PowerLossAll,
        Self::Kill,
        Self::KillAll,
        Self::Place,
        Self::SlowSync,
        Self::FailingSync,
        Self::LyingSync,
        Self::FullDisk,
        Self::BitRot,
        Self::Isolate,
        Self::IsolateAll,
        Self::Bridge,
        Self::Ring,
        Self::OneWay,
        Self::ClientCut,
        Self::Loss,
        Self::Duplicate,
        Self::Reorder,
        Self::Corrupt,
        Self::Delay,
        Self::Pause,
        Self::Stutter,
        Self::ClockJump,
        Self::ClockSkew,
        Self::ClockDrift,
        Self::HandOver,
        Self::Zombie,
        Self::Join,
        Self::StateRot,
        Self::StateBack,
    ];

    /// Its name in options and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerLoss => "power-loss",
            Self::PowerLossSeveral => "power-loss-several",
            Self::PowerLossAll => "power-loss-all",
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Place => "place",
            Self::SlowSync => "slow-sync",
            Self::FailingSync => "failing-sync",
            Self::LyingSync => "lying-sync",
            Self::FullDisk => "full-disk",
            Self::BitRot => "bit-rot",
            Self::Isolate => "isolate",
            Self::IsolateAll => "isolate-all",
            Self::Bridge => "bridge",
            Self::Ring => "ring",
            Self::OneWay => "one-way",
            Self::ClientCut => "client-cut",
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Corrupt => "corrupt",
            Self::Delay => "delay",
            Self::Pause => "pause",
            Self::Stutter => "stutter",
            Self::ClockJump => "clock-jump",
            Self::ClockSkew => "clock-skew",
            Self::ClockDrift => "clock-drift",
            Self::HandOver => "hand-over",
            Self::Zombie => "zombie",
            Self::Join => "join",
            Self::StateRot => "state-rot",
            Self::StateBack => "state-back",
        }
    }

    /// How often it is chosen among those a seed has; 0: it is a condition of the whole run, not an event.
    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Loss
            | Self::Duplicate
            | Self::Reorder
            | Self::Corrupt
            | Self::ClockSkew
            | Self::ClockDrift
            | Self::LyingSync => 0,
            Self::PowerLossAll | Self::KillAll | Self::StateRot | Self::FullDisk => 1,
            Self::BitRot
            | Self::StateBack
            | Self::PowerLossSeveral
            | Self::FailingSync
            | Self::Ring
            | Self::ClientCut
            | Self::Zombie => 2,
            Self::PowerLoss | Self::Kill | Self::Pause | Self::HandOver | Self::Join => 4,
            // Most seeds have a few dozen events, and every place shall have its turn.
            Self::Place => 8,
            Self::SlowSync
            | Self::Isolate
            | Self::IsolateAll
            | Self::Bridge
            | Self::OneWay
            | Self::Delay
            | Self::Stutter
            | Self::ClockJump => 3,
        }
    }

    /// Whether a seed may have it unasked.
    fn is_survivable(self) -> bool {
        self != Self::LyingSync
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no fault {text:?}; there are {names}")
        })
    }
}

/// What one seed goes through.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) faults: BTreeSet<Fault>,
    /// Shortest and longest time between two events.
    pub(super) gap: (Duration, Duration),
    /// How the network behaves between events.
    pub(super) links: LinkRule,
}

impl Plan {
    /// The plan of a seed: of these faults, or of all that can be survived.
    pub(super) fn draw(rng: &mut StdRng, only: Option<&BTreeSet<Fault>>) -> Self {
        let faults: BTreeSet<Fault> = match only {
            Some(only) => only.clone(),
            None => {
                // Between a few faults and most of them.
                let share = rng.random_range(0.15..0.7);
                Fault::ALL
                    .into_iter()
                    .filter(|fault| fault.is_survivable() && rng.random_bool(share))
                    .collect()
            }
        };
        let shortest = rng.random_range(50..800);
        let gap = (
            Duration::from_millis(shortest),
            Duration::from_millis(shortest * rng.random_range(2..6)),
        );
        let mut links = LinkRule {
            delay_us: (rng.random_range(50..500), rng.random_range(500..4000)),
            ..LinkRule::default()
        };
        if faults.contains(&Fault::Loss) {
            links.loss = rng.random_range(0.001..0.08);
        }
        if faults.contains(&Fault::Duplicate) {
            links.duplicate = rng.random_range(0.01..0.2);
        }
        if faults.contains(&Fault::Reorder) {
            links.straggle = rng.random_range(0.01..0.2);
        }
        if faults.contains(&Fault::Corrupt) {
            links.corrupt = rng.random_range(0.001..0.05);
        }
        Self { faults, gap, links }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_that_reads_back() {
        let names: BTreeSet<&str> = Fault::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("flood".parse::<Fault>().is_err());
    }

    #[test]
    fn every_fault_but_the_lying_disk_is_in_some_seeds_and_not_in_others() {
        let plans: Vec<Plan> = (0..200)
            .map(|seed| Plan::draw(&mut StdRng::seed_from_u64(seed), None))
            .collect();
        for fault in Fault::ALL {
            let with = plans.iter().filter(|p| p.faults.contains(&fault)).count();
            match fault {
                Fault::LyingSync => assert_eq!(with, 0),
                _ => assert!((40..180).contains(&with), "{fault}: {with} of 200"),
            }
        }
    }
}
