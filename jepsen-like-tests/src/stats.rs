//! Durations as a distribution, and how much of the machine a test has.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

/// How long the machine is tried.
const TRIAL: Duration = Duration::from_millis(300);

/// The share of the machine that is free, 0 to 1: what all cores together give to threads that want them all.
///
/// A bound in time is a promise about a machine that has the time; on a busy one it is stretched by this.
///
/// # Errors
/// Where the kernel does not tell how long threads ran.
pub fn free_share() -> anyhow::Result<f64> {
    let cores = std::thread::available_parallelism()?.get();
    let shares: Vec<anyhow::Result<f64>> = std::thread::scope(|scope| {
        let trials: Vec<_> = (0..cores).map(|_| scope.spawn(trial)).collect();
        trials
            .into_iter()
            .map(|t| t.join().expect("a trial does not panic"))
            .collect()
    });
    Ok(shares.into_iter().sum::<anyhow::Result<f64>>()? / cores as f64)
}

fn trial() -> anyhow::Result<f64> {
    let before = ran()?;
    let begun = Instant::now();
    while begun.elapsed() < TRIAL {
        std::hint::spin_loop();
    }
    Ok((ran()?.saturating_sub(before)).as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// How long this thread has run.
///
/// # Errors
/// Where the kernel does not tell.
pub fn ran() -> anyhow::Result<Duration> {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").context("reading what this thread ran")?;
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.map(Duration::from_nanos)
        .context("what this thread ran is no number")
}

/// A sorted sample of durations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution(Vec<Duration>);

impl Distribution {
    /// Takes a sample in any order.
    pub fn new(mut sample: Vec<Duration>) -> Self {
        sample.sort_unstable();
        Self(sample)
    }

    /// The smallest value that at least `percent` (0 to 100) of the sample do not exceed; zero for an empty sample.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0
            .get(rank - 1)
            .or(self.0.last())
            .copied()
            .unwrap_or_default()
    }

    /// The largest.
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_millis();
        let (p50, p90, p99) = (self.percentile(50), self.percentile(90), self.percentile(99));
        let n = self.0.len();
        write!(
            f,
            "p50 {} ms, p90 {} ms, p99 {} ms, max {} ms (n = {n})",
            ms(p50),
            ms(p90),
            ms(p99),
            ms(self.max())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_share_is_a_share() {
        let share = free_share().unwrap();
        assert!(share > 0.0 && share < 1.1, "{share}");
    }

    #[test]
    fn percentiles_are_members_of_the_sample() {
        let sample = Distribution::new((1..=10).rev().map(Duration::from_millis).collect());
        let ms = |percent| sample.percentile(percent).as_millis();
        assert_eq!((ms(0), ms(50), ms(90), ms(99), ms(100)), (1, 5, 9, 10, 10));
        assert_eq!(Distribution::default().percentile(50), Duration::ZERO);
    }
}
