//! Calls a counter of `clinch dev` from outside: `cargo run --example client`.
use std::path::Path;

use clinch::cli::actors::Counter;
use clinch::{Client, ClientConfig};
use clinch_transport::{CertBundle, PeerId};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let identity = CertBundle::load(Path::new("clinch-data/certs"), &PeerId::Client("local".into()))?;
    let client = Client::connect(ClientConfig::new(identity, vec!["127.0.0.1:7420".into()])).await?;
    let count = client
        .cluster()
        .get::<Counter>("my-counter")
        .increment(Some(3))
        .await?;
    println!("{count}");
    Ok(())
}
