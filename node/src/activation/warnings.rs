//! What will hurt as the load grows: an actor that takes its shard's time, slow turns, a large state, actors that live for
//! one request. See `docs/guide/patterns.md`, "Anti-patterns".
//!
//! Invariant: a warning is told from numbers that it names, and never of an actor that is used a little: each has a floor
//! below which nothing is said, whatever the shares are.
//! Not here: where warnings are shown (gateway, command line).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clinch_actor::ActorMeta;
use clinch_types::{ActorId, ActorWarning, WallMs, limits};
use tokio::time::Instant;

use super::recent::TurnRecord;

/// Time over which the use of a shard is measured: long enough that a burst does not count, short enough that who looks
/// still sees what he came for.
const WINDOW: Duration = Duration::from_secs(5);
/// Share of a shard's time from which an actor is hot, in percent: above half, all other actors of the shard together
/// have less than that one.
const HOT_SHARE: u64 = 50;
/// Exclusive turns a second of one actor from which it is hot although they are short: each is encoded and written by the
/// same thread, one after the other.
const HOT_RATE: u64 = 1000;
/// A turn that holds its actor for so long makes its callers wait: ten of them wait ten times that.
const SLOW: Duration = Duration::from_secs(1);
/// One slow turn is an exception, and two may be.
const SLOW_MIN: usize = 3;
/// Turns that are older say nothing of how the actor is used now.
const SLOW_WITHIN: Duration = Duration::from_secs(600);
/// An actor that was destroyed within this time after it was made could have been a function.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// Short lives of a type, in the last minutes and in one shard, below which nothing is said: tests and scripts make some.
const SHORT_MIN: u32 = 20;
/// After this time in seconds what was counted of lives counts half.
const LIVES_HALF: u32 = 60;

fn warning(code: &str, message: String) -> ActorWarning {
    ActorWarning {
        code: code.to_owned(),
        message,
    }
}

/// What one actor took of its shard in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    /// How long the window was.
    pub(crate) length: Duration,
    /// Time of the shard's task in turns of the actor.
    pub(crate) time: Duration,
    /// Its exclusive turns.
    pub(crate) turns: u64,
    /// Exclusive turns of all actors of the shard.
    pub(crate) all: u64,
}

/// Whether an actor takes too much of its shard.
pub(crate) fn hot(used: &Use) -> Option<ActorWarning> {
    let length = used.length.as_micros().max(1);
    let share = used.time.as_micros() * 100 / length;
    let rate = u128::from(used.turns) * 1_000_000 / length;
    let takes_time = share >= u128::from(HOT_SHARE);
    let takes_turns = rate >= u128::from(HOT_RATE) && used.turns * 2 > used.all;
    if !takes_time && !takes_turns {
        return None;
    }
    let message = format!(
        "its turns took {share} % of the time of its shard over {:.1} s ({rate} exclusive turns a second, {} of the \
         shard's {}; warned of from {HOT_SHARE} %, or from {HOT_RATE} a second and more than half of all): cut it by \
         `ShardedKey`, read with `&self`, and take long work out of its turns",
        used.length.as_secs_f64(),
        used.turns,
        used.all,
    );
    Some(warning("hot-actor", message))
}

/// Whether an actor's latest calls and schedules hold it for long: the times of its exclusive turns.
pub(crate) fn slow(turns: impl Iterator<Item = Duration>) -> Option<ActorWarning> {
    let (mut all, mut slow, mut longest) = (0usize, 0usize, Duration::ZERO);
    for ran in turns {
        all += 1;
        slow += usize::from(ran >= SLOW);
        longest = longest.max(ran);
    }
    if slow < SLOW_MIN || slow * 2 < all {
        return None;
    }
    let message = format!(
        "{slow} of its latest {all} `&mut self` turns ran for {} ms or longer, up to {} ms (warned of from {SLOW_MIN}, and \
         half of them): whoever calls it waits as well. Long work belongs into an action without `self`, into `c.spawn` \
         or into a queue",
        SLOW.as_millis(),
        longest.as_millis(),
    );
    Some(warning("slow-turns", message))
}

/// Whether a state is larger than what should be written with every turn.
pub(crate) fn large(bytes: usize) -> Option<ActorWarning> {
    (bytes > limits::STATE_WARN).then(|| {
        let message = format!(
            "its state has {bytes} bytes (warned of above {}): it is written whole with every turn that changes it. Keep \
             what is large in its KV store, or cut the actor",
            limits::STATE_WARN
        );
        warning("large-state", message)
    })
}

/// How long actors of a type live, in the last minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lives {
    /// How many were made.
    pub(crate) made: u32,
    /// How many were destroyed soon after that.
    pub(crate) short: u32,
    /// Half-lives of the shard when these numbers were right.
    at: u32,
}

impl Lives {
    /// As they count now, in seconds of the shard.
    fn now(self, second: u32) -> Self {
        let at = second / LIVES_HALF;
        let passed = (at - self.at.min(at)).min(31);
        Self {
            made: self.made >> passed,
            short: self.short >> passed,
            at,
        }
    }
}

/// Whether a type's actors live for one request.
pub(crate) fn short_lived(name: &str, lives: Lives) -> Option<ActorWarning> {
    let Lives { made, short, .. } = lives;
    if short < SHORT_MIN || short.saturating_mul(2) <= made {
        return None;
    }
    let message = format!(
        "about {short} actors {name:?} were destroyed within {} s of being made in the last minutes, in one shard that made \
         about {made} (warned of from {SHORT_MIN}, and more than half): an actor is made durable, found and put away, and \
         a function costs nothing. Use actors where something is to be remembered",
        SHORT_LIFE.as_secs()
    );
    Some(warning("short-lived", message))
}

/// What a shard counts for this, in one epoch: a few numbers, and a few more for each type.
///
/// Which actor takes most is found by a vote, weighted with time: whoever has more than half wins it. The winner is then
/// measured exactly in the window after that.
#[derive(Debug)]
pub(crate) struct Usage {
    began: Instant,
    candidate: ActorId,
    weight: u128,
    watched: ActorId,
    watched_time: Duration,
    watched_turns: u64,
    all: u64,
    /// The actor that was measured last.
    measured: Option<(ActorId, Use)>,
    /// By namespace, which is all that who looks may know of, and type.
    lives: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Lives>>,
}

impl Usage {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            candidate: ActorId::default(),
            weight: 0,
            watched: ActorId::default(),
            watched_time: Duration::ZERO,
            watched_turns: 0,
            all: 0,
            measured: None,
            lives: BTreeMap::new(),
        }
    }

    /// A turn has ended, which took so much of the shard's own time.
    pub(crate) fn turn(&mut self, id: ActorId, exclusive: bool, time: Duration, now: Instant) {
        self.roll(now);
        let weight = time.as_nanos() + 1;
        if self.candidate == id {
            self.weight += weight;
        } else if self.weight >= weight {
            self.weight -= weight;
        } else {
            (self.candidate, self.weight) = (id, weight - self.weight);
        }
        self.all += u64::from(exclusive);
        if self.watched == id {
            self.watched_time += time;
            self.watched_turns += u64::from(exclusive);
        }
    }

    /// Ends the window when its time is up.
    fn roll(&mut self, now: Instant) {
        let length = now.saturating_duration_since(self.began);
        if length < WINDOW {
            return;
        }
        let used = Use {
            length,
            time: self.watched_time,
            turns: self.watched_turns,
            all: self.all,
        };
        self.measured = Some((self.watched, used));
        self.watched = self.candidate;
        (self.began, self.weight, self.all) = (now, 0, 0);
        (self.watched_time, self.watched_turns) = (Duration::ZERO, 0);
    }

    /// Whether this actor takes too much.
    pub(crate) fn hot(&mut self, id: ActorId, now: Instant) -> Option<ActorWarning> {
        self.roll(now);
        let (_, used) = self.measured.as_ref().filter(|(measured, _)| *measured == id)?;
        hot(used)
    }

    pub(crate) fn made(&mut self, of: &ActorMeta, second: u32) {
        let lives = self.lives_of(of, second);
        lives.made = lives.made.saturating_add(1);
    }

    pub(crate) fn destroyed(&mut self, of: &ActorMeta, lived: Duration, second: u32) {
        if lived < SHORT_LIFE {
            let lives = self.lives_of(of, second);
            lives.short = lives.short.saturating_add(1);
        }
    }

    fn lives_of(&mut self, of: &ActorMeta, second: u32) -> &mut Lives {
        let types = self.lives.entry(of.namespace.clone()).or_default();
        let lives = types.entry(of.name.clone()).or_default();
        *lives = lives.now(second);
        lives
    }

    /// Whether actors of this type live too short.
    pub(crate) fn short_lived(&self, namespace: &str, name: &str, second: u32) -> Option<ActorWarning> {
        short_lived(name, self.lives.get(namespace)?.get(name)?.now(second))
    }
}

/// The times of an actor's latest exclusive turns that somebody waits for.
pub(crate) fn held<'a>(
    turns: impl Iterator<Item = (u64, &'a TurnRecord)>,
    id: ActorId,
    now: WallMs,
) -> impl Iterator<Item = Duration> {
    let from = now.0.saturating_sub(SLOW_WITHIN.as_millis() as u64);
    turns
        .map(|(_, record)| record)
        .filter(move |record| record.actor() == id && record.began().0 >= from)
        .filter_map(TurnRecord::held)
}

#[cfg(test)]
mod tests {
    use clinch_types::{RegionId, Slot};

    use super::*;

    fn actor(number: u128) -> ActorId {
        ActorId::new(RegionId(0), Slot(0), number)
    }

    fn used(percent: u64, rate: u64, all: u64) -> Use {
        Use {
            length: Duration::from_secs(5),
            time: Duration::from_millis(50 * percent),
            turns: 5 * rate,
            all: 5 * all,
        }
    }

    #[test]
    fn an_actor_is_hot_from_half_of_the_time_or_a_thousand_turns_a_second() {
        assert_eq!(hot(&used(49, 999, 999)), None);
        let message = hot(&used(50, 1, 9)).unwrap().message;
        assert!(
            message.contains("took 50 % of the time") && message.contains("5.0 s"),
            "{message}"
        );
        assert!(hot(&used(0, 1000, 1000)).is_some());
        assert!(hot(&used(0, 1000, 1999)).is_some());
        assert_eq!(
            hot(&used(0, 1000, 2000)),
            None,
            "half of many is a shard that is used well"
        );
        assert_eq!(hot(&used(0, 1, 1)), None, "the only one, and quiet");
    }

    #[test]
    fn turns_are_slow_when_three_and_half_of_them_take_a_second() {
        let turns = |long: usize, short: usize| {
            let long = std::iter::repeat_n(Duration::from_millis(1000), long);
            slow(long.chain(std::iter::repeat_n(Duration::from_millis(999), short)))
        };
        assert_eq!((turns(2, 0), turns(0, 100)), (None, None));
        let message = turns(3, 0).unwrap().message;
        assert!(
            message.contains("3 of its latest 3") && message.contains("up to 1000 ms"),
            "{message}"
        );
        assert!(turns(3, 3).is_some());
        assert_eq!(turns(3, 4), None);
    }

    #[test]
    fn a_state_is_large_above_its_limit() {
        assert_eq!(large(limits::STATE_WARN), None);
        let message = large(limits::STATE_WARN + 1).unwrap().message;
        assert!(
            message.contains("262145 bytes") && message.contains("above 262144"),
            "{message}"
        );
    }

    #[test]
    fn a_type_is_short_lived_when_twenty_and_most_of_its_actors_were() {
        let lives = |made, short| Lives { made, short, at: 0 };
        assert_eq!(short_lived("job", lives(19, 19)), None);
        assert!(short_lived("job", lives(20, 20)).is_some());
        assert!(short_lived("job", lives(39, 20)).is_some());
        assert_eq!(short_lived("job", lives(40, 20)), None);
        let message = short_lived("job", lives(30, 25)).unwrap().message;
        assert!(
            message.contains("about 25 actors \"job\"") && message.contains("about 30"),
            "{message}"
        );
    }

    fn meta(namespace: &str, name: &str) -> ActorMeta {
        ActorMeta {
            id: actor(1),
            namespace: namespace.into(),
            name: name.into(),
            key: clinch_types::Key::new(["a"]).unwrap(),
            region: Default::default(),
            shard: clinch_types::ShardId(0),
            created: WallMs(0),
        }
    }

    #[test]
    fn lives_are_forgotten_by_halves() {
        let mut usage = Usage::new(Instant::now());
        let job = meta("shop", "job");
        for _ in 0..40 {
            usage.made(&job, 59);
            usage.destroyed(&job, SHORT_LIFE - Duration::from_millis(1), 59);
            usage.destroyed(&job, SHORT_LIFE, 59);
        }
        assert_eq!(
            usage.lives["shop"]["job"],
            Lives {
                made: 40,
                short: 40,
                at: 0
            }
        );
        assert!(usage.short_lived("shop", "job", 59).is_some());
        assert!(
            usage.short_lived("shop", "job", 119).is_some(),
            "twenty of twenty"
        );
        assert_eq!(usage.short_lived("shop", "job", 120), None);
        assert_eq!(usage.short_lived("shop", "job", u32::MAX), None);
        assert_eq!(usage.short_lived("shop", "room", 59), None);
        assert_eq!(usage.short_lived("other", "job", 59), None);
    }

    #[test]
    fn whoever_takes_most_is_found_by_one_window_and_measured_by_the_next() {
        let born = Instant::now();
        let mut usage = Usage::new(born);
        let mut now = born;
        // Three of five turns, and of the time: 60 %.
        let mut window = |usage: &mut Usage| {
            for n in 0..1000u64 {
                now += Duration::from_millis(5);
                let id = if n % 5 < 3 {
                    actor(1)
                } else {
                    actor(2 + u128::from(n))
                };
                usage.turn(id, true, Duration::from_millis(5), now);
            }
            now
        };
        let now = window(&mut usage);
        assert_eq!(usage.hot(actor(1), now), None, "not measured yet");
        let now = window(&mut usage);
        let message = usage.hot(actor(1), now).unwrap().message;
        assert!(message.contains("60 %") || message.contains("59 %"), "{message}");
        assert_eq!(usage.hot(actor(2), now), None);
        // Quiet again.
        let later = now + 2 * WINDOW;
        assert_eq!(
            usage.hot(actor(1), later),
            None,
            "what is told is of the last window"
        );
    }
}
