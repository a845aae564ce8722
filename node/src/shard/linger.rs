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

#[cfg(test)]
mod tests {
    use super::*;

    /// Proposals that take `round` each, as many as the average needs to follow.
    fn after_rounds_of(round: Duration, turns: usize, released: usize) -> (Linger, Instant) {
        let (mut linger, mut now) = (Linger::default(), Instant::now());
        for _ in 0..40 {
            linger.proposed(now);
            now += round;
            linger.committed(now, turns, released);
        }
        (linger, now)
    }

    #[test]
    fn a_batch_waits_for_as_many_turns_as_were_let_go_and_no_longer_than_its_limit() {
        let (linger, now) = after_rounds_of(Duration::from_millis(10), 5, 7);
        assert_eq!(linger.until(now, 11), Some(now + LINGER_MAX));
        assert_eq!(linger.until(now, 12), None, "all are back");
        assert_eq!(linger.until(now + LINGER_MAX, 5), None, "time is up");
    }

    #[test]
    fn a_caller_alone_and_short_rounds_never_wait() {
        let (alone, now) = after_rounds_of(Duration::from_millis(10), 0, 1);
        assert_eq!(alone.until(now, 1), None);
        let (short, now) = after_rounds_of(Duration::from_millis(1), 5, 7);
        assert_eq!(short.until(now, 5), None);
    }

    #[test]
    fn what_was_proposed_meanwhile_ends_the_wait() {
        let (mut linger, now) = after_rounds_of(Duration::from_millis(10), 5, 7);
        linger.proposed(now);
        assert_eq!(linger.until(now, 5), None);
    }
}
