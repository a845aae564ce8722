//! What one run counted: operations, errors by kind, latencies.
//!
//! Invariant: every operation that was due in the window is either in the histogram or among the errors.
//! Not here: when operations begin (`load`).

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Resolution of a latency: 100 ns.
const UNIT_NANOS: u128 = 100;
/// Longest latency told apart: two minutes, beyond every time limit here.
const UNITS_MAX: u64 = 120 * 10_000_000;

/// Why an operation has no result.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// `group.code`, for counting.
    pub(crate) kind: String,
    /// The whole text, of which the first of each kind is kept.
    pub(crate) text: String,
    /// Whether it may have taken effect all the same.
    pub(crate) perhaps: bool,
}

impl Failure {
    /// Of an operation that certainly did nothing.
    pub(crate) fn refused(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            text: text.into(),
            perhaps: false,
        }
    }

    /// Of an operation that may have been done.
    pub(crate) fn perhaps(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            text: text.into(),
            perhaps: true,
        }
    }
}

impl From<clinch::Error> for Failure {
    fn from(error: clinch::Error) -> Self {
        let kind = format!("{}.{}", error.group(), error.code());
        Self {
            kind,
            text: error.to_string(),
            perhaps: error.is_perhaps(),
        }
    }
}

/// Errors of one kind.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct ErrorCount {
    /// How many.
    pub(crate) count: u64,
    /// The first one's text.
    pub(crate) first: String,
}

/// Counts of one caller, or of many together.
pub(crate) struct Tally {
    latencies: Histogram<u32>,
    errors: BTreeMap<String, ErrorCount>,
    /// Operations that were answered, warm-up included.
    pub(crate) acknowledged: u64,
    /// Operations that may have been done without an answer, warm-up included.
    pub(crate) unknown: u64,
    last: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1, UNITS_MAX, 3).expect("the bounds are sound constants");
        Self {
            latencies,
            errors: BTreeMap::new(),
            acknowledged: 0,
            unknown: 0,
            last: None,
        }
    }
}

impl Tally {
    /// Counts what every operation changed in the cluster, whether it is in the window or not.
    pub(crate) fn effect<T>(&mut self, result: &Result<T, Failure>) {
        match result {
            Ok(_) => self.acknowledged += 1,
            Err(failure) => self.unknown += u64::from(failure.perhaps),
        }
    }

    /// Counts an operation of the window.
    pub(crate) fn sample<T>(&mut self, result: Result<T, Failure>, latency: Duration, ended: Instant) {
        self.last = self.last.max(Some(ended));
        match result {
            Ok(_) => {
                let units = u64::try_from(latency.as_nanos() / UNIT_NANOS).unwrap_or(UNITS_MAX);
                self.latencies.saturating_record(units.max(1));
            }
            Err(failure) => self.error(failure),
        }
    }

    /// Counts an error of the window.
    pub(crate) fn error(&mut self, failure: Failure) {
        let first = failure.text;
        self.errors
            .entry(failure.kind)
            .or_insert(ErrorCount { count: 0, first })
            .count += 1;
    }

    /// Takes another caller's counts in.
    pub(crate) fn merge(&mut self, other: Self) {
        self.latencies
            .add(&other.latencies)
            .expect("both have the same bounds");
        for (kind, error) in other.errors {
            let mine = self.errors.entry(kind).or_insert(ErrorCount {
                count: 0,
                first: error.first,
            });
            mine.count += error.count;
        }
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.last = self.last.max(other.last);
    }

    /// Operations of the window that were answered.
    pub(crate) fn ops(&self) -> u64 {
        self.latencies.len()
    }

    /// Operations of the window that were not.
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().map(|error| error.count).sum()
    }

    /// The same by kind.
    pub(crate) fn errors(&self) -> &BTreeMap<String, ErrorCount> {
        &self.errors
    }

    /// When the last operation of the window ended.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// The latencies in summary; `None` when nothing was answered.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let us = |units: f64| units * UNIT_NANOS as f64 / 1000.0;
        let at = |quantile: f64| us(self.latencies.value_at_quantile(quantile) as f64);
        (!self.latencies.is_empty()).then(|| Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(self.latencies.max() as f64),
            mean_us: us(self.latencies.mean()),
        })
    }
}

/// Latencies in µs.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) mean_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_tallies_lose_no_operation_and_no_error() {
        let now = Instant::now();
        let (mut a, mut b) = (Tally::default(), Tally::default());
        for ms in 1..=100 {
            let tally = if ms % 2 == 0 { &mut a } else { &mut b };
            tally.sample(Ok(()), Duration::from_millis(ms), now + Duration::from_millis(ms));
        }
        for failure in [
            Failure::refused("x.y", "first"),
            Failure::perhaps("x.y", "second"),
        ] {
            let result: Result<(), _> = Err(failure);
            b.effect(&result);
            b.sample(result, Duration::ZERO, now);
        }
        a.merge(b);
        assert_eq!((a.ops(), a.error_count(), a.unknown), (100, 2, 1));
        assert_eq!(a.errors()["x.y"].first, "first");
        assert_eq!(a.last(), Some(now + Duration::from_millis(100)));
        let latency = a.latency().unwrap();
        assert!((latency.p50_us - 50_000.0).abs() < 100.0, "{latency:?}");
        assert!((latency.max_us - 100_000.0).abs() < 100.0, "{latency:?}");
    }

    #[test]
    fn a_latency_beyond_the_range_is_kept_as_the_longest() {
        let mut tally = Tally::default();
        tally.sample(Ok(()), Duration::from_secs(100_000), Instant::now());
        tally.sample(Ok(()), Duration::ZERO, Instant::now());
        assert_eq!(tally.ops(), 2);
        assert!(tally.latency().unwrap().max_us > 100_000_000.0);
    }
}
