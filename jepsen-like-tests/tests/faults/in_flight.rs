//! G5: a call that is under way when its owner dies takes effect once, however often it is repeated.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clinch_types::{CallRequest, NodeId};
use jepsen_like_tests::bed::{Bed, READY_MAX, keys};
use jepsen_like_tests::doors::Direct;
use jepsen_like_tests::history::{Answer, Op};
use tokio::task::JoinSet;

use crate::ONE_AT_A_TIME;

/// Kills of an owner with calls under way.
const KILLS: usize = 4;
/// Callers at the moment of the kill.
const CALLERS: usize = 24;
/// Calls that each of them makes.
const CALLS_EACH: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn g5_calls_in_flight_over_a_kill_take_effect_once() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut bed = Bed::start("g5-in-flight").await?;
    let keys = keys("i", 8);
    let mut caught = 0;
    for kill in 0..KILLS {
        let (owner, owned) = bed.busiest(&keys).await?;
        let from = bed.calls.recorder.begun();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (calls, door) = (bed.calls.clone(), bed.roaming());
            let key = owned[caller % owned.len()].clone();
            callers.spawn(async move {
                for _ in 0..CALLS_EACH {
                    let op = calls.increment();
                    calls
                        .call(&door, &format!("caller-{caller}"), &key, op, READY_MAX)
                        .await;
                }
            });
        }
        bed.wait_acknowledged(CALLERS * (1 + kill), READY_MAX).await?;
        bed.calls.recorder.mark(format!("kill -9 of node {owner}"));
        let killed = bed.cluster.kill(owner).await?;
        let killed_ns = bed.calls.recorder.now_ns() - u64::try_from(killed.elapsed().as_nanos())?;
        callers.join_all().await;
        let operations = bed.calls.recorder.operations();
        let mut under_way = operations
            .iter()
            .skip(from)
            .filter(|o| o.invoke_ns < killed_ns && o.return_ns > Some(killed_ns));
        caught += under_way.clone().count();
        // Each was repeated under its request id until it was answered: none may end in doubt.
        ensure!(
            under_way.all(|o| o.meta.is_some()),
            "a call was not answered after the kill of node {owner}"
        );
        bed.cluster.restart(owner)?;
        bed.cluster.wait_ready(READY_MAX).await?;
    }
    ensure!(
        caught >= KILLS,
        "only {caught} calls were under way at a kill: the test proves nothing"
    );
    println!("g5-in-flight: {caught} calls were under way at {KILLS} kills");
    repetitions(&mut bed, &keys[0]).await?;
    let verdict = bed.judge(&keys).await;
    ensure!(
        verdict.unknown == 0,
        "{verdict}: every call was repeated until it was answered"
    );
    bed.pass().await;
    Ok(())
}

/// One request is sent again and again, to every node, after its owner was killed and after all were: it always gets
/// its first answer.
async fn repetitions(bed: &mut Bed, key: &str) -> anyhow::Result<()> {
    let (owner, _) = bed.busiest(&[key.to_owned()]).await?;
    let client = bed.direct(owner)?;
    let op = bed.calls.increment();
    let request = client.request_to_repeat(key, op);
    let id = bed.calls.recorder.invoke("repeated", key, op);
    // The kill strikes while the request is under way, or has just been answered.
    let (first, killed) = tokio::join!(
        client.send(&request, Duration::from_secs(2)),
        bed.cluster.kill(owner)
    );
    killed?;
    bed.calls.recorder.mark(format!(
        "kill -9 of node {owner} under a request that is repeated"
    ));
    let answer = everywhere(bed, &client, &request).await?;
    if let Ok(first) = first {
        ensure!(
            first == answer,
            "the first answer was {first:?}, the repeated one {answer:?}"
        );
    }
    bed.calls.recorder.complete(id, answer.clone());
    bed.cluster.restart(owner)?;
    bed.cluster.wait_ready(READY_MAX).await?;
    let other = bed.calls.increment();
    bed.calls
        .call(&bed.roaming(), "between", key, other, READY_MAX)
        .await;
    bed.calls
        .recorder
        .mark("kill -9 of all nodes between two repetitions");
    bed.cluster.kill_all().await?;
    for node in bed.cluster.nodes() {
        bed.cluster.restart(node)?;
    }
    bed.cluster.wait_ready(READY_MAX).await?;
    for _ in 0..3 {
        let again = everywhere(bed, &client, &request).await?;
        ensure!(
            again == answer,
            "the first answer was {answer:?}, a repetition got {again:?}"
        );
    }
    // A read settles the request: a late copy of it is refused, not executed.
    let (owner, _) = bed.busiest(&[key.to_owned()]).await?;
    let there = client.at(&bed.cluster, owner)?;
    let settle = there.request(key, Op::Read);
    there
        .send(&settle, READY_MAX)
        .await
        .map_err(|no| anyhow::anyhow!("{no:?}"))?;
    let late = there.send(&request, READY_MAX).await;
    ensure!(
        late.as_ref().is_err_and(|no| !no.perhaps),
        "a late copy of a settled request got {late:?}"
    );
    Ok(())
}

/// Sends a request to the running nodes in turn until one has answered.
async fn everywhere(bed: &Bed, client: &Direct, request: &CallRequest) -> anyhow::Result<Answer> {
    let turns = async {
        loop {
            for node in bed.cluster.pids().into_keys().collect::<Vec<NodeId>>() {
                let sent = client
                    .at(&bed.cluster, node)?
                    .send(request, Duration::from_secs(2))
                    .await;
                if let Ok(answer) = sent {
                    return anyhow::Ok(answer);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(READY_MAX, turns)
        .await
        .context("no node answers the repeated request")?
}
