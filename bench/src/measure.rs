//! One run: load on a cluster, with what it cost in CPU time and syncs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bed::Bed;
use crate::caller::Via;
use crate::load::{Caller, Done, Load, Pace, Plan};
use crate::report::{Loop, Machine, Record, Shape, Through};
use crate::scrape::{self, Retries};
use crate::usage;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) workload: &'static str,
    pub(crate) what: &'static str,
    pub(crate) shape: Shape,
    pub(crate) actors: Option<usize>,
    pub(crate) via: Via,
    pub(crate) through: Through,
    pub(crate) durable: &'static str,
}

/// Counters of all processes at one moment.
pub(crate) struct Sample {
    cpu: BTreeMap<String, Duration>,
    syncs: BTreeMap<String, f64>,
    retries: u64,
}

impl Sample {
    /// Reads them now. A node that does not answer is left out.
    pub(crate) async fn take(bed: &Bed, retries: &Retries) -> anyhow::Result<Self> {
        let mut cpu = BTreeMap::from([("client".to_owned(), usage::cpu(std::process::id())?)]);
        for (node, pid) in bed.cluster.pids() {
            if let Ok(used) = usage::cpu(pid) {
                cpu.insert(format!("node{node}"), used);
            }
        }
        let retries = retries.count();
        let told = bed.metrics().await;
        let syncs = told
            .iter()
            .filter_map(|(node, text)| Some((format!("node{node}"), scrape::syncs(text)?)))
            .collect();
        Ok(Self { cpu, syncs, retries })
    }

    /// CPU time since, in µs an operation. A process that was started again in between began at zero.
    fn cpu_us_per_op(&self, after: &Self, ops: u64) -> BTreeMap<String, f64> {
        let used = |(name, now): (&String, &Duration)| {
            let used = now.saturating_sub(self.cpu.get(name).copied().unwrap_or_default());
            (name.clone(), used.as_secs_f64() * 1e6 / ops.max(1) as f64)
        };
        after.cpu.iter().map(used).collect()
    }

    fn log_syncs(&self, after: &Self) -> BTreeMap<String, f64> {
        let made = |(name, now): (&String, &f64)| Some((name.clone(), now - self.syncs.get(name)?));
        after.syncs.iter().filter_map(made).collect()
    }
}

/// Runs callers on a cluster.
///
/// # Errors
/// When the run itself cannot be made; what its operations met is in the record.
pub(crate) async fn run<C: Caller>(
    bed: &Bed,
    retries: &Retries,
    case: Case,
    callers: Vec<C>,
    plan: Plan,
) -> anyhow::Result<(Record, Done)> {
    let load_before = usage::load_average();
    let count = callers.len();
    let load = Load::start(callers, plan)?;
    load.warmed_up().await;
    let before = Sample::take(bed, retries).await?;
    let done = load.finish().await?;
    let after = Sample::take(bed, retries).await?;
    let mut record = record(bed, case, count, &done, load_before);
    (record.pace, record.offered) = match plan.pace {
        Pace::Closed => (Loop::Closed, None),
        Pace::Open(rate) => (Loop::Open, Some(rate)),
    };
    spent(&mut record, &before, &after);
    Ok((record, done))
}

/// Fills in what a run cost.
pub(crate) fn spent(record: &mut Record, before: &Sample, after: &Sample) {
    record.cpu_us_per_op = before.cpu_us_per_op(after, record.ops);
    record.log_syncs = before.log_syncs(after);
    record.retries = after.retries - before.retries;
}

/// What was counted, as a record; what it cost is filled in by [`spent`].
pub(crate) fn record(bed: &Bed, case: Case, callers: usize, done: &Done, load_before: Option<f64>) -> Record {
    let (tally, seconds) = (&done.tally, done.elapsed.as_secs_f64());
    Record {
        workload: case.workload,
        what: case.what,
        nodes: bed.nodes,
        shape: case.shape,
        actors: case.actors,
        via: case.via,
        through: case.through,
        pace: Loop::Closed,
        callers,
        offered: None,
        seconds,
        ops: tally.ops(),
        errors: tally.error_count(),
        error_kinds: tally.errors().clone(),
        retries: 0,
        rate: if seconds > 0.0 {
            tally.ops() as f64 / seconds
        } else {
            0.0
        },
        latency: tally.latency(),
        cpu_us_per_op: BTreeMap::new(),
        log_syncs: BTreeMap::new(),
        durable: case.durable,
        verified: None,
        memory: None,
        failover: None,
        timers: None,
        fanout: None,
        floors: bed.floors,
        machine: Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load_before,
            file_system: bed.file_system.clone(),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
        },
        targets: Vec::new(),
    }
}
