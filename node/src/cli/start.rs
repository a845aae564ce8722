//! `clinch start`: one node from a configuration, until it is asked to end.

use std::path::PathBuf;

use anyhow::Context;
use clinch_actor::Registry;

use super::exit::{Outcome, ResultExt as _};
use super::{actors, config_file};
use crate::RunNode as _;

/// What the nodes of a demo are started with: it counts with an example actor, whatever the program's own are.
pub(crate) const EXAMPLE_ACTORS: &str = "--example-actors";

/// Run one node from a configuration file
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  clinch start --config /etc/clinch/clinch.toml --join 10.0.0.1:7420",
    after_long_help = format!(
        "Example:\n  clinch start --config /etc/clinch/clinch.toml --join 10.0.0.1:7420\n\n{}",
        config_file::variables_help()
    )
)]
pub(crate) struct Args {
    /// The configuration (TOML); relative folders in it are relative to the file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A node to ask for admission, instead of those in the file; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Serve the example actors instead of the program's own
    #[arg(long, hide = true)]
    example_actors: bool,
}

pub(crate) async fn run(args: Args, own: Registry) -> Outcome {
    let mut config = config_file::load(&args.config).usage()?;
    if !args.join.is_empty() {
        config.cluster.join = args.join;
    }
    let config = config
        .validate()
        .with_context(|| args.config.display().to_string())
        .usage()?;
    let registry = if args.example_actors {
        actors::registry()
    } else {
        own
    };
    Ok(registry.node(config).run().await?)
}
