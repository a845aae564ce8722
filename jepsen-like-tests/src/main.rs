//! The program of the tests: simulations, and what they are measured by.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jepsen_like_tests::sim::cli::SimArgs;

/// Tests of Clinch's promises, repeatable from a seed.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whole clusters in virtual time under faults.
    Sim(SimArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Sim(args) => args.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(2)
    })
}
