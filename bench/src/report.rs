//! What a run says: one line of JSON for programs, one line of text for people.
//!
//! Invariant: a line says what was durable when a caller had its reply, and under which conditions it was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::caller::Via;
use crate::floors::Floors;
use crate::tally::{ErrorCount, Latency};
use crate::targets::Target;
use crate::usage::Resident;

/// Which actors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// One, by everybody.
    Hot,
    /// Many, uniformly.
    Spread,
    /// A new one with each call.
    Fresh,
    /// Each caller its own.
    Own,
}

/// Which node a caller asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Through {
    /// The caller's own, whoever owns the actor.
    Any,
    /// The actor's owner.
    Owner,
    /// One that does not own the actor, and passes the call on.
    Another,
}

/// When operations began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Loop {
    Closed,
    Open,
}

/// What of a run was found in the cluster afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// Increments that were answered.
    pub(crate) acknowledged: u64,
    /// Increments whose callers do not know.
    pub(crate) unknown: u64,
    /// Increments found.
    pub(crate) found: u64,
    /// Acknowledged and not found.
    pub(crate) lost: u64,
    /// Found and never asked for.
    pub(crate) extra: u64,
}

impl Verified {
    /// Compares what was answered with what is there.
    pub(crate) fn new(acknowledged: u64, unknown: u64, found: u64) -> Self {
        let lost = acknowledged.saturating_sub(found);
        let extra = found.saturating_sub(acknowledged + unknown);
        Self {
            acknowledged,
            unknown,
            found,
            lost,
            extra,
        }
    }

    /// Adds another part of the same run.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.found += other.found;
        self.lost += other.lost;
        self.extra += other.extra;
    }

    /// Whether nothing was lost and nothing done twice.
    pub(crate) fn holds(&self) -> bool {
        self.lost == 0 && self.extra == 0
    }
}

/// Memory of a node with so many idle actors. Sizes in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub(crate) actors: u64,
    /// Of a sample that was called only if awake, how many were.
    pub(crate) sampled: u64,
    pub(crate) awake: u64,
    /// The node before it had any actor.
    pub(crate) empty: Resident,
    pub(crate) now: Resident,
    /// An actor's encoded state.
    pub(crate) state: f64,
    /// Growth since the node was empty, caches and the log's memory included, by actor, without its state.
    pub(crate) per_actor: f64,
    /// Growth since the size before (or empty), by actor added, without its state.
    pub(crate) per_added_actor: f64,
}

/// How long callers waited when owners were killed. Times in ms.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Failover {
    pub(crate) kills: u64,
    /// Waits measured: one for each kill and caller whose actor the killed node owned.
    pub(crate) waits: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// The longest wait of callers whose actor another node owned.
    pub(crate) others_max_ms: f64,
}

/// Timers that were due within a while; how late they were is in the percentiles.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Timers {
    pub(crate) timers: u64,
    pub(crate) within_s: f64,
    /// Fired before they were due.
    pub(crate) early: u64,
}

/// Events of one actor to all of its connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Fanout {
    pub(crate) connections: u64,
    /// Events, each counted once for each connection.
    pub(crate) deliveries: u64,
    /// Deliveries a second.
    pub(crate) rate: f64,
    /// What all nodes together grew by while the connections were opened, over their number, in bytes: sockets, and the
    /// actor's side of them.
    pub(crate) bytes_each: u64,
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    /// Load average of the last minute before the run: what else was going on.
    pub(crate) load_before: Option<f64>,
    /// File system of the nodes' data.
    pub(crate) file_system: Option<String>,
    /// `release` or `debug`.
    pub(crate) build: &'static str,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) workload: &'static str,
    pub(crate) what: &'static str,
    pub(crate) nodes: u32,
    pub(crate) shape: Shape,
    /// Actors called; absent where each call makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actors: Option<usize>,
    pub(crate) via: Via,
    pub(crate) through: Through,
    #[serde(rename = "loop")]
    pub(crate) pace: Loop,
    pub(crate) callers: usize,
    /// Open loop: operations due a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offered: Option<f64>,
    /// From the begin of the window to the last answer.
    pub(crate) seconds: f64,
    pub(crate) ops: u64,
    pub(crate) errors: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) error_kinds: BTreeMap<String, ErrorCount>,
    /// Attempts the Rust client repeated under the same request id.
    pub(crate) retries: u64,
    /// Operations a second.
    pub(crate) rate: f64,
    #[serde(flatten)]
    pub(crate) latency: Option<Latency>,
    /// User and system time by process, in µs an operation.
    pub(crate) cpu_us_per_op: BTreeMap<String, f64>,
    /// Syncs of its log by node, as its metrics tell.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) log_syncs: BTreeMap<String, f64>,
    /// What was safe when the caller had its reply.
    pub(crate) durable: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verified: Option<Verified>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failover: Option<Failover>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timers: Option<Timers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fanout: Option<Fanout>,
    pub(crate) floors: Floors,
    pub(crate) machine: Machine,
    pub(crate) targets: Vec<Target>,
}

/// What a reply means for a change.
pub(crate) fn durable(nodes: u32) -> &'static str {
    match nodes {
        1 => "fsync at the only replica before the reply",
        _ => "fsync at a majority of 3 replicas before the reply",
    }
}

/// What a reply means for a read.
pub(crate) const READ: &str = "nothing is written; the owner answers under its lease (linearizable)";

impl Record {
    /// For people.
    pub(crate) fn line(&self) -> String {
        let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let mut line = format!(
            "{} {} node{} {:<6} {} {:<7} {:>4} callers {}",
            self.workload,
            self.nodes,
            if self.nodes == 1 { " " } else { "s" },
            lower(&self.shape),
            lower(&self.via),
            lower(&self.through),
            self.callers,
            lower(&self.pace),
        );
        // Writing into a String does not fail.
        let _ = write!(line, " {:>9.0}/s", self.rate);
        if let Some(l) = self.latency {
            let ms = [l.p50_us, l.p99_us, l.max_us].map(|us| us / 1000.0);
            let _ = write!(line, "  p50 {:.3} p99 {:.3} max {:.1} ms", ms[0], ms[1], ms[2]);
        }
        let cpu: Vec<String> = self
            .cpu_us_per_op
            .iter()
            .map(|(name, us)| format!("{name} {us:.1}"))
            .collect();
        let _ = write!(line, "  errors {}  cpu us/op: {}", self.errors, cpu.join(" "));
        if let Some(m) = self.memory {
            let _ = write!(
                line,
                "\n     {} actors, {} of {} awake: empty {} MiB, now {} MiB, {:.0} B an actor, {:.0} B an added one",
                m.actors,
                m.awake,
                m.sampled,
                m.empty.total >> 20,
                m.now.total >> 20,
                m.per_actor,
                m.per_added_actor
            );
        }
        if let Some(f) = self.failover {
            let _ = write!(
                line,
                "\n     {} kills, {} waits: p50 {:.0} p99 {:.0} max {:.0} ms; others at most {:.0} ms",
                f.kills, f.waits, f.p50_ms, f.p99_ms, f.max_ms, f.others_max_ms
            );
        }
        if let Some(t) = self.timers {
            let _ = write!(
                line,
                "\n     {} timers due within {} s: {} early",
                t.timers, t.within_s, t.early
            );
        }
        if let Some(f) = self.fanout {
            let _ = write!(
                line,
                "\n     {} connections: {:.0} deliveries/s, {} bytes each",
                f.connections, f.rate, f.bytes_each
            );
        }
        if let Some(v) = self.verified.filter(|v| !v.holds()) {
            let _ = write!(
                line,
                "\n     NOT VERIFIED: {} lost, {} never asked for",
                v.lost, v.extra
            );
        }
        for (kind, error) in &self.error_kinds {
            let _ = write!(line, "\n     {} x {kind}: {}", error.count, error.first);
        }
        for target in &self.targets {
            let _ = write!(line, "\n     {target}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_was_never_asked_for_is_told_apart() {
        assert!(Verified::new(10, 0, 10).holds());
        assert!(Verified::new(10, 2, 11).holds());
        assert_eq!(Verified::new(10, 2, 9).lost, 1);
        assert_eq!(Verified::new(10, 2, 13).extra, 1);
        let mut sum = Verified::new(1, 0, 2);
        sum.add(Verified::new(1, 0, 0));
        // One actor's surplus must not hide another's loss.
        assert_eq!((sum.lost, sum.extra, sum.holds()), (1, 1, false));
    }
}
