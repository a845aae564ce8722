//! W5: memory of one node by idle actor that stays awake.
//!
//! Growth is counted whole: the store's cache and the log's memory, which fill up once and then stay, are in it. The
//! growth from one size to the next shows what an actor alone costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clinch::Cluster;
use clinch_types::NodeId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::actors::{BenchCounter, COUNTER_STATE_BYTES};
use crate::bed::Bed;
use crate::bench::Bench;
use crate::caller::{OPERATION_MAX, Via};
use crate::load::Done;
use crate::measure::{self, Case, Sample};
use crate::report::{Memory, Shape, Through, durable};
use crate::tally::{Failure, Tally};
use crate::usage::{self, Resident};

const CALLERS: [usize; 1] = [256];
/// Actors asked whether they are awake.
const SAMPLED: u64 = 1000;
/// Longest wait for the memory of an idle node to stop changing.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// # Errors
/// When a run cannot be made.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let bed = bench.bed(1).await?;
    let callers = bench.options.callers_or(&CALLERS)[0];
    let empty = settled(&bed).await?;
    let (mut had, mut held) = (0, empty);
    let mut sizes = bench.options.memory.clone();
    sizes.sort_unstable();
    for actors in sizes {
        let case = Case {
            workload: "W5",
            what: "create actors that stay awake, then idle",
            shape: Shape::Fresh,
            actors: None,
            via: Via::Quic,
            through: Through::Owner,
            durable: durable(1),
        };
        let load_before = usage::load_average();
        let before = Sample::take(&bed, &bench.retries).await?;
        let done = create(bed.client(), had, actors, callers).await?;
        let after = Sample::take(&bed, &bench.retries).await?;
        let mut record = measure::record(&bed, case, callers, &done, load_before);
        measure::spent(&mut record, &before, &after);
        let now = settled(&bed).await?;
        let sampled = SAMPLED.min(actors);
        let awake = awake(bed.client(), actors, sampled).await?;
        let per = |before: Resident, added: u64| {
            (now.total as f64 - before.total as f64) / added.max(1) as f64 - COUNTER_STATE_BYTES
        };
        record.memory = Some(Memory {
            actors,
            sampled,
            awake,
            empty,
            now,
            state: COUNTER_STATE_BYTES,
            per_actor: per(empty, actors),
            per_added_actor: per(held, actors - had),
        });
        bench.report(record)?;
        (had, held) = (actors, now);
    }
    bed.stop().await;
    Ok(())
}

fn key(number: u64) -> String {
    format!("idle-{number}")
}

/// Creates actors `from..to`.
async fn create(cluster: &Cluster, from: u64, to: u64, callers: usize) -> anyhow::Result<Done> {
    let (next, begun) = (Arc::new(AtomicU64::new(from)), Instant::now());
    let mut creators = JoinSet::new();
    for _ in 0..callers {
        let (next, cluster) = (next.clone(), cluster.clone());
        creators.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return tally;
                }
                let called = Instant::now();
                let actor = cluster.get::<BenchCounter>(key(number));
                let result: Result<i64, Failure> = actor
                    .increment(1)
                    .timeout(OPERATION_MAX)
                    .await
                    .map_err(Into::into);
                let ended = Instant::now();
                tally.effect(&result);
                tally.sample(result, ended - called, ended);
            }
        });
    }
    let mut tally = Tally::default();
    while let Some(one) = creators.join_next().await {
        tally.merge(one?);
    }
    Ok(Done {
        tally,
        elapsed: begun.elapsed(),
    })
}

/// How many of a sample of the first `actors` are awake.
///
/// # Errors
/// When one cannot tell.
async fn awake(cluster: &Cluster, actors: u64, sampled: u64) -> anyhow::Result<u64> {
    let mut awake = 0;
    for sample in 0..sampled {
        let actor = cluster.get::<BenchCounter>(key(sample * actors / sampled.max(1)));
        match actor.get_count().if_active().timeout(OPERATION_MAX).await {
            Ok(_) => awake += 1,
            Err(error) if error.is("actor", "not_active") => {}
            Err(error) => return Err(error).context("asking an idle actor whether it is awake"),
        }
    }
    Ok(awake)
}

/// The node's memory once it has stopped changing, or after a while: checkpoints go on after the last call.
async fn settled(bed: &Bed) -> anyhow::Result<Resident> {
    const EVERY: Duration = Duration::from_secs(1);
    let pid = *bed.cluster.pids().get(&NodeId(1)).context("the node has ended")?;
    let deadline = Instant::now() + SETTLE_MAX;
    let mut last = usage::resident(pid)?;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = usage::resident(pid)?;
        if now.total.abs_diff(last.total) * 500 <= last.total || Instant::now() >= deadline {
            return Ok(now);
        }
        last = now;
    }
}
