//! A durable counter: the shortest actor there is, and what `clinch demo` counts with.

use clinch_actor::{Any, Ctx, Error, Event, Rest};
use serde::{Deserialize, Serialize};

/// A number that survives everything.
#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    count: i64,
}

/// What a counter may be created with.
#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    start: Option<i64>,
}

/// The count has changed.
#[derive(Debug, Clone, Event)]
#[event(crate = "clinch_actor")]
pub struct NewCount(pub i64);

/// One of a burst of events.
#[derive(Event)]
#[event(crate = "clinch_actor")]
struct Tick(i64);

/// An event with as many arguments as were given.
struct Announcement(Vec<Any>);

impl Event for Announcement {
    const NAME: &'static str = "announcement";

    fn encode_args(&self) -> Result<Vec<u8>, Error> {
        clinch_actor::encode(&self.0)
    }

    fn decode_args(bytes: &[u8]) -> Result<Self, Error> {
        clinch_actor::decode("the announcement", bytes).map(Self)
    }
}

#[clinch_actor::actor(
    name = "counter",
    events(NewCount, Tick, Announcement),
    crate = "clinch_actor"
)]
impl Counter {
    #[hook]
    fn create(input: Option<Start>) -> Self {
        Self {
            count: input.and_then(|input| input.start).unwrap_or(0),
        }
    }

    #[action]
    fn increment(&mut self, c: &Ctx<Self>, by: Option<i64>) -> Result<i64, Error> {
        let sum = self.count.checked_add(by.unwrap_or(1));
        self.count = sum.ok_or_else(|| Error::user("overflow", "the count would leave 64 bits"))?;
        c.broadcast(NewCount(self.count));
        Ok(self.count)
    }

    #[action]
    fn get_count(&self) -> i64 {
        self.count
    }

    #[action]
    fn set_count(&mut self, count: i64) -> i64 {
        self.count = count;
        count
    }

    #[action]
    fn announce(&mut self, c: &Ctx<Self>, parts: Rest<Any>) -> usize {
        let len = parts.0.len();
        c.broadcast(Announcement(parts.0));
        len
    }

    #[action]
    fn burst(&mut self, c: &Ctx<Self>, ticks: i64) -> i64 {
        // Beyond the limit of effects in a turn, the turn fails; there is no point in going on.
        for tick in 0..ticks.min(clinch_actor::EFFECTS_MAX as i64 + 1) {
            c.broadcast(Tick(tick));
        }
        ticks
    }
}
