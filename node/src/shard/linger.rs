//! How long a batch that could be cut waits for callers that are about to come back.
//!
//! The cost of a batch is one round of the group, whatever is in it. When a batch commits, its callers have their answers
//! and, if they work in a loop, call again within moments; cutting the next batch at that very moment would split the
//! callers into two halves that take turns, at twice the number of rounds. So the next batch waits until as many have come
//! as were let go, but no longer than a round takes, and not at all where rounds are short.

use std::time::Duration;

use tokio::time::Instant;

/// Rounds shorter than this are not worth a timer, whose own grain is a millisecond.
const ROUND_MIN: Duration = Duration::from_millis(2);
/// Longest wait.
const LINGER_MAX: Duration = Duration::from_millis(4);

/// The decision when to cut, for one shard.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    proposed: Option<Instant>,
    /// Smoothed time from proposal to commit.
    round: Duration,
    /// Until when the batch being filled waits, and for how many turns.
    waits: Option<(Instant, usize)>,
}

impl Linger {
    /// A batch was proposed.
    pub(crate) fn proposed(&mut self, now: Instant) {
        self.proposed = Some(now);
        self.waits = None;
    }

    /// It committed; `released` callers have their answers, and `turns` turns wait for the next batch.
    pub(crate) fn committed(&mut self, now: Instant, turns: usize, released: usize) {
        if let Some(proposed) = self.proposed.take() {
            let took = now - proposed;
            self.round = (self.round * 7 + took) / 8;
        }
        if self.round < ROUND_MIN {
            return;
        }
        let linger = self.round.min(LINGER_MAX);
        self.waits = Some((now + linger, turns + released));
    }

    /// Until when a batch of `turns` turns should wait; `None`: cut it now.
    pub(crate) fn until(&self, now: Instant, turns: usize) -> Option<Instant> {
        let (until, enough) = self.waits?;
        (turns < enough && now < until).then_some(until)
    }
}
