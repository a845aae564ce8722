//! `jepsen-like-tests report`: runs everything and writes `REPORT.md`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::cli::SimArgs;
use super::planted::{PlantedArgs, Score};

/// What stays the same from run to run.
const HEAD: &str = include_str!("report_head.md");

/// Runs many seeds and all planted bugs, and writes the report.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example: cargo run --profile sim -p jepsen-like-tests --features planted -- report --seeds 1000"
)]
pub struct ReportArgs {
    /// Seeds of the sound product.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1_000_000)]
    seed: u64,
    /// Where the report goes.
    #[arg(long, default_value = "jepsen-like-tests/REPORT.md")]
    out: PathBuf,
    #[command(flatten)]
    planted: PlantedFlags,
}

/// How the bugs are tried.
#[derive(Debug, Clone, Args)]
struct PlantedFlags {
    /// Most seeds for a bug that stays unnoticed.
    #[arg(long, default_value_t = 100)]
    bug_seeds: u64,
    /// Stop at the first seeds that catch a bug.
    #[arg(long)]
    quick: bool,
    /// Processes at the same time; without it, one per processor.
    #[arg(long)]
    jobs: Option<usize>,
}

impl ReportArgs {
    /// Runs it. The result is a failure when a law was broken without a bug, or a bug was missed.
    ///
    /// # Errors
    /// When processes cannot be started or the report cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let sound = SimArgs::of_bug(None, &[], self.planted.jobs);
        let seeds: Vec<u64> = (self.seed..self.seed + self.seeds).collect();
        println!(
            "seeds {} to {} of the sound product",
            self.seed,
            self.seed + self.seeds - 1
        );
        let totals = sound.many(&seeds, |summary| {
            for broken in &summary.broken {
                println!("seed {}: {broken}", summary.seed);
            }
        })?;
        println!("{}", totals.text());
        let bugs = match self.planted.quick {
            true => PlantedArgs::quick(self.planted.jobs),
            false => PlantedArgs::new(self.planted.bug_seeds, self.planted.jobs),
        };
        // Written after each bug: whoever ends it early has what there is.
        let scores = bugs.run(|scores| {
            let text = report(&totals.text(), self.seed, self.seeds, scores)?;
            std::fs::write(&self.out, text).with_context(|| format!("writing {}", self.out.display()))
        })?;
        let passed = totals.died.is_empty()
            && totals.summaries.iter().all(|s| s.broken.is_empty())
            && scores.iter().all(|s| s.caught > 0);
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn report(sound: &str, seed: u64, seeds: u64, scores: &[Score]) -> anyhow::Result<String> {
    let mut out = HEAD.to_owned();
    writeln!(out, "## The sound product\n")?;
    writeln!(
        out,
        "Seeds {seed} to {}, half a simulated minute of faults each, then the liveness phase.\n",
        seed + seeds - 1
    )?;
    for line in sound.lines() {
        writeln!(out, "- {line}")?;
    }
    let caught = scores.iter().filter(|s| s.caught > 0).count();
    let (count, all) = (scores.len(), super::planted::BUGS.len());
    writeln!(out, "\n## Planted bugs: {caught} of {count} caught\n")?;
    if count < all {
        writeln!(
            out,
            "{} more were not tried: the command was ended early.\n",
            all - count
        )?;
    }
    writeln!(out, "| bug | what it does | seeds that catch it | first | laws |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for score in scores {
        writeln!(out, "{}", score.row())?;
    }
    writeln!(
        out,
        "\n`*`: a bug of the product that this simulator found; it is fixed, and put back only to be found again."
    )?;
    Ok(out)
}
