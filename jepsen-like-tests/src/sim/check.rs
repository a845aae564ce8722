//! `jepsen-like-tests check`: the share of the simulator that every change goes through.
//!
//! Invariant: the meta-test comes first, for nothing else means anything without it; what was left out for want of time
//! is said.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::time::Instant;

use super::cli::{CorpusArgs, SimArgs, fresh_seed};
use super::planted::{BUGS, PlantedArgs};
use super::rates::demand;

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// The meta-test, fresh seeds, the corpus and a third of the planted bugs.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Fresh seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Seeds that are run twice, first of all: their traces must be equal.
    #[arg(long, default_value_t = 5)]
    twice: u64,
    /// Minutes after which no further bug is tried; at least one is.
    #[arg(long, default_value_t = 12)]
    minutes: u64,
    /// Processes at the same time; without it, one per processor.
    #[arg(long)]
    jobs: Option<usize>,
}

impl CheckArgs {
    /// Runs it all.
    ///
    /// # Errors
    /// When processes cannot be started, a run is not repeatable, or the corpus cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let begun = Instant::now();
        let first = fresh_seed()?;
        let args = SimArgs::of_bug(None, &[], self.jobs);
        println!("meta: seeds {first} to {}, each twice", first + self.twice - 1);
        let twice: Vec<u64> = (first..first + self.twice).collect();
        // Ends here when two runs of a seed differ.
        args.clone().twice().many(&twice, |_| {})?;

        println!("fresh: seeds {first} to {}", first + self.seeds - 1);
        let seeds: Vec<u64> = (first..first + self.seeds).collect();
        let fresh = args.many(&seeds, |summary| {
            if !summary.broken.is_empty() {
                args.tell(summary);
            }
        })?;
        println!("{}", fresh.text());
        let mut passed = fresh.is_sound();

        println!("corpus:");
        passed &= CorpusArgs::new(self.jobs).totals()?.is_sound();

        passed &= self.bugs(begun, usize::try_from(first / 1000 / DAY % 3)?)?;
        println!("{:.0} s in all", begun.elapsed().as_secs_f64());
        Ok(match passed {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// Every third bug, another third each day.
    fn bugs(&self, begun: Instant, third: usize) -> anyhow::Result<bool> {
        println!("planted: every third bug, from number {}", third + 1);
        ensure!(
            cfg!(feature = "planted"),
            "the check needs a program built with --features planted"
        );
        let limit = Duration::from_secs(self.minutes * 60);
        let (mut caught_all, mut left_out, mut misses) = (true, Vec::new(), 0.0);
        for (index, bug) in BUGS.into_iter().enumerate().filter(|(i, _)| i % 3 == third) {
            if index > third && begun.elapsed() > limit {
                left_out.push(bug.name);
                continue;
            }
            // Bugs that the report found in enough seeds are insisted on. The others are tried and told, and must not
            // stop a change that has nothing to do with them.
            let demand = demand(bug.name);
            let score = PlantedArgs::new(demand.seeds, true, self.jobs).hunt(bug, &[], |_| Ok(()))?;
            let firm = match demand.is_firm {
                true => "insisted on".to_owned(),
                false => format!("told only, missed with probability {:.2}", demand.miss),
            };
            println!("  {} [{firm}]", score.line());
            if demand.is_firm {
                caught_all &= score.caught > 0;
                misses += demand.miss;
            }
        }
        println!("  a sound simulator would miss one of those insisted on with probability {misses:.0e}");
        if !left_out.is_empty() {
            println!("  not tried for want of time: {}", left_out.join(", "));
        }
        Ok(caught_all)
    }
}
