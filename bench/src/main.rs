//! The load generator of Clinch: open and closed loop, HDR histograms, results as data.
//!
//! It measures from outside: nodes are processes of this same program (`clinch-bench start`), callers use the Rust
//! client or a gateway. Invariant: every line says what was durable when its callers had their replies.
//! Not here: starting and killing processes (`clinch::cli::local`).

mod actors;
mod bed;
mod bench;
mod caller;
mod endpoint;
mod floors;
mod http;
mod load;
mod measure;
mod options;
mod report;
mod scrape;
mod serve;
mod tally;
mod targets;
mod usage;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

use crate::bench::Bench;
use crate::options::{Cli, Command, Options, Workload};
use crate::workloads::{cold, failover, fanout, increments, memory, reads, timers};

/// As in the `clinch` program: its nodes are what is measured.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Start { config }) => serve::run(&config).await.map(|()| true),
        Some(Command::Endpoint(asked)) => endpoint::run(asked).await,
        None => measure_all(cli.options.resolved()).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("clinch-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all runs were sound.
async fn measure_all(options: Options) -> anyhow::Result<bool> {
    if cfg!(debug_assertions) && !options.smoke {
        eprintln!("WARNING: this is a debug build; its numbers say nothing about Clinch");
    }
    let mut bench = Bench::new(options)?;
    for workload in bench.options.workloads.clone() {
        match workload {
            Workload::W1 => increments::run(&mut bench, "W1", 1).await?,
            Workload::W2 => increments::run(&mut bench, "W2", 3).await?,
            Workload::W3 => reads::run(&mut bench).await?,
            Workload::W4 => cold::run(&mut bench).await?,
            Workload::W5 => memory::run(&mut bench).await?,
            Workload::W6 => fanout::run(&mut bench).await?,
            Workload::W7 => timers::run(&mut bench).await?,
            Workload::W8 => failover::run(&mut bench).await?,
        }
    }
    for problem in bench.problems() {
        eprintln!("clinch-bench: {problem}");
    }
    Ok(bench.problems().is_empty())
}
