//! Starting other programs, and the time they take.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The cargo that started this, so that both use one toolchain.
fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Runs cargo in `root` with its output on ours; whether it succeeded.
pub(crate) fn cargo(root: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<bool> {
    let status = Command::new(cargo_path())
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start cargo {}", args.join(" ")))?;
    Ok(status.success())
}

/// Where cargo puts a program of the workspace that it builds for tests.
pub(crate) fn program(root: &Path, name: &str) -> String {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    target.join("debug").join(name).to_string_lossy().into_owned()
}

/// Runs a program of the workspace, as it was built last for tests, with its output on ours; whether it succeeded.
pub(crate) fn built(root: &Path, name: &str, args: &[&str]) -> Result<bool> {
    let path = program(root, name);
    let status = Command::new(&path)
        .args(args)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start {path}"))?;
    Ok(status.success())
}

/// Whether a cargo subcommand is installed.
pub(crate) fn has_cargo(root: &Path, subcommand: &str) -> bool {
    Command::new(cargo_path())
        .args([subcommand, "--version"])
        .current_dir(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The files git knows or would take, relative to `root`, in order. Deleted ones are left out.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot start git, which knows what belongs to the repository")?;
    anyhow::ensure!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr).trim()
    );
    let listed = String::from_utf8(listed.stdout).context("file names must be UTF-8")?;
    let mut files: Vec<String> = listed
        .split('\0')
        .filter(|path| !path.is_empty() && root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// What `work` answers, and how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "measures this program's own steps; nothing here is simulated"
    )]
    let begin = Instant::now();
    let answer = work();
    (answer, begin.elapsed())
}
