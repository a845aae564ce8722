//! `clinch up`: a local cluster of processes that runs until it is asked to end.

use std::path::PathBuf;
use std::time::Duration;

use clinch_types::NodeId;
use futures_util::future::select_all;
use serde_json::json;

use super::config_file;
use super::exit::{Outcome, ResultExt as _};
use super::local::{LocalCluster, LocalOptions, NODES_MAX, Ports};
use super::terminal::print;

/// Run a local cluster of several processes
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clinch up --nodes 3\n\n\
                        Prints a line that begins with `ready` when every node serves. Started again on the same \
                        folder, the cluster goes on with its data. Ctrl-C stops all nodes.")]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Gateways on this port and the following ones; QUIC 1,000 above
    #[arg(long, value_name = "PORT", default_value_t = 6420, value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// Where certificates, configurations, data and logs go
    #[arg(long, value_name = "DIR", default_value = "./clinch-cluster")]
    dir: PathBuf,
    /// Shards of a new cluster
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: u32,
    /// Seconds until all nodes must serve
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    ready_timeout: u64,
    /// A setting for the configuration of all nodes, as in raft.heartbeat-ms=100; may be repeated
    #[arg(long = "set", value_name = "SETTING=VALUE", value_parser = config_file::setting)]
    settings: Vec<toml::Table>,
    /// Say what happens as lines of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let options = LocalOptions {
        nodes: args.nodes,
        ports: Ports::Base(args.base_port),
        shards: args.shards,
        settings: config_file::settings(&args.settings),
        ..LocalOptions::new(&args.dir, std::env::current_exe()?)
    };
    let cluster = LocalCluster::start(options).await?;
    let outcome = tokio::select! {
        served = serve(&cluster, &args) => served,
        asked = super::asked_to_end() => Ok(asked?),
    };
    if !args.json {
        eprintln!("stopping {} nodes", cluster.pids().len());
    }
    cluster.stop_all().await;
    outcome
}

/// Waits until all is well, then reports each node that ends. Returns only when there is nothing left to wait for.
async fn serve(cluster: &LocalCluster, args: &Args) -> Outcome {
    cluster
        .wait_ready(Duration::from_secs(args.ready_timeout))
        .await
        .unavailable()?;
    print(&match args.json {
        true => ready_json(cluster),
        false => ready_text(cluster),
    })?;
    let mut running = cluster.nodes();
    while !running.is_empty() {
        let ends = running
            .iter()
            .map(|&node| Box::pin(async move { (node, cluster.exited(node).await) }));
        let ((node, status), _, _) = select_all(ends).await;
        let status = status?;
        running.retain(|n| *n != node);
        match args.json {
            true => print(&json!({"ended": node, "status": status.to_string()}).to_string())?,
            false => eprintln!(
                "node {node} ended ({status}); its log is {}",
                cluster.log(node).display()
            ),
        }
    }
    Err(anyhow::anyhow!("no node is left").into())
}

fn ready_text(cluster: &LocalCluster) -> String {
    let pids = cluster.pids();
    let nodes: Vec<String> = cluster
        .gateways()
        .iter()
        .map(|(node, gateway)| format!("{gateway} (node {node}, pid {})", pid(&pids, *node)))
        .collect();
    let try_it = cluster
        .gateways()
        .values()
        .next()
        .map(|g| super::dev::curl(g))
        .unwrap_or_default();
    format!(
        "ready {}\n  data and logs  {}\n  certificates   {}\n  try            {try_it}\nCtrl-C stops all nodes.",
        nodes.join(", "),
        cluster.dir().display(),
        cluster.cert_dir().display(),
    )
}

fn ready_json(cluster: &LocalCluster) -> String {
    let (pids, addresses) = (cluster.pids(), cluster.addresses());
    let nodes: Vec<_> = cluster
        .gateways()
        .iter()
        .map(|(node, gateway)| {
            json!({
                "node": node, "gateway": gateway, "address": addresses.get(node), "pid": pids.get(node),
                "log": cluster.log(*node).display().to_string(),
            })
        })
        .collect();
    let (dir, certs) = (
        cluster.dir().display().to_string(),
        cluster.cert_dir().display().to_string(),
    );
    json!({"ready": true, "nodes": nodes, "dir": dir, "certs": certs}).to_string()
}

fn pid(pids: &std::collections::BTreeMap<NodeId, u32>, node: NodeId) -> String {
    pids.get(&node).map_or_else(|| "ended".into(), u32::to_string)
}
