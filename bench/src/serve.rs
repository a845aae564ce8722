//! A node of the bench: any node's configuration, the bench's actors.

use std::path::Path;

use anyhow::Context;
use clinch::{NodeConfig, RunNode};
use tracing_subscriber::EnvFilter;

/// Runs a node until the process is asked to end.
///
/// # Errors
/// What is wrong with the configuration, or made the node give up.
pub(crate) async fn run(config: &Path) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("CLINCH_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let text = std::fs::read_to_string(config).with_context(|| format!("reading {}", config.display()))?;
    let config: NodeConfig =
        toml::from_str(&text).with_context(|| format!("reading {}", config.display()))?;
    crate::actors::registry().node(config).run().await
}
