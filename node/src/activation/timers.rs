//! The near window of a shard's schedules, in order of time.
//!
//! Invariant: every schedule due before `loaded_until` is in the window or being fired; the rest is on disk only.
//! Time is wall time: a jump backwards delays a firing, and never brings one forward (G7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clinch_actor::ScheduleId;
use clinch_types::{ActorId, WallMs};

/// How far ahead schedules are kept in memory.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// First pause before a schedule is tried again whose actor could not be woken; doubles with each try.
const PUT_OFF_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const PUT_OFF_MAX: Duration = Duration::from_secs(60);

type Entry = (WallMs, ActorId, ScheduleId);

/// The schedules that are due soon.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    soon: BTreeSet<Entry>,
    /// Those that were due and could not be fired, by the time of their next try.
    put_off: BTreeSet<(WallMs, Entry)>,
    /// How often, and until when.
    tries: BTreeMap<Entry, (u32, WallMs)>,
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
        let entry = (due, actor, schedule);
        self.soon.remove(&entry);
        if let Some((_, until)) = self.tries.remove(&entry) {
            self.put_off.remove(&(until, entry));
        }
    }

    /// One that was taken at `now` could not be fired: it is taken again after a pause, at the time given back.
    pub(crate) fn put_off(
        &mut self,
        due: WallMs,
        actor: ActorId,
        schedule: ScheduleId,
        now: WallMs,
    ) -> WallMs {
        let entry = (due, actor, schedule);
        let tries = self.tries.get(&entry).map_or(0, |(tries, _)| *tries);
        let pause = PUT_OFF_MIN.saturating_mul(1 << tries.min(16)).min(PUT_OFF_MAX);
        let until = now.max(due).after(pause);
        self.tries.insert(entry, (tries + 1, until));
        self.put_off.insert((until, entry));
        until
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<WallMs> {
        let soon = self.soon.first().map(|&(due, _, _)| due);
        let again = self.put_off.first().map(|&(until, _)| until);
        [soon, again].into_iter().flatten().min()
    }

    /// Takes one that is due at `now`.
    pub(crate) fn pop(&mut self, now: WallMs) -> Option<(WallMs, ActorId, ScheduleId)> {
        if let Some(&(until, entry)) = self.put_off.first()
            && until <= now
        {
            self.put_off.pop_first();
            return Some(entry);
        }
        if self.soon.first().is_none_or(|&(due, _, _)| due > now) {
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

    #[test]
    fn one_that_cannot_be_fired_is_tried_again_with_growing_pauses_until_it_is_removed() {
        let (mut timers, actor) = (Timers::default(), ActorId::default());
        timers.loaded(WallMs(1000));
        let entry = (WallMs(50), actor, ScheduleId(1));
        timers.add(entry.0, actor, entry.2);
        assert_eq!(timers.pop(WallMs(50)), Some(entry));
        let mut now = WallMs(50);
        for pause in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            timers.put_off(entry.0, actor, entry.2, now);
            let again = WallMs(now.0 + pause);
            assert_eq!(timers.next(), Some(again));
            assert_eq!(timers.pop(WallMs(again.0 - 1)), None);
            assert_eq!(timers.pop(again), Some(entry));
            now = again;
        }
        timers.put_off(entry.0, actor, entry.2, now);
        timers.remove(entry.0, actor, entry.2);
        assert_eq!((timers.next(), timers.pop(WallMs(u64::MAX))), (None, None));
    }
}
