//! Rules for Rust files under `src`: how they begin, and how long they may get.

use super::Finding;

/// Lines a file may have. Beyond this a file is about more than one thing.
const LINES_MAX: usize = 800;
/// Lines from which a file is mentioned.
const LINES_NOTE: usize = 400;

fn is_source(path: &str) -> bool {
    path.ends_with(".rs") && path.split('/').any(|part| part == "src")
}

/// A file introduces itself, and is not too long.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !is_source(path) {
        return findings;
    }
    if !text.starts_with("//!") {
        findings.push(Finding {
            path: path.to_owned(),
            line: 1,
            message: "does not start with `//!`: what the file is for, its invariant, what is not here"
                .to_owned(),
        });
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(Finding {
            path: path.to_owned(),
            line: 0,
            message: format!("has {lines} lines, at most {LINES_MAX} are allowed: split it by what it does"),
        });
    }
    findings
}

/// A file that grows towards the limit.
pub(super) fn note(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (is_source(path) && lines > LINES_NOTE && lines <= LINES_MAX).then(|| Finding {
        path: path.to_owned(),
        line: 0,
        message: format!("has {lines} lines, aim below {LINES_NOTE}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: usize) -> String {
        format!("//! Text.\n{}", "\n".repeat(lines - 1))
    }

    #[test]
    fn a_file_may_have_800_lines_and_is_mentioned_from_401() {
        let path = "node/src/shard/mod.rs";
        assert_eq!((check(path, &file(400)), note(path, &file(400))), (vec![], None));
        assert!(check(path, &file(401)).is_empty() && note(path, &file(401)).is_some());
        assert!(check(path, &file(800)).is_empty());
        let long = check(path, &file(801));
        assert_eq!(long.len(), 1);
        assert!(
            long[0].message.contains("has 801 lines, at most 800"),
            "{}",
            long[0]
        );
        assert!(
            check("node/tests/long.rs", &file(900)).is_empty(),
            "tests are not under src"
        );
    }

    #[test]
    fn a_source_file_without_an_introduction_is_found() {
        let findings = check("types/src/lib.rs", "use std::fmt;\n");
        assert_eq!((findings.len(), findings[0].line), (1, 1));
        assert!(check("types/README.md", "text\n").is_empty());
    }
}
