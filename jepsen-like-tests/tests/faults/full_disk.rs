//! G1, G10: a disk that fills up under writes. The node says which file it cannot write and ends; what it acknowledged is
//! there when there is room again. In a cluster the others serve on meanwhile.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clinch_types::NodeId;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jepsen_like_tests::bed::{Bed, READY_MAX, keys};
use jepsen_like_tests::workload::{ClientPlan, Load};

use crate::ONE_AT_A_TIME;
use crate::small_disk::SmallDisk;

/// The file system: smaller than one segment of the log, so that every node fills it sooner or later.
const DISK_MIB: u32 = 48;
/// What is left of it when the load runs: a checkpoint or the log needs that much within seconds.
const LEFT: u64 = 256 << 10;
/// Time to write that much, and to give up.
const FULL_MAX: Duration = Duration::from_secs(180);
/// Operations that must be answered before, and again afterwards.
const OPERATIONS: usize = 100;
/// What the system says of a full disk.
const FULL: &str = "No space left on device";

/// A cluster whose first node has its data on a small file system.
async fn bed_on(disk: &SmallDisk, name: &'static str, nodes: u32) -> anyhow::Result<Bed> {
    let mut linked = Ok(());
    let bed = Bed::start_with(name, |options| {
        options.nodes = nodes;
        // A starved node must not be taken for a dead one: what is slow does not fill a disk.
        let calm = [
            ("heartbeat-ms", 200),
            ("election-min-ms", 600),
            ("election-max-ms", 1200),
        ];
        let raft = calm.map(|(name, ms)| (name.to_owned(), toml::Value::from(ms)));
        options
            .settings
            .insert("raft".into(), toml::Table::from_iter(raft).into());
        let folder = options.dir.join("node-1");
        linked = std::fs::create_dir_all(&folder)
            .and_then(|()| std::os::unix::fs::symlink(disk.path(), folder.join("data")));
    })
    .await?;
    linked.context("putting the data on the small file system")?;
    Ok(bed)
}

/// Waits until the first node has ended, for the time of this number, and checks what it said last.
async fn ends_of_it(bed: &Bed, times: usize) -> anyhow::Result<()> {
    let node = NodeId(1);
    let ended = tokio::time::timeout(FULL_MAX, bed.cluster.exited(node)).await;
    let log = std::fs::read_to_string(bed.cluster.log(node))?;
    let status = ended.with_context(|| format!("it goes on with a full disk:\n{log}"))??;
    ensure!(status.code() == Some(1), "it ended with {status}:\n{log}");
    let data = bed.cluster.dir().join("node-1/data").display().to_string();
    // The last word of the program; what the log says before is for those who read logs.
    let last_words = log.lines().filter(|line| line.starts_with("clinch: "));
    let said = last_words
        .filter(|line| line.contains(FULL) && line.contains(&data))
        .count();
    ensure!(
        said == times,
        "it says {said} times what is full, not {times}:\n{log}"
    );
    ensure!(!log.contains("panicked"), "it panicked:\n{log}");
    Ok(())
}

/// Calls an action that takes longer than the disk takes to fill, until it has no result: the body of what it got instead.
/// It does not repeat anything, so that is the first thing its caller is told.
async fn told_instead(gateway: String) -> anyhow::Result<String> {
    let uri = format!(
        "{gateway}/gateway/echo/action/slow?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=slow"
    );
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    loop {
        let request = Request::post(&uri)
            .header("content-type", "application/json")
            .body(Full::from(r#"{"args":[50000]}"#))?;
        let answer = client.request(request).await?;
        if !answer.status().is_success() {
            let body = answer.into_body().collect().await?.to_bytes();
            return Ok(String::from_utf8_lossy(&body).into_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_node_whose_disk_is_full_says_so_and_keeps_what_it_acknowledged() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(disk) = SmallDisk::new(DISK_MIB)? else {
        return Ok(());
    };
    let mut bed = bed_on(&disk, "g1-full-disk", 1).await?;
    let keys = keys("f", 12);
    let mut plans = vec![ClientPlan::new(bed.roaming(), &keys); 8];
    plans.extend(vec![ClientPlan::new(bed.gateway(NodeId(1))?, &keys); 8]);
    let load = Load::start(&bed.calls, plans);
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    let gateways = bed.cluster.gateways();
    let waits = tokio::spawn(told_instead(gateways[&NodeId(1)].clone()));
    disk.leave(LEFT)?;
    bed.calls.recorder.mark("the disk is nearly full");
    ends_of_it(&bed, 1).await?;
    let told = waits.await??;
    ensure!(told.contains(FULL), "who waits for an answer is told: {told}");
    // Started again while it is full, it says the same, or it serves with what is left until that is used up.
    bed.cluster.restart(NodeId(1))?;
    ends_of_it(&bed, 2).await?;
    disk.make_room()?;
    bed.cluster.restart(NodeId(1))?;
    bed.cluster.wait_ready(READY_MAX).await?;
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    load.stop().await;
    bed.judge(&keys).await;
    bed.pass().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g10_the_others_take_over_from_a_node_whose_disk_is_full() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(disk) = SmallDisk::new(DISK_MIB)? else {
        return Ok(());
    };
    let mut bed = bed_on(&disk, "g1-full-disk-of-three", 3).await?;
    let keys = keys("f", 24);
    let mut plans = vec![ClientPlan::new(bed.roaming(), &keys); 4];
    for node in bed.cluster.nodes() {
        plans.extend(vec![ClientPlan::new(bed.gateway(node)?, &keys); 3]);
    }
    let load = Load::start(&bed.calls, plans);
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    disk.leave(LEFT)?;
    bed.calls.recorder.mark("the disk of node 1 is nearly full");
    ends_of_it(&bed, 1).await?;
    let owned = bed.owned_by(NodeId(1), &keys).await?;
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    for key in &keys {
        let op = bed.calls.increment();
        let answer = bed
            .calls
            .call(&bed.gateway(NodeId(2))?, "after", key, op, READY_MAX)
            .await;
        ensure!(
            answer.is_ok(),
            "{key} is not served by the others ({} were owned by the full one): {:?}",
            owned.len(),
            answer.error
        );
    }
    disk.make_room()?;
    bed.cluster.restart(NodeId(1))?;
    bed.cluster.wait_ready(READY_MAX).await?;
    bed.wait_acknowledged(OPERATIONS, READY_MAX).await?;
    load.stop().await;
    bed.judge(&keys).await;
    bed.pass().await;
    Ok(())
}
