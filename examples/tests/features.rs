//! The list of features says what is true: every test it names exists, every line is there, and says something.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// Names of all functions in the Rust sources below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path
                .file_name()
                .is_some_and(|name| name != "target" && !name.to_string_lossy().starts_with('.'))
            {
                functions(&path, names);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            names.extend(
                text.split("fn ")
                    .skip(1)
                    .map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or("").to_owned()),
            );
        }
    }
}

#[test]
fn the_guides_and_this_list_are_true() {
    let list = std::fs::read_to_string(root().join("docs/features.md")).expect("the list");
    let mut known = BTreeSet::new();
    functions(&root(), &mut known);
    let mut expected = 1;
    for line in list
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
    {
        let (number, text) = line.split_once(". ").expect("a number");
        assert_eq!(number.parse(), Ok(expected), "{line}");
        expected += 1;
        // Names of tests are the code that is long and has no other signs.
        let names = text.split('`').skip(1).step_by(2);
        let tests: Vec<&str> = names
            .filter(|name| name.len() >= 20 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        for test in &tests {
            assert!(
                known.contains(*test),
                "line {number} names a test that does not exist: {test}"
            );
        }
        let excused = ["**Later", "**later**", "**Not for us"]
            .iter()
            .any(|word| text.contains(word));
        assert!(
            !tests.is_empty() || excused,
            "line {number} has neither a test nor a reason"
        );
    }
    assert_eq!(expected, 230, "229 lines");
    for guide in std::fs::read_dir(root().join("docs/guide"))
        .expect("the guides")
        .flatten()
    {
        let name = guide.file_name().to_string_lossy().into_owned();
        let included = include_str!("../src/lib.rs").contains(&format!("guide/{name}"));
        assert!(included || name == "README.md", "{name} is not compiled");
    }
}
