//! `clinch start`: one node from a configuration, with the example actors, until it is asked to end.

use std::path::PathBuf;

use anyhow::Context;

use super::exit::{Outcome, ResultExt as _};
use super::{actors, config_file};
use crate::RunNode as _;

/// Run one node from a configuration file, with the example actors
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
}

pub(crate) async fn run(args: Args) -> Outcome {
    let mut config = config_file::load(&args.config).usage()?;
    if !args.join.is_empty() {
        config.cluster.join = args.join;
    }
    let config = config
        .validate()
        .with_context(|| args.config.display().to_string())
        .usage()?;
    Ok(actors::registry().node(config).run().await?)
}
