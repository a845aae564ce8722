//! How often each planted bug was noticed when the report was made, and what a check of few seeds may conclude from that.
//!
//! Invariant: a check insists on a bug only when a sound simulator misses it with less than [`MISS_MAX`].

use std::fmt::Write as _;

use super::planted::Score;

/// Written by the report: a bug, in how many seeds it was noticed, and on how many it was tried.
const RATES: &str = include_str!("../../corpus/rates.txt");
/// Least share of seeds, in percent, of the bugs that are insisted on.
const SHARE_MIN: u64 = 10;
/// Highest probability that a sound simulator misses a bug that is insisted on. With a third of the bugs a day, that a
/// day's check is red for nothing has less than 1 in 1,000.
const MISS_MAX: f64 = 5e-5;
/// Most seeds for one bug.
const SEEDS_MAX: u64 = 600;

/// What a check does about one bug.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Demand {
    /// Most seeds to try.
    pub(super) seeds: u64,
    /// Whether it must be noticed within them.
    pub(super) is_firm: bool,
    /// Probability that it is not, of a simulator that is as good as when the report was made.
    pub(super) miss: f64,
}

/// What may be asked of this bug.
pub(super) fn demand(bug: &str) -> Demand {
    let (caught, tried) = rate(RATES, bug);
    demand_of(caught, tried)
}

fn rate(rates: &str, bug: &str) -> (u64, u64) {
    let line = rates.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(bug)).then_some(words)
    });
    let mut numbers = line.into_iter().flatten().map_while(|word| word.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn demand_of(caught: u64, tried: u64) -> Demand {
    let is_frequent = caught > 0 && caught * 100 >= tried * SHARE_MIN;
    let enough = (10..=SEEDS_MAX)
        .step_by(10)
        .find(|seeds| miss(caught, tried, *seeds) < MISS_MAX);
    match enough.filter(|_| is_frequent) {
        Some(seeds) => Demand {
            seeds,
            is_firm: true,
            miss: miss(caught, tried, seeds),
        },
        None => Demand {
            seeds: 40,
            is_firm: false,
            miss: miss(caught, tried, 40),
        },
    }
}

/// The probability that none of so many further seeds notices it, after `caught` of `tried` have, when nothing else is
/// known of its share (every share as likely as any other before).
fn miss(caught: u64, tried: u64, seeds: u64) -> f64 {
    let unnoticed = (tried - caught) as f64;
    (1..=caught + 1)
        .map(|step| step as f64)
        .map(|step| (unnoticed + step) / (unnoticed + seeds as f64 + step))
        .product()
}

/// The file for these scores. Of what was not tried it keeps what an earlier report found.
pub(super) fn text(scores: &[Score]) -> String {
    let mut out = "# Written by the report: each planted bug, in how many seeds it was noticed, on how many it was tried.\n".to_owned();
    for score in scores {
        let (caught, tried) = match score.tried {
            0 => rate(RATES, score.bug.name),
            tried => (score.caught, tried),
        };
        // Writing to a string cannot fail.
        let _written = writeln!(out, "{} {caught} {tried}", score.bug.name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_often_noticed_is_insisted_on_and_what_seldom_is_told_only() {
        let often = demand_of(9, 10);
        assert!(
            often.is_firm && often.seeds <= 20 && often.miss < MISS_MAX,
            "{often:?}"
        );
        let now_and_then = demand_of(3, 30);
        assert!(
            now_and_then.is_firm && now_and_then.seeds <= 400,
            "{now_and_then:?}"
        );
        assert!(!demand_of(1, 60).is_firm);
        assert!(!demand_of(0, 100).is_firm);
        assert!(!demand_of(0, 0).is_firm, "never tried");
    }

    #[test]
    fn the_probability_of_a_miss_is_that_of_unseen_shares() {
        // Nothing known: one more seed notices it or not.
        assert!((miss(0, 0, 1) - 0.5).abs() < 1e-12);
        assert!((miss(1, 1, 1) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn rates_are_read_by_name() {
        let rates = "# text\nno-sync 9 10\nno-dedup 3 12\n";
        assert_eq!(rate(rates, "no-dedup"), (3, 12));
        assert_eq!(rate(rates, "unknown"), (0, 0));
    }
}
