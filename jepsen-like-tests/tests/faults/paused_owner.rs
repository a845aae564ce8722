//! G2: an owner that stops for longer than its lease is replaced, and is harmless when it goes on.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clinch_types::NodeId;
use jepsen_like_tests::bed::{Bed, READY_MAX, keys};
use jepsen_like_tests::doors::Door;
use jepsen_like_tests::history::{Operation, Recorder};
use jepsen_like_tests::workload::{ClientPlan, Load};

use crate::ONE_AT_A_TIME;

/// How often an owner is stopped.
const PAUSES: usize = 4;
/// Many times the lease (300 ms) and any election; still below QUIC's idle timeout (5 s) and over it, in turns, so that
/// calls wait in the stopped node both in live connections and in dead ones.
const PAUSE_MS: [u64; 2] = [2000, 6000];
/// Operations that others must have been answered while the owner is stopped, and again after it goes on.
const OPERATIONS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_stopped_owner_neither_commits_nor_answers_stale_reads() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut bed = Bed::start("g2-paused-owner").await?;
    let keys = keys("p", 12);
    let mut plans = vec![ClientPlan::new(bed.roaming(), &keys); 3];
    for node in bed.cluster.nodes() {
        plans.push(ClientPlan::new(bed.gateway(node)?, &keys));
        for _ in 0..4 {
            plans.push(ClientPlan::new(Door::Direct(bed.direct(node)?), &keys));
        }
    }
    let load = Load::start(&bed.calls, plans);
    let mut held = 0;
    for pause in 0..PAUSES {
        bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
        held += stop_and_go_on(
            &bed,
            &keys,
            Duration::from_millis(PAUSE_MS[pause % PAUSE_MS.len()]),
        )
        .await?;
    }
    load.stop().await;
    bed.judge(&keys).await;
    println!("g2-paused-owner: {held} calls were in the hands of a stopped owner when it went on");
    ensure!(
        held >= PAUSES,
        "only {held} calls met a stopped owner: the test proves nothing"
    );
    bed.pass().await;
    Ok(())
}

/// Stops the owner of most counters until all of them are served by others, lets it go on, and returns how many calls
/// of the clients pinned to it were open then.
async fn stop_and_go_on(bed: &Bed, keys: &[String], least: Duration) -> anyhow::Result<usize> {
    let recorder = &bed.calls.recorder;
    let (owner, owned) = bed.busiest(keys).await?;
    let before = recorder.begun();
    recorder.mark(format!(
        "node {owner}, owner of {} counters, is stopped",
        owned.len()
    ));
    bed.cluster.pause(owner)?;
    all_stopped(bed.cluster.pids()[&owner]).await?;
    let stopped_ns = recorder.now_ns();
    let min = tokio::time::sleep(least);
    for key in &owned {
        let op = bed.calls.increment();
        let answer = bed
            .calls
            .call(&bed.roaming(), "during the pause", key, op, READY_MAX)
            .await;
        ensure!(
            answer.is_ok(),
            "{key} is not served while node {owner} is stopped: {:?}",
            answer.error
        );
        let epoch = answer.meta.map_or(0, |m| m.epoch);
        let old = last_epoch_before(recorder, key, stopped_ns);
        ensure!(
            epoch > old,
            "{key} was answered in epoch {epoch} while its owner of epoch {old} was stopped"
        );
    }
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    min.await;
    recorder.mark(format!("node {owner} goes on"));
    let resumed_ns = recorder.now_ns();
    bed.cluster.resume(owner)?;
    bed.cluster.wait_ready(READY_MAX).await?;
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    Ok(recorder
        .operations()
        .iter()
        .skip(before.saturating_sub(64))
        .filter(|o| held(o, owner, resumed_ns))
        .count())
}

/// Waits until no thread of a process runs any more: the signal returns before, and what a client begins meanwhile may
/// still be committed by the old owner.
async fn all_stopped(pid: u32) -> anyhow::Result<()> {
    let stopped = async {
        while !threads(pid)?.iter().all(|state| *state == 'T') {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    tokio::time::timeout(READY_MAX, stopped)
        .await
        .with_context(|| format!("process {pid} does not stop"))?
}

/// The state of each thread of a process.
fn threads(pid: u32) -> anyhow::Result<Vec<char>> {
    let mut states = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let told = match std::fs::read_to_string(thread?.path().join("stat")) {
            Ok(told) => told,
            // A thread that has ended meanwhile.
            Err(_) => continue,
        };
        // Behind the name, which may hold anything, in parentheses.
        let state = told
            .rsplit(')')
            .next()
            .and_then(|rest| rest.trim().chars().next());
        states.push(state.context("a state")?);
    }
    Ok(states)
}

/// The epoch that last answered for a counter before a moment.
fn last_epoch_before(recorder: &Recorder, key: &str, at_ns: u64) -> u64 {
    let operations = recorder.operations();
    let answered = operations
        .iter()
        .filter(|o| o.key == key && o.return_ns.is_some_and(|at| at < at_ns));
    answered
        .filter_map(|o| o.meta.as_ref())
        .map(|m| m.epoch)
        .max()
        .unwrap_or(0)
}

/// Whether a client pinned to the node waited for its answer when it went on.
fn held(operation: &Operation, node: NodeId, resumed_ns: u64) -> bool {
    let pinned = operation.client.ends_with(&format!("direct-{node}"))
        || operation.client.ends_with(&format!("gateway-{node}"));
    pinned && operation.invoke_ns < resumed_ns && operation.return_ns.is_none_or(|at| at > resumed_ns)
}
