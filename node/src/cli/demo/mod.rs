//! `clinch demo`: a real cluster, a load, `kill -9`, and proof that nothing acknowledged was lost.
//!
//! Invariant: exit code 0 says that every increment that was acknowledged is in the final counts, read back through
//! other gateways than it was written by, and that no answer contradicted another.
//! Not here: the cluster (`local`) and the rules of the proof (`ledger`).

mod door;
mod faults;
mod ledger;
mod load;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clinch_client::HttpClient;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use self::door::{Door, Via};
use self::faults::Outages;
use self::ledger::Verdict;
use self::load::Run;
use self::report::Report;
use super::config_file;
use super::exit::{Failure, Outcome, ResultExt as _};
use super::local::{LocalCluster, LocalOptions, Ports};
use super::start::EXAMPLE_ACTORS;
use super::terminal::{Progress, grouped, print};

/// Time until a new cluster must serve.
const READY_MAX: Duration = Duration::from_secs(60);
/// How many counters are read back at once.
const READERS: usize = 32;
/// How long one counter may take to be read back, retries included.
const READ_BACK_MAX: Duration = Duration::from_secs(30);

/// Prove it: a cluster under load, kill -9, and not one acknowledged write lost
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clinch demo\n  clinch demo --increments 1000000 --kills 30 --kill-all 3\n\n\
                        Starts real processes, increments counters through them, kills the owner of most shards \
                        under load, restarts it, and at the end compares every counter with what its callers were \
                        told. The last line on stdout is the result as JSON; the exit code is 0 only if nothing was \
                        lost and nothing was wrong."
)]
pub(crate) struct Args {
    /// Acknowledged increments to reach, at least
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    increments: u64,
    /// Counters to spread them over
    #[arg(long, default_value_t = 1000, value_parser = bounded(1, 1_000_000))]
    actors: usize,
    /// Callers, each with one call at a time
    #[arg(long, default_value_t = 64, value_parser = bounded(1, 10_000))]
    callers: usize,
    /// How often an owner is killed (and restarted) under load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// How often all nodes are killed at once (and restarted) under load
    #[arg(long, value_name = "ROUNDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kill_all: u32,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    nodes: u32,
    /// How callers reach the cluster
    #[arg(long, value_enum, default_value_t = Via::Quic)]
    via: Via,
    /// Where the cluster lives meanwhile; default: a new ./clinch-demo
    ///
    /// Removed afterwards, if the demo made it and all went well.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Do not remove the folder
    #[arg(long)]
    keep: bool,
    /// A setting for the configuration of all nodes, as in raft.heartbeat-ms=100; may be repeated
    #[arg(long = "set", value_name = "SETTING=VALUE", value_parser = config_file::setting)]
    settings: Vec<toml::Table>,
    /// Seconds after which the demo gives up
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

fn bounded(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{text} is no number from {min} to {max}")),
    }
}

pub(crate) async fn run(args: Args) -> Outcome {
    let dir = args.dir.clone().unwrap_or_else(fresh_dir);
    let made = !dir.exists();
    let options = LocalOptions {
        nodes: args.nodes,
        ports: Ports::Auto,
        settings: config_file::settings(&args.settings),
        arguments: vec![EXAMPLE_ACTORS.into()],
        ..LocalOptions::new(dir, std::env::current_exe()?)
    };
    let cluster = LocalCluster::start(options).await?;
    let mut progress = Progress::new();
    let limit = Duration::from_secs(args.timeout);
    let outcome = tokio::select! {
        done = tokio::time::timeout(limit, prove(&args, &cluster, &mut progress)) => match done {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::failed(format!("not done after {limit:?}"))),
        },
        asked = super::asked_to_end() => {
            asked?;
            Err(Failure::failed("interrupted"))
        }
    };
    drop(progress);
    cluster.stop_all().await;
    let dir = cluster.dir().to_owned();
    drop(cluster);
    let report = match outcome {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("the folder {} is kept, with the nodes' logs", dir.display());
            return Err(failure);
        }
    };
    let faults = report.faults(&args);
    eprintln!("{}", report.summary());
    clean_up(&dir, made && faults.is_empty() && !args.keep);
    print(&report.json())?;
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "verification failed: {}",
            faults.join("; ")
        ))),
    }
}

/// A folder that is not there yet: what an earlier demo left behind is evidence.
fn fresh_dir() -> PathBuf {
    let numbered = (2..).map(|number| PathBuf::from(format!("./clinch-demo-{number}")));
    let mut names = std::iter::once(PathBuf::from("./clinch-demo")).chain(numbered);
    names
        .find(|name| !name.exists())
        .expect("there are more numbers than folders")
}

fn clean_up(dir: &Path, remove: bool) {
    if !remove {
        eprintln!("data and logs are in {}", dir.display());
    } else if let Err(error) = std::fs::remove_dir_all(dir) {
        // The result stands, whatever becomes of the folder.
        eprintln!("the folder {} stays: {error}", dir.display());
    }
}

/// The load with its faults, then the comparison.
async fn prove(args: &Args, cluster: &LocalCluster, progress: &mut Progress) -> Outcome<Report> {
    progress.update(&format!(
        "starting {} nodes in {}",
        args.nodes,
        cluster.dir().display()
    ));
    cluster.wait_ready(READY_MAX).await.unavailable()?;
    let pids: Vec<String> = cluster
        .pids()
        .iter()
        .map(|(node, pid)| format!("node {node}: pid {pid}"))
        .collect();
    progress.line(&format!("{} nodes are ready ({})", args.nodes, pids.join(", ")));
    // Also when the load goes over HTTP: it knows which counter lives in which shard.
    let client = cluster.client().await.unavailable()?;
    let gateways: Vec<String> = cluster.gateways().into_values().collect();
    let door = match args.via {
        Via::Quic => Door::Quic(client.cluster().clone()),
        Via::Http => Door::http(&gateways),
    };
    let run = Arc::new(Run::new(args.actors, door));
    let begun = Instant::now();
    let mut callers = run.start(args.callers);
    let mut outages = Outages::default();
    let plan = faults::plan(args.kills, args.kill_all);
    let router = client.cluster().router();
    for (index, &fault) in (1u64..).zip(&plan) {
        let mark = args.increments * index / (plan.len() as u64 + 1);
        watched(progress, &run, args, begun, run.ledger.reach(mark)).await;
        let strike = outages.strike(fault, cluster, router, &run);
        let told = watched(progress, &run, args, begun, Box::pin(strike))
            .await
            .unavailable()?;
        progress.line(&told);
    }
    watched(progress, &run, args, begun, run.ledger.reach(args.increments)).await;
    let took = begun.elapsed();
    run.stop();
    // A node that ended by itself is a failure, however well the others did without it.
    cluster.wait_ready(READY_MAX).await.unavailable()?;
    while let Some(ended) = callers.join_next().await {
        ended
            .context("a caller of the demo failed")
            .map_err(Failure::from)?;
    }
    progress.update(&format!(
        "comparing {} counters with what their callers were told",
        args.actors
    ));
    let verdict = compare(&run, &gateways).await.unavailable()?;
    for finding in run.ledger.told() {
        progress.line(&finding);
    }
    Ok(Report::new(args, run.ledger.totals(), verdict, &outages, took))
}

/// Shows how far the load is until `work` is done.
async fn watched<T>(
    progress: &mut Progress,
    run: &Run,
    args: &Args,
    begun: Instant,
    work: impl Future<Output = T>,
) -> T {
    let every = if progress.is_live() {
        Duration::from_millis(200)
    } else {
        Duration::from_secs(2)
    };
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => {
                let totals = run.ledger.totals();
                let rate = totals.acknowledged as f64 / begun.elapsed().as_secs_f64().max(0.001);
                progress.update(&format!(
                    "{} of {} acknowledged, {}/s, {} errors, {} wrong",
                    grouped(totals.acknowledged),
                    grouped(args.increments),
                    grouped(rate as u64),
                    grouped(totals.errors),
                    grouped(totals.wrong),
                ));
            }
        }
    }
}

/// Reads every counter back through two gateways, different ones for neighbouring counters.
async fn compare(run: &Run, gateways: &[String]) -> anyhow::Result<Verdict> {
    let clients: Vec<HttpClient> = gateways
        .iter()
        .map(|g| HttpClient::new(g, None, READ_BACK_MAX))
        .collect();
    let read = |actor: usize| {
        let clients = &clients;
        async move {
            let first = read_back(&clients[actor % clients.len()], &run.keys[actor]).await?;
            let second = read_back(&clients[(actor + 1) % clients.len()], &run.keys[actor]).await?;
            let mut verdict = run.ledger.judge(actor, first);
            // Nothing is in flight: two gateways must not differ.
            verdict.wrong += u64::from(first != second);
            anyhow::Ok(verdict)
        }
    };
    let all = stream::iter(0..run.ledger.len())
        .map(read)
        .buffer_unordered(READERS);
    all.try_fold(Verdict::default(), |sum, one| async move {
        Ok(Verdict {
            lost: sum.lost + one.lost,
            wrong: sum.wrong + one.wrong,
        })
    })
    .await
}

async fn read_back(client: &HttpClient, key: &str) -> anyhow::Result<i64> {
    let deadline = Instant::now() + READ_BACK_MAX;
    loop {
        match client
            .call("counter", &[key.to_owned()], "getCount", json!([]))
            .await
        {
            Ok(value) => {
                return value
                    .as_i64()
                    .with_context(|| format!("the count of {key} is {value}, no number"));
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(anyhow::Error::new(error).context(format!("reading {key} back")));
            }
            // Reads change nothing: they may be repeated until the cluster has settled after the last fault.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
