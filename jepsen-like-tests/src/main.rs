//! The program of the tests: simulations, and what they are measured by.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jepsen_like_tests::sim::check::CheckArgs;
use jepsen_like_tests::sim::cli::{CorpusArgs, HistoryArgs, SimArgs};
use jepsen_like_tests::sim::planted::PlantedArgs;
use jepsen_like_tests::sim::report::ReportArgs;

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
    /// The tests measured: bugs put into the product must be caught.
    Planted(PlantedArgs),
    /// Both, with the results in REPORT.md.
    Report(ReportArgs),
    /// What every change goes through.
    Check(CheckArgs),
    /// Judges a history that a simulated or a real run left behind.
    History(HistoryArgs),
    /// Seeds that once broke a law: they must not again.
    Corpus(CorpusArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Sim(args) => args.run(),
        Command::Planted(args) => args
            .run()
            .map(|scores| match scores.iter().all(|s| s.caught > 0) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }),
        Command::Report(args) => args.run(),
        Command::Check(args) => args.run(),
        Command::History(args) => args.run(),
        Command::Corpus(args) => args.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(2)
    })
}
