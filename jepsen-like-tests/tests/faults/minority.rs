//! G10: without a majority calls end in time and say which part is missing; with it back, everything is there.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jepsen_like_tests::bed::{Bed, READY_MAX, keys};
use jepsen_like_tests::doors::Door;
use jepsen_like_tests::history::{Answer, Op};
use jepsen_like_tests::workload::{ClientPlan, Load};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ONE_AT_A_TIME;

/// What a call without a majority is given.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How much later it may end: two busy cores.
const GRACE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn g10_a_minority_refuses_in_time_naming_the_shard_and_a_majority_brings_all_back() -> anyhow::Result<()>
{
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut bed = Bed::start_with("g10-minority", |options| {
        let limit = i64::try_from(TIMEOUT.as_millis()).unwrap_or(i64::MAX);
        let http = toml::Table::from_iter([("call-timeout-ms".to_owned(), limit.into())]);
        options.settings.insert("http".into(), http.into());
    })
    .await?;
    let keys = keys("m", 12);
    let load = Load::start(&bed.calls, vec![ClientPlan::new(bed.roaming(), &keys); 3]);
    bed.wait_acknowledged(200, READY_MAX).await?;
    load.stop().await;
    let nodes = bed.cluster.nodes();
    let (alone, dead) = nodes.split_last().context("a cluster has nodes")?;
    for node in dead {
        bed.calls.recorder.mark(format!("kill -9 of node {node}"));
        bed.cluster.kill(*node).await?;
    }
    // The same again when it is long known that nobody owns the shards.
    for round in ["at once", "later"] {
        let mut calls = JoinSet::new();
        for key in &keys {
            for (door, op) in [
                (bed.roaming(), bed.calls.increment()),
                (bed.roaming(), Op::Read),
                (bed.gateway(*alone)?, bed.calls.increment()),
                (bed.gateway(*alone)?, Op::Read),
            ] {
                let (calls_of, key) = (bed.calls.clone(), key.clone());
                let shard = bed.shard_of(&key)?;
                calls.spawn(async move {
                    let begun = Instant::now();
                    // A gateway keeps its own limit; a client that gave up first would not see whether it does.
                    let patience = if matches!(door, Door::Gateway(_)) {
                        3 * TIMEOUT
                    } else {
                        TIMEOUT
                    };
                    let answer = calls_of.call(&door, &door.name(), &key, op, patience).await;
                    (door.name(), op, shard, answer, begun.elapsed())
                });
            }
        }
        let (mut slowest, mut leased) = (Duration::ZERO, 0);
        for (door, op, shard, answer, took) in calls.join_all().await {
            // A surviving owner may read as long as its last lease lasts: nobody else can have been elected meanwhile.
            if round == "at once" && op == Op::Read && answer.is_ok() {
                leased += 1;
                continue;
            }
            refused(&answer, &format!("shard {shard}"))
                .with_context(|| format!("{round}: {op:?} by {door}"))?;
            slowest = slowest.max(took);
            ensure!(
                took < TIMEOUT + GRACE,
                "{round}: {op:?} by {door} took {took:?}, its limit was {TIMEOUT:?}"
            );
        }
        let refused = keys.len() * 4 - leased;
        println!("g10-minority: {round}, {refused} calls were refused, the last after {slowest:?}");
    }
    for node in dead {
        bed.cluster.restart(*node)?;
    }
    bed.calls.recorder.mark("the majority is back");
    bed.cluster.wait_ready(READY_MAX).await?;
    bed.judge(&keys).await;
    bed.pass().await;
    Ok(())
}

/// There is no value, and the reason names the shard.
fn refused(answer: &Answer, shard: &str) -> anyhow::Result<()> {
    ensure!(!answer.is_ok(), "answered without a majority: {answer:?}");
    let error = answer.error.as_deref().unwrap_or_default();
    let named = error
        .split(shard)
        .nth(1)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    ensure!(named, "the reason does not name {shard}: {error:?}");
    Ok(())
}
