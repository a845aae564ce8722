//! The load generator: many callers, closed loop or open loop.
//!
//! Closed loop: each caller begins its next operation when the one before is answered. Open loop: operations are due
//! at a fixed rate, whatever the cluster does; an operation that had to wait for a free caller counts from when it
//! was due (no coordinated omission), and one that never got a caller counts as an error.
//!
//! Invariant: none begins (open loop: is due) after the window, the run ends when the last one has its answer, and
//! every one that ends after the window's begin counts (open loop: that was due after it). So a stall is seen wherever
//! it falls; in a closed loop, counting those already under way at the begin makes up for the callers that have
//! nothing left to do at the end. Failed operations are counted, never repeated.
//! Not here: what an operation is (`caller`).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::tally::{Failure, Tally};

/// Pause of a caller after an error: a cluster that refuses at once must not be measured by how fast it refuses.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);

/// Somebody who does one operation after the other.
pub(crate) trait Caller: Send + 'static {
    /// Does the next operation; the value is what the actor answered.
    fn call(&mut self) -> impl Future<Output = Result<i64, Failure>> + Send;
}

/// When operations begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// When the caller's last one is answered.
    Closed,
    /// At so many a second over all callers.
    Open(f64),
}

/// How long a run takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) pace: Pace,
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

/// A run that is under way.
pub(crate) struct Load {
    callers: JoinSet<Tally>,
    begin: Instant,
}

/// A run that is over.
pub(crate) struct Done {
    pub(crate) tally: Tally,
    /// From the begin of the window to the last answer.
    pub(crate) elapsed: Duration,
}

impl Load {
    /// Starts all callers.
    ///
    /// # Errors
    /// When the thread that paces an open loop cannot be started.
    pub(crate) fn start<C: Caller>(callers: Vec<C>, plan: Plan) -> std::io::Result<Self> {
        let begin = Instant::now() + plan.warmup;
        let end = begin + plan.window;
        let mut tasks = JoinSet::new();
        match plan.pace {
            Pace::Closed => {
                for caller in callers {
                    tasks.spawn(closed(caller, begin, end));
                }
            }
            Pace::Open(rate) => {
                let schedule = Arc::new(Schedule::new(rate, plan));
                schedule.clone().start(callers.len())?;
                for caller in callers {
                    tasks.spawn(open(caller, schedule.clone(), begin));
                }
            }
        }
        Ok(Self {
            callers: tasks,
            begin,
        })
    }

    /// Returns when the window begins.
    pub(crate) async fn warmed_up(&self) {
        tokio::time::sleep_until(self.begin).await;
    }

    /// Returns when every operation of the window has ended.
    ///
    /// # Errors
    /// When a caller panicked.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Done> {
        let mut tally = Tally::default();
        while let Some(one) = self.callers.join_next().await {
            tally.merge(one?);
        }
        let elapsed = tally
            .last()
            .unwrap_or(self.begin)
            .saturating_duration_since(self.begin);
        Ok(Done { tally, elapsed })
    }
}

async fn closed<C: Caller>(mut caller: C, begin: Instant, end: Instant) -> Tally {
    let mut tally = Tally::default();
    loop {
        let begun = Instant::now();
        if begun >= end {
            return tally;
        }
        let result = caller.call().await;
        let ended = Instant::now();
        tally.effect(&result);
        let failed = result.is_err();
        if ended >= begin {
            tally.sample(result, ended - begun, ended);
        }
        if failed {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

/// When the operations of an open loop are due, and which is next.
struct Schedule {
    first: Instant,
    rate: f64,
    /// How many there are in all.
    count: u64,
    /// When a backlog is given up: the same time again as the run should have taken.
    give_up: Instant,
    next: AtomicU64,
    due: Semaphore,
}

impl Schedule {
    fn new(rate: f64, plan: Plan) -> Self {
        let (first, length) = (Instant::now(), plan.warmup + plan.window);
        let count = (rate * length.as_secs_f64()).ceil() as u64;
        let (next, due) = (AtomicU64::new(0), Semaphore::new(0));
        Self {
            first,
            rate,
            count,
            give_up: first + length * 2,
            next,
            due,
        }
    }

    fn due(&self, index: u64) -> Instant {
        self.first + Duration::from_secs_f64(index as f64 / self.rate)
    }

    /// Paces from a thread of its own: the runtime's timers tick in milliseconds, which would add up to one to every
    /// latency.
    fn start(self: Arc<Self>, callers: usize) -> std::io::Result<()> {
        std::thread::Builder::new().name("pacer".into()).spawn(move || {
            let mut released = 0;
            while released < self.count {
                let now = Instant::now();
                let passed = now.saturating_duration_since(self.first).as_secs_f64();
                let target = ((passed * self.rate) as u64 + 1).min(self.count);
                self.due
                    .add_permits(usize::try_from(target.saturating_sub(released)).unwrap_or(0));
                released = released.max(target);
                std::thread::sleep(self.due(released).saturating_duration_since(now));
            }
            // One more for each caller, by which it learns that there is nothing left.
            self.due.add_permits(callers);
        })?;
        Ok(())
    }
}

async fn open<C: Caller>(mut caller: C, schedule: Arc<Schedule>, begin: Instant) -> Tally {
    let mut tally = Tally::default();
    loop {
        let Ok(permit) = schedule.due.acquire().await else {
            return tally;
        };
        permit.forget();
        let index = schedule.next.fetch_add(1, Ordering::Relaxed);
        if index >= schedule.count {
            return tally;
        }
        let due = schedule.due(index);
        if Instant::now() >= schedule.give_up {
            if due >= begin {
                tally.error(Failure::refused(
                    "bench.not_begun",
                    "no caller was free until the backlog was given up",
                ));
            }
            continue;
        }
        let result = caller.call().await;
        let ended = Instant::now();
        tally.effect(&result);
        if due >= begin {
            tally.sample(result, ended.saturating_duration_since(due), ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after a time; every `fails`-th operation fails.
    struct Slow {
        takes: Duration,
        fails: Option<i64>,
        done: i64,
    }

    impl Caller for Slow {
        async fn call(&mut self) -> Result<i64, Failure> {
            tokio::time::sleep(self.takes).await;
            self.done += 1;
            match self.fails {
                Some(every) if self.done % every == 0 => Err(Failure::perhaps("test.failed", "as planned")),
                _ => Ok(self.done),
            }
        }
    }

    fn slow(count: usize, takes_ms: u64, fails: Option<i64>) -> Vec<Slow> {
        let takes = Duration::from_millis(takes_ms);
        (0..count)
            .map(|_| Slow {
                takes,
                fails,
                done: 0,
            })
            .collect()
    }

    fn plan(pace: Pace, window_ms: u64) -> Plan {
        Plan {
            pace,
            warmup: Duration::from_millis(100),
            window: Duration::from_millis(window_ms),
        }
    }

    #[tokio::test]
    async fn a_closed_loop_counts_the_window_only_and_every_error_once() {
        let load = Load::start(slow(4, 10, Some(5)), plan(Pace::Closed, 400)).unwrap();
        load.warmed_up().await;
        let done = load.finish().await.unwrap();
        let (ops, errors) = (done.tally.ops(), done.tally.error_count());
        assert!(errors > 0 && ops > errors, "{ops} answered, {errors} failed");
        // Sleeps may be late on a busy machine, never early: at most 4 callers × 400 ms / 10 ms, and those under way at
        // the begin and at the end.
        assert!(ops + errors <= 168, "{ops} answered, {errors} failed");
        assert!(
            done.tally.acknowledged > ops,
            "the warm-up's operations took effect as well"
        );
        assert!(done.tally.unknown >= errors);
        assert!(done.elapsed >= Duration::from_millis(300), "{:?}", done.elapsed);
    }

    #[tokio::test]
    async fn a_stall_over_the_whole_window_is_counted() {
        let done = Load::start(slow(2, 300, None), plan(Pace::Closed, 50))
            .unwrap()
            .finish()
            .await
            .unwrap();
        assert_eq!(done.tally.ops(), 2);
        assert!(done.tally.latency().unwrap().p50_us >= 300_000.0);
    }

    #[tokio::test]
    async fn an_open_loop_counts_waiting_from_when_the_operation_was_due() {
        // Due every 20 ms, served every 50: each waits longer than the one before.
        let done = Load::start(slow(1, 50, None), plan(Pace::Open(50.0), 300))
            .unwrap()
            .finish()
            .await
            .unwrap();
        let latency = done.tally.latency().unwrap();
        assert!(latency.max_us >= 300_000.0, "{latency:?}");
        assert!(done.tally.error_count() > 0, "what was never begun is an error");
        let due = done.tally.ops() + done.tally.error_count();
        assert!(
            (14..=16).contains(&due),
            "{due} operations were due in 300 ms at 50/s"
        );
    }

    #[tokio::test]
    async fn an_open_loop_that_is_not_overloaded_keeps_its_rate() {
        let done = Load::start(slow(64, 2, None), plan(Pace::Open(500.0), 500))
            .unwrap()
            .finish()
            .await
            .unwrap();
        assert_eq!(done.tally.error_count(), 0);
        assert!((249..=251).contains(&done.tally.ops()), "{}", done.tally.ops());
    }
}
