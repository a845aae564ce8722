//! The rules of this repository that no compiler knows: which crate may depend on which, how long files may get,
//! what must not be written down.
//!
//! Each rule is a pure function from content to findings; only [`run()`] reads files.

mod arrows;
mod sources;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::run;

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 is the whole file.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Prints every finding; whether there was none. Notes are printed and do not count.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let files = run::files(root)?;
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    for path in &files {
        let bytes = std::fs::read(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        // What is not text has no words and no lines.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        findings.extend(words::check(path, &text));
        findings.extend(sources::check(path, &text));
        notes.extend(sources::note(path, &text));
    }
    findings.extend(check_manifests(root)?);
    findings.extend(check_changelog(root));
    findings.sort();
    for note in &notes {
        println!("note: {note}");
    }
    for finding in &findings {
        println!("error: {finding}");
    }
    println!(
        "tidy: {} files, {} errors, {} notes",
        files.len(),
        findings.len(),
        notes.len()
    );
    Ok(findings.is_empty())
}

fn check_manifests(root: &Path) -> Result<Vec<Finding>> {
    let read = |path: &str| -> Result<toml::Table> {
        let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        text.parse().with_context(|| format!("{path} is not TOML"))
    };
    let workspace = read("Cargo.toml")?;
    let mut manifests = Vec::new();
    for member in arrows::members(&workspace)? {
        let path = format!("{member}/Cargo.toml");
        let manifest = read(&path)?;
        manifests.push((path, manifest));
    }
    Ok(arrows::check(&workspace, &manifests))
}

fn check_changelog(root: &Path) -> Option<Finding> {
    let path = "CHANGELOG.md";
    let message = match std::fs::read_to_string(root.join(path)) {
        Ok(text) if text.lines().any(|line| line.trim() == "## [Unreleased]") => return None,
        Ok(_) => "has no section \"## [Unreleased]\" for the next change to go into".to_owned(),
        Err(error) => format!("users read here what changed: {error}"),
    };
    Some(Finding {
        path: path.to_owned(),
        line: 0,
        message,
    })
}
