//! `clinch dev`: one node in this process, with everything made that it needs.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clinch_actor::Registry;
use clinch_types::NodeId;
use toml::{Table, Value};

use super::exit::{Outcome, ResultExt as _};
use super::local;
use super::terminal::print;
use crate::{NodeConfig, RunNode as _};

/// Time until the only node must serve: it waits for nobody, but has its data to read.
const READY_MAX: Duration = Duration::from_secs(60);

/// Run one node, for development
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clinch dev --dir ./clinch-data\n\n\
                        The gateway is open to everybody on this machine, and to nobody else.")]
pub(crate) struct Args {
    /// Where certificates and data go
    #[arg(long, value_name = "DIR", default_value = "./clinch-data")]
    dir: PathBuf,
    /// Port of the gateway (HTTP)
    #[arg(long, default_value_t = 6420, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Port for Rust clients and other nodes (QUIC, UDP)
    #[arg(long, default_value_t = 7420, value_parser = clap::value_parser!(u16).range(1..))]
    listen_port: u16,
    /// Log what the node does
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Say where everything is as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, registry: Registry) -> Outcome {
    let dir = std::path::absolute(&args.dir)?;
    local::claim(&dir, local::Kind::Dev).usage()?;
    let certs = dir.join("certs");
    let ca = local::ensure_authority(&certs, "dev")?;
    local::ensure_node(&certs, &ca, NodeId(1))?;
    local::ensure_client(&certs, &ca, local::CLIENT)?;
    let config = config(&dir, &args)?;
    let names: Vec<String> = registry.types().map(|t| t.name().to_owned()).collect();
    let node = registry.node(config).start().await?;
    let outcome = async {
        node.ready(READY_MAX).await.unavailable()?;
        let text = match args.json {
            true => about_json(&node, &dir, &names),
            false => about(&node, &dir, &names),
        };
        print(&text)?;
        tokio::select! {
            ended = super::asked_to_end() => Ok(ended?),
            reason = node.failed() => Err(anyhow::anyhow!("this node gives up: {reason}").into()),
        }
    }
    .await;
    if !args.json {
        eprintln!("stopping");
    }
    node.stop().await;
    outcome
}

fn config(dir: &Path, args: &Args) -> anyhow::Result<NodeConfig> {
    let text = |path: PathBuf| path.into_os_string().into_string().map(Value::String);
    let text = |path| text(path).map_err(|path| anyhow::anyhow!("the path {} is not UTF-8", path.display()));
    let mut cluster = Table::new();
    cluster.insert("bootstrap".into(), true.into());
    cluster.insert("name".into(), "dev".into());
    cluster.insert("replicas".into(), 1.into());
    let mut table = Table::new();
    table.insert("node".into(), 1.into());
    table.insert("data-dir".into(), text(dir.join("data"))?);
    table.insert("cert-dir".into(), text(dir.join("certs"))?);
    table.insert("listen".into(), format!("127.0.0.1:{}", args.listen_port).into());
    let gateways = gateways(args.port)
        .into_iter()
        .map(|g| Value::String(g.to_string()));
    table.insert("gateway".into(), gateways.collect::<Vec<_>>().into());
    table.insert("cluster".into(), cluster.into());
    let config: NodeConfig = table.try_into()?;
    config.validate().context("configuration")
}

/// `localhost` is either of these, as the system and the client like.
fn gateways(port: u16) -> Vec<SocketAddr> {
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let mut all = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    match TcpListener::bind(v6).map_err(|error| error.kind()) {
        // Taken: the node says so when it binds it itself.
        Ok(_) | Err(ErrorKind::AddrInUse) => all.push(v6),
        Err(_) => eprintln!("note: there is no IPv6 on this machine: the gateway listens on 127.0.0.1 only"),
    }
    all
}

fn url(gateways: &[SocketAddr], v6: bool) -> Option<String> {
    let same = |g: &&SocketAddr| matches!(g.ip(), IpAddr::V6(_)) == v6;
    gateways.iter().find(same).map(|g| format!("http://{g}"))
}

/// A line that people can paste.
pub(super) fn curl(gateway: &str) -> String {
    format!(
        "curl -s '{gateway}/gateway/counter/action/increment?rvt-namespace=default&rvt-method=getOrCreate\
         &rvt-runner=default&rvt-key=my-counter' -H 'content-type: application/json' -d '{{\"args\":[3]}}'"
    )
}

fn about(node: &crate::Node, dir: &Path, names: &[String]) -> String {
    let main = url(node.gateways(), false).unwrap_or_default();
    let also = url(node.gateways(), true)
        .map(|v6| format!(" and {v6}"))
        .unwrap_or_default();
    let (dir, names) = (dir.display(), names.join(", "));
    format!(
        "ready\n  gateway   {main}{also}\n  rust      {} with {dir}/certs/client-{}.pem\n  data      {dir}\n  \
         actors    {names}\n  try       {}\nCtrl-C stops it.",
        node.address(),
        local::CLIENT,
        curl(&main),
    )
}

fn about_json(node: &crate::Node, dir: &Path, names: &[String]) -> String {
    let gateways: Vec<String> = node.gateways().iter().map(|g| format!("http://{g}")).collect();
    serde_json::json!({
        "ready": true, "gateways": gateways, "address": node.address().to_string(), "dir": dir.display().to_string(),
        "actors": names, "pid": std::process::id(),
    })
    .to_string()
}
