//! The turns that a shard ran last: what ran, for whom, how long it took and how it ended.
//!
//! Invariant: bounded by the shard, so an actor that runs nothing costs nothing. A turn that ends well allocates nothing here
//! (but for a caller's trace context); one that fails, its error.
//! Not here: who asks (`looks`), what is wrong with what is seen (`warnings`).

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use clinch_actor::{Error, Origin, Turn};
use clinch_types::{ActorId, CallError, Epoch, RequestId, TurnCause, TurnOutcome, TurnTrace, WallMs};
use tokio::time::Instant;

use super::run::{Exclusive, Outcome};
use super::slot::{Open, Running};
use crate::shard::Owner;

/// Turns remembered by each shard that is owned. With [`RECORD_BYTES`] each they take 64 KiB, as they come: a shard that
/// ran nothing takes nothing.
pub(crate) const TURNS_KEPT: usize = 512;
/// What one takes.
const RECORD_BYTES: usize = 128;
/// Characters of a group or a code that are kept.
const WORD_MAX: usize = 64;

const _: () = assert!(size_of::<TurnRecord>() <= RECORD_BYTES);

/// How a turn began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    what: &'static str,
    cause: TurnCause,
    wall: WallMs,
    at: Instant,
}

impl Begun {
    pub(crate) fn of(turn: &Turn) -> Self {
        let cause = match turn.origin {
            Origin::Call if turn.chain.is_empty() => TurnCause::Call,
            Origin::Call => TurnCause::Actor,
            Origin::Schedule(_) => TurnCause::Schedule,
            Origin::Create => TurnCause::Create,
            Origin::Hook => TurnCause::Hook,
            Origin::Background => TurnCause::Background,
        };
        Self {
            what: turn.what,
            cause,
            wall: turn.now,
            at: turn.began,
        }
    }
}

/// How a turn ended, small.
#[derive(Debug)]
enum End {
    Ok,
    Error(Box<(String, String)>),
    Panicked,
    TimedOut,
}

/// One turn.
#[derive(Debug)]
pub(crate) struct TurnRecord {
    actor: ActorId,
    request: RequestId,
    what: &'static str,
    end: End,
    trace: Option<Box<[u8; 25]>>,
    began: WallMs,
    /// The batch with what it wrote, until that is committed.
    batch: Option<NonZeroU64>,
    /// Microseconds of the owner's life at its end.
    ended_us: u64,
    waited_us: u32,
    ran_us: u32,
    commit_us: Option<NonZeroU32>,
    cause: TurnCause,
    exclusive: bool,
}

/// Microseconds, up to 71 minutes.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// A turn that has ended, as its caller knows it.
pub(crate) struct Ending<'a> {
    pub(crate) actor: ActorId,
    pub(crate) begun: Begun,
    /// Whoever waits for it.
    pub(crate) open: Option<&'a Open>,
    /// Of a turn without a caller: how long it waited.
    pub(crate) late: Duration,
    pub(crate) exclusive: bool,
    pub(crate) at: Instant,
}

/// The latest turns of one epoch of a shard.
#[derive(Debug)]
pub(crate) struct RecentTurns {
    ring: Vec<TurnRecord>,
    /// Turns recorded so far: the number of the next.
    next: u64,
    /// No turn before this one waits for its commit.
    unsettled: u64,
    born: Instant,
}

impl RecentTurns {
    pub(crate) fn new(born: Instant) -> Self {
        Self {
            ring: Vec::new(),
            next: 0,
            unsettled: 0,
            born,
        }
    }

    /// Records a turn that has ended; gives its number.
    pub(crate) fn ended<T>(
        &mut self,
        ending: &Ending<'_>,
        outcome: &Outcome<T>,
        error: Option<&Error>,
    ) -> u64 {
        let end = match (outcome, error) {
            (Outcome::Done(_), None) => End::Ok,
            (Outcome::Done(_), Some(error)) => End::of(error.group(), error.code()),
            (Outcome::Panicked(_), _) => End::Panicked,
            (Outcome::TimedOut, _) => End::TimedOut,
        };
        self.push(ending, end)
    }

    fn push(&mut self, ending: &Ending<'_>, end: End) -> u64 {
        let Ending {
            actor, begun, open, ..
        } = ending;
        let waited = open.map_or(ending.late, |open| {
            begun.at.saturating_duration_since(open.arrived)
        });
        let record = TurnRecord {
            actor: *actor,
            request: open.map_or_else(RequestId::default, |open| open.request),
            what: begun.what,
            end,
            trace: open.and_then(|open| open.trace.clone()),
            began: begun.wall,
            batch: None,
            ended_us: self.age(ending.at),
            waited_us: micros(waited),
            ran_us: micros(ending.at.saturating_duration_since(begun.at)),
            commit_us: None,
            cause: begun.cause,
            exclusive: ending.exclusive,
        };
        let number = self.next;
        self.next += 1;
        match self.ring.len() < TURNS_KEPT {
            true => self.ring.push(record),
            false => self.ring[place_of(number)] = record,
        }
        number
    }

    fn age(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX)
    }

    /// The number of the oldest that is remembered.
    fn first(&self) -> u64 {
        self.next - self.ring.len() as u64
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut TurnRecord> {
        match (self.first()..self.next).contains(&number) {
            true => self.ring.get_mut(place_of(number)),
            false => None,
        }
    }

    /// The number of the turn recorded last.
    pub(crate) fn last(&self) -> u64 {
        self.next.wrapping_sub(1)
    }

    /// What a turn that seemed well left could not be kept, or its answer not be sent.
    pub(crate) fn failed(&mut self, number: u64, group: &str, code: &str) {
        if let Some(record) = self.get_mut(number)
            && matches!(record.end, End::Ok)
        {
            record.end = End::of(group, code);
        }
    }

    /// As [`RecentTurns::failed`], with the error that its caller gets.
    pub(crate) fn refused(&mut self, number: u64, error: &CallError) {
        if let CallError::Failed(error) = error {
            self.failed(number, &error.group, &error.code);
        }
    }

    /// What it left travels in this batch.
    pub(crate) fn wrote(&mut self, number: u64, batch: u64) {
        if let Some(record) = self.get_mut(number) {
            record.batch = NonZeroU64::new(batch);
            self.unsettled = self.unsettled.min(number);
        }
    }

    /// Everything up to this batch is committed.
    pub(crate) fn committed(&mut self, batch: u64, now: Instant) {
        let now = self.age(now);
        let from = self.unsettled.max(self.first());
        let mut unsettled = self.next;
        for number in from..self.next {
            let record = &mut self.ring[place_of(number)];
            match record.batch {
                Some(waits) if waits.get() <= batch => {
                    let took = now.saturating_sub(record.ended_us);
                    record.commit_us = NonZeroU32::new(u32::try_from(took).unwrap_or(u32::MAX).max(1));
                    record.batch = None;
                }
                Some(_) => unsettled = unsettled.min(number),
                None => {}
            }
        }
        self.unsettled = unsettled;
    }

    /// All that are remembered, with their numbers, the newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (u64, &TurnRecord)> {
        (self.first()..self.next)
            .rev()
            .map(|number| (number, &self.ring[place_of(number)]))
    }
}

/// Where in the ring a turn is.
fn place_of(number: u64) -> usize {
    (number % TURNS_KEPT as u64) as usize
}

/// A group or a code as it is kept: applications may put anything there, and many are kept.
pub(crate) fn short(word: &str) -> String {
    word.chars().take(WORD_MAX).collect()
}

impl End {
    fn of(group: &str, code: &str) -> Self {
        Self::Error(Box::new((short(group), short(code))))
    }
}

impl TurnRecord {
    pub(crate) fn actor(&self) -> ActorId {
        self.actor
    }

    pub(crate) fn began(&self) -> WallMs {
        self.began
    }

    /// How long it held the state, of a turn that somebody waits for.
    pub(crate) fn held(&self) -> Option<Duration> {
        let asked = match self.cause {
            TurnCause::Call | TurnCause::Actor | TurnCause::Schedule => true,
            // Made, woken and let go once; and what is beside the turns holds nothing.
            _ => false,
        };
        (self.exclusive && asked).then(|| Duration::from_micros(self.ran_us.into()))
    }

    pub(crate) fn told(&self, number: u64, epoch: Epoch) -> TurnTrace {
        TurnTrace {
            number,
            epoch,
            what: self.what.to_owned(),
            cause: self.cause,
            exclusive: self.exclusive,
            request: self.request,
            trace: self.trace.as_deref().copied().unwrap_or([0; 25]),
            began: self.began,
            waited_us: self.waited_us,
            ran_us: self.ran_us,
            commit_us: self.commit_us.map(NonZeroU32::get),
            outcome: match &self.end {
                End::Ok => TurnOutcome::Ok,
                End::Error(error) => TurnOutcome::Error {
                    group: error.0.clone(),
                    code: error.1.clone(),
                },
                End::Panicked => TurnOutcome::Panicked,
                End::TimedOut => TurnOutcome::TimedOut,
            },
        }
    }
}

/// A shared or interleaved turn in progress.
pub(crate) struct Reading {
    pub(crate) open: Open,
    /// The turn of an interleaved one.
    pub(crate) turn: Option<Arc<Turn>>,
    pub(crate) begun: Begun,
}

impl Owner {
    /// Records the end of an exclusive turn; `here` if it took the shard's own time.
    pub(crate) fn note_exclusive(
        &mut self,
        id: ActorId,
        turn: &Turn,
        running: &Running,
        outcome: &Outcome<Exclusive>,
        here: bool,
    ) -> u64 {
        let error = match outcome {
            Outcome::Done((_, result)) => result.as_ref().err(),
            Outcome::Panicked(_) | Outcome::TimedOut => None,
        };
        let late = turn
            .fire
            .as_ref()
            .map_or(0, |fire| fire.fired.0.saturating_sub(fire.due.0));
        let ending = Ending {
            actor: id,
            begun: Begun::of(turn),
            open: running.open(),
            late: Duration::from_millis(late),
            exclusive: true,
            at: Instant::now(),
        };
        self.count(&ending, here);
        self.recent.ended(&ending, outcome, error)
    }

    /// As [`Owner::note_exclusive`], for a turn that did not hold the state.
    pub(crate) fn note_shared(
        &mut self,
        id: ActorId,
        begun: Begun,
        open: &Open,
        outcome: &Outcome<Result<Vec<u8>, Error>>,
        here: bool,
    ) {
        let error = match outcome {
            Outcome::Done(result) => result.as_ref().err(),
            Outcome::Panicked(_) | Outcome::TimedOut => None,
        };
        let ending = Ending {
            actor: id,
            begun,
            open: Some(open),
            late: Duration::ZERO,
            exclusive: false,
            at: Instant::now(),
        };
        self.count(&ending, here);
        self.recent.ended(&ending, outcome, error);
    }

    /// As [`Owner::note_exclusive`], for an update by an interleaved action.
    pub(crate) fn note_update(
        &mut self,
        id: ActorId,
        turn: &Turn,
        panicked: bool,
        error: Option<&Error>,
    ) -> u64 {
        let outcome = match panicked {
            true => Outcome::Panicked(String::new()),
            false => Outcome::Done(()),
        };
        let ending = Ending {
            actor: id,
            begun: Begun::of(turn),
            open: None,
            late: Duration::ZERO,
            exclusive: true,
            at: Instant::now(),
        };
        self.count(&ending, true);
        self.recent.ended(&ending, &outcome, error)
    }

    fn count(&mut self, ending: &Ending<'_>, here: bool) {
        let time = match here {
            true => ending.at.saturating_duration_since(ending.begun.at),
            false => Duration::ZERO,
        };
        self.usage.turn(ending.actor, ending.exclusive, time, ending.at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clinch_types::{RegionId, Slot};

    use super::*;

    fn actor(number: u64) -> ActorId {
        ActorId::new(RegionId(0), Slot(0), number.into())
    }

    fn turns() -> (RecentTurns, Instant) {
        let born = Instant::now();
        (RecentTurns::new(born), born)
    }

    /// A turn that began this many milliseconds after the beginning and ran for as many as `ran` says.
    fn run(turns: &mut RecentTurns, born: Instant, number: u64, (began, ran): (u64, u64)) -> u64 {
        let at = born + Duration::from_millis(began);
        let ending = Ending {
            actor: actor(number),
            begun: Begun {
                what: "add",
                cause: TurnCause::Call,
                wall: WallMs(began),
                at,
            },
            open: None,
            late: Duration::from_millis(3),
            exclusive: true,
            at: at + Duration::from_millis(ran),
        };
        turns.ended(&ending, &Outcome::Done(()), None)
    }

    fn told(turns: &RecentTurns) -> Vec<TurnTrace> {
        turns
            .newest()
            .map(|(number, record)| record.told(number, Epoch(1)))
            .collect()
    }

    #[test]
    fn as_many_as_fit_are_remembered_the_newest_first() {
        let (mut turns, born) = turns();
        assert_eq!(
            (told(&turns).len(), turns.ring.capacity()),
            (0, 0),
            "nothing costs nothing"
        );
        let all = TURNS_KEPT as u64 + 3;
        for number in 0..all {
            assert_eq!(run(&mut turns, born, number, (number, 1)), number);
        }
        let seen: Vec<_> = turns
            .newest()
            .map(|(number, record)| (number, record.actor()))
            .collect();
        let expected: Vec<_> = (3..all).rev().map(|number| (number, actor(number))).collect();
        assert_eq!(seen, expected);
        assert_eq!(turns.ring.len(), TURNS_KEPT);
        // What is forgotten is not mixed up with what took its place.
        turns.failed(2, "user", "late");
        turns.wrote(2, 1);
        turns.committed(1, born);
        assert!(
            told(&turns)
                .iter()
                .all(|t| t.outcome == TurnOutcome::Ok && t.commit_us.is_none())
        );
    }

    #[test]
    fn times_are_those_of_waiting_running_and_committing() {
        let (mut turns, born) = turns();
        let first = run(&mut turns, born, 1, (10, 5));
        let (read, second) = (
            run(&mut turns, born, 2, (20, 1)),
            run(&mut turns, born, 3, (30, 1)),
        );
        turns.wrote(first, 7);
        turns.wrote(second, 8);
        turns.committed(7, born + Duration::from_millis(40));
        let times = |turns: &RecentTurns, number: u64| {
            let all = told(turns);
            let turn = all.iter().find(|turn| turn.number == number).unwrap();
            (turn.began.0, turn.waited_us, turn.ran_us, turn.commit_us)
        };
        assert_eq!(times(&turns, first), (10, 3000, 5000, Some(25_000)));
        assert_eq!(times(&turns, read), (20, 3000, 1000, None), "nothing to commit");
        assert_eq!(times(&turns, second), (30, 3000, 1000, None), "on its way");
        // One that settles late does not hide those behind it.
        turns.wrote(read, 9);
        turns.committed(8, born + Duration::from_millis(50));
        assert_eq!(times(&turns, second).3, Some(19_000));
        assert_eq!(times(&turns, read).3, None);
        turns.committed(9, born + Duration::from_millis(60));
        assert_eq!(times(&turns, read).3, Some(39_000));
        assert_eq!(times(&turns, first).3, Some(25_000), "committed once");
    }

    #[test]
    fn a_turn_that_ended_badly_stays_what_it_was_called_first() {
        let (mut turns, born) = turns();
        let number = run(&mut turns, born, 1, (0, 1));
        turns.failed(number, "actor", "state_too_large");
        turns.failed(number, "user", "other");
        let outcome = TurnOutcome::Error {
            group: "actor".into(),
            code: "state_too_large".into(),
        };
        assert_eq!(told(&turns)[0].outcome, outcome);
    }
}
