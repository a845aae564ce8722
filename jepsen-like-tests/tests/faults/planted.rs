//! The measure of all other tests here: bugs that are planted on purpose must be found in histories of real clusters.
//!
//! None needs a hook in the product: disks that forget are old copies of the nodes' folders, a dedup that does not work
//! is a client that repeats under a new name, a stale read is a client that answers from memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jepsen_like_tests::bed::{Bed, READY_MAX, keys};
use jepsen_like_tests::checkers::{self, Law, Verdict};
use jepsen_like_tests::history::Op;
use jepsen_like_tests::workload::{Calls, ClientPlan, Load};

use crate::ONE_AT_A_TIME;

const TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_forget_what_was_synced_are_caught() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut bed = Bed::start("planted-forgetful-disks").await?;
    let keys = keys("d", 6);
    work(&bed, &keys).await?;
    bed.cluster.kill_all().await?;
    let kept = tempfile::tempdir()?;
    for node in bed.cluster.nodes() {
        copy(&data(&bed, node.0), &kept.path().join(node.to_string()))?;
    }
    restart(&bed).await?;
    work(&bed, &keys).await?;
    bed.calls
        .recorder
        .mark("kill -9 of all nodes, whose disks forget everything since the last time");
    bed.cluster.kill_all().await?;
    for node in bed.cluster.nodes() {
        let data = data(&bed, node.0);
        std::fs::remove_dir_all(&data)?;
        copy(&kept.path().join(node.to_string()), &data)?;
    }
    restart(&bed).await?;
    let verdict = bed.verdict(&keys).await;
    found(&verdict, Law::RealTime)?;
    found(&verdict, Law::Bounds)?;
    // The history goes on from the lost state: versions are taken a second time.
    work(&bed, &keys).await?;
    found(&bed.verdict(&keys).await, Law::OneValue)?;
    bed.pass().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_under_a_new_name_and_a_read_from_memory_are_caught() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let bed = Bed::start("planted-clients").await?;
    let door = bed.roaming();
    let key = &keys("c", 1)[0];
    let sound = Calls::new(bed.seed);
    for _ in 0..20 {
        ensure!(
            sound
                .call(&door, "sound", key, sound.increment(), TIMEOUT)
                .await
                .is_ok(),
            "a call without a fault failed"
        );
    }
    sound
        .read_all(std::slice::from_ref(&door), std::slice::from_ref(key), TIMEOUT)
        .await;
    ensure!(
        checkers::check(&sound.recorder.operations())
            .violations
            .is_empty(),
        "a sound history is accused"
    );

    // The first answer is thrown away, and the increment repeated under a request id of its own.
    let twice = sound.clone();
    let op = twice.increment();
    let id = twice.recorder.invoke("twice", key, op);
    door.call(key, op, TIMEOUT).await;
    twice.recorder.complete(id, door.call(key, op, TIMEOUT).await);
    let verdict = checkers::check(&twice.recorder.operations());
    found(&verdict, Law::Sums)?;
    ensure!(
        verdict
            .violations
            .iter()
            .any(|v| v.text.contains(&format!("operation {id} was applied twice"))),
        "{verdict}"
    );

    // A new key, so that only the new bug is in its history.
    let (memory, key) = (Calls::new(bed.seed), "from-memory");
    let old = memory
        .call(&door, "memory", key, memory.increment(), TIMEOUT)
        .await;
    memory
        .call(&door, "memory", key, memory.increment(), TIMEOUT)
        .await;
    let id = memory.recorder.invoke("memory", key, Op::Read);
    memory.recorder.complete(id, old);
    found(&checkers::check(&memory.recorder.operations()), Law::RealTime)?;
    bed.pass().await;
    Ok(())
}

fn found(verdict: &Verdict, law: Law) -> anyhow::Result<()> {
    ensure!(
        verdict.violations.iter().any(|v| v.law == law),
        "the planted bug does not break {law:?}: {verdict}"
    );
    Ok(())
}

/// Some acknowledged operations on every key.
async fn work(bed: &Bed, keys: &[String]) -> anyhow::Result<()> {
    let load = Load::start(&bed.calls, vec![ClientPlan::new(bed.roaming(), keys); 3]);
    let done = bed.wait_acknowledged(150, READY_MAX).await;
    load.stop().await;
    for key in keys {
        let answer = bed
            .calls
            .call(&bed.roaming(), "work", key, bed.calls.increment(), READY_MAX)
            .await;
        ensure!(answer.is_ok(), "{key} does not answer: {:?}", answer.error);
    }
    done
}

async fn restart(bed: &Bed) -> anyhow::Result<()> {
    for node in bed.cluster.nodes() {
        bed.cluster.restart(node)?;
    }
    bed.cluster.wait_ready(READY_MAX).await
}

fn data(bed: &Bed, node: u64) -> PathBuf {
    bed.cluster.dir().join(format!("node-{node}/data"))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to).with_context(|| format!("writing {}", to.display()))?;
        }
    }
    Ok(())
}
