//! Words that must not be in the repository: marks of work left undone, and addresses of package registries
//! (which registry is used is a matter of each machine's configuration).

use super::Finding;

/// Found only as whole words.
const WORDS: [&str; 8] = [
    "TODO",
    "FIXME",
    "XXX",
    "crates.io",
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "pypi.org",
    "proxy.golang.org",
];
/// Found anywhere in a line.
const CALLS: [&str; 2] = ["todo!(", "unimplemented!("];

/// This folder names the words in order to forbid them; the lock file is cargo's, and names its registry.
fn is_exempt(path: &str) -> bool {
    path.starts_with("xtask/") || path == "Cargo.lock"
}

/// Every line with a forbidden word.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    if is_exempt(path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let words = WORDS.into_iter().filter(|word| has_word(content, word));
        let calls = CALLS.into_iter().filter(|call| content.contains(call));
        for found in words.chain(calls) {
            findings.push(Finding {
                path: path.to_owned(),
                line,
                message: format!("{found:?} must not be here"),
            });
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undone_work_and_registry_addresses_are_found_with_their_line() {
        let text = "fine\n// TODO later\nlet x = todo!();\nhttps://static.crates.io/x\n";
        let findings = check("node/src/lib.rs", text);
        let found: Vec<(usize, &str)> = findings
            .iter()
            .map(|finding| (finding.line, finding.message.split('"').nth(1).unwrap()))
            .collect();
        assert_eq!(found, [(2, "TODO"), (3, "todo!("), (4, "crates.io")]);
    }

    #[test]
    fn parts_of_other_words_are_left_alone() {
        for fine in [
            "TODOS",
            "a_TODO",
            "XXXX",
            "mastodon",
            "pypi.organic",
            "the todo! macro is banned",
        ] {
            assert!(check("docs/a.md", fine).is_empty(), "{fine}");
        }
        assert!(check("xtask/src/tidy/words.rs", "TODO").is_empty());
        assert!(
            check(
                "Cargo.lock",
                "registry+https://github.com/rust-lang/crates.io-index"
            )
            .is_empty()
        );
    }
}
