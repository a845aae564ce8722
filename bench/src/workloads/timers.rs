//! W7: timers. Many actors, each with one schedule; all of them are due within a few seconds.
//!
//! Lateness is what the actor sees: its clock when the action begins, less the time it was due at. Its latencies are in
//! this run's percentiles. A schedule may be late, never early.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clinch::Cluster;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::actors::BenchTimer;
use crate::bench::Bench;
use crate::caller::Via;
use crate::load::Done;
use crate::measure::{self, Case, Sample};
use crate::report::{Shape, Through, Timers, durable};
use crate::tally::{Failure, Tally};
use crate::usage;
use crate::workloads::{IN_FLIGHT, PREPARE_MAX};

/// All timers are due within this time.
const SPAN: Duration = Duration::from_secs(5);
/// Time to set them in, before the first is due: a part for all, and one for each.
const SETTING: Duration = Duration::from_secs(3);
const SETTING_EACH: Duration = Duration::from_millis(3);
/// How long after the last one is due they may take to fire.
const FIRED_MAX: Duration = Duration::from_secs(60);
/// Pause before an actor is asked again whether its timer has fired.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// # Errors
/// When a run cannot be made.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let nodes = bench.options.nodes;
    let bed = bench.bed(nodes).await?;
    let timers = u64::from(bench.options.timers);
    let load_before = usage::load_average();
    let first = now()? + SETTING + SETTING_EACH * u32::try_from(timers).unwrap_or(u32::MAX);
    set(bed.client(), timers, first).await?;
    let left = first.checked_sub(now()?);
    let left = left.context("the timers could not be set before the first was due")?;
    tokio::time::sleep(left).await;
    let before = Sample::take(&bed, &bench.retries).await?;
    tokio::time::sleep(SPAN).await;
    let (tally, early) = fired(bed.client(), timers).await?;
    let after = Sample::take(&bed, &bench.retries).await?;
    let case = Case {
        workload: "W7",
        what: "fire timers; latencies are how late they were",
        shape: Shape::Own,
        actors: usize::try_from(timers).ok(),
        via: Via::Quic,
        through: Through::Owner,
        durable: durable(nodes),
    };
    let done = Done { tally, elapsed: SPAN };
    let mut record = measure::record(&bed, case, 0, &done, load_before);
    measure::spent(&mut record, &before, &after);
    let within_s = SPAN.as_secs_f64();
    record.timers = Some(Timers {
        timers,
        within_s,
        early,
    });
    bench.report(record)?;
    bed.stop().await;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the wall time that timers of this machine are due by"
)]
fn now() -> anyhow::Result<Duration> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")
}

fn key(number: u64) -> String {
    format!("timer-{number}")
}

/// Sets one timer in each of so many actors, due evenly from `first` on.
async fn set(cluster: &Cluster, timers: u64, first: Duration) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut setters = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, cluster) = (next.clone(), cluster.clone());
        setters.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= timers {
                    return anyhow::Ok(());
                }
                let due = first + SPAN.mul_f64(number as f64 / timers as f64);
                let due = u64::try_from(due.as_millis())?;
                let actor = cluster.get::<BenchTimer>(key(number));
                actor.set(due).timeout(PREPARE_MAX).await?;
            }
        });
    }
    while let Some(one) = setters.join_next().await {
        one??;
    }
    Ok(())
}

/// How late each one fired, and how many were early.
async fn fired(cluster: &Cluster, timers: u64) -> anyhow::Result<(Tally, u64)> {
    let deadline = Instant::now() + FIRED_MAX;
    let next = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, cluster) = (next.clone(), cluster.clone());
        readers.spawn(async move {
            let (mut tally, mut early) = (Tally::default(), 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= timers {
                    return anyhow::Ok((tally, early));
                }
                let actor = cluster.get::<BenchTimer>(key(number));
                let mut late = actor.fired().timeout(PREPARE_MAX).await?;
                while late.is_empty() && Instant::now() < deadline {
                    tokio::time::sleep(ASK_AGAIN).await;
                    late = actor.fired().timeout(PREPARE_MAX).await?;
                }
                let ended = Instant::now();
                let result = match late[..] {
                    [late] if late < 0 => {
                        early += 1;
                        Err(Failure::refused("bench.early", format!("{} ms early", -late)))
                    }
                    [late] => Ok(late.unsigned_abs()),
                    [] => Err(Failure::refused("bench.not_fired", "it has not fired")),
                    _ => Err(Failure::refused("bench.fired_twice", "it has fired twice")),
                };
                let late = Duration::from_millis(*result.as_ref().unwrap_or(&0));
                tally.effect(&result);
                tally.sample(result, late, ended);
            }
        });
    }
    let (mut tally, mut early) = (Tally::default(), 0);
    while let Some(one) = readers.join_next().await {
        let (part, part_early) = one??;
        tally.merge(part);
        early += part_early;
    }
    ensure!(tally.ops() > 0, "no timer has fired");
    Ok((tally, early))
}
