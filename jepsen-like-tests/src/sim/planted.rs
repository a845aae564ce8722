//! Bugs put into the product on purpose: the tests are as good as the share of these that they catch.
//!
//! Each is a `planted!("name")` in the product's code, there only with the feature `planted` and never without debug
//! assertions.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::cli::SimArgs;

/// No bug, but disks that lie.
const LYING_DISK: &str = "lying-disk";

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
pub const BUGS: [Bug; 48] = [
    bug(
        "stale-read",
        "reads are answered without a lease or a round of the quorum",
    ),
    bug(
        "lease-too-long",
        "the lease is trusted, and an owner that hears nobody goes on, for five times as long",
    ),
    bug(
        "lease-through-transfer",
        "an owner answers reads under its lease while the leadership is being transferred",
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
        "key-ignored",
        "a call under a user's own key is sent under a new request id each time it is made",
    ),
    bug(
        "unsure-is-no",
        "the client takes a silent node for one that did nothing",
    ),
    bug("no-rollback", "a turn that fails leaves its changes of the state"),
    bug("kv-left-out", "the KV writes of one batch in eight are lost"),
    bug("schedule-fires-twice", "a schedule that fired is not deleted"),
    bug("schedule-early", "schedules fire 700 ms before they are due"),
    bug(
        "tick-again",
        "one tick in four of a repeated schedule fires twice",
    ),
    bug(
        "failed-turn-sends",
        "what a failed turn sent or pushed into its queue is kept",
    ),
    bug(
        "settled-stays",
        "one settled queue message in four stays in its queue",
    ),
    bug(
        "push-again",
        "the answer to a push into a queue is not remembered",
    ),
    bug("send-new-id", "each try of a one-way send has a new request id"),
    bug("sends-forgotten", "a new owner does not load the outbox"),
    bug(
        "early-events",
        "events leave when their batch is proposed, not when it is committed",
    ),
    bug(
        "told-early",
        "connections are told of a turn when its batch is proposed, not when it is committed",
    ),
    bug(
        "told-again",
        "a new owner tells connections again what they have, and their gateway passes it on",
    ),
    bug(
        "told-forgotten",
        "a new owner does not load what connections were not told yet",
    ),
    bug(
        "told-once",
        "an owner forgets what it tells a connection when it has sent it, not when it has arrived",
    ),
    bug(
        "resume-skips",
        "a program's connection takes what its next owner has for it for what it has heard already",
    ),
    bug(
        "leaves-again",
        "the record of a connection that has ended is kept, and a new owner ends it once more",
    ),
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
        "snapshot-awaited",
        "a snapshot that was lost with the node it was sent to is waited for, instead of being sent again",
    ),
    real(
        "snapshot-unready",
        "a snapshot asked of a replica that is just installing one is an error, which ends the replica until the next start",
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
        "listeners-kept",
        "listeners stay on a node that owns the shard no more, and miss events without a word",
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
            LYING_DISK,
            "no bug: disks that answer syncs and do nothing, which must be noticed",
        )
    },
];

/// Tries the planted bugs.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: cargo run -p jepsen-like-tests --features planted -- planted --third 1")]
pub struct PlantedArgs {
    /// Most seeds for a bug that stays unnoticed.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = FIRST)]
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

/// The first seed that bugs are tried on.
pub(super) const FIRST: u64 = 700_000;
/// Catches after which the share of seeds that notice a bug is known well enough.
const ENOUGH: u64 = 3;
/// Most seeds for a bug that was noticed, but less often than that.
const SELDOM: u64 = 60;
/// Seeds tried at a time, and where one catch is enough.
const BATCH: u64 = 4;
const BATCH_QUICK: u64 = 2;

/// When a hunt that is not quick ends, in words; `most` is for a bug that stays unnoticed.
pub(super) fn rule(most: u64) -> String {
    let seldom = SELDOM.min(most);
    format!(
        "Each on up to {most} seeds until it is noticed, and on up to {seldom} until it was noticed {ENOUGH} times; {BATCH} seeds at a time."
    )
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
    /// Syncs that answered and did nothing.
    pub lies: u64,
}

/// What one seed said of one bug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The bug.
    pub bug: String,
    /// The seed.
    pub seed: u64,
    /// Names of the laws that were broken.
    pub laws: Vec<String>,
    /// Syncs that answered and did nothing.
    pub lies: u64,
}

impl PlantedArgs {
    /// All bugs, on at most that many seeds each.
    pub(super) fn new(seeds: u64, quick: bool, jobs: Option<usize>) -> Self {
        Self {
            seeds,
            seed: FIRST,
            only: Vec::new(),
            quick,
            third: None,
            jobs,
        }
    }

    /// The chosen bugs.
    ///
    /// # Errors
    /// When there is no such bug, or the program cannot have any.
    pub(super) fn chosen(&self) -> anyhow::Result<Vec<Bug>> {
        ensure!(
            cfg!(feature = "planted"),
            "bugs are only in programs built with --features planted"
        );
        for name in &self.only {
            ensure!(BUGS.iter().any(|b| b.name == name), "there is no bug {name:?}");
        }
        let is_chosen = |(index, bug): &(usize, Bug)| {
            let named = self.only.is_empty() || self.only.iter().any(|name| name == bug.name);
            named && self.third.is_none_or(|third| index % 3 == third % 3)
        };
        let bugs = BUGS.into_iter().enumerate().filter(is_chosen);
        Ok(bugs.map(|(_, bug)| bug).collect())
    }

    /// Every chosen bug on its seeds.
    ///
    /// # Errors
    /// When a bug is named that there is none of, or processes cannot be started.
    pub fn run(&self) -> anyhow::Result<Vec<Score>> {
        let mut scores = Vec::new();
        for bug in self.chosen()? {
            let score = self.hunt(bug, &[], |_| Ok(()))?;
            println!("{}", score.line());
            scores.push(score);
        }
        Ok(scores)
    }

    /// Tries one bug until enough is known of it. `known` is what was found out before; `each` is told what is found
    /// out now.
    pub(super) fn hunt(
        &self,
        bug: Bug,
        known: &[Trial],
        mut each: impl FnMut(&Trial) -> anyhow::Result<()>,
    ) -> anyhow::Result<Score> {
        let mut score = Score::of(bug, &[]);
        let args = SimArgs::of_bug(
            (bug.name != LYING_DISK).then_some(bug.name),
            bug.faults,
            self.jobs,
        );
        let quick = self.quick || self.third.is_some();
        let batch = if quick { BATCH_QUICK } else { BATCH };
        while !score.is_known(self.seeds, quick) {
            let from = self.seed + score.tried;
            let seeds = from..from + batch.min(self.seeds - score.tried);
            let of_seed = |seed: u64| known.iter().find(|t| t.bug == bug.name && t.seed == seed);
            let mut trials: Vec<Trial> = seeds.clone().filter_map(of_seed).cloned().collect();
            let new: Vec<u64> = seeds.clone().filter(|seed| of_seed(*seed).is_none()).collect();
            for summary in args.many(&new, |_| {})?.summaries {
                let trial = Trial {
                    bug: bug.name.into(),
                    seed: summary.seed,
                    laws: summary.broken.into_iter().map(|broken| broken.law).collect(),
                    lies: summary.fired.get(Fault::LyingSync.name()).copied().unwrap_or(0),
                };
                each(&trial)?;
                trials.push(trial);
            }
            for trial in &trials {
                score.note(trial, self.seed);
            }
        }
        Ok(score)
    }
}

impl Score {
    /// Of what was found out of this bug.
    pub(super) fn of(bug: Bug, known: &[Trial]) -> Self {
        let mut score = Self {
            bug,
            tried: 0,
            caught: 0,
            first: None,
            laws: BTreeMap::new(),
            lies: 0,
        };
        for trial in known.iter().filter(|trial| trial.bug == bug.name) {
            score.note(trial, FIRST);
        }
        score
    }

    fn is_known(&self, seeds: u64, quick: bool) -> bool {
        match self.caught {
            0 => self.tried >= seeds,
            few if few < ENOUGH && !quick => self.tried >= SELDOM.min(seeds),
            _ => true,
        }
    }

    fn note(&mut self, trial: &Trial, from: u64) {
        self.tried += 1;
        self.lies += trial.lies;
        if trial.laws.is_empty() {
            return;
        }
        let number = trial.seed - from + 1;
        self.caught += 1;
        self.first = Some(self.first.map_or(number, |first| first.min(number)));
        let distinct: BTreeSet<&String> = trial.laws.iter().collect();
        for law in distinct {
            *self.laws.entry(law.clone()).or_default() += 1;
        }
    }

    /// One line, for people.
    pub fn line(&self) -> String {
        let laws: Vec<String> = self.laws.iter().map(|(law, n)| format!("{law} ({n})")).collect();
        format!(
            "{}: {} of {} seeds, first {}: {}{}",
            self.bug.name,
            self.caught,
            self.tried,
            self.first.map_or("never".to_owned(), |n| format!("the {n}.")),
            laws.join(", "),
            self.lied()
        )
    }

    fn lied(&self) -> String {
        match self.lies {
            0 => String::new(),
            lies => format!(" ({lies} syncs lied)"),
        }
    }

    /// A row of the report's table.
    pub fn row(&self) -> String {
        let mut laws: Vec<(&String, &u64)> = self.laws.iter().collect();
        laws.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let laws: Vec<&str> = laws.iter().take(2).map(|(law, _)| law.as_str()).collect();
        format!(
            "| `{}`{} | {} | {} of {} | {} | {}{} |",
            self.bug.name,
            if self.bug.real { " *" } else { "" },
            self.bug.what,
            self.caught,
            self.tried,
            self.first.map_or("-".to_owned(), |n| n.to_string()),
            laws.join("; "),
            self.lied()
        )
    }
}
