//! The gate: its steps, which of them to run, and what came of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::{run, tidy};

/// The steps, cheap ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Fmt,
    Tidy,
    Clippy,
    Test,
    Sim,
    Doctest,
    Doc,
    Deny,
    Advisories,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Fmt,
        Self::Tidy,
        Self::Clippy,
        Self::Test,
        Self::Sim,
        Self::Doctest,
        Self::Doc,
        Self::Deny,
        Self::Advisories,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Clippy => "clippy",
            Self::Test => "test",
            Self::Sim => "sim",
            Self::Doctest => "doctest",
            Self::Doc => "doc",
            Self::Deny => "deny",
            Self::Advisories => "advisories",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|step| step.name() == name);
        let Some(step) = found else {
            let names = Self::ALL.map(Self::name).join(", ");
            bail!("no step {name:?}; there are {names}");
        };
        Ok(step)
    }

    /// Runs the step. `--locked` everywhere: a gate that changes the lock file has not checked what is committed.
    fn run(self, root: &Path) -> Result<Outcome> {
        let workspace = ["--workspace", "--all-features", "--locked"];
        let with = |before: &[&'static str], after: &[&'static str]| [before, &workspace, after].concat();
        let passed = match self {
            Self::Fmt => run::cargo(root, &["fmt", "--all", "--check"], &[])?,
            Self::Tidy => tidy::run(root)?,
            Self::Clippy => {
                let args = with(&["clippy"], &["--all-targets", "--", "-D", "warnings"]);
                run::cargo(root, &args, &[])?
            }
            Self::Test => {
                let runner: &[_] = match run::has_cargo(root, "nextest") {
                    true => &["nextest", "run"],
                    false => &["test"],
                };
                // Tests that start processes would have cargo build the program once more, with fewer features.
                let program = run::program(root, "clinch");
                run::cargo(
                    root,
                    &with(runner, &TEST_TARGETS),
                    &[("TESTED_PROGRAM", &program)],
                )?
            }
            // What the tests were built as, so that nothing is built for it alone.
            Self::Sim => {
                run::cargo(root, &with(&["test"], &["--no-run"]), &[])?
                    && run::built(root, "jepsen-like-tests", &["check"])?
            }
            Self::Doctest => run::cargo(root, &with(&["test"], &["--doc"]), &[])?,
            Self::Doc => {
                let args = with(&["doc"], &["--no-deps"]);
                run::cargo(root, &args, &[("RUSTDOCFLAGS", "-D warnings")])?
            }
            Self::Deny | Self::Advisories if !run::has_cargo(root, "deny") => {
                return Ok(Outcome::NotRun("cargo-deny is not installed"));
            }
            Self::Deny => run::cargo(
                root,
                &["deny", "--locked", "check", "licenses", "bans", "sources"],
                &[],
            )?,
            Self::Advisories => run::cargo(root, &["deny", "--locked", "check", "advisories"], &[])?,
        };
        Ok(if passed { Outcome::Passed } else { Outcome::Failed })
    }
}

/// All targets cargo tests by itself: naming them would build the examples as tests, and some tests run them as programs.
const TEST_TARGETS: [&str; 1] = ["--no-fail-fast"];

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotRun(&'static str),
}

/// Which steps to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    only: Vec<Step>,
    skip: Vec<Step>,
}

impl Selection {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut selection = Self::default();
        for pair in args.chunks(2) {
            let list = match pair[0].as_str() {
                "--only" => &mut selection.only,
                "--skip" => &mut selection.skip,
                other => bail!("check takes --only STEP and --skip STEP, not {other:?}"),
            };
            let Some(name) = pair.get(1) else {
                bail!("{} needs the name of a step", pair[0]);
            };
            list.push(Step::parse(name)?);
        }
        ensure!(selection.steps().next().is_some(), "nothing is left to check");
        Ok(selection)
    }

    fn steps(&self) -> impl Iterator<Item = Step> {
        // What needs the network is not part of the gate: it would fail for reasons outside the repository.
        let default = |step: &Step| self.only.is_empty() && *step != Step::Advisories;
        Step::ALL
            .into_iter()
            .filter(move |step| default(step) || self.only.contains(step))
            .filter(|step| !self.skip.contains(step))
    }
}

/// Runs the steps chosen, all of them even when one fails; whether all passed.
pub(crate) fn run(root: &Path, selection: &Selection) -> Result<bool> {
    let mut lines = Vec::new();
    let mut all_passed = true;
    let mut total = Duration::ZERO;
    for step in selection.steps() {
        println!("== {}", step.name());
        let (outcome, took) = run::timed(|| step.run(root));
        let outcome = outcome?;
        all_passed &= outcome != Outcome::Failed;
        total += took;
        lines.push(line(step.name(), outcome, took));
    }
    let verdict = if all_passed {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    lines.push(line("total", verdict, total));
    println!("\n{}", lines.join("\n"));
    Ok(all_passed)
}

fn line(name: &str, outcome: Outcome, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match outcome {
        Outcome::Passed => format!("{name:<10} {seconds:>7.1} s  ok"),
        Outcome::Failed => format!("{name:<10} {seconds:>7.1} s  FAILED"),
        Outcome::NotRun(why) => format!("{name:<10} {seconds:>7.1} s  not run: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(args: &[&str]) -> Result<Vec<&'static str>> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Ok(Selection::parse(&args)?.steps().map(Step::name).collect())
    }

    #[test]
    fn steps_run_in_their_order_and_the_network_is_not_asked_unasked() {
        assert_eq!(
            steps(&[]).unwrap(),
            ["fmt", "tidy", "clippy", "test", "sim", "doctest", "doc", "deny"]
        );
        assert_eq!(
            steps(&["--only", "doc", "--only", "fmt"]).unwrap(),
            ["fmt", "doc"]
        );
        assert_eq!(steps(&["--only", "advisories"]).unwrap(), ["advisories"]);
        assert_eq!(
            steps(&["--skip", "test", "--skip", "deny"]).unwrap(),
            ["fmt", "tidy", "clippy", "sim", "doctest", "doc"]
        );
    }

    #[test]
    fn what_is_no_step_is_refused_by_name() {
        let refused = |args: &[&str]| steps(args).unwrap_err().to_string();
        assert!(refused(&["--only", "tests"]).contains("no step \"tests\"; there are fmt, tidy"));
        assert!(refused(&["--only"]).contains("--only needs the name"));
        assert!(refused(&["fmt"]).contains("not \"fmt\""));
        assert!(refused(&["--only", "fmt", "--skip", "fmt"]).contains("nothing is left"));
    }

    #[test]
    fn a_line_tells_name_time_and_outcome() {
        let took = Duration::from_millis(12_340);
        assert_eq!(
            line("clippy", Outcome::Failed, took),
            "clippy        12.3 s  FAILED"
        );
        assert_eq!(line("doc", Outcome::Passed, took), "doc           12.3 s  ok");
    }
}
