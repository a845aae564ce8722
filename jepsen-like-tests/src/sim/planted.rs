//! Bugs put into the product on purpose: the tests are as good as the share of these that they catch.
//!
//! Each is a `planted!("name")` in the product's code, there only with the feature `planted` and never without debug
//! assertions.

use std::collections::BTreeMap;

use anyhow::ensure;
use clap::Args;

use super::Fault;
use super::cli::SimArgs;

/// Seeds that every bug is tried on.
const ALWAYS: u64 = 10;

/// One bug.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// Its name in the code.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Faults without which it cannot show; none: those that the seeds choose.
    pub faults: &'static [Fault],
    /// Found in the product by this simulator, and put back to see that it would be found again.
    pub real: bool,
}

const fn bug(name: &'static str, what: &'static str) -> Bug {
    Bug {
        name,
        what,
        faults: &[],
        real: false,
    }
}

const fn real(name: &'static str, what: &'static str) -> Bug {
    Bug {
        real: true,
        ..bug(name, what)
    }
}

/// All of them.
pub const BUGS: [Bug; 38] = [
    bug(
        "stale-read",
        "reads are answered without a lease or a round of the quorum",
    ),
    bug("lease-too-long", "the lease is trusted for five times its length"),
    bug(
        "lease-through-transfer",
        "an owner serves on, and trusts its lease, while the leadership is being transferred",
    ),
    bug(
        "no-fence",
        "an owner goes on with its state after it lost and won the shard again; proposals carry no term",
    ),
    bug(
        "no-recovery-wait",
        "a new leader serves before it has applied what its predecessors committed",
    ),
    bug(
        "early-reply",
        "answers leave when their batch is proposed, not when it is committed",
    ),
    bug(
        "read-at-once",
        "reads do not wait for the batch that what they saw travels in",
    ),
    bug(
        "refused-batch",
        "a refused batch is forgotten, and those built on it go on",
    ),
    bug("no-dedup", "requests are not looked up before they are executed"),
    bug(
        "dedup-not-durable",
        "a new owner does not load the records of answers",
    ),
    bug("no-floor", "a late copy of a settled request is executed again"),
    bug(
        "snapshot-without-dedup",
        "snapshots leave the records of answers out",
    ),
    bug(
        "retry-under-new-id",
        "the client sends each attempt under a new request id",
    ),
    bug(
        "unsure-is-no",
        "the client takes a silent node for one that did nothing",
    ),
    bug("no-rollback", "a turn that fails leaves its changes of the state"),
    bug("kv-left-out", "the KV writes of one batch in eight are lost"),
    bug("schedule-fires-twice", "a schedule that fired is not deleted"),
    bug("schedule-early", "schedules fire 700 ms before they are due"),
    bug("tick-again", "one tick in four of a repeated schedule fires twice"),
    bug(
        "failed-turn-sends",
        "what a failed turn sent or pushed into its queue is kept",
    ),
    bug("settled-stays", "one settled queue message in four stays in its queue"),
    bug("push-again", "the answer to a push into a queue is not remembered"),
    bug("send-new-id", "each try of a one-way send has a new request id"),
    bug("sends-forgotten", "a new owner does not load the outbox"),
    bug("early-events", "events leave when their batch is proposed, not when it is committed"),
    bug("undead", "a destroyed actor keeps its record and its key"),
    bug("no-sync", "the log answers without a sync"),
    bug("vote-forgotten", "votes are not written to the log"),
    bug(
        "damage-ignored",
        "a damaged log is taken for one with a torn tail",
    ),
    bug(
        "purge-early",
        "the log is purged up to what is applied, not to what the store holds durably",
    ),
    bug(
        "checkpoint-not-flushed",
        "a checkpoint counts as durable before the store is flushed",
    ),
    bug(
        "old-state-accepted",
        "a state store that is older than what the log has purged is taken for whole",
    ),
    real(
        "snapshot-by-packet",
        "the receiver of a snapshot takes each piece of the stream for a chunk",
    ),
    real(
        "ready-wants-all",
        "a node is ready only when it knows owners of shards it has no replica of",
    ),
    real(
        "dedup-by-wall-clock",
        "records of answers age by the difference of two nodes' wall clocks",
    ),
    real(
        "settled-twice",
        "a turn may settle a queue message that another turn has taken before it",
    ),
    real(
        "sync-not-repeated",
        "recovery relies on pages that a failed sync left clean and not written",
    ),
    Bug {
        faults: &[Fault::LyingSync, Fault::PowerLossAll, Fault::PowerLossSeveral],
        ..bug(
            "lying-disk",
            "no bug: disks that answer syncs and do nothing, which must be noticed",
        )
    },
];

/// Tries the planted bugs.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example: cargo run --profile sim -p jepsen-like-tests --features planted -- planted --third 1"
)]
pub struct PlantedArgs {
    /// Most seeds for a bug that stays unnoticed.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 700_000)]
    seed: u64,
    /// Only these bugs, with commas between.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Stop at the first seeds that catch a bug.
    #[arg(long)]
    quick: bool,
    /// Only every third bug, from this one on (0, 1, 2), and quick: for CI, in rotation.
    #[arg(long)]
    third: Option<usize>,
    /// Processes at the same time; without it, one per processor.
    #[arg(long)]
    jobs: Option<usize>,
}

/// What came of one bug.
#[derive(Debug, Clone)]
pub struct Score {
    /// Which.
    pub bug: Bug,
    /// How many seeds were tried.
    pub tried: u64,
    /// How many of them broke a law.
    pub caught: u64,
    /// The first of them, counted from 1.
    pub first: Option<u64>,
    /// The laws, with how many seeds broke each.
    pub laws: BTreeMap<String, u64>,
}

impl PlantedArgs {
    /// All bugs, on at most that many seeds each.
    pub(super) fn new(seeds: u64, jobs: Option<usize>) -> Self {
        Self {
            seeds,
            seed: 700_000,
            only: Vec::new(),
            quick: false,
            third: None,
            jobs,
        }
    }

    /// Until the first seed that catches it.
    pub(super) fn quick(jobs: Option<usize>) -> Self {
        Self {
            quick: true,
            ..Self::new(100, jobs)
        }
    }

    /// Every chosen bug on its seeds; `each` is told all scores so far after each of them.
    ///
    /// # Errors
    /// When there is no such bug, or processes cannot be started.
    pub fn run(&self, mut each: impl FnMut(&[Score]) -> anyhow::Result<()>) -> anyhow::Result<Vec<Score>> {
        ensure!(
            cfg!(feature = "planted"),
            "bugs are only in programs built with --features planted"
        );
        for name in &self.only {
            ensure!(BUGS.iter().any(|b| b.name == name), "there is no bug {name:?}");
        }
        let mut scores = Vec::new();
        for (index, bug) in BUGS.into_iter().enumerate() {
            let chosen = self.only.is_empty() || self.only.iter().any(|name| name == bug.name);
            if !chosen || self.third.is_some_and(|third| index % 3 != third % 3) {
                continue;
            }
            let score = self.hunt(bug)?;
            println!("{}", score.line());
            scores.push(score);
            each(&scores)?;
        }
        Ok(scores)
    }

    pub(super) fn hunt(&self, bug: Bug) -> anyhow::Result<Score> {
        let mut score = Score {
            bug,
            tried: 0,
            caught: 0,
            first: None,
            laws: BTreeMap::new(),
        };
        let args = SimArgs::of_bug(
            (bug.name != "lying-disk").then_some(bug.name),
            bug.faults,
            self.jobs,
        );
        let quick = self.quick || self.third.is_some();
        let (always, batch) = if quick { (0, 4) } else { (ALWAYS, 5) };
        while score.tried < self.seeds && (score.caught == 0 || score.tried < always) {
            let from = self.seed + score.tried;
            let count = batch.min(self.seeds - score.tried);
            let totals = args.many(&(from..from + count).collect::<Vec<_>>(), |_| {})?;
            for (seed, how) in &totals.died {
                score.note(seed - self.seed + 1, &[format!("the process died: {how}")]);
            }
            for summary in totals.summaries.iter().filter(|s| !s.broken.is_empty()) {
                let laws: Vec<String> = summary.broken.iter().map(|b| b.law.clone()).collect();
                score.note(summary.seed - self.seed + 1, &laws);
            }
            score.tried += count;
        }
        Ok(score)
    }
}

impl Score {
    fn note(&mut self, number: u64, laws: &[String]) {
        self.caught += 1;
        self.first = Some(self.first.map_or(number, |first| first.min(number)));
        let distinct: std::collections::BTreeSet<&String> = laws.iter().collect();
        for law in distinct {
            *self.laws.entry(law.clone()).or_default() += 1;
        }
    }

    /// One line, for people.
    pub fn line(&self) -> String {
        let laws: Vec<String> = self.laws.iter().map(|(law, n)| format!("{law} ({n})")).collect();
        format!(
            "{}: {} of {} seeds, first {}: {}",
            self.bug.name,
            self.caught,
            self.tried,
            self.first.map_or("never".to_owned(), |n| format!("the {n}.")),
            laws.join(", ")
        )
    }

    /// A row of the report's table.
    pub fn row(&self) -> String {
        let mut laws: Vec<(&String, &u64)> = self.laws.iter().collect();
        laws.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let laws: Vec<&str> = laws.iter().take(2).map(|(law, _)| law.as_str()).collect();
        format!(
            "| `{}`{} | {} | {} of {} | {} | {} |",
            self.bug.name,
            if self.bug.real { " *" } else { "" },
            self.bug.what,
            self.caught,
            self.tried,
            self.first.map_or("-".to_owned(), |n| n.to_string()),
            laws.join("; ")
        )
    }
}
