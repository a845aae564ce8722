//! What every test of faults needs: the program, a cluster of it, and a report that can be followed up.
//!
//! Invariant: a test that fails leaves its history and its nodes' logs behind and says where; one that passes leaves
//! nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clinch::cli::local::{LocalCluster, LocalOptions};
use clinch_client::Client;
use clinch_types::{Key, NodeId, SessionId, ShardId, slot_of};
use tempfile::TempDir;

use crate::checkers::{self, Verdict};
use crate::doors::{Direct, Door, Gateway, Wire};
use crate::workload::Calls;

/// Names a program to use instead of the one in the target folder, for instance one with a planted bug.
pub const PROGRAM_VARIABLE: &str = "TESTED_PROGRAM";
/// The seed of a run; without it every run has its own.
pub const SEED_VARIABLE: &str = "CLINCH_SEED";
/// Time for a cluster to serve after it was started.
pub const READY_MAX: Duration = Duration::from_secs(60);
/// Shards of a cluster under test: enough that every node owns some; each more costs elections after every fault.
const SHARDS: u32 = 6;
/// Violations told in full.
const TOLD_MAX: usize = 8;

/// A number from the environment.
///
/// # Panics
/// When the variable is set and no number: a typing error must not silently run the default.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{variable} is {text:?}: {e}")),
        Err(_) => default,
    }
}

/// The target folder that this test was built in, and whether in release.
fn target() -> anyhow::Result<(PathBuf, bool)> {
    let exe = std::env::current_exe().context("finding the running test")?;
    let profile = exe
        .ancestors()
        .nth(2)
        .context("the test does not lie in a target folder")?;
    let target = profile
        .parent()
        .context("the test does not lie in a target folder")?;
    Ok((target.to_owned(), profile.ends_with("release")))
}

/// The `clinch` program, built by cargo, which does nothing when it is fresh: a test must not try an old program.
///
/// # Errors
/// When it cannot be built.
pub fn program() -> anyhow::Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| build().map_err(|e| format!("{e:#}")));
    program.clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os(PROGRAM_VARIABLE) {
        let program = PathBuf::from(program);
        ensure!(
            program.is_file(),
            "{PROGRAM_VARIABLE} is {}, which is no file",
            program.display()
        );
        return Ok(program);
    }
    let (target, release) = target()?;
    let mut cargo = Command::new(env!("CARGO"));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    cargo
        .args([
            "build",
            "--quiet",
            "--package",
            "clinch",
            "--bin",
            "clinch",
            "--manifest-path",
        ])
        .arg(manifest);
    cargo.arg("--target-dir").arg(&target);
    if release {
        cargo.arg("--release");
    }
    let status = cargo.status().context("running cargo")?;
    ensure!(status.success(), "the program cannot be built: {status}");
    Ok(target
        .join(if release { "release" } else { "debug" })
        .join("clinch"))
}

/// A cluster under test, its history, and who calls it.
pub struct Bed {
    name: &'static str,
    /// What the run is repeated with.
    pub seed: u64,
    /// The processes.
    pub cluster: LocalCluster,
    /// The history.
    pub calls: Calls,
    client: Client,
    wire: Wire,
    sessions: u64,
    dir: Option<TempDir>,
    passed: bool,
}

impl Bed {
    /// Three nodes, ready.
    ///
    /// # Errors
    /// When they do not become ready.
    pub async fn start(name: &'static str) -> anyhow::Result<Self> {
        Self::start_with(name, |_| {}).await
    }

    /// As [`Bed::start`], with changed options.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub async fn start_with(
        name: &'static str,
        change: impl FnOnce(&mut LocalOptions),
    ) -> anyhow::Result<Self> {
        let seed = number(SEED_VARIABLE, rand::random::<u32>().into());
        println!("{name}: seed {seed}");
        let dir = tempfile::Builder::new().prefix("clinch-faults-").tempdir()?;
        let mut options = LocalOptions::new(dir.path(), program()?);
        options.shards = SHARDS;
        change(&mut options);
        let cluster = LocalCluster::start(options).await?;
        cluster.wait_ready(READY_MAX).await?;
        let client = cluster.client().await?;
        let wire = Wire::new(&cluster)?;
        let calls = Calls::new(seed);
        Ok(Self {
            name,
            seed,
            cluster,
            calls,
            client,
            wire,
            sessions: 0,
            dir: Some(dir),
            passed: false,
        })
    }

    /// The Rust client.
    pub fn roaming(&self) -> Door {
        Door::Roaming(self.client.cluster().clone())
    }

    /// HTTP to one node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn gateway(&self, node: NodeId) -> anyhow::Result<Door> {
        Ok(Door::Gateway(Gateway::new(&self.cluster, node)?.into()))
    }

    /// QUIC to one node, in a session of its own.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn direct(&mut self, node: NodeId) -> anyhow::Result<Direct> {
        self.sessions += 1;
        let session = SessionId((u128::from(self.seed) << 64) | u128::from(self.sessions));
        Direct::new(&self.cluster, &self.wire, node, session)
    }

    /// The shard of a counter.
    ///
    /// # Errors
    /// When the cluster's routes are not known.
    pub fn shard_of(&self, key: &str) -> anyhow::Result<ShardId> {
        let slot = slot_of("default", "counter", &Key::new([key])?);
        let routes = self.client.cluster().router().routes();
        routes.shard_of(slot).context("the client knows no routes")
    }

    /// Those of the counters that this node owns now.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn owned_by(&self, node: NodeId, keys: &[String]) -> anyhow::Result<Vec<String>> {
        let owners = self.cluster.owners().await?;
        let mut owned = Vec::new();
        for key in keys {
            if owners.get(&self.shard_of(key)?) == Some(&Some(node)) {
                owned.push(key.clone());
            }
        }
        Ok(owned)
    }

    /// The running node that owns most of the counters, and those it owns.
    ///
    /// # Errors
    /// When nobody owns any.
    pub async fn busiest(&self, keys: &[String]) -> anyhow::Result<(NodeId, Vec<String>)> {
        let mut best: Option<(NodeId, Vec<String>)> = None;
        for node in self.cluster.pids().into_keys() {
            let owned = self.owned_by(node, keys).await?;
            if best.as_ref().is_none_or(|(_, most)| owned.len() > most.len()) {
                best = Some((node, owned));
            }
        }
        best.filter(|(_, owned)| !owned.is_empty())
            .context("no running node owns any of the counters")
    }

    /// Waits until `count` operations begun from now on have a value.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub async fn wait_acknowledged(&self, count: usize, timeout: Duration) -> anyhow::Result<()> {
        let from = self.calls.recorder.begun();
        let reached = async {
            while self.calls.recorder.acknowledged_since(from) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = || self.calls.recorder.acknowledged_since(from);
        tokio::time::timeout(timeout, reached).await.with_context(|| {
            format!(
                "{} of {count} operations were answered within {timeout:?}",
                done()
            )
        })
    }

    /// Reads every counter, once by the Rust client and once through a gateway, and judges the history, which must be
    /// sound.
    ///
    /// # Panics
    /// When a law is broken; the history and the logs are kept.
    pub async fn judge(&mut self, keys: &[String]) -> Verdict {
        let verdict = self.verdict(keys).await;
        assert!(
            verdict.violations.is_empty(),
            "{} laws broken (seed {})",
            verdict.violations.len(),
            self.seed
        );
        verdict
    }

    /// As [`Bed::judge`], when the history need not be sound.
    pub async fn verdict(&mut self, keys: &[String]) -> Verdict {
        const EACH: Duration = Duration::from_secs(20);
        let mut doors = vec![self.roaming()];
        self.calls.read_all(&doors, keys, EACH).await;
        doors = self
            .cluster
            .pids()
            .into_keys()
            .filter_map(|node| self.gateway(node).ok())
            .collect();
        self.calls.read_all(&doors, keys, EACH).await;
        let verdict = checkers::check(&self.calls.recorder.operations());
        let marks = self.calls.recorder.marks();
        println!(
            "{}: seed {}, {} faults fired, {verdict}",
            self.name,
            self.seed,
            marks.len()
        );
        for violation in verdict.violations.iter().take(TOLD_MAX) {
            println!("{}: {violation}", self.name);
        }
        verdict
    }

    /// Ends a test that found nothing.
    pub async fn pass(mut self) {
        self.cluster.stop_all().await;
        self.passed = true;
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        let folder = target()?.0.join("jepsen");
        std::fs::create_dir_all(&folder)?;
        let history = folder.join(format!("{}-{}.jsonl", self.name, self.seed));
        self.calls.recorder.save(&history)?;
        eprintln!("{}: the history is in {}", self.name, history.display());
        if let Some(dir) = self.dir.take() {
            eprintln!(
                "{}: the nodes' logs are in {}/node-*/node.log",
                self.name,
                dir.keep().display()
            );
        }
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !self.passed
            && let Err(error) = self.keep()
        {
            eprintln!("{}: the history is lost: {error:#}", self.name);
        }
    }
}

/// Names of `count` counters.
pub fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}-{i}")).collect()
}
