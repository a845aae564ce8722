//! Clients that look at what a node says while it may not know that it was replaced.
//!
//! A stale answer can be had only between the loss of an actor and the moment its node hears of that: whoever asks now and
//! then seldom sees one. So the nemesis tells which node it has just led astray, and a looker asks that node for
//! everything, over and over.
//!
//! Invariant: a looker changes nothing, and every look is in the history before it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::clients::Crew;
use super::roles::Role;
use crate::doors::Door;
use crate::history::Outcome;

/// Pause when the node has said of every actor that it has it not.
const REFUSED: Duration = Duration::from_millis(40);

/// Nodes that may have been replaced and not know it, and until when. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Suspects(watch::Sender<BTreeMap<usize, Duration>>);

impl Suspects {
    /// From now until then.
    pub(super) fn add(&self, node: usize, until: Duration) {
        self.0.send_modify(|nodes| {
            let known = nodes.entry(node).or_default();
            *known = until.max(*known);
        });
    }

    fn has(&self, node: usize, now: Duration) -> bool {
        is_among(&self.0.borrow(), node, now)
    }

    /// Waits until the node is one of them.
    async fn wait_for(&self, node: usize, now: impl Fn() -> Duration) {
        let mut nodes = self.0.subscribe();
        // Never an error: the sender is here.
        let _ = nodes.wait_for(|nodes| is_among(nodes, node, now())).await;
    }
}

fn is_among(nodes: &BTreeMap<usize, Duration>, node: usize, now: Duration) -> bool {
    nodes.get(&node).is_some_and(|until| now < *until)
}

/// Looks at one node, and at no other.
pub(super) struct Looker {
    pub(super) crew: Crew,
    pub(super) name: String,
    pub(super) node: usize,
    pub(super) rng: StdRng,
}

impl Looker {
    /// For as long as it is polled.
    pub(super) async fn look(mut self, door: Door) {
        loop {
            self.crew.suspects.wait_for(self.node, || self.now()).await;
            self.look_closely(&door).await;
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.crew.calls.recorder.now_ns())
    }

    /// Until the node is above suspicion.
    async fn look_closely(&mut self, door: &Door) {
        let keys = self.crew.keys.clone();
        let mut refused: BTreeSet<&String> = BTreeSet::new();
        while self.crew.suspects.has(self.node, self.now()) {
            let left: Vec<&String> = keys.iter().filter(|key| !refused.contains(key)).collect();
            if left.is_empty() {
                refused.clear();
                tokio::time::sleep(REFUSED).await;
                continue;
            }
            let key = left[self.rng.random_range(0..left.len())];
            let timeout = Duration::from_millis(self.rng.random_range(20..150));
            let op = Role::of(key).look();
            let answer = self.crew.calls.call(door, &self.name, key, op, timeout).await;
            if answer.outcome == Outcome::Fail {
                refused.insert(key);
            }
            let pause = self.rng.random_range(3..15);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_lasts_as_long_as_the_longest_that_was_told() {
        let (suspects, second) = (Suspects::default(), Duration::from_secs(1));
        suspects.add(1, second * 3);
        suspects.add(1, second * 2);
        assert!(suspects.has(1, second * 2) && !suspects.has(1, second * 3));
        assert!(!suspects.has(0, second));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_suspicion_of_its_node() {
        let (suspects, second) = (Suspects::default(), Duration::from_secs(1));
        let wait = async {
            suspects.wait_for(1, || Duration::ZERO).await;
            assert!(suspects.has(1, Duration::ZERO));
        };
        let add = async {
            for node in [0, 1] {
                tokio::task::yield_now().await;
                suspects.add(node, second);
            }
        };
        tokio::join!(wait, add);
    }
}
