//! The actors that the nodes under measurement serve.
//!
//! Invariant: an actor never falls asleep by itself, so that what a run measures does not depend on how long the run
//! before it took.

use clinch::prelude::*;
use clinch_types::WallMs;
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

/// An actor with a schedule, which notes how late it fired.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct BenchTimer {
    late_ms: Vec<i64>,
}

#[clinch::actor(name = "timer", sleep_after = "never")]
impl BenchTimer {
    /// To be fired at this time, in milliseconds since 1970.
    #[action]
    fn set(&mut self, c: &Ctx<Self>, due: u64) -> Result<()> {
        c.me().fire(due).at(WallMs(due))?;
        Ok(())
    }

    #[action]
    fn fire(&mut self, c: &Ctx<Self>, due: u64) {
        let late = i128::from(c.now().0) - i128::from(due);
        self.late_ms.push(i64::try_from(late).unwrap_or(i64::MAX));
    }

    /// How late it fired each time, in milliseconds; less than 0 is too early.
    #[action]
    fn fired(&self) -> Vec<i64> {
        self.late_ms.clone()
    }
}

/// Name of [`BenchRoom`] on the wire, and of what it tells.
pub(crate) const ROOM: &str = "room";
pub(crate) const EVENT: &str = "shouted";

/// An actor that tells all of its connections.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct BenchRoom {
    told: u64,
}

/// The number of an event in sixteen digits, behind as much text as an event of a chat has.
#[derive(Event)]
struct Shouted(String);

#[clinch::actor(name = "room", events(Shouted), sleep_after = "never")]
impl BenchRoom {
    #[action]
    fn shout(&mut self, c: &Ctx<Self>) -> i64 {
        self.told += 1;
        c.broadcast(Shouted(format!(
            "so many words as somebody says at once {:016}",
            self.told
        )));
        self.told.cast_signed()
    }

    /// How many events there were.
    #[action]
    fn told(&self) -> u64 {
        self.told
    }
}

/// What every node of the bench serves.
pub(crate) fn registry() -> Registry {
    Registry::new()
        .actor::<BenchCounter>()
        .actor::<BenchTimer>()
        .actor::<BenchRoom>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_sound_and_serves_the_counter_under_its_name() {
        assert_eq!(registry().check(), Ok(()));
        assert!(registry().get(COUNTER).is_some() && registry().get(ROOM).is_some());
    }
}
