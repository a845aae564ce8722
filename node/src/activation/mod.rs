//! Actors awake in memory: their turns, effects, timers, sleep.
//!
//! Invariant: one exclusive turn at a time, on the state the one before left; shared turns only beside each other
//! (G2, G3). What a turn asked for is kept or dropped as a whole (G4).
//! Not here: getting effects committed (`shard::pipeline`), finding actors (`shard::owner`).

mod beside;
mod conns;
mod crashes;
mod effects;
mod fire;
mod hooks;
mod host;
mod inspect;
mod kv;
mod life;
mod lines;
mod looks;
mod outbox;
mod queues;
mod recent;
mod run;
mod save;
mod slot;
mod timers;
mod told;
mod turns;
mod visits;
mod warnings;

pub(crate) use beside::Beside;
pub(crate) use crashes::Crashes;
pub(crate) use host::ShardHost;
pub(crate) use life::{resume, seconds_of};
pub(crate) use lines::{Conns, Deliveries};
pub(crate) use recent::{Reading, RecentTurns};
pub(crate) use run::{Ended, poll_now, spawn};
pub(crate) use slot::{Open, Slot, Work};
pub(crate) use timers::Timers;
pub(crate) use turns::answer_of;
pub(crate) use warnings::Usage;
