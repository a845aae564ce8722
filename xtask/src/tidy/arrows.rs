//! Which crate may depend on which. One table; a crate that is not in it is an error, so that the question is asked.
//!
//! Only normal dependencies count: tests may reach further.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Finding;

/// The crates users run, from the top of the arrows to the bottom.
const NODE: &str = "clinch";
const GATEWAY: &str = "clinch-gateway";
const CLIENT: &str = "clinch-client";
const ACTOR: &str = "clinch-actor";
const MACROS: &str = "clinch-macros";
const MEMBERSHIP: &str = "clinch-membership";
const STORAGE: &str = "clinch-storage";
const TRANSPORT: &str = "clinch-transport";
const TYPES: &str = "clinch-types";
const SIM: &str = "clinch-sim";
const BENCH: &str = "clinch-bench";
const JEPSEN: &str = "jepsen-like-tests";
const FUZZ: &str = "clinch-fuzz";
const EXAMPLES: &str = "clinch-examples";

/// Crate → the crates of this workspace it may depend on.
const ARROWS: [(&str, &[&str]); 15] = [
    (TYPES, &[]),
    (MEMBERSHIP, &[TYPES]),
    (STORAGE, &[TYPES]),
    (TRANSPORT, &[TYPES]),
    (MACROS, &[]),
    (ACTOR, &[TYPES, MACROS]),
    (SIM, &[TYPES, TRANSPORT]),
    (CLIENT, &[TYPES, ACTOR, TRANSPORT]),
    (GATEWAY, &[TYPES, CLIENT, MEMBERSHIP, TRANSPORT]),
    (
        NODE,
        &[
            TYPES, MEMBERSHIP, STORAGE, TRANSPORT, MACROS, ACTOR, CLIENT, GATEWAY, SIM,
        ],
    ),
    (BENCH, &[NODE, CLIENT, TRANSPORT, TYPES]),
    (JEPSEN, &[NODE, CLIENT, TRANSPORT, TYPES, SIM, STORAGE, ACTOR]),
    (FUZZ, &[GATEWAY, TRANSPORT, STORAGE, MEMBERSHIP, ACTOR, TYPES]),
    (EXAMPLES, &[NODE]),
    ("xtask", &[]),
];

/// Outside crate (and all whose names begin with it and a `-`) → the only crates that may use it.
const CONFINED: [(&str, &[&str]); 7] = [
    ("openraft", &[STORAGE, NODE]),
    ("sled", &[STORAGE]),
    ("quinn", &[TRANSPORT, SIM, JEPSEN]),
    ("hashring", &[MEMBERSHIP]),
    ("croner", &[ACTOR]),
    ("jiff", &[ACTOR]),
    ("rusqlite", &[EXAMPLES]),
];

/// Crate → outside crates it must do without, beyond those confined: it is pure.
const PURE: [(&str, &[&str]); 3] = [
    (TYPES, &["tokio"]),
    (MEMBERSHIP, &["tokio"]),
    (MACROS, &["tokio"]),
];

/// The folders of the workspace's members.
pub(super) fn members(workspace: &Table) -> Result<Vec<String>> {
    let members = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(Value::as_array)
        .context("Cargo.toml has no workspace.members")?;
    let name = |member: &Value| member.as_str().map(str::to_owned);
    members
        .iter()
        .map(|member| name(member).context("workspace.members are not all texts"))
        .collect()
}

/// Checks all manifests, given with their paths.
pub(super) fn check(workspace: &Table, manifests: &[(String, Table)]) -> Vec<Finding> {
    let ours: BTreeSet<&str> = manifests
        .iter()
        .filter_map(|(_, manifest)| package_name(manifest))
        .collect();
    let mut findings = Vec::new();
    for (path, manifest) in manifests {
        let mut broken = |message: String| {
            findings.push(Finding {
                path: path.clone(),
                line: 0,
                message,
            });
        };
        let Some(name) = package_name(manifest) else {
            broken("has no package.name".to_owned());
            continue;
        };
        if !inherits_lints(manifest) {
            broken("does not say `[lints] workspace = true`".to_owned());
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            broken(format!("{name} is not in the table of arrows in xtask"));
            continue;
        };
        for dependency in dependencies(workspace, manifest) {
            if ours.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                broken(format!(
                    "{name} must not depend on {dependency}, only on {}",
                    list(allowed)
                ));
            }
            if let Some(users) = confined_to(&dependency)
                && !users.contains(&name)
            {
                broken(format!(
                    "{name} must not use {dependency}: it stays inside {}",
                    list(users)
                ));
            }
            if PURE
                .iter()
                .any(|(pure, without)| *pure == name && without.contains(&dependency.as_str()))
            {
                broken(format!("{name} is pure and must not use {dependency}"));
            }
        }
    }
    findings
}

fn package_name(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

fn inherits_lints(manifest: &Table) -> bool {
    let inherited = |lints: &Value| lints.get("workspace")?.as_bool();
    manifest.get("lints").and_then(inherited) == Some(true)
}

/// The packages of the normal dependencies, those for one target included.
fn dependencies(workspace: &Table, manifest: &Table) -> BTreeSet<String> {
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values);
    let tables = targets
        .filter_map(|target| target.get("dependencies"))
        .chain(manifest.get("dependencies"))
        .filter_map(Value::as_table);
    tables
        .flatten()
        .map(|(key, value)| real_name(workspace, key, value))
        .collect()
}

/// The package behind a dependency that may have been renamed, here or in the workspace.
fn real_name(workspace: &Table, key: &str, value: &Value) -> String {
    let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
    let shared = || workspace.get("workspace")?.get("dependencies")?.get(key);
    let declared = if inherited { shared() } else { Some(value) };
    let package = declared
        .and_then(|value| value.get("package"))
        .and_then(Value::as_str);
    package.unwrap_or(key).to_owned()
}

fn confined_to(dependency: &str) -> Option<&'static [&'static str]> {
    let covers = |base: &str| {
        let rest = dependency.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    CONFINED
        .iter()
        .find(|(base, _)| covers(base))
        .map(|(_, users)| *users)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "nothing of this workspace".to_owned();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of this package with these dependencies, and one of each other crate of ours.
    fn findings(name: &str, dependencies: &str) -> Vec<String> {
        let workspace: Table = "
            [workspace]
            members = []
            [workspace.dependencies]
            raft = { version = '1', package = 'openraft' }
            clinch-types = { path = 'types' }"
            .parse()
            .unwrap();
        let manifest = |name: &str, rest: &str| {
            let text = format!("package.name = '{name}'\nlints.workspace = true\n{rest}");
            (format!("{name}/Cargo.toml"), text.parse::<Table>().unwrap())
        };
        let mut manifests: Vec<_> = ARROWS.iter().map(|(name, _)| manifest(name, "")).collect();
        manifests.push(manifest(name, dependencies));
        check(&workspace, &manifests)
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn a_planted_arrow_upwards_or_sideways_is_found() {
        assert_eq!(
            findings(STORAGE, "[dependencies]\nclinch-transport.workspace = true"),
            ["clinch-storage must not depend on clinch-transport, only on clinch-types"]
        );
        assert_eq!(
            findings(TYPES, "[dependencies]\nclinch = { path = '../node' }"),
            ["clinch-types must not depend on clinch, only on nothing of this workspace"]
        );
        assert!(
            findings(
                STORAGE,
                "[dependencies]\nclinch-types.workspace = true\nsled = '1'"
            )
            .is_empty()
        );
    }

    #[test]
    fn tests_may_reach_further_and_targets_may_not() {
        assert!(findings(STORAGE, "[dev-dependencies]\nclinch-transport.workspace = true").is_empty());
        let target = "[target.'cfg(unix)'.dependencies]\nclinch-client.workspace = true";
        assert_eq!(findings(STORAGE, target).len(), 1);
    }

    #[test]
    fn confined_crates_are_found_under_any_name() {
        assert_eq!(
            findings(GATEWAY, "[dependencies]\nraft.workspace = true"),
            ["clinch-gateway must not use openraft: it stays inside clinch-storage, clinch"]
        );
        assert_eq!(
            findings(NODE, "[dependencies]\ndisk = { version = '1', package = 'sled' }").len(),
            1
        );
        assert_eq!(
            findings(ACTOR, "[dependencies]\nopenraft-rt-tokio = '1'\nquinn = '1'").len(),
            2
        );
        assert!(findings(ACTOR, "[dependencies]\nsledgehammer = '1'\ntokio = '1'").is_empty());
    }

    #[test]
    fn a_pure_crate_must_do_without_a_runtime() {
        assert_eq!(
            findings(MEMBERSHIP, "[dependencies]\ntokio = '1'"),
            ["clinch-membership is pure and must not use tokio"]
        );
        for confined in ["openraft", "quinn", "sled"] {
            assert_eq!(
                findings(MEMBERSHIP, &format!("[dependencies]\n{confined} = '1'")).len(),
                1
            );
        }
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_or_has_its_own_lints_is_found() {
        assert_eq!(
            findings("clinch-new", ""),
            ["clinch-new is not in the table of arrows in xtask"]
        );
        let own: Table = "package.name = 'xtask'".parse().unwrap();
        let found = check(&Table::new(), &[("xtask/Cargo.toml".to_owned(), own)]);
        assert_eq!(found[0].message, "does not say `[lints] workspace = true`");
    }

    #[test]
    fn the_table_has_no_circle() {
        // Every crate is above those it may use, so peeling off crates without arrows ends with none left.
        let mut left: Vec<_> = ARROWS.to_vec();
        while !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
            let before = left.len();
            left.retain(|(_, allowed)| allowed.iter().any(|name| names.contains(name)));
            assert!(left.len() < before, "a circle among {names:?}");
        }
    }
}
