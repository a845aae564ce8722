//! What was promised to the callers, and whether it was kept.
//!
//! All actors are counters that begin at 0 and are only ever incremented by 1. So of each actor: no value is
//! acknowledged twice; a call that begins after a value was acknowledged sees a greater one (or, reading, none
//! smaller); no value exceeds what was begun; and in the end the count is at least what was acknowledged, and at most
//! that and the calls whose outcome nobody knows.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many findings are told in words; all are counted.
const TOLD_MAX: usize = 10;

/// The books of one run.
pub(super) struct Ledger {
    actors: Vec<Mutex<Account>>,
    /// The first values that broke a rule, in words.
    told: Mutex<Vec<String>>,
    acknowledged: AtomicU64,
    reads: AtomicU64,
    errors: AtomicU64,
    unknown: AtomicU64,
    wrong: AtomicU64,
    /// Whoever waits for [`Ledger::reach`] is woken once this many increments are acknowledged.
    mark: AtomicU64,
    reached: Notify,
}

/// The books of one actor.
#[derive(Debug, Default)]
struct Account {
    /// Every value that an increment was answered with.
    values: Vec<i64>,
    /// Greatest value that any caller has seen.
    seen: i64,
    /// Increments begun and not refused.
    begun: u64,
    /// Increments whose outcome nobody knows.
    unknown: u64,
}

/// What a call that begins now must see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor(i64);

/// Counters over all actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) acknowledged: u64,
    pub(super) reads: u64,
    pub(super) errors: u64,
    pub(super) unknown: u64,
    pub(super) wrong: u64,
}

/// What the end says about one actor or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    /// Acknowledged increments that are not there.
    pub(super) lost: u64,
    /// Values that break one of the other rules.
    pub(super) wrong: u64,
}

impl Ledger {
    pub(super) fn new(actors: usize) -> Self {
        Self {
            actors: (0..actors).map(|_| Mutex::default()).collect(),
            told: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            mark: AtomicU64::new(u64::MAX),
            reached: Notify::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.actors.len()
    }

    pub(super) fn begin_increment(&self, actor: usize) -> Floor {
        let mut account = self.actors[actor].lock();
        account.begun += 1;
        Floor(account.seen)
    }

    pub(super) fn begin_read(&self, actor: usize) -> Floor {
        Floor(self.actors[actor].lock().seen)
    }

    /// The increment was answered; `place` says where.
    pub(super) fn acknowledge(&self, actor: usize, floor: Floor, value: i64, place: &dyn Display) {
        let mut account = self.actors[actor].lock();
        account.values.push(value);
        let begun = account.begun;
        account.see(value);
        drop(account);
        if value <= floor.0 {
            self.tell(|| {
                format!(
                    "counter {actor}: an increment gave {value}, {} was known before it ({place})",
                    floor.0
                )
            });
        } else if exceeds(value, begun) {
            self.tell(|| {
                format!("counter {actor}: an increment gave {value} after {begun} were begun ({place})")
            });
        }
        let now = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        if now >= self.mark.load(Ordering::SeqCst) {
            self.reached.notify_waiters();
        }
    }

    /// The read was answered; `place` says where.
    pub(super) fn read(&self, actor: usize, floor: Floor, value: i64, place: &dyn Display) {
        let mut account = self.actors[actor].lock();
        let begun = account.begun;
        account.see(value);
        drop(account);
        if value < floor.0 {
            self.tell(|| {
                format!(
                    "counter {actor}: a read gave {value}, {} was known before it ({place})",
                    floor.0
                )
            });
        } else if exceeds(value, begun) {
            self.tell(|| format!("counter {actor}: a read gave {value} after {begun} were begun ({place})"));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// The increment certainly had no effect.
    pub(super) fn refuse(&self, actor: usize) {
        let mut account = self.actors[actor].lock();
        account.begun = account.begun.saturating_sub(1);
        drop(account);
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Perhaps the increment had its effect.
    pub(super) fn leave_open(&self, actor: usize) {
        self.actors[actor].lock().unknown += 1;
        self.unknown.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A read failed: nothing is lost by it.
    pub(super) fn fail_read(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until so many increments are acknowledged. One waiter at a time.
    pub(super) async fn reach(&self, mark: u64) {
        self.mark.store(mark, Ordering::SeqCst);
        loop {
            let mut reached = std::pin::pin!(self.reached.notified());
            reached.as_mut().enable();
            if self.acknowledged.load(Ordering::SeqCst) >= mark {
                return;
            }
            reached.await;
        }
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            acknowledged: self.acknowledged.load(Ordering::SeqCst),
            reads: self.reads.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            wrong: self.wrong.load(Ordering::Relaxed),
        }
    }

    /// Compares one actor's final count with what its callers were told. Nothing may be in flight any more.
    pub(super) fn judge(&self, actor: usize, count: i64) -> Verdict {
        let account = self.actors[actor].lock();
        let verdict = account.judge(count);
        let mut told = self.told.lock();
        if verdict != Verdict::default() && told.len() < TOLD_MAX {
            told.push(format!(
                "counter {actor}: the final count is {count}; {} increments were acknowledged, {} are open, the greatest \
                 value seen is {}: {} lost, {} wrong",
                account.values.len(),
                account.unknown,
                account.seen,
                verdict.lost,
                verdict.wrong,
            ));
        }
        verdict
    }

    /// The first findings, in words.
    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().clone()
    }

    fn tell(&self, finding: impl FnOnce() -> String) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock();
        if told.len() < TOLD_MAX {
            told.push(finding());
        }
    }
}

/// Whether a value cannot be explained by so many increments.
fn exceeds(value: i64, begun: u64) -> bool {
    !u64::try_from(value).is_ok_and(|value| value <= begun)
}

impl Account {
    fn see(&mut self, value: i64) {
        self.seen = self.seen.max(value);
    }

    fn judge(&self, count: i64) -> Verdict {
        let acknowledged = self.values.len() as u64;
        let mut distinct = self.values.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let twice = acknowledged - distinct.len() as u64;
        let count = u64::try_from(count).unwrap_or(0);
        // A value that was seen says that so many increments had happened, acknowledged to us or not.
        let promised = acknowledged.max(u64::try_from(self.seen).unwrap_or(0));
        let excess = count.saturating_sub(acknowledged + self.unknown);
        Verdict {
            lost: promised.saturating_sub(count),
            wrong: twice + excess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acknowledged(ledger: &Ledger, value: i64) {
        let floor = ledger.begin_increment(0);
        ledger.acknowledge(0, floor, value, &"here");
    }

    #[test]
    fn a_lost_increment_is_found() {
        let ledger = Ledger::new(1);
        acknowledged(&ledger, 1);
        acknowledged(&ledger, 2);
        assert_eq!(ledger.judge(0, 2), Verdict::default());
        assert_eq!(ledger.judge(0, 1), Verdict { lost: 1, wrong: 0 });
        assert_eq!(ledger.totals().wrong, 0);
    }

    #[test]
    fn a_value_acknowledged_twice_is_found_even_when_the_calls_overlapped() {
        let ledger = Ledger::new(1);
        let (one, two) = (ledger.begin_increment(0), ledger.begin_increment(0));
        ledger.acknowledge(0, one, 1, &"here");
        ledger.acknowledge(0, two, 1, &"here");
        assert_eq!(ledger.judge(0, 1), Verdict { lost: 1, wrong: 1 });
    }

    #[test]
    fn a_call_that_sees_less_than_was_known_before_it_is_found() {
        let ledger = Ledger::new(1);
        acknowledged(&ledger, 1);
        acknowledged(&ledger, 2);
        let floor = ledger.begin_read(0);
        ledger.read(0, floor, 1, &"here");
        assert_eq!(ledger.totals().wrong, 1, "a stale read");
        acknowledged(&ledger, 2);
        assert_eq!(ledger.totals().wrong, 2, "an increment of a stale owner");
    }

    #[test]
    fn an_increment_executed_twice_is_found() {
        let ledger = Ledger::new(1);
        acknowledged(&ledger, 2);
        assert_eq!(ledger.totals().wrong, 1, "more than was begun");
        assert_eq!(ledger.judge(0, 2), Verdict { lost: 0, wrong: 1 });
    }

    #[test]
    fn an_open_outcome_may_count_and_a_refused_one_may_not() {
        let ledger = Ledger::new(1);
        acknowledged(&ledger, 1);
        ledger.begin_increment(0);
        ledger.leave_open(0);
        assert_eq!(ledger.judge(0, 1), Verdict::default());
        assert_eq!(ledger.judge(0, 2), Verdict::default());
        assert_eq!(ledger.judge(0, 3), Verdict { lost: 0, wrong: 1 });
        let ledger = Ledger::new(1);
        ledger.begin_increment(0);
        ledger.refuse(0);
        assert_eq!(ledger.judge(0, 1), Verdict { lost: 0, wrong: 1 });
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Done,
        /// Executed or not, and the caller does not know.
        Open(bool),
        Refused,
        Read,
    }

    proptest! {
        /// Law: a correct counter is never accused, whatever becomes of its calls.
        #[test]
        fn a_correct_counter_passes(steps in prop::collection::vec(
            prop_oneof![Just(Step::Done), any::<bool>().prop_map(Step::Open), Just(Step::Refused), Just(Step::Read)], 0..60,
        )) {
            let ledger = Ledger::new(1);
            let mut count = 0;
            for step in steps {
                match step {
                    Step::Read => {
                        let floor = ledger.begin_read(0);
                        ledger.read(0, floor, count, &"here");
                    }
                    Step::Done => {
                        count += 1;
                        acknowledged(&ledger, count);
                    }
                    Step::Open(executed) => {
                        ledger.begin_increment(0);
                        count += i64::from(executed);
                        ledger.leave_open(0);
                    }
                    Step::Refused => {
                        ledger.begin_increment(0);
                        ledger.refuse(0);
                    }
                }
            }
            prop_assert_eq!(ledger.judge(0, count), Verdict::default());
            prop_assert_eq!(ledger.totals().wrong, 0);
        }
    }

    #[tokio::test]
    async fn a_mark_is_reached_by_its_last_acknowledgement() {
        let ledger = Ledger::new(1);
        let mut reach = std::pin::pin!(ledger.reach(2));
        acknowledged(&ledger, 1);
        assert!(futures_util::poll!(reach.as_mut()).is_pending());
        acknowledged(&ledger, 2);
        reach.await;
    }
}
