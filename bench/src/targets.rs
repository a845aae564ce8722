//! What we want a run to reach, and whether it did. Wishes, not requirements: a miss is reported, not an error.
//!
//! All are meant for three nodes, their clients and the load generator together on one machine with two cores.

use std::fmt;

use serde::Serialize;

use crate::caller::Via;
use crate::report::{Loop, Record, Shape, Through};

/// Actors of a spread run that a target is meant for.
pub(crate) const SPREAD: usize = 10_000;

/// One wish.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Target {
    /// What, and in which unit.
    pub(crate) name: &'static str,
    /// Whether `got` must be at least or at most `want`.
    pub(crate) bound: Bound,
    pub(crate) want: f64,
    pub(crate) got: f64,
    pub(crate) met: bool,
}

/// On which side of a target it is good to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Target {
    fn at_least(name: &'static str, want: f64, got: f64) -> Self {
        Self {
            name,
            bound: Bound::AtLeast,
            want,
            got,
            met: got >= want,
        }
    }

    fn at_most(name: &'static str, want: f64, got: f64) -> Self {
        Self {
            name,
            bound: Bound::AtMost,
            want,
            got,
            met: got <= want,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, bound) = (
            if self.met { "met   " } else { "MISSED" },
            if self.bound == Bound::AtLeast {
                "at least"
            } else {
                "at most"
            },
        );
        write!(
            f,
            "{verdict} {}: {bound} {:.2}, got {:.2}",
            self.name, self.want, self.got
        )
    }
}

/// The targets this run is measured by.
pub(crate) fn judge(run: &Record) -> Vec<Target> {
    let mut targets = Vec::new();
    if let Some(memory) = run.memory {
        // Below that, what the node allocates once outweighs the actors.
        if memory.actors >= 100_000 {
            targets.push(Target::at_most(
                "bytes an idle actor beyond its state",
                1024.0,
                memory.per_actor,
            ));
        }
        let empty = memory.empty.total as f64 / f64::from(1 << 20);
        targets.push(Target::at_most(
            "MiB of a node with 16 shards and no actor",
            150.0,
            empty,
        ));
    }
    if let Some(failover) = run.failover {
        targets.push(Target::at_most(
            "ms until served again after a kill, p99",
            1000.0,
            failover.p99_ms,
        ));
    }
    if let (Some(timers), Some(latency)) = (run.timers, run.latency) {
        targets.push(Target::at_most("timers early", 0.0, timers.early as f64));
        targets.push(Target::at_most(
            "ms late, p99 of the timers",
            100.0,
            latency.p99_us / 1000.0,
        ));
    }
    if let Some(fanout) = run.fanout.filter(|fanout| fanout.connections >= 1000) {
        targets.push(Target::at_least(
            "deliveries/s of one actor",
            100_000.0,
            fanout.rate,
        ));
    }
    if run.pace == Loop::Open || run.nodes != 3 || run.failover.is_some() {
        return targets;
    }
    let ms = |us: f64| us / 1000.0;
    match (run.workload, run.shape, run.via, run.callers) {
        ("W2", Shape::Spread, via, 256) if run.actors == Some(SPREAD) => targets.push(match via {
            Via::Quic => Target::at_least("increments/s", 40_000.0, run.rate),
            Via::Http => Target::at_least("increments/s by HTTP", 12_000.0, run.rate),
        }),
        ("W2", Shape::Hot, Via::Quic, 64) => {
            targets.push(Target::at_least("increments/s of one actor", 20_000.0, run.rate));
        }
        ("W2", Shape::Hot, Via::Quic, 1) => {
            if let Some(latency) = run.latency {
                let p50 = ms(latency.p50_us);
                let twice = 2.0 * run.floors.durable_ms();
                targets.push(Target::at_most("ms, p50 of one caller", 0.6, p50));
                targets.push(Target::at_most(
                    "ms, p50 within twice a sync and a round trip",
                    twice,
                    p50,
                ));
            }
        }
        ("W3", Shape::Spread, via, 256) => match (via, run.through) {
            (Via::Quic, Through::Owner) => {
                targets.push(Target::at_least("reads/s at the owner", 200_000.0, run.rate));
            }
            (_, Through::Another) => {
                targets.push(Target::at_least(
                    "reads/s through another node",
                    60_000.0,
                    run.rate,
                ));
            }
            _ => {}
        },
        ("W4", _, _, 64) => {
            if let Some(latency) = run.latency {
                targets.push(Target::at_most("ms, cold start p50", 5.0, ms(latency.p50_us)));
                targets.push(Target::at_most("ms, cold start p99", 25.0, ms(latency.p99_us)));
            }
        }
        _ => {}
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_itself_is_good_enough() {
        assert!(Target::at_least("x", 10.0, 10.0).met && !Target::at_least("x", 10.0, 9.9).met);
        assert!(Target::at_most("x", 10.0, 10.0).met && !Target::at_most("x", 10.0, 10.1).met);
        let missed = Target::at_least("increments/s", 40_000.0, 1.0).to_string();
        assert_eq!(missed, "MISSED increments/s: at least 40000.00, got 1.00");
    }
}
