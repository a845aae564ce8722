//! The faults: `kill -9` of owners, and of all nodes at once, spread over the run; and how long each outage lasted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use clinch_client::Router;
use clinch_types::{Key, NodeId, ShardId, slot_of};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::load::Run;
use crate::cli::local::LocalCluster;

/// Time for a node, or all, to serve again after a restart.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time for the actors of a killed node to answer again; far beyond what is promised.
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// Between two calls of a prober.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// One thing that is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillOwner,
    KillAll,
}

/// All faults, evenly mixed.
pub(super) fn plan(kills: u32, kill_alls: u32) -> Vec<Fault> {
    let (mut plan, mut all_done) = (Vec::new(), 0);
    for done in 1..=u64::from(kills + kill_alls) {
        // Of the first `done` faults, this many are to kill all.
        let want = done * u64::from(kill_alls) / u64::from(kills + kill_alls);
        plan.push(if want > all_done {
            Fault::KillAll
        } else {
            Fault::KillOwner
        });
        all_done = want;
    }
    plan
}

/// What the faults did.
#[derive(Debug, Default)]
pub(super) struct Outages {
    pub(super) kills: u32,
    pub(super) kill_alls: u32,
    /// From each kill until each shard of the killed node answered again.
    pub(super) failovers: Vec<Duration>,
    /// From each kill of all nodes until all served again.
    pub(super) recoveries: Vec<Duration>,
    /// How often each node was killed alone.
    hits: BTreeMap<NodeId, u32>,
}

impl Outages {
    /// Does one fault and waits until the cluster is whole again. Tells what happened.
    ///
    /// # Errors
    /// When it does not become whole.
    pub(super) async fn strike(
        &mut self,
        fault: Fault,
        cluster: &LocalCluster,
        router: &Router,
        run: &Run,
    ) -> anyhow::Result<String> {
        match fault {
            Fault::KillOwner => self.kill_owner(cluster, router, run).await,
            Fault::KillAll => self.kill_all(cluster).await,
        }
    }

    async fn kill_owner(
        &mut self,
        cluster: &LocalCluster,
        router: &Router,
        run: &Run,
    ) -> anyhow::Result<String> {
        let owners = cluster.owners().await?;
        let victim = victim(&owners, &self.hits).context("no node owns a shard")?;
        let shards: BTreeSet<ShardId> = owners
            .iter()
            .filter(|(_, o)| **o == Some(victim))
            .map(|(s, _)| *s)
            .collect();
        let actors = one_actor_of_each(&shards, router, run);
        let killed_at = cluster.kill(victim).await?;
        let probes = join_all(actors.into_iter().map(|actor| probe(run, actor, killed_at)));
        let outages = tokio::time::timeout(FAILOVER_MAX, probes).await;
        let outages = outages.map_err(|_| anyhow::anyhow!("the actors of node {victim} do not answer"))?;
        self.kills += 1;
        *self.hits.entry(victim).or_default() += 1;
        cluster.restart(victim)?;
        cluster.wait_node_ready(victim, READY_MAX).await?;
        let worst = outages.iter().max().copied().unwrap_or_default();
        self.failovers.extend(outages);
        Ok(format!(
            "kill -9 of node {victim}, owner of {} of {} shards: all answered again after {} ms; node {victim} is back",
            shards.len(),
            owners.len(),
            worst.as_millis(),
        ))
    }

    async fn kill_all(&mut self, cluster: &LocalCluster) -> anyhow::Result<String> {
        let killed_at = cluster.kill_all().await?;
        for node in cluster.nodes() {
            cluster.restart(node)?;
        }
        cluster.wait_ready(READY_MAX).await?;
        let took = killed_at.elapsed();
        self.kill_alls += 1;
        self.recoveries.push(took);
        let nodes = cluster.nodes().len();
        Ok(format!(
            "kill -9 of all {nodes} nodes at once: all restarted and ready after {} ms",
            took.as_millis()
        ))
    }
}

/// Of the nodes that were killed least often, the one that owns most.
fn victim(owners: &BTreeMap<ShardId, Option<NodeId>>, hits: &BTreeMap<NodeId, u32>) -> Option<NodeId> {
    let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
    for owner in owners.values().flatten() {
        *owned.entry(*owner).or_default() += 1;
    }
    let rank = |(node, owned): &(&NodeId, &usize)| {
        (hits.get(node).copied().unwrap_or(0), std::cmp::Reverse(**owned))
    };
    owned.iter().min_by_key(rank).map(|(node, _)| *node)
}

/// For each shard a counter of this run that lives there, if one does.
fn one_actor_of_each(shards: &BTreeSet<ShardId>, router: &Router, run: &Run) -> Vec<usize> {
    let routes = router.routes();
    let mut found: BTreeMap<ShardId, usize> = BTreeMap::new();
    for (actor, key) in run.keys.iter().enumerate() {
        let Ok(key) = Key::new([key.as_str()]) else {
            continue;
        };
        if let Some(shard) = routes.shard_of(slot_of("default", "counter", &key))
            && shards.contains(&shard)
        {
            found.entry(shard).or_insert(actor);
        }
    }
    found.into_values().collect()
}

/// Calls one counter until it answers; the time since the kill.
async fn probe(run: &Run, actor: usize, killed_at: Instant) -> Duration {
    let door = run.door.for_caller(actor);
    while !run.increment(&door, actor).await {
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    killed_at.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_mixed_evenly_and_all_of_them_happen() {
        assert_eq!(plan(0, 0), []);
        assert_eq!(
            plan(2, 2),
            [Fault::KillOwner, Fault::KillAll, Fault::KillOwner, Fault::KillAll]
        );
        for (kills, alls) in [(3, 0), (0, 2), (7, 3), (1, 5)] {
            let plan = plan(kills, alls);
            assert_eq!(
                plan.iter().filter(|f| **f == Fault::KillAll).count(),
                alls as usize
            );
            assert_eq!(plan.len(), (kills + alls) as usize);
        }
    }

    #[test]
    fn every_node_is_hit_before_one_is_hit_twice() {
        let owners: BTreeMap<_, _> = (0..6u32)
            .map(|s| (ShardId(s), Some(NodeId(u64::from(s) % 3 + 1))))
            .collect();
        let mut hits = BTreeMap::new();
        for _ in 0..6 {
            *hits.entry(victim(&owners, &hits).unwrap()).or_default() += 1;
        }
        assert!(hits.values().all(|h| *h == 2) && hits.len() == 3, "{hits:?}");
        let owners = [
            (ShardId(0), Some(NodeId(1))),
            (ShardId(1), Some(NodeId(2))),
            (ShardId(2), Some(NodeId(2))),
        ];
        assert_eq!(victim(&owners.into(), &BTreeMap::new()), Some(NodeId(2)));
        assert_eq!(
            victim(&BTreeMap::from([(ShardId(0), None)]), &BTreeMap::new()),
            None
        );
    }
}
