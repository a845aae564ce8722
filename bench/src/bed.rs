//! The cluster under measurement: real processes of this same program, and what a workload needs to know of them.
//!
//! Not here: how processes are started and watched (`clinch::cli::local`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clinch::cli::local::{LocalCluster, LocalOptions};
use clinch::{Client, Cluster};
use clinch_types::{Key, NodeId, slot_of};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::actors::COUNTER;
use crate::caller::{HttpCaller, OPERATION_MAX, Op, uris};
use crate::floors::Floors;
use crate::http::Http;
use crate::report::Through;
use crate::usage::file_system;

/// How long a cluster may take to serve.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long owners may take to get where the placement wants them.
const SETTLED_MAX: Duration = Duration::from_secs(30);

/// What cluster a workload wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) nodes: u32,
    /// Where its folder is made.
    pub(crate) dir: &'a Path,
    /// How long each floor is measured.
    pub(crate) floor_time: Duration,
    /// With timings that hold even where unoptimized nodes share a machine with a build: it is not measured then, only
    /// run.
    pub(crate) patient: bool,
}

/// A running cluster with a client. Dropping it kills the processes and removes their folder.
pub(crate) struct Bed {
    pub(crate) cluster: LocalCluster,
    client: Client,
    pub(crate) nodes: u32,
    pub(crate) floors: Floors,
    /// What the data lies on.
    pub(crate) file_system: Option<String>,
    // After the cluster: the processes end before their files go.
    _folder: TempDir,
}

impl Bed {
    /// Measures the floors in a new folder, then starts a cluster there and waits until every shard is served by the
    /// node that the placement wants.
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub(crate) async fn start(wanted: Wanted<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("clinch-bench-")
            .tempdir_in(wanted.dir)
            .with_context(|| format!("making a folder in {}", wanted.dir.display()))?;
        let floors = Floors::measure(folder.path(), wanted.floor_time).await?;
        let program = std::env::current_exe().context("finding this program")?;
        let mut options = LocalOptions::new(folder.path().join("cluster"), program);
        options.nodes = wanted.nodes;
        // A node's log in the same folder must not compete with what is measured, unless it is what somebody wants to see.
        options.environment.insert(
            "CLINCH_LOG".into(),
            std::env::var("CLINCH_LOG").unwrap_or_else(|_| "warn".into()),
        );
        if wanted.patient {
            let timings = [
                ("heartbeat-ms", 250),
                ("election-min-ms", 1000),
                ("election-max-ms", 2000),
            ];
            let timings: toml::Table = timings
                .into_iter()
                .map(|(name, ms)| (name.into(), ms.into()))
                .collect();
            options.settings.insert("raft".into(), timings.into());
        }
        let cluster = LocalCluster::start(options).await?;
        cluster.wait_ready(READY_MAX).await?;
        let client = cluster.client().await?;
        let file_system = file_system(folder.path());
        let bed = Self {
            cluster,
            client,
            nodes: wanted.nodes,
            floors,
            file_system,
            _folder: folder,
        };
        bed.settled().await?;
        Ok(bed)
    }

    /// The cluster through the Rust client.
    pub(crate) fn client(&self) -> &Cluster {
        self.client.cluster()
    }

    /// Waits until every shard has the owner that the placement wants.
    ///
    /// # Errors
    /// Names the shards that have not when the time is up.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLED_MAX;
        loop {
            let status = self.cluster.status().await?;
            let shards = status
                .get("shards")
                .and_then(|s| s.as_array())
                .map_or(&[][..], Vec::as_slice);
            let astray: Vec<String> = shards
                .iter()
                .filter(|shard| shard["owner"] != shard["preferred"])
                .map(|shard| shard["id"].to_string())
                .collect();
            if !shards.is_empty() && astray.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "after {SETTLED_MAX:?} shards {} are not served by the node that should: {status}",
                astray.join(", ")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Which node owns the counter with this key now; `None` while nobody is known to.
    ///
    /// # Errors
    /// When no node tells, or the key is over its limit.
    pub(crate) async fn owners(&self, keys: &[String]) -> anyhow::Result<Vec<Option<NodeId>>> {
        let owners = self.cluster.owners().await?;
        let routes = self.client().router().routes();
        let owner = |key: &String| {
            let slot = slot_of("default", COUNTER, &Key::new([key.as_str()])?);
            let shard = routes.shard_of(slot).context("the client has no routes")?;
            Ok(owners.get(&shard).copied().flatten())
        };
        keys.iter().map(owner).collect()
    }

    /// So many callers, spread over the gateways; each calls the actors that its gateway reaches `through` the wanted
    /// way.
    ///
    /// # Errors
    /// When no gateway reaches any of them that way.
    pub(crate) async fn http_callers(
        &self,
        count: usize,
        op: Op,
        keys: &[String],
        through: Through,
    ) -> anyhow::Result<Vec<HttpCaller>> {
        let owners = self.owners(keys).await?;
        let mut doors = Vec::new();
        for (node, gateway) in self.cluster.gateways() {
            let reached = |owner: &Option<NodeId>| match through {
                Through::Any => true,
                Through::Owner => *owner == Some(node),
                Through::Another => owner.is_some_and(|owner| owner != node),
            };
            let own = keys
                .iter()
                .zip(&owners)
                .filter(|(_, owner)| reached(owner))
                .map(|(key, _)| key);
            let own = uris(op, own)?;
            if !own.is_empty() {
                doors.push((gateway, own));
            }
        }
        ensure!(
            !doors.is_empty(),
            "no gateway reaches an actor through {through:?}"
        );
        let caller = |(number, (gateway, uris)): (usize, &(String, _))| {
            HttpCaller::new(gateway, op, std::sync::Arc::clone(uris), number)
        };
        (0..count).zip(doors.iter().cycle()).map(caller).collect()
    }

    /// The text of each running node's `/metrics`; those that do not answer are left out.
    pub(crate) async fn metrics(&self) -> BTreeMap<NodeId, String> {
        let mut texts = BTreeMap::new();
        let gateways = self.cluster.gateways();
        for node in self.cluster.pids().into_keys() {
            let Some(Ok(mut http)) = gateways
                .get(&node)
                .map(|gateway| Http::new(gateway, OPERATION_MAX))
            else {
                continue;
            };
            if let Ok(body) = http.get("/metrics").await {
                texts.insert(node, String::from_utf8_lossy(&body).into_owned());
            }
        }
        texts
    }

    /// Stops the nodes in order.
    pub(crate) async fn stop(self) {
        self.cluster.stop_all().await;
    }
}
