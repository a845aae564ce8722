//! The laws of the cluster state in one place. Called by tests, and by whoever reads a state from disk or wire.

use std::collections::BTreeSet;

use clinch_types::{NodeId, ShardId, Slot};

use crate::node::NodeState;
use crate::state::{ClusterState, DEFAULT_NAMESPACE, ShardPlacement};

impl ClusterState {
    /// Checks every law.
    ///
    /// # Errors
    /// The first law that is broken, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.settings.check().map_err(|error| error.to_string())?;
        self.check_nodes()?;
        self.check_shards()?;
        if !self.namespaces.contains_key(DEFAULT_NAMESPACE) {
            return Err(format!("there is no namespace {DEFAULT_NAMESPACE:?}"));
        }
        for (id, token) in &self.tokens {
            if let Some(name) = &token.namespace
                && !self.namespaces.contains_key(name)
            {
                return Err(format!(
                    "token {id:?} is for namespace {name:?}, which does not exist"
                ));
            }
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        let mut storages = BTreeSet::new();
        for (id, node) in &self.nodes {
            if node.id != *id {
                return Err(format!("node {} is filed under {id}", node.id));
            }
            if !storages.insert(node.storage_id) {
                return Err(format!("node {id} shares its storage id with another"));
            }
            node.check().map_err(|error| format!("node {id}: {error}"))?;
        }
        Ok(())
    }

    fn check_shards(&self) -> Result<(), String> {
        if self.shards.is_empty() != self.slots.is_empty() {
            return Err(format!(
                "{} shards are placed, {} slots are mapped",
                self.shards.len(),
                self.slots.len()
            ));
        }
        if self.shards.is_empty() {
            return Ok(());
        }
        if self.slots.len() != usize::from(Slot::COUNT) {
            return Err(format!(
                "{} of {} slots are mapped",
                self.slots.len(),
                Slot::COUNT
            ));
        }
        if let Some(shard) = self.slots.iter().find(|shard| !self.shards.contains_key(shard)) {
            return Err(format!("a slot is in shard {shard}, which does not exist"));
        }
        let expected = (0..self.settings.shards).map(ShardId);
        if !self.shards.keys().copied().eq(expected) {
            return Err(format!(
                "not the shards 0 to {}: {:?}",
                self.settings.shards,
                self.shards.keys()
            ));
        }
        self.shards
            .iter()
            .try_for_each(|(&shard, at)| self.check_shard(shard, at))
    }

    fn check_shard(&self, shard: ShardId, at: &ShardPlacement) -> Result<(), String> {
        if at.desired.is_empty() {
            return Err(format!("shard {shard} is to be nowhere"));
        }
        if !at.desired.contains(&at.leader) {
            return Err(format!(
                "shard {shard} is to be led by {} of {:?}",
                at.leader, at.desired
            ));
        }
        for nodes in [&at.desired, &at.actual] {
            if !nodes.is_sorted_by(|a, b| a < b) {
                return Err(format!(
                    "shard {shard}: nodes are not distinct and in order: {nodes:?}"
                ));
            }
            if let Some(node) = nodes.iter().find(|node| !self.may_hold(**node)) {
                return Err(format!(
                    "shard {shard} is on node {node}, which is unknown or left"
                ));
            }
        }
        Ok(())
    }

    fn may_hold(&self, node: NodeId) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|node| node.state != NodeState::Left)
    }
}
