//! `clinch cert`: the authority of a cluster, and the certificates of its nodes and clients.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};
use clinch_transport::ClusterCa;
use clinch_types::{Clock as _, NodeId};
use serde_json::json;

use super::exit::{Failure, Outcome};
use super::terminal::print;
use crate::SystemClock;

/// Make the certificates of a cluster
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make the authority of a new cluster
    #[command(after_help = "Example:\n  clinch cert init --dir ./certs --cluster shop\n\n\
                            Keep ca.key away from the nodes: whoever has it can make members.")]
    Init {
        /// Where ca.pem and ca.key go
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The cluster's name
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the certificate of a node or a client
    #[command(
        group = ArgGroup::new("who").required(true).args(["node", "client"]),
        after_help = "Examples:\n  clinch cert issue --dir ./certs --node 1 --host 10.0.0.1\n  \
                      clinch cert issue --dir ./certs --client web --out ./web-certs"
    )]
    Issue {
        /// Where ca.pem and ca.key are
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The id of the node: never used before, and never again
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        node: Option<u64>,
        /// The name of the client
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// A host name or address of the node, for the record; may be repeated
        #[arg(long, value_name = "HOST", requires = "node")]
        host: Vec<String>,
        /// Where the certificate goes, instead of DIR
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        CertCommand::Init { dir, cluster, json } => {
            if dir.join("ca.key").exists() {
                // Overwriting an authority locks every member of its cluster out for ever.
                return Err(Failure::failed(format!(
                    "{} holds an authority already: ca.key",
                    dir.display()
                )));
            }
            let ca = ClusterCa::generate(cluster, SystemClock.wall()).map_err(anyhow::Error::new)?;
            ca.save(dir).map_err(anyhow::Error::new)?;
            let files = ["ca.pem", "ca.key"].map(|name| dir.join(name).display().to_string());
            made(*json, &format!("authority of cluster {cluster}"), &files)
        }
        CertCommand::Issue {
            dir,
            node,
            client,
            host,
            out,
            json,
        } => {
            let ca = ClusterCa::load(dir).map_err(anyhow::Error::new)?;
            let (bundle, stem) = match (node, client) {
                (Some(node), _) => (ca.issue_node(NodeId(*node), host), format!("node-{node}")),
                (None, Some(name)) => (ca.issue_client(name), format!("client-{name}")),
                (None, None) => return Err(Failure::usage("either --node or --client")),
            };
            let bundle = bundle.map_err(anyhow::Error::new)?;
            let out = out.as_ref().unwrap_or(dir);
            bundle.save(out).map_err(anyhow::Error::new)?;
            let files = ["pem", "key"].map(|end| out.join(format!("{stem}.{end}")).display().to_string());
            made(
                *json,
                &format!("certificate of {} in cluster {}", bundle.peer(), ca.cluster()),
                &files,
            )
        }
    }
}

fn made(as_json: bool, what: &str, files: &[String]) -> Outcome {
    match as_json {
        true => print(&json!({"made": what, "files": files}).to_string()),
        false => print(&format!("{what}: {}", files.join(", "))),
    }
}
