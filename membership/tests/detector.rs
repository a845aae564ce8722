//! The laws of the failure detector, under arbitrary histories.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clinch_membership::detector::{Detector, DetectorConfig, DetectorConfigError, Event, Health, Verdict};
use clinch_types::{Incarnation, NodeId};
use proptest::prelude::*;

#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do as the beginning of a test's time"
)]
fn beginning() -> Instant {
    Instant::now()
}

const SUSPECT: Duration = Duration::from_millis(3000);
const DOWN: Duration = Duration::from_millis(5000);
const REVIVE: Duration = Duration::from_millis(2000);
const STEP: Duration = Duration::from_millis(500);

/// A detector with its time, stepped by hand.
struct World {
    detector: Detector,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let config = DetectorConfig {
            suspect_after: SUSPECT,
            down_after: DOWN,
            revive_after: REVIVE,
        };
        let detector = Detector::new(config).expect("sound");
        Self {
            detector,
            now: beginning(),
        }
    }

    fn step(&mut self, event: Event) -> Vec<Verdict> {
        let mut out = Vec::new();
        self.detector.step(self.now, event, &mut out);
        out
    }

    /// Watches a node and hears it once.
    fn watch(&mut self, node: u64) {
        let verdicts = self.step(Event::Watch {
            node: NodeId(node),
            incarnation: Incarnation(1),
        });
        assert_eq!(verdicts, []);
        assert_eq!(self.detector.health(NodeId(node)), Some(Health::Suspect));
        assert_eq!(self.beat(node, 1)[0].health, Health::Alive);
    }

    fn beat(&mut self, node: u64, incarnation: u64) -> Vec<Verdict> {
        self.step(Event::Heartbeat {
            from: NodeId(node),
            incarnation: Incarnation(incarnation),
        })
    }

    /// Ticks through some time; what was said, and when.
    fn wait(&mut self, time: Duration) -> Vec<(Duration, Health)> {
        let mut said = Vec::new();
        let mut waited = Duration::ZERO;
        while waited < time {
            waited += STEP;
            self.now += STEP;
            let verdicts = self.step(Event::Tick);
            said.extend(verdicts.into_iter().map(|verdict| (waited, verdict.health)));
        }
        said
    }
}

#[test]
fn silence_is_suspected_at_three_seconds_and_down_at_five() {
    let mut world = World::new();
    world.watch(1);
    assert_eq!(
        world.wait(DOWN * 2),
        [(SUSPECT, Health::Suspect), (DOWN, Health::Down)]
    );
}

#[test]
fn a_node_that_was_never_heard_is_not_called_alive_and_is_down_in_time() {
    let mut world = World::new();
    let unheard = Event::Watch {
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    assert_eq!(world.step(unheard.clone()), []);
    assert_eq!(world.step(unheard), [], "watching again starts nothing anew");
    assert_eq!(world.wait(DOWN * 2), [(DOWN, Health::Down)]);
}

#[test]
fn a_heartbeat_ends_a_suspicion_and_starts_silence_anew() {
    let mut world = World::new();
    world.watch(1);
    world.wait(SUSPECT);
    assert_eq!(world.beat(1, 1)[0].health, Health::Alive);
    assert_eq!(world.wait(SUSPECT - STEP), []);
    assert_eq!(world.detector.health(NodeId(1)), Some(Health::Alive));
}

#[test]
fn late_packets_do_not_revive_a_dead_node_but_a_steady_beat_does() {
    let mut world = World::new();
    world.watch(1);
    world.wait(DOWN);
    // A bunch of late ones, then silence again, then another bunch.
    for _ in 0..10 {
        assert_eq!(world.beat(1, 1), []);
    }
    world.wait(SUSPECT);
    for _ in 0..10 {
        assert_eq!(world.beat(1, 1), []);
    }
    assert_eq!(world.detector.health(NodeId(1)), Some(Health::Down));
    let mut beats = 0;
    while world.beat(1, 1).is_empty() {
        world.wait(STEP);
        beats += 1;
    }
    assert_eq!(STEP * beats, REVIVE);
    assert_eq!(world.detector.health(NodeId(1)), Some(Health::Alive));
}

#[test]
fn a_restart_is_believed_at_once_and_its_predecessor_no_more() {
    let mut world = World::new();
    world.watch(1);
    world.wait(DOWN);
    let reborn = Verdict {
        node: NodeId(1),
        incarnation: Incarnation(2),
        health: Health::Alive,
    };
    assert_eq!(world.beat(1, 2), [reborn]);
    world.wait(SUSPECT - STEP);
    assert_eq!(world.beat(1, 1), []);
    assert_eq!(world.wait(STEP), [(STEP, Health::Suspect)]);
}

#[test]
fn strangers_are_ignored_and_the_forgotten_become_strangers() {
    let mut world = World::new();
    assert_eq!(world.beat(9, 1), []);
    assert_eq!(world.detector.health(NodeId(9)), None);
    world.watch(1);
    world.step(Event::Forget { node: NodeId(1) });
    assert_eq!(world.beat(1, 5), []);
    assert_eq!(world.detector.peers().count(), 0);
}

#[test]
fn a_pause_of_the_observer_buries_nobody() {
    let mut world = World::new();
    world.watch(1);
    world.now += Duration::from_secs(3600);
    assert_eq!(world.step(Event::Tick), []);
    assert_eq!(world.beat(1, 1), []);
    assert_eq!(world.detector.health(NodeId(1)), Some(Health::Alive));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_its_values() {
    let config = DetectorConfig {
        suspect_after: DOWN,
        down_after: SUSPECT,
        revive_after: REVIVE,
    };
    let order = DetectorConfigError::Order {
        suspect_after: DOWN,
        down_after: SUSPECT,
    };
    assert_eq!(Detector::new(config).map(drop), Err(order));
    let zero = DetectorConfig {
        suspect_after: Duration::ZERO,
        ..config
    };
    assert_eq!(Detector::new(zero).map(drop), Err(DetectorConfigError::Zero));
    assert!(DetectorConfig::default().validate().is_ok());
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let node = || (1u64..4).prop_map(NodeId);
    let incarnation = || (0u64..4).prop_map(Incarnation);
    let event = prop_oneof![
        1 => (node(), incarnation()).prop_map(|(node, incarnation)| Event::Watch { node, incarnation }),
        1 => node().prop_map(|node| Event::Forget { node }),
        6 => (node(), incarnation()).prop_map(|(from, incarnation)| Event::Heartbeat { from, incarnation }),
        6 => Just(Event::Tick),
    ];
    prop::collection::vec((0u64..2500, event), 0..120)
}

/// What an outsider knows of a node: enough to judge verdicts.
#[derive(Debug, Clone)]
struct Known {
    newest: u64,
    health: Health,
    /// The latest accepted sign of life.
    heard: Instant,
    /// Since when the accepted signs came without a gap of `SUSPECT`.
    steady: Option<Instant>,
}

proptest! {
    /// Whatever is lost, late or repeated: nobody is suspected or buried before its time, nobody silent is missed
    /// at a tick when time was observed closely, the dead come back only by a restart or a steady beat, and an old
    /// incarnation changes nothing.
    #[test]
    fn verdicts_are_never_early_and_the_dead_do_not_return_by_chance(events in events()) {
        let mut world = World::new();
        let mut known: BTreeMap<NodeId, Known> = BTreeMap::new();
        for (wait_ms, event) in events {
            world.now += Duration::from_millis(wait_ms);
            let now = world.now;
            let before = known.clone();
            match &event {
                Event::Watch { node, incarnation } => {
                    let fresh = Known { newest: incarnation.0, health: Health::Suspect, heard: now, steady: None };
                    let entry = known.entry(*node).or_insert(fresh);
                    if entry.newest < incarnation.0 {
                        (entry.newest, entry.heard) = (incarnation.0, now);
                    }
                }
                Event::Forget { node } => drop(known.remove(node)),
                Event::Heartbeat { from, incarnation } => {
                    if let Some(entry) = known.get_mut(from).filter(|entry| entry.newest <= incarnation.0) {
                        // The detector counts at most the real time, so its gaps are at most the real ones.
                        entry.steady = entry.steady.or(Some(now));
                        (entry.newest, entry.heard) = (incarnation.0, now);
                    }
                }
                Event::Tick => {}
            }
            for verdict in world.step(event.clone()) {
                let entry = known.get_mut(&verdict.node).expect("verdicts are about watched nodes");
                prop_assert_eq!(verdict.incarnation.0, entry.newest);
                let was = before.get(&verdict.node).expect("a new node has no verdict");
                let silence = now - entry.heard;
                match verdict.health {
                    Health::Alive => {
                        prop_assert_eq!(silence, Duration::ZERO, "alive without a sign of life");
                        let restarted = entry.newest > was.newest;
                        let steady = entry.steady.is_some_and(|since| now - since >= REVIVE);
                        prop_assert!(was.health != Health::Down || restarted || steady, "revived by chance");
                    }
                    Health::Suspect => prop_assert!(silence >= SUSPECT && was.health == Health::Alive),
                    Health::Down => {
                        prop_assert!(silence >= DOWN && was.health != Health::Down);
                        entry.steady = None;
                    }
                }
                entry.health = verdict.health;
            }
            for verdict in world.detector.peers() {
                prop_assert_eq!(verdict.health, known[&verdict.node].health, "a change was not told");
            }
            prop_assert_eq!(world.detector.peers().count(), known.len());
        }
        // And in the end, closely observed silence is always noticed.
        world.wait(DOWN);
        prop_assert!(world.detector.peers().all(|peer| peer.health == Health::Down));
    }
}
