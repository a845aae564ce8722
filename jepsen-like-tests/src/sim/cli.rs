//! `jepsen-like-tests sim`: many seeds, each in a process of its own, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{Fault, Options, Summary, run};

/// Whole clusters in virtual time: everything that happens follows from the seed.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example: jepsen-like-tests sim --seeds 100\n         jepsen-like-tests sim --seed 42 --minutes 2"
)]
pub struct SimArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed; without it, one that was not used before (it is printed).
    #[arg(long)]
    seed: Option<u64>,
    /// Simulated minutes of faults per seed.
    #[arg(long, default_value_t = 0.5)]
    minutes: f64,
    /// Only these faults, with commas between; without it, each seed chooses.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Processes at the same time; without it, one per processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Run each seed twice, and demand the same trace.
    #[arg(long)]
    twice: bool,
    /// The folder for histories of runs that break a law.
    #[arg(long, default_value = "target/sim")]
    histories: PathBuf,
    /// Keep the history of every run.
    #[arg(long)]
    keep: bool,
    /// Write every event of the one seed to this file: to find where two runs part.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// A bug to put in (needs the feature `planted`).
    #[arg(long)]
    bug: Option<String>,
    /// Print one line of JSON for the one seed, and nothing else: how seeds are run in processes of their own.
    #[arg(long, hide = true)]
    child: bool,
}

/// Replays the seeds that once broke a law.
#[derive(Debug, Clone, Args)]
pub struct CorpusArgs {
    /// The file with the seeds.
    #[arg(long, default_value = "jepsen-like-tests/corpus/seeds.txt")]
    file: PathBuf,
    /// Processes at the same time; without it, one per processor.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Judges a history: one JSON object a line, the same format from simulated and from real runs.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// The file.
    file: PathBuf,
}

impl HistoryArgs {
    /// Tells what every checker says of it.
    ///
    /// # Errors
    /// When the file is no history.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let verdict = crate::checkers::check(&crate::history::load(&self.file)?);
        println!("{verdict}");
        for violation in &verdict.violations {
            println!("  {violation}");
        }
        Ok(match verdict.violations.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

impl CorpusArgs {
    /// Of the file in this repository.
    pub(super) fn new(jobs: Option<usize>) -> Self {
        Self {
            file: concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/seeds.txt").into(),
            jobs,
        }
    }

    /// As [`CorpusArgs::totals`], for a program.
    ///
    /// # Errors
    /// As there.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        Ok(self.totals()?.verdict())
    }

    /// Runs every seed of the file: a number at the beginning of a line; what follows is for people.
    ///
    /// # Errors
    /// When the file cannot be read or processes cannot be started.
    pub fn totals(self) -> anyhow::Result<Totals> {
        let what = || format!("the corpus {}", self.file.display());
        let text = std::fs::read_to_string(&self.file).with_context(what)?;
        let lines = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let seeds: Result<Vec<u64>, _> = lines
            .map(|line| line.split_whitespace().next().unwrap_or_default().parse())
            .collect();
        let args = SimArgs::of_bug(None, &[], self.jobs);
        let totals = args.many(&seeds.with_context(what)?, |summary| {
            if !summary.broken.is_empty() {
                args.tell(summary);
            }
        })?;
        println!("{}", totals.text());
        Ok(totals)
    }
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Totals {
    /// One summary for each seed.
    pub summaries: Vec<Summary>,
}

impl SimArgs {
    /// Seeds with this bug under these faults (none: those that the seeds choose), half a minute each.
    pub(super) fn of_bug(bug: Option<&str>, faults: &[Fault], jobs: Option<usize>) -> Self {
        Self {
            seeds: 1,
            seed: None,
            minutes: 0.5,
            faults: faults.to_vec(),
            jobs,
            twice: false,
            histories: PathBuf::from("target/sim"),
            keep: false,
            trace: None,
            bug: bug.map(str::to_owned),
            child: false,
        }
    }

    /// The same, each seed twice.
    pub(super) fn twice(self) -> Self {
        Self { twice: true, ..self }
    }

    /// What a seed broke, and how to see it again.
    pub(super) fn tell(&self, summary: &Summary) {
        println!("seed {}: {} laws broken", summary.seed, summary.broken.len());
        for broken in &summary.broken {
            println!("  {broken}");
        }
        for line in &summary.prefix {
            println!("    {line}");
        }
        if let Some(history) = &summary.history {
            println!("  history: {history}");
        }
        let (mut features, mut more) = ("", String::new());
        if !self.faults.is_empty() {
            more = format!(" --faults {}", names(&self.faults));
        }
        if let Some(bug) = &self.bug {
            features = " --features planted";
            more = format!("{more} --bug {bug}");
        }
        println!(
            "  again: cargo run -p jepsen-like-tests{features} -- sim --seed {} --minutes {}{more}",
            summary.seed, self.minutes
        );
    }

    /// Runs the seeds and tells what came of them.
    ///
    /// # Errors
    /// When processes cannot be started, or a run is not repeatable.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.child {
            return self.run_child();
        }
        let first = match self.seed {
            Some(seed) => seed,
            None => fresh_seed()?,
        };
        let last = first + self.seeds.max(1) - 1;
        println!("seeds {first} to {last}, {} simulated minutes each", self.minutes);
        let totals = self.many(&(first..=last).collect::<Vec<_>>(), |summary| {
            if !summary.broken.is_empty() {
                self.tell(summary);
            }
        })?;
        println!("{}", totals.text());
        Ok(totals.verdict())
    }

    fn run_child(&self) -> anyhow::Result<ExitCode> {
        let seed = self.seed.context("--child needs --seed")?;
        ensure!(
            self.bug.is_none() || cfg!(feature = "planted"),
            "bugs are only in programs built with --features planted"
        );
        if std::env::var_os("RUST_LOG").is_some() {
            tracing_subscriber::fmt()
                .without_time()
                .with_writer(std::io::stderr)
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .init();
        }
        let options = Options {
            seed,
            time: Duration::from_secs_f64(self.minutes * 60.0),
            faults: (!self.faults.is_empty()).then(|| self.faults.iter().copied().collect()),
            histories: Some(self.histories.clone()),
            keep: self.keep,
            bug: self.bug.clone(),
            trace: self.trace.clone(),
        };
        let summary = run(&options)?;
        println!("{}", serde_json::to_string(&summary)?);
        Ok(ExitCode::SUCCESS)
    }

    /// Runs these seeds, each in a process of its own; `each` sees what came of them, in order of their ends.
    ///
    /// # Errors
    /// When processes cannot be started, or two runs of a seed differ.
    pub fn many(&self, seeds: &[u64], mut each: impl FnMut(&Summary)) -> anyhow::Result<Totals> {
        let jobs = match self.jobs {
            Some(jobs) => jobs.max(1),
            None => std::thread::available_parallelism()?.get(),
        };
        let mut waiting: Vec<u64> = seeds.iter().rev().copied().collect();
        if self.twice {
            waiting = waiting.into_iter().flat_map(|seed| [seed, seed]).collect();
        }
        let mut running = Vec::new();
        let mut totals = Totals::default();
        let mut traces: BTreeMap<u64, String> = BTreeMap::new();
        loop {
            while running.len() < jobs
                && let Some(seed) = waiting.pop()
            {
                running.push((seed, self.spawn(seed)?));
            }
            if running.is_empty() {
                return Ok(totals);
            }
            let (seed, child) = running.remove(0);
            let output = child.wait_with_output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let parsed = text
                .lines()
                .last()
                .and_then(|line| serde_json::from_str::<Summary>(line).ok());
            let summary = parsed.unwrap_or_else(|| Summary::of_death(seed, &output.status.to_string()));
            ensure!(
                summary.repeatable,
                "randomness is not under control here: nothing could be repeated"
            );
            if let Some(former) = traces.insert(seed, summary.trace.clone()) {
                ensure!(
                    former == summary.trace,
                    "seed {seed} was run twice and differs: trace {former} and {}",
                    summary.trace
                );
                println!(
                    "seed {seed}: twice the trace {former} ({} events)",
                    summary.events
                );
                continue;
            }
            each(&summary);
            totals.summaries.push(summary);
        }
    }

    fn spawn(&self, seed: u64) -> anyhow::Result<std::process::Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["sim", "--child", "--seed", &seed.to_string()]);
        command.args(["--minutes", &self.minutes.to_string()]);
        if !self.faults.is_empty() {
            command.arg("--faults").arg(names(&self.faults));
        }
        if let Some(bug) = &self.bug {
            command.args(["--bug", bug]);
        }
        if let Some(trace) = &self.trace {
            command.arg("--trace").arg(trace);
        }
        if self.keep {
            command.arg("--keep");
        }
        command.arg("--histories").arg(&self.histories);
        command.stdout(Stdio::piped()).spawn().context("starting a run")
    }
}

fn names(faults: &[Fault]) -> String {
    faults.iter().map(|f| f.name()).collect::<Vec<_>>().join(",")
}

/// Seconds since 1970: every run of the program begins elsewhere, and neighbours do not overlap.
#[expect(
    clippy::disallowed_methods,
    reason = "which seeds are fresh is the one thing that must not repeat"
)]
pub(super) fn fresh_seed() -> anyhow::Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_secs() * 1000)
}

impl Totals {
    /// Whether every seed kept every law.
    pub fn verdict(&self) -> ExitCode {
        match self.is_sound() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// As [`Totals::verdict`].
    pub fn is_sound(&self) -> bool {
        self.summaries.iter().all(|s| s.broken.is_empty())
    }

    /// Sums, for people.
    pub fn text(&self) -> String {
        let sum = |of: fn(&Summary) -> f64| self.summaries.iter().map(of).sum::<f64>();
        let (simulated, cpu) = (sum(|s| s.simulated_s), sum(|s| s.cpu_s));
        let mut fired: BTreeMap<&str, u64> = BTreeMap::new();
        let mut places: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for summary in &self.summaries {
            for (fault, times) in &summary.fired {
                *fired.entry(fault).or_default() += times;
            }
            for (place, (seen, cut)) in &summary.places {
                let at = places.entry(place).or_default();
                (at.0, at.1) = (at.0 + seen, at.1 + cut);
            }
        }
        let red: Vec<&Summary> = self.summaries.iter().filter(|s| !s.broken.is_empty()).collect();
        let mut recovery: Vec<u64> = self.summaries.iter().map(|s| s.recovery_ms).collect();
        recovery.sort_unstable();
        let mut lines = vec![format!(
            "{} seeds, {} red: {simulated:.0} simulated s in {cpu:.0} CPU s ({:.1} per s), {} acknowledged (all checked by witness and laws, {} by a search for an order, too, which gave up on {} keys), {} failed, {} unknown; recovery median {} ms, most {} ms",
            self.summaries.len(),
            red.len(),
            simulated / cpu.max(0.001),
            sum(|s| s.acknowledged as f64),
            sum(|s| s.cross_checked as f64),
            sum(|s| s.undecided as f64),
            sum(|s| s.failed as f64),
            sum(|s| s.unknown as f64),
            recovery.get(recovery.len() / 2).unwrap_or(&0),
            recovery.last().unwrap_or(&0),
        )];
        let struck: Vec<String> = fired
            .iter()
            .map(|(fault, times)| format!("{fault} {times}"))
            .collect();
        lines.push(format!("faults: {}", struck.join(", ")));
        let never: Vec<&str> = Fault::ALL
            .into_iter()
            .map(Fault::name)
            .filter(|name| !fired.contains_key(name))
            .collect();
        lines.push(format!("faults that never struck: {}", never.join(", ")));
        let cut: Vec<String> = places
            .iter()
            .map(|(place, (seen, cut))| format!("{place} {cut}/{seen}"))
            .collect();
        lines.push(format!("places (power cut there/come by): {}", cut.join(", ")));
        for summary in red {
            let laws: BTreeSet<&str> = summary.broken.iter().map(|broken| broken.law.as_str()).collect();
            let laws = laws.into_iter().collect::<Vec<_>>().join(", ");
            lines.push(format!("seed {} is red: {laws}", summary.seed));
        }
        lines.join("\n")
    }
}
