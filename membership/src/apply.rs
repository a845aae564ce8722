//! The transitions of the cluster state.
//!
//! Invariant: a command either yields a state that keeps [`ClusterState::check_invariants`] and whose version is one
//! higher, or the same state (its effect was there already), or a reason; never half a change.
//! Run once, where the command is accepted: what is replicated is the outcome, so that nodes of different
//! releases never compute different ones.

use std::collections::{BTreeMap, BTreeSet};

use clinch_types::{Incarnation, NodeId, ShardId, WallMs};

use crate::command::{Command, Desired, Rejected, Setting};
use crate::limits;
use crate::node::{NodeRecord, NodeState};
use crate::placement;
use crate::slots;
use crate::state::{ClusterState, INSPECTOR_SECRET, NamespaceRecord, ShardPlacement, TokenKind, TokenRecord};

impl ClusterState {
    /// The state after a command.
    ///
    /// # Errors
    /// Why it was refused; this state stands.
    pub fn apply(&self, command: Command) -> Result<Self, Rejected> {
        let mut next = self.clone();
        match command {
            Command::Join { record } => next.join(record)?,
            Command::SetNodeState {
                node,
                incarnation,
                state,
            } => next.set_node_state(node, incarnation, state)?,
            Command::PlaceInitial => next.place_initial()?,
            Command::SetDesired { base, shards } => next.set_desired(base, shards)?,
            Command::SetActual { shard, voters } => next.set_actual(shard, voters)?,
            Command::SetLeader { shard, leader } => next.set_leader(shard, leader)?,
            Command::CreateNamespace { name, created } => next.create_namespace(name, created)?,
            Command::PutToken { id, token } => next.put_token(id, token)?,
            Command::RemoveToken { id } => {
                next.tokens.remove(&id);
            }
            Command::SetSetting { setting } => next.set_setting(setting)?,
            Command::MakeInspectorSecret { secret, created } => {
                next.make_inspector_secret(secret, created)?
            }
        }
        if next != *self {
            next.version += 1;
        }
        Ok(next)
    }

    fn join(&mut self, record: NodeRecord) -> Result<(), Rejected> {
        record.check()?;
        let node = record.id;
        if !matches!(record.state, NodeState::Joining | NodeState::Up) {
            return Err(Rejected::BadTransition {
                node,
                from: NodeState::Joining,
                to: record.state,
            });
        }
        let state = match self.nodes.get(&node) {
            Some(known) => restarted_state(known, &record)?,
            None => {
                self.check_new_node(&record)?;
                record.state
            }
        };
        self.nodes.insert(node, NodeRecord { state, ..record });
        Ok(())
    }

    fn check_new_node(&self, record: &NodeRecord) -> Result<(), Rejected> {
        if let Some(owner) = self
            .nodes
            .values()
            .find(|node| node.storage_id == record.storage_id)
        {
            return Err(Rejected::StorageTaken {
                node: record.id,
                owner: owner.id,
            });
        }
        let present = self.nodes.values().filter(|node| !node.state.is_gone()).count();
        for (what, count, max) in [
            ("nodes", present, limits::NODES_MAX),
            ("nodes present and past", self.nodes.len(), limits::NODES_EVER_MAX),
        ] {
            if count >= max {
                return Err(Rejected::Full { what, max });
            }
        }
        Ok(())
    }

    fn set_node_state(
        &mut self,
        node: NodeId,
        incarnation: Option<Incarnation>,
        state: NodeState,
    ) -> Result<(), Rejected> {
        let used_by = self.shards_on(node).next();
        let record = self.nodes.get_mut(&node).ok_or(Rejected::UnknownNode { node })?;
        if let Some(given) = incarnation
            && given != record.incarnation
        {
            return Err(Rejected::OldIncarnation {
                node,
                current: record.incarnation,
                given,
            });
        }
        if record.state == state {
            return Ok(());
        }
        if !record.state.may_become(state) {
            return Err(Rejected::BadTransition {
                node,
                from: record.state,
                to: state,
            });
        }
        if let (NodeState::Left, Some(shard)) = (state, used_by) {
            return Err(Rejected::StillInUse { node, shard });
        }
        record.state = state;
        if state.is_gone() {
            // The record stays for ever, so it keeps only what tells who it was.
            record.actor_types.clear();
            record.gateway = None;
        }
        Ok(())
    }

    fn place_initial(&mut self) -> Result<(), Rejected> {
        if self.is_placed() {
            return Err(Rejected::AlreadyPlaced {
                what: "the first placement",
            });
        }
        let up = self.placeable().count();
        let expected = self.settings.expect_nodes;
        if up == 0 || (up as u64) < u64::from(expected) {
            return Err(Rejected::TooFewNodes { up, expected });
        }
        let mut input = self.placement_input();
        // A node that is not up yet has nothing to keep, and must not be counted on.
        input.nodes.retain(|node| node.accepts);
        let placed = placement::place(&input);
        self.slots = slots::initial(self.settings.shards);
        self.shards = placed
            .replicas
            .into_iter()
            .zip(placed.leaders.into_values())
            .map(|((shard, desired), leader)| {
                let at = ShardPlacement {
                    desired,
                    actual: Vec::new(),
                    leader,
                };
                (shard, at)
            })
            .collect();
        Ok(())
    }

    fn set_desired(&mut self, base: u64, shards: BTreeMap<ShardId, Desired>) -> Result<(), Rejected> {
        if base != self.version {
            return Err(Rejected::Stale {
                base,
                current: self.version,
            });
        }
        for (shard, desired) in shards {
            let replicas = self.check_replicas(shard, desired.replicas)?;
            let at = self.shards.get(&shard).ok_or(Rejected::UnknownShard { shard })?;
            for &node in replicas.iter().filter(|node| !at.desired.contains(node)) {
                let state = self.nodes[&node].state;
                if !state.gains_replicas() {
                    return Err(Rejected::CannotGain { node, shard, state });
                }
            }
            check_leader(shard, desired.leader, &replicas)?;
            if let Some(at) = self.shards.get_mut(&shard) {
                at.desired = replicas;
                at.leader = desired.leader;
            }
        }
        Ok(())
    }

    fn set_actual(&mut self, shard: ShardId, voters: Vec<NodeId>) -> Result<(), Rejected> {
        let voters = self.check_replicas(shard, voters)?;
        if let Some(&node) = voters
            .iter()
            .find(|node| self.nodes[node].state == NodeState::Left)
        {
            return Err(Rejected::Gone {
                node,
                state: NodeState::Left,
            });
        }
        let at = self
            .shards
            .get_mut(&shard)
            .ok_or(Rejected::UnknownShard { shard })?;
        at.actual = voters;
        Ok(())
    }

    fn set_leader(&mut self, shard: ShardId, leader: NodeId) -> Result<(), Rejected> {
        let at = self
            .shards
            .get_mut(&shard)
            .ok_or(Rejected::UnknownShard { shard })?;
        check_leader(shard, leader, &at.desired)?;
        at.leader = leader;
        Ok(())
    }

    /// Distinct, known, not too many; in order of id.
    fn check_replicas(&self, shard: ShardId, nodes: Vec<NodeId>) -> Result<Vec<NodeId>, Rejected> {
        // During a move a group has its old and its new replicas.
        let max = 2 * usize::from(limits::REPLICAS_MAX);
        let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
        if distinct.is_empty() || distinct.len() != nodes.len() || nodes.len() > max {
            return Err(Rejected::BadReplicas { shard, nodes, max });
        }
        if let Some(&node) = distinct.iter().find(|node| !self.nodes.contains_key(node)) {
            return Err(Rejected::UnknownNode { node });
        }
        Ok(distinct.into_iter().collect())
    }

    fn create_namespace(&mut self, name: String, created: WallMs) -> Result<(), Rejected> {
        check_name("namespace", &name, clinch_types::limits::NAMESPACE_MAX)?;
        if self.namespaces.contains_key(&name) {
            return Ok(());
        }
        if self.namespaces.len() >= limits::NAMESPACES_MAX {
            return Err(Rejected::Full {
                what: "namespaces",
                max: limits::NAMESPACES_MAX,
            });
        }
        self.namespaces.insert(name, NamespaceRecord { created });
        Ok(())
    }

    fn put_token(&mut self, id: String, token: TokenRecord) -> Result<(), Rejected> {
        check_name("token id", &id, limits::TOKEN_ID_MAX)?;
        if id == INSPECTOR_SECRET {
            return Err(Rejected::Malformed {
                what: "token id",
                value: id,
            });
        }
        if let Some(name) = &token.namespace {
            if token.kind == TokenKind::Admin {
                return Err(Rejected::Malformed {
                    what: "admin token with a namespace",
                    value: shortened(name),
                });
            }
            if !self.namespaces.contains_key(name) {
                return Err(Rejected::UnknownNamespace {
                    name: shortened(name),
                });
            }
        }
        self.insert_token(id, token)
    }

    fn insert_token(&mut self, id: String, token: TokenRecord) -> Result<(), Rejected> {
        if self.tokens.len() >= limits::TOKENS_MAX && !self.tokens.contains_key(&id) {
            return Err(Rejected::Full {
                what: "tokens",
                max: limits::TOKENS_MAX,
            });
        }
        self.tokens.insert(id, token);
        Ok(())
    }

    /// The first one stays: tokens have been made from it.
    fn make_inspector_secret(&mut self, secret: [u8; 32], created: WallMs) -> Result<(), Rejected> {
        if self.inspector_secret().is_some() {
            return Ok(());
        }
        // As a token it opens nothing: nobody knows a text with this hash.
        let token = TokenRecord {
            kind: TokenKind::Publishable,
            namespace: None,
            hash: secret,
            created,
        };
        self.insert_token(INSPECTOR_SECRET.to_owned(), token)
    }

    fn set_setting(&mut self, setting: Setting) -> Result<(), Rejected> {
        let mut settings = self.settings;
        match setting {
            Setting::Shards(shards) => settings.shards = shards,
            Setting::Replicas(replicas) => settings.replicas = replicas,
            Setting::ExpectNodes(nodes) => settings.expect_nodes = nodes,
        }
        settings.check()?;
        if self.is_placed() && settings.shards != self.settings.shards {
            return Err(Rejected::AlreadyPlaced {
                what: "the number of shards",
            });
        }
        self.settings = settings;
        Ok(())
    }
}

/// Whether a known node may come back like this, and the state it is in then.
fn restarted_state(known: &NodeRecord, record: &NodeRecord) -> Result<NodeState, Rejected> {
    let node = known.id;
    if known.state.is_gone() {
        return Err(Rejected::Gone {
            node,
            state: known.state,
        });
    }
    if known.storage_id != record.storage_id {
        return Err(Rejected::WrongStorage { node });
    }
    if known.region != record.region {
        return Err(Rejected::WrongRegion {
            node,
            current: known.region,
            given: record.region,
        });
    }
    if record.incarnation < known.incarnation {
        return Err(Rejected::OldIncarnation {
            node,
            current: known.incarnation,
            given: record.incarnation,
        });
    }
    let same_start = record.incarnation == known.incarnation;
    // A restart does not end a drain; a repeated join does not undo what happened since the first.
    Ok(if same_start || known.state == NodeState::Draining {
        known.state
    } else {
        record.state
    })
}

fn check_leader(shard: ShardId, leader: NodeId, replicas: &[NodeId]) -> Result<(), Rejected> {
    if replicas.contains(&leader) {
        return Ok(());
    }
    Err(Rejected::BadLeader {
        shard,
        leader,
        replicas: replicas.to_vec(),
    })
}

/// Names that stand in URLs and in files of settings: letters, digits, `-`, `_`, `.`.
fn check_name(what: &'static str, name: &str, max: usize) -> Result<(), Rejected> {
    if name.len() > max {
        return Err(Rejected::TooLong {
            what,
            len: name.len(),
            max,
        });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(Rejected::Malformed {
            what,
            value: name.to_owned(),
        });
    }
    Ok(())
}

/// A value from outside, short enough for an error.
fn shortened(value: &str) -> String {
    value.chars().take(64).collect()
}
