//! G1: nothing acknowledged is lost when all nodes are killed at once.

use std::process::Command;
use std::time::Duration;

use jepsen_like_tests::bed::{Bed, READY_MAX, keys, number};
use jepsen_like_tests::workload::{ClientPlan, Load};
use jepsen_like_tests::{checkers, history};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::ONE_AT_A_TIME;

/// Operations that must have been answered between two kills.
const OPERATIONS_BETWEEN: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn g1_kill_all_nodes_at_once_loses_nothing_acknowledged() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rounds = number("CLINCH_KILL_ROUNDS", 20);
    let mut bed = Bed::start("g1-kill-all").await?;
    let keys = keys("k", 12);
    let mut plans = vec![ClientPlan::new(bed.roaming(), &keys); 4];
    for node in bed.cluster.nodes() {
        plans.push(ClientPlan::new(bed.gateway(node)?, &keys));
    }
    let load = Load::start(&bed.calls, plans);
    let mut rng = StdRng::seed_from_u64(bed.seed);
    for round in 1..=rounds {
        bed.wait_acknowledged(OPERATIONS_BETWEEN, READY_MAX).await?;
        // Any moment of a batch, a sync or a checkpoint (one a second) may be hit.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
        bed.calls
            .recorder
            .mark(format!("kill -9 of all nodes, round {round}"));
        bed.cluster.kill_all().await?;
        for node in bed.cluster.nodes() {
            bed.cluster.restart(node)?;
        }
        bed.cluster.wait_ready(READY_MAX).await?;
    }
    bed.wait_acknowledged(OPERATIONS_BETWEEN, READY_MAX).await?;
    load.stop().await;
    let verdict = bed.judge(&keys).await;
    assert_eq!(bed.calls.recorder.marks().len() as u64, rounds);
    assert!(
        verdict.acknowledged as u64 >= rounds * OPERATIONS_BETWEEN as u64,
        "{verdict}"
    );
    // The file of a real run is judged by the program that judges simulated ones, and found to be the same.
    let file = tempfile::NamedTempFile::new()?;
    bed.calls.recorder.save(file.path())?;
    assert_eq!(checkers::check(&history::load(file.path())?), verdict);
    let judged = Command::new(env!("CARGO_BIN_EXE_jepsen-like-tests"))
        .arg("history")
        .arg(file.path())
        .output()?;
    let told = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(
        judged.status.success() && told.contains(&verdict.to_string()),
        "{told}"
    );
    bed.pass().await;
    Ok(())
}
