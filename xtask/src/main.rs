//! The one gate of the repository: `cargo xtask check`, `fix`, `tidy`. People and CI run the same.
//!
//! Invariant: `check` and `tidy` change no tracked file; `fix` is the only writer.

mod check;
mod run;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Usage: cargo xtask <command>

  check [--only STEP]... [--skip STEP]...   run the whole gate (changes nothing); each step with its time
  fix                                       format, and let clippy apply what it can
  tidy                                      only the rules of this repository: crate arrows, file lengths, words

Steps of check, in order: fmt, tidy, clippy, test, doctest, doc, deny, advisories.
advisories needs the network and runs only when named with --only.

Examples:
  cargo xtask check
  cargo xtask check --only fmt --only clippy
  cargo xtask check --skip test";

fn main() -> ExitCode {
    match try_main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well; an error means that the question could not be answered.
fn try_main() -> Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        bail!("which command?\n\n{HELP}");
    };
    let root = root()?;
    match (command.as_str(), rest) {
        ("check", _) => check::run(&root, &check::Selection::parse(rest)?),
        ("fix", []) => fix(&root),
        ("tidy", []) => tidy::run(&root),
        ("help" | "--help" | "-h", _) => {
            println!("{HELP}");
            Ok(true)
        }
        (other, _) => bail!("not a command: {other:?} with {} arguments\n\n{HELP}", rest.len()),
    }
}

/// The only writer.
fn fix(root: &Path) -> Result<bool> {
    let clippy = [
        "clippy",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
        "--workspace",
        "--all-targets",
        "--all-features",
    ];
    let fixed = run::cargo(root, &clippy, &[])?;
    // Last, because clippy's changes are not formatted.
    Ok(run::cargo(root, &["fmt", "--all"], &[])? && fixed)
}

/// The root of the workspace, whatever folder this was started in.
fn root() -> Result<PathBuf> {
    // As cargo says now: two clones that share a target folder share this program.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&here)
        .parent()
        .context("xtask lies in a folder of the workspace")?;
    Ok(root.to_path_buf())
}
