//! `clinch-fuzz`: runs targets for a given time, keeps what is worth keeping, and says what broke.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use clinch_fuzz::{TARGETS, corpus, keep, run, samples};

/// Arbitrary bytes for every decoder of what comes from outside
#[derive(Debug, Parser)]
struct Args {
    /// Only targets whose names contain this
    target: Option<String>,
    /// Seconds of a processor for each target
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// First number of the sequence of inputs; default: another each time
    #[arg(long)]
    seed: Option<u64>,
    /// Add inputs that end in a new way to the corpus
    #[arg(long)]
    keep: bool,
    /// Add what the program's own encoders write to the corpus, and try nothing
    #[arg(long)]
    samples: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    // Laws are broken by panics, and those are reported below.
    std::panic::set_hook(Box::new(|_| {}));
    let wanted = |name: &str| args.target.as_deref().is_none_or(|part| name.contains(part));
    let mut broken = 0;
    for (name, target) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
        if args.samples {
            for input in samples(name) {
                keep(name, &input)?;
            }
            continue;
        }
        let report = run(*target, &corpus(name)?, seed, Duration::from_secs(args.seconds));
        let (tried, found, slowest) = (report.tried, report.found.len(), report.slowest);
        println!("{name}: {tried} inputs, {found} new, slowest {slowest:?}, seed {seed}");
        for input in report.found.iter().filter(|_| args.keep) {
            keep(name, input)?;
        }
        for (input, said) in &report.broken {
            broken += 1;
            println!("  BROKEN by {}: {said}", keep(name, input)?.display());
        }
    }
    ensure!(broken == 0, "{broken} targets broke");
    Ok(())
}
