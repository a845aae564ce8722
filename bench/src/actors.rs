//! The actors that the nodes under measurement serve.
//!
//! Invariant: an actor never falls asleep by itself, so that what a run measures does not depend on how long the run
//! before it took.

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

/// Name of [`BenchCounter`] on the wire.
pub(crate) const COUNTER: &str = "counter";
/// Bytes of an encoded [`BenchCounter`] with a small count: a CBOR map of one, the text `count`, a number.
pub(crate) const COUNTER_STATE_BYTES: f64 = 8.0;

/// The smallest actor with a durable state: `state += by; return state`.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct BenchCounter {
    count: i64,
}

#[clinch::actor(name = "counter", sleep_after = "never")]
impl BenchCounter {
    #[action]
    fn increment(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    #[action]
    fn get_count(&self) -> i64 {
        self.count
    }
}

/// What every node of the bench serves.
pub(crate) fn registry() -> Registry {
    Registry::new().actor::<BenchCounter>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_sound_and_serves_the_counter_under_its_name() {
        assert_eq!(registry().check(), Ok(()));
        assert!(registry().get(COUNTER).is_some());
    }
}
