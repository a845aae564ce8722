//! What a run found out, as one line of JSON and as a sentence.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Args;
use super::faults::Outages;
use super::ledger::{Totals, Verdict};
use crate::cli::terminal::grouped;

/// The result, in the order in which it is printed. Times are of the callers: they include every retry.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Increments that were answered.
    acknowledged: u64,
    /// Answered increments that are not in the final counts. Must be 0.
    lost: u64,
    /// Values that no correct counter gives: twice the same, older than known before the call, more than was asked.
    /// Must be 0.
    wrong: u64,
    /// Calls that ended with an error, those with an open outcome included.
    errors: u64,
    /// Increments whose outcome the caller does not know.
    unknown: u64,
    /// Reads that were answered, and checked.
    reads: u64,
    /// Owners killed under load, one at a time.
    kills: u32,
    /// Times that all nodes were killed at once.
    kill_all: u32,
    /// From a kill until a shard of the killed node answered again, over all its shards and all kills.
    failover_samples: u64,
    failover_ms_p50: Option<u64>,
    failover_ms_p90: Option<u64>,
    failover_ms_p99: Option<u64>,
    failover_ms_max: Option<u64>,
    /// From a kill of all nodes until all served again.
    recovery_ms_max: Option<u64>,
    seconds: f64,
    /// Acknowledged increments a second, outages included.
    per_second: u64,
    nodes: u32,
    actors: usize,
    callers: usize,
    via: &'static str,
    durable: &'static str,
}

impl Report {
    pub(super) fn new(
        args: &Args,
        totals: Totals,
        verdict: Verdict,
        outages: &Outages,
        took: Duration,
    ) -> Self {
        let failovers = percentiles(&outages.failovers);
        let quantile = |q: f64| (!failovers.is_empty()).then(|| failovers.value_at_quantile(q));
        let ms = |d: &Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let seconds = took.as_secs_f64();
        Self {
            acknowledged: totals.acknowledged,
            lost: verdict.lost,
            wrong: verdict.wrong + totals.wrong,
            errors: totals.errors,
            unknown: totals.unknown,
            reads: totals.reads,
            kills: outages.kills,
            kill_all: outages.kill_alls,
            failover_samples: failovers.len(),
            failover_ms_p50: quantile(0.5),
            failover_ms_p90: quantile(0.9),
            failover_ms_p99: quantile(0.99),
            failover_ms_max: outages.failovers.iter().map(ms).max(),
            recovery_ms_max: outages.recoveries.iter().map(ms).max(),
            seconds: (seconds * 1000.0).round() / 1000.0,
            per_second: (totals.acknowledged as f64 / seconds.max(0.001)) as u64,
            nodes: args.nodes,
            actors: args.actors,
            callers: args.callers,
            via: args.via.name(),
            durable: match args.nodes {
                1 => "fsync before every acknowledgement",
                2 => "fsync on both nodes before every acknowledgement",
                _ => "fsync at a majority of the replicas before every acknowledgement",
            },
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are always JSON")
    }

    /// What is not as it must be.
    pub(super) fn faults(&self, args: &Args) -> Vec<String> {
        let mut faults = Vec::new();
        if self.lost > 0 {
            faults.push(format!("{} acknowledged increments are lost", grouped(self.lost)));
        }
        if self.wrong > 0 {
            faults.push(format!("{} values are wrong", grouped(self.wrong)));
        }
        if self.acknowledged < args.increments {
            let (have, want) = (grouped(self.acknowledged), grouped(args.increments));
            faults.push(format!(
                "{have} increments were acknowledged, {want} were asked for"
            ));
        }
        if (self.kills, self.kill_all) != (args.kills, args.kill_all) {
            faults.push("not all faults took place".into());
        }
        faults
    }

    /// The result for people.
    pub(super) fn summary(&self) -> String {
        let failover = match (self.failover_ms_p99, self.failover_ms_max) {
            (Some(p99), Some(max)) => {
                format!("; actors of a killed owner answered again after {p99} ms (p99), {max} ms (max)")
            }
            _ => String::new(),
        };
        format!(
            "{} increments acknowledged in {:.1} s through {} kills of an owner and {} of all nodes: {} lost, {} wrong{failover}",
            grouped(self.acknowledged),
            self.seconds,
            self.kills,
            self.kill_all,
            self.lost,
            self.wrong,
        )
    }
}

/// In milliseconds, rounded up: a result must not look better than it is.
fn percentiles(times: &[Duration]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000, 3).expect("the bounds are sound");
    for time in times {
        let ms = time.as_micros().div_ceil(1000);
        histogram.saturating_record(u64::try_from(ms).unwrap_or(u64::MAX).max(1));
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn report(lost: u64, wrong: u64) -> (Args, Report) {
        let args = Line::parse_from(["demo", "--increments", "10", "--kills", "1"]).args;
        let totals = Totals {
            acknowledged: 10,
            reads: 0,
            errors: 0,
            unknown: 0,
            wrong: 0,
        };
        let mut outages = Outages::default();
        outages.kills = 1;
        outages.failovers.push(Duration::from_micros(300_001));
        let report = Report::new(
            &args,
            totals,
            Verdict { lost, wrong },
            &outages,
            Duration::from_secs(2),
        );
        (args, report)
    }

    #[test]
    fn a_clean_run_has_no_faults_and_says_what_tools_ask_for() {
        let (args, report) = report(0, 0);
        assert_eq!(report.faults(&args), [""; 0]);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(
            (&json["acknowledged"], &json["lost"], &json["wrong"]),
            (&10.into(), &0.into(), &0.into())
        );
        assert_eq!(
            (&json["failover_ms_p99"], &json["kills"]),
            (&301.into(), &1.into())
        );
        assert!(report.json().starts_with("{\"acknowledged\":10,\"lost\":0,"));
    }

    #[test]
    fn anything_lost_wrong_or_missing_is_a_fault() {
        let (args, mut report) = report(1, 1);
        assert_eq!(report.faults(&args).len(), 2);
        report.acknowledged = 9;
        report.kills = 0;
        assert_eq!(report.faults(&args).len(), 4);
    }
}
