//! `jepsen-like-tests report`: runs everything and writes `REPORT.md`.
//!
//! Invariant: what is in the report was found by one and the same program, which it names. Each result is kept at once,
//! under the digest of the program's bytes, so that a report that was ended early goes on where it was; another program
//! begins anew.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Summary;
use super::cli::{SimArgs, Totals};
use super::planted::{self, BUGS, PlantedArgs, Score, Trial};
use super::{places, rates};

/// What stays the same from run to run.
const HEAD: &str = include_str!("report_head.md");

/// Runs many seeds and all planted bugs, and writes the report.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: cargo run -p jepsen-like-tests --features planted -- report --seeds 1000")]
pub struct ReportArgs {
    /// Seeds of the sound product.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1_000_000)]
    seed: u64,
    /// Only a part of the work: two programs can share it, and a third one writes.
    #[arg(long)]
    part: Option<Part>,
    /// Where the report goes.
    #[arg(long, default_value = "jepsen-like-tests/REPORT.md")]
    out: PathBuf,
    /// Where the rates go that the check goes by.
    #[arg(long, default_value = "jepsen-like-tests/corpus/rates.txt")]
    rates: PathBuf,
    /// Where results are kept until the report is whole.
    #[arg(long, default_value = "target/sim/report")]
    results: PathBuf,
    /// Most seeds for a bug that stays unnoticed.
    #[arg(long, default_value_t = 100)]
    bug_seeds: u64,
    /// Processes at the same time; without it, one per processor.
    #[arg(long)]
    jobs: Option<usize>,
}

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The seeds of the sound product.
    Sound,
    /// The planted bugs.
    Planted,
    /// Writing the report from what is there.
    Text,
}

/// One result a line, in a file that only grows.
struct Results {
    path: PathBuf,
    file: File,
}

impl Results {
    fn open(dir: &Path, name: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let path = dir.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path, file })
    }

    fn all<T: DeserializeOwned>(&self) -> anyhow::Result<Vec<T>> {
        let text = std::fs::read_to_string(&self.path)?;
        // The last line may be half: whoever wrote it was ended.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let parsed = whole.map(|line| {
            serde_json::from_str(line).with_context(|| format!("a line of {}: {line}", self.path.display()))
        });
        parsed.collect()
    }

    fn add(&mut self, result: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(result)?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

/// What this program is known by.
fn digest() -> anyhow::Result<String> {
    let path = std::env::current_exe()?;
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(format!("{:032x}", clinch_types::hash_128(&[&bytes])))
}

/// What its sources are known by. Asked for when results of this program are kept for the first time: what lies beside
/// the program later may be something else.
fn commit(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("commit");
    if let Ok(known) = std::fs::read_to_string(&path) {
        return Ok(known);
    }
    let git = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe"])
        .args(["--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .output();
    let commit = match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".into(),
    };
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    std::fs::write(&path, &commit).with_context(|| format!("writing {}", path.display()))?;
    Ok(commit)
}

impl ReportArgs {
    /// Runs it. The result is a failure when a law was broken without a bug, or a bug was missed.
    ///
    /// # Errors
    /// When processes cannot be started or a file cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let digest = digest()?;
        let dir = self.results.join(&digest);
        let program = format!("the program `{digest}` of commit `{}`", commit(&dir)?);
        println!("{program}; results are kept in {}", dir.display());
        let works = |part| self.part.is_none() || self.part == Some(part);
        if works(Part::Sound) {
            self.sound(&dir)?;
        }
        if works(Part::Planted) {
            self.planted(&dir)?;
        }
        if !works(Part::Text) {
            return Ok(ExitCode::SUCCESS);
        }
        self.text(&dir, &program)
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed + self.seeds
    }

    fn sound(&self, dir: &Path) -> anyhow::Result<()> {
        let mut results = Results::open(dir, "sound.jsonl")?;
        let known: Vec<Summary> = results.all()?;
        let is_new = |seed: &u64| known.iter().all(|summary| summary.seed != *seed);
        let seeds: Vec<u64> = self.seeds().filter(is_new).collect();
        println!("{} of {} seeds of the sound product", seeds.len(), self.seeds);
        let mut problem = None;
        SimArgs::of_bug(None, &[], self.jobs).many(&seeds, |summary| {
            for broken in &summary.broken {
                println!("seed {}: {broken}", summary.seed);
            }
            problem = problem.take().or(results.add(summary).err());
        })?;
        problem.map_or(Ok(()), Err)
    }

    fn planted(&self, dir: &Path) -> anyhow::Result<()> {
        let mut results = Results::open(dir, "planted.jsonl")?;
        let known: Vec<Trial> = results.all()?;
        let args = PlantedArgs::new(self.bug_seeds, false, self.jobs);
        for bug in args.chosen()? {
            let score = args.hunt(bug, &known, |trial| results.add(trial))?;
            println!("{}", score.line());
        }
        Ok(())
    }

    /// From results alone.
    fn text(&self, dir: &Path, program: &str) -> anyhow::Result<ExitCode> {
        let sound: Vec<Summary> = Results::open(dir, "sound.jsonl")?.all()?;
        let mut totals = Totals::default();
        totals
            .summaries
            .extend(sound.into_iter().filter(|s| self.seeds().contains(&s.seed)));
        let known: Vec<Trial> = Results::open(dir, "planted.jsonl")?.all()?;
        let scores: Vec<Score> = BUGS.into_iter().map(|bug| Score::of(bug, &known)).collect();
        let text = self.report(program, &totals, &scores)?;
        std::fs::write(&self.out, text).with_context(|| format!("writing {}", self.out.display()))?;
        std::fs::write(&self.rates, rates::text(&scores))
            .with_context(|| format!("writing {}", self.rates.display()))?;
        let whole = totals.summaries.len() as u64 == self.seeds && scores.iter().all(|s| s.tried > 0);
        let passed = whole && totals.is_sound() && scores.iter().all(|s| s.caught > 0);
        Ok(match passed {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    fn report(&self, program: &str, totals: &Totals, scores: &[Score]) -> anyhow::Result<String> {
        let mut out = HEAD.to_owned();
        let seeds = totals.summaries.len();
        writeln!(out, "## The sound product\n")?;
        writeln!(out, "All figures are of {program}.\n")?;
        writeln!(
            out,
            "{seeds} of the {} seeds from {} on, half a simulated minute of faults each, then the liveness phase.\n",
            self.seeds, self.seed
        )?;
        for line in totals.text().lines() {
            writeln!(out, "- {line}")?;
        }
        let cut = |place: &str| {
            totals
                .summaries
                .iter()
                .any(|s| s.places.get(place).is_some_and(|(_, cut)| *cut > 0))
        };
        let never: Vec<&str> = places::ALL.into_iter().filter(|place| !cut(place)).collect();
        match never.is_empty() {
            true => writeln!(out, "- every one of the {} places was cut at", places::ALL.len())?,
            false => writeln!(out, "- places that were never cut at: {}", never.join(", "))?,
        }
        let (caught, tried) = (
            scores.iter().filter(|s| s.caught > 0).count(),
            scores.iter().filter(|s| s.tried > 0).count(),
        );
        writeln!(out, "\n## Planted bugs: {caught} of {tried} caught\n")?;
        if tried < scores.len() {
            writeln!(
                out,
                "{} more were not tried: the command was ended early.\n",
                scores.len() - tried
            )?;
        }
        writeln!(out, "{}\n", planted::rule(self.bug_seeds))?;
        writeln!(out, "| bug | what it does | seeds that catch it | first | laws |")?;
        writeln!(out, "|---|---|---|---|---|")?;
        for score in scores.iter().filter(|s| s.tried > 0) {
            writeln!(out, "{}", score.row())?;
        }
        writeln!(
            out,
            "\n`*`: a bug of the product that this simulator found; it is fixed, and put back only to be found again."
        )?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_before_is_known_again_and_half_a_line_is_not() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let trial = |seed| Trial {
            bug: "no-sync".into(),
            seed,
            laws: vec!["A3".into()],
            lies: 0,
        };
        let mut results = Results::open(dir.path(), "planted.jsonl")?;
        results.add(&trial(700_000))?;
        results.add(&trial(700_001))?;
        results.file.write_all(b"{\"bug\":\"no-s")?;
        let known: Vec<Trial> = Results::open(dir.path(), "planted.jsonl")?.all()?;
        assert_eq!(known, [trial(700_000), trial(700_001)]);
        let score = Score::of(
            BUGS.into_iter().find(|b| b.name == "no-sync").expect("it exists"),
            &known,
        );
        assert_eq!((score.tried, score.caught, score.first), (2, 2, Some(1)));
        Ok(())
    }

    #[test]
    fn a_process_that_died_is_a_failure_that_names_its_seed() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        Results::open(dir.path(), "sound.jsonl")?.add(&Summary::of_death(41, "signal: 9"))?;
        let totals = Totals {
            summaries: Results::open(dir.path(), "sound.jsonl")?.all()?,
        };
        assert!(!totals.is_sound());
        let text = totals.text();
        assert!(
            text.contains("1 red") && text.contains("seed 41 is red: no process dies"),
            "{text}"
        );
        Ok(())
    }
}
