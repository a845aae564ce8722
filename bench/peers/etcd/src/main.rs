//! Puts of 8 bytes into a cluster of etcd: a closed loop, like the callers of `clinch-bench`. One line of JSON.
//!
//! A put is acknowledged like an increment of Clinch, by a majority that has synced it. It reads nothing and runs nobody's
//! code.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use etcd_client::Client;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;

/// Callers that share one connection (HTTP/2 streams). One connection each is slower at 256 callers.
const CALLERS_A_CONNECTION: usize = 16;

#[derive(Parser)]
struct Options {
    /// Addresses of the nodes, `http://host:port`; connections go to them in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Keys, drawn uniformly.
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds before the count begins.
    #[arg(long, default_value_t = 1)]
    warmup: u64,
}

/// What one caller saw within the window.
struct Seen {
    micros: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

async fn call(mut client: Client, number: usize, keys: u32, from: Instant, to: Instant) -> anyhow::Result<Seen> {
    let mut rng = StdRng::seed_from_u64(number as u64);
    let mut seen = Seen {
        micros: Histogram::new(3)?,
        errors: 0,
        first_error: None,
    };
    while Instant::now() < to {
        let key = format!("counter-{}", rng.random_range(0..keys));
        let begun = Instant::now();
        let put = client.put(key, rng.random::<u64>().to_le_bytes(), None).await;
        let ended = Instant::now();
        if ended < from {
            continue;
        }
        match put {
            Ok(_) => seen.micros.record((ended - begun).as_micros() as u64)?,
            Err(error) => {
                seen.errors += 1;
                seen.first_error.get_or_insert(error.to_string());
            }
        }
    }
    Ok(seen)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(options.callers > 0 && options.keys > 0, "no callers or no keys");
    let mut clients = Vec::new();
    for number in 0..options.callers.div_ceil(CALLERS_A_CONNECTION) {
        let endpoint = &options.endpoints[number % options.endpoints.len()];
        let client = Client::connect([endpoint], None).await;
        clients.push(client.with_context(|| format!("connecting to {endpoint}"))?);
    }
    let from = Instant::now() + Duration::from_secs(options.warmup);
    let to = from + Duration::from_secs(options.seconds);
    let mut tasks = JoinSet::new();
    for number in 0..options.callers {
        let client = clients[number % clients.len()].clone();
        tasks.spawn(call(client, number, options.keys, from, to));
    }
    let mut micros = Histogram::<u64>::new(3)?;
    let (mut errors, mut first_error) = (0, None);
    while let Some(seen) = tasks.join_next().await {
        let seen = seen??;
        micros.add(&seen.micros)?;
        errors += seen.errors;
        first_error = first_error.or(seen.first_error);
    }
    let seconds = from.elapsed().as_secs_f64();
    let line = json!({
        "workload": "put of 8 bytes",
        "callers": options.callers,
        "seconds": seconds,
        "ops": micros.len(),
        "rate": micros.len() as f64 / seconds,
        "p50_us": micros.value_at_quantile(0.5),
        "p99_us": micros.value_at_quantile(0.99),
        "errors": errors,
        "first_error": first_error,
        "durable": "synced by a majority of three",
    });
    println!("{line}");
    Ok(())
}
