//! The near window of a shard's schedules, in order of time.
//!
//! Invariant: every schedule due before `loaded_until` is in the window or being fired; the rest is on disk only.
//! Time is wall time: a jump backwards delays a firing, and never brings one forward (G7).

use std::collections::BTreeSet;
use std::time::Duration;

use clinch_actor::ScheduleId;
use clinch_types::{ActorId, WallMs};

/// How far ahead schedules are kept in memory.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// The schedules that are due soon.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    soon: BTreeSet<(WallMs, ActorId, ScheduleId)>,
    loaded_until: WallMs,
}

impl Timers {
    /// Up to where the store has been read.
    pub(crate) fn loaded_until(&self) -> WallMs {
        self.loaded_until
    }

    /// The store has been read up to `until`.
    pub(crate) fn loaded(&mut self, until: WallMs) {
        self.loaded_until = self.loaded_until.max(until);
    }

    /// Takes a schedule into the window, if it is due inside.
    pub(crate) fn add(&mut self, due: WallMs, actor: ActorId, schedule: ScheduleId) {
        if due < self.loaded_until {
            self.soon.insert((due, actor, schedule));
        }
    }

    /// Puts one into the window as it is read from the store.
    pub(crate) fn load(&mut self, due: WallMs, actor: ActorId, schedule: ScheduleId) {
        self.soon.insert((due, actor, schedule));
    }

    pub(crate) fn remove(&mut self, due: WallMs, actor: ActorId, schedule: ScheduleId) {
        self.soon.remove(&(due, actor, schedule));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<WallMs> {
        self.soon.first().map(|&(due, _, _)| due)
    }

    /// Takes one that is due at `now`.
    pub(crate) fn pop(&mut self, now: WallMs) -> Option<(WallMs, ActorId, ScheduleId)> {
        if self.next()? > now {
            return None;
        }
        self.soon.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_nothing_is_taken_before_it_is_due_and_the_far_future_stays_on_disk() {
        let mut timers = Timers::default();
        let actor = ActorId::default();
        timers.loaded(WallMs(100));
        timers.add(WallMs(50), actor, ScheduleId(1));
        timers.add(WallMs(100), actor, ScheduleId(2));
        assert_eq!(timers.next(), Some(WallMs(50)));
        assert_eq!(timers.pop(WallMs(49)), None);
        assert_eq!(timers.pop(WallMs(50)), Some((WallMs(50), actor, ScheduleId(1))));
        assert_eq!(timers.pop(WallMs(1000)), None);
    }
}
