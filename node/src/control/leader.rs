//! What the leader of the control group does: takes nodes into the group, places the shards once enough are there, has them
//! led by the newest code, and notices nodes that fall silent.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clinch_membership::detector::{Event, Health};
use clinch_membership::{ClusterState, Command, Detector, DetectorConfig, NodeState};
use clinch_transport::Class;
use clinch_types::{Incarnation, NodeId, codec};
use openraft::async_runtime::WatchReceiver;
use openraft::{BasicNode, ChangeMembers};

use super::Control;
use crate::shard::kinds;

/// How often the leader looks around.
const ROUND: Duration = Duration::from_millis(250);
/// Voters of the control group at most; further nodes are learners.
const VOTERS_MAX: usize = 5;
/// Time a node has to answer a heartbeat.
const HEARTBEAT_TTL: Duration = Duration::from_millis(1000);
/// Entries a learner may lack and still be made a voter.
const LAG_MAX: u64 = 64;

impl Control {
    /// Runs for ever; does nothing while another node leads.
    pub(super) async fn lead(&self) {
        let mut detector = None;
        loop {
            tokio::time::sleep(ROUND).await;
            if !self.inner.group.raft.is_leader() {
                detector = None;
                continue;
            }
            let Some(state) = self.state() else { continue };
            if let Err(error) = self.form_group(&state).await {
                // Most often the leadership is on its way elsewhere; the next round sees.
                tracing::debug!(%error, "the control group could not be changed");
            }
            if !state.is_placed() && state.placeable().count() >= state.settings.expect_nodes as usize {
                match self.judge(Command::PlaceInitial).await {
                    Ok(()) => tracing::info!(shards = state.settings.shards, "the shards are placed"),
                    Err(error) => tracing::warn!(%error, "the shards could not be placed"),
                }
            }
            self.prefer_leaders(&state).await;
            let detector = detector.get_or_insert_with(|| {
                Detector::new(DetectorConfig::default()).expect("the defaults are sound")
            });
            self.watch_nodes(&state, detector).await;
        }
    }

    /// Every node of the cluster takes part in the control group: first as a learner, the first five as voters.
    async fn form_group(&self, state: &ClusterState) -> anyhow::Result<()> {
        let raft = &self.inner.group.raft;
        let metrics = raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership().clone();
        let voters: Vec<u64> = membership.voter_ids().collect();
        for (id, node) in &state.nodes {
            let known = membership.get_node(&id.0).is_some();
            if node.state.is_gone() {
                continue;
            }
            if !known {
                raft.add_learner(id.0, BasicNode::default(), false).await?;
                return Ok(());
            }
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|r| r.get(&id.0))
                .and_then(|m| m.as_ref());
            let last = metrics.last_log_index.unwrap_or(0);
            let close = matched.is_some_and(|m| m.index + LAG_MAX >= last);
            if !voters.contains(&id.0) && voters.len() < VOTERS_MAX && close {
                raft.change_membership(ChangeMembers::AddVoterIds([id.0].into()), true)
                    .await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes down which replicas should lead, once that has changed: nodes have come back with other code. Their owners then
    /// hand the shards over, a few at a time (`shards`).
    async fn prefer_leaders(&self, state: &ClusterState) {
        let shards = state.leaders_due();
        if shards.is_empty() {
            return;
        }
        let (base, count) = (state.version, shards.len());
        match self.judge(Command::SetDesired { base, shards }).await {
            Ok(()) => tracing::info!(shards = count, "shards should be led by other replicas"),
            // Most often the state has moved on; the next round sees.
            Err(error) => tracing::debug!(%error, "the preferred leaders could not be recorded"),
        }
    }

    /// Asks every node how it is, and writes down who fell silent or came back.
    async fn watch_nodes(&self, state: &ClusterState, detector: &mut Detector) {
        let mut heard = BTreeMap::new();
        let asked = state
            .nodes
            .values()
            .filter(|n| !n.state.is_gone())
            .map(|n| self.heartbeat(n.id));
        for (node, incarnation) in futures_util::future::join_all(asked).await.into_iter().flatten() {
            heard.insert(node, incarnation);
        }
        let now = tokio::time::Instant::now().into_std();
        let mut verdicts = Vec::new();
        for (&node, record) in &state.nodes {
            let event = match record.state.is_gone() {
                true => Event::Forget { node },
                false => Event::Watch {
                    node,
                    incarnation: record.incarnation,
                },
            };
            detector.step(now, event, &mut verdicts);
            if let Some(&incarnation) = heard.get(&node) {
                detector.step(
                    now,
                    Event::Heartbeat {
                        from: node,
                        incarnation,
                    },
                    &mut verdicts,
                );
            }
        }
        detector.step(now, Event::Tick, &mut verdicts);
        for (&node, record) in &state.nodes {
            let next = match (record.state, detector.health(node)) {
                (NodeState::Up | NodeState::Joining, Some(Health::Down)) => NodeState::Down,
                (NodeState::Down, Some(Health::Alive)) => NodeState::Up,
                _ => continue,
            };
            let incarnation = Some(record.incarnation);
            match self
                .judge(Command::SetNodeState {
                    node,
                    incarnation,
                    state: next,
                })
                .await
            {
                Ok(()) => tracing::info!(%node, state = %next, "a node changed its state"),
                Err(error) => tracing::warn!(%node, %error, "a node's state could not be recorded"),
            }
        }
    }

    async fn heartbeat(&self, node: NodeId) -> Option<(NodeId, Incarnation)> {
        if node == self.inner.node {
            let incarnation = self.state()?.nodes.get(&node)?.incarnation;
            return Some((node, incarnation));
        }
        let transport = &self.inner.transport;
        let answer = transport
            .call(node, Class::Control, kinds::STATUS, Bytes::new(), HEARTBEAT_TTL)
            .await
            .ok()?;
        let incarnation: Incarnation = codec::decode(&answer).ok()?;
        Some((node, incarnation))
    }
}
