//! The HTTP callers of W1 against any server that speaks the same paths: another system, or a cluster that runs already.
//!
//! Not here: starting that server (`peers/`), and what its acknowledgements mean; its lines do not say.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use crate::caller::{HttpCaller, Op, body, post, uri, uris};
use crate::http::Http;
use crate::load::{Load, Pace, Plan};
use crate::options::seconds;
use crate::tally::{ErrorCount, Latency};

/// Time for an actor to come to be: other systems start one on demand.
const PREPARE_MAX: Duration = Duration::from_secs(30);

/// What is asked of which server.
#[derive(Debug, Args)]
pub(crate) struct Endpoint {
    /// Its base URL
    #[arg(long, value_name = "URL")]
    url: String,
    /// Callers at a time, each with one keep-alive connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// Counters that are called, drawn uniformly
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    actors: u32,
    /// First part of the counters' keys; the rest is a number
    #[arg(long, default_value = "bench")]
    keys: String,
    /// Length of the run, without its warm-up
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    seconds: Duration,
    /// Load before the run that is not counted
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    warmup: Duration,
}

#[derive(Serialize)]
struct Line {
    endpoint: String,
    what: &'static str,
    actors: u32,
    callers: u32,
    seconds: f64,
    ops: u64,
    rate: f64,
    errors: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    error_kinds: BTreeMap<String, ErrorCount>,
    #[serde(flatten)]
    latency: Option<Latency>,
}

/// Runs it and prints one line of JSON. Whether there were answers and no errors.
///
/// # Errors
/// When the counters cannot be made.
pub(crate) async fn run(asked: Endpoint) -> anyhow::Result<bool> {
    let keys: Vec<String> = (0..asked.actors).map(|n| format!("{}-{n}", asked.keys)).collect();
    let mut http = Http::new(&asked.url, PREPARE_MAX)?;
    for key in &keys {
        let made = post(&mut http, uri(key, Op::Get)?, body(Op::Get)).await;
        made.map_err(|no| anyhow!("counter {key} at {}: {}: {}", asked.url, no.kind, no.text))?;
    }
    let addresses = uris(Op::Increment, &keys)?;
    let callers = (0..asked.callers as usize)
        .map(|n| HttpCaller::new(&asked.url, Op::Increment, addresses.clone(), n))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let plan = Plan {
        pace: Pace::Closed,
        warmup: asked.warmup,
        window: asked.seconds,
    };
    let done = Load::start(callers, plan)?.finish().await?;
    let (ops, errors) = (done.tally.ops(), done.tally.error_count());
    let seconds = done.elapsed.as_secs_f64();
    let line = Line {
        endpoint: asked.url,
        what: "increment over HTTP",
        actors: asked.actors,
        callers: asked.callers,
        seconds,
        ops,
        rate: ops as f64 / seconds.max(f64::MIN_POSITIVE),
        errors,
        error_kinds: done.tally.errors().clone(),
        latency: done.tally.latency(),
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(ops > 0 && errors == 0)
}
