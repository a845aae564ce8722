//! Actors of a shard that could not be woken, or whose `run` hook failed: why, since when, and when it is tried again.
//!
//! Invariant: bounded, and nothing for an actor that is well. What is noted here changes nothing: it is only told.
//! Not here: the pauses before the next try (`timers`, `beside`).

use clinch_types::{ActorId, CallError, Crash, WallMs};
use rustc_hash::FxHashMap;

use super::recent::short;
use crate::shard::Owner;

/// Crashes remembered by a shard. One more, and the one that began first is forgotten: its actor is told to be sleeping
/// (or running) until it fails again.
const CRASHES_MAX: usize = 1024;

/// What went wrong in one shard.
#[derive(Debug, Default)]
pub(crate) struct Crashes {
    all: FxHashMap<ActorId, Crash>,
}

impl Crashes {
    pub(crate) fn of(&self, id: ActorId) -> Option<&Crash> {
        self.all.get(&id)
    }

    /// It is well again, or gone.
    pub(crate) fn forget(&mut self, id: ActorId) {
        self.all.remove(&id);
    }

    pub(crate) fn take(&mut self, id: ActorId) -> Option<Crash> {
        self.all.remove(&id)
    }

    pub(crate) fn put_back(&mut self, id: ActorId, crash: Option<Crash>) {
        if let Some(crash) = crash {
            self.all.insert(id, crash);
        }
    }

    /// It failed once more.
    pub(crate) fn note(
        &mut self,
        id: ActorId,
        group: &str,
        code: &str,
        now: WallMs,
        next_try: Option<WallMs>,
    ) {
        if self.all.len() >= CRASHES_MAX
            && !self.all.contains_key(&id)
            && let Some(oldest) = self.all.iter().min_by_key(|(id, crash)| (crash.since, **id))
        {
            let oldest = *oldest.0;
            self.all.remove(&oldest);
        }
        let crash = self.all.entry(id).or_insert_with(|| Crash {
            group: String::new(),
            code: String::new(),
            failures: 0,
            since: now,
            next_try: None,
        });
        (crash.group, crash.code) = (short(group), short(code));
        crash.failures = crash.failures.saturating_add(1);
        crash.next_try = next_try;
    }

    /// Something other than a call will try again at `until`.
    pub(crate) fn tried_again_at(&mut self, id: ActorId, until: WallMs, now: WallMs) {
        if let Some(crash) = self.all.get_mut(&id) {
            let known = crash.next_try.filter(|at| *at > now);
            crash.next_try = Some(known.map_or(until, |known| known.min(until)));
        }
    }
}

impl Owner {
    /// An actor that exists could not be woken.
    pub(crate) fn note_crash(&mut self, id: ActorId, error: &CallError) {
        let shown = error.clone().into_actor_error();
        let now = self.context.clock.wall();
        // A schedule that was put off says when.
        let next = self
            .crashes
            .of(id)
            .and_then(|crash| crash.next_try)
            .filter(|at| *at > now);
        self.crashes.note(id, &shown.group, &shown.code, now, next);
    }
}

#[cfg(test)]
mod tests {
    use clinch_types::{RegionId, Slot};

    use super::*;

    fn actor(number: u128) -> ActorId {
        ActorId::new(RegionId(0), Slot(0), number)
    }

    #[test]
    fn failures_in_a_row_are_counted_from_the_first_until_it_is_well() {
        let (mut crashes, id) = (Crashes::default(), actor(1));
        crashes.note(id, "user", "no_deal", WallMs(10), None);
        crashes.note(id, "actor", "hook_timed_out", WallMs(20), Some(WallMs(1020)));
        let crash = crashes.of(id).unwrap();
        assert_eq!(
            (crash.group.as_str(), crash.code.as_str()),
            ("actor", "hook_timed_out")
        );
        assert_eq!(
            (crash.failures, crash.since, crash.next_try),
            (2, WallMs(10), Some(WallMs(1020)))
        );
        crashes.forget(id);
        assert_eq!(crashes.of(id), None);
        crashes.note(id, "user", "no_deal", WallMs(30), None);
        assert_eq!(
            crashes.of(id).map(|crash| (crash.failures, crash.since)),
            Some((1, WallMs(30)))
        );
    }

    #[test]
    fn the_next_try_is_the_earliest_that_has_not_passed() {
        let (mut crashes, id) = (Crashes::default(), actor(1));
        crashes.tried_again_at(id, WallMs(50), WallMs(10));
        assert_eq!(crashes.of(id), None, "nothing went wrong");
        crashes.note(id, "user", "no_deal", WallMs(10), None);
        for (until, now, expected) in [(90, 10, 90), (50, 10, 50), (70, 10, 50), (70, 50, 70)] {
            crashes.tried_again_at(id, WallMs(until), WallMs(now));
            assert_eq!(crashes.of(id).unwrap().next_try, Some(WallMs(expected)));
        }
    }

    #[test]
    fn one_more_than_fit_forgets_the_one_that_began_first() {
        let mut crashes = Crashes::default();
        for number in 0..=CRASHES_MAX as u64 {
            let began = WallMs(1000 + number);
            crashes.note(actor(number.into()), "user", "no_deal", began, None);
            crashes.note(actor(0), "user", "no_deal", began, None);
        }
        assert_eq!(crashes.all.len(), CRASHES_MAX);
        // It failed the longest, and was noted anew when it failed again.
        assert_eq!(crashes.of(actor(1)), None);
        assert_eq!(crashes.of(actor(0)).map(|crash| crash.failures), Some(1));
    }
}
