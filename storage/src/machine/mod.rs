//! The applied state of the groups: entries become writes in an overlay, checkpoints bring them into the store.
//!
//! Invariant: applying is unconditional and never branches on state, so applying an entry again is harmless and the
//! log can rebuild whatever the store lost. Not here: the snapshot stream (`snapshot`), the store itself (`store`).

pub(crate) mod applied;
pub(crate) mod cell;
pub(crate) mod checkpoint;
pub(crate) mod keys;
mod overlay;
mod reader;
pub(crate) mod waiting;

use std::io;
use std::sync::Arc;

use clinch_types::{fp, planted};
use futures_util::{Stream, TryStreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use self::cell::{Cell, Phase, State};
pub use self::reader::{GroupReader, GroupStats};
use crate::GroupId;
use crate::raft::{Entry, EntryPayload, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::snapshot::{self, SnapshotData, SnapshotSource};
use crate::storage::Core;

/// With at most this many keys waiting, building a snapshot makes a checkpoint by itself; with more it uses the last
/// one, because it runs on a thread that others need.
const INLINE_CHECKPOINT_KEYS: usize = 1024;

/// The state machine of one group, for openraft.
#[derive(Debug)]
pub struct GroupMachine {
    core: Arc<Core>,
    cell: Arc<Cell>,
}

/// Builds snapshots of one group, for openraft.
#[derive(Debug)]
pub struct GroupSnapshotBuilder {
    cell: Arc<Cell>,
    checkpoint_keys: usize,
}

impl GroupMachine {
    pub(crate) fn new(core: Arc<Core>, cell: Arc<Cell>) -> Self {
        Self { core, cell }
    }
}

impl Cell {
    /// Applies one entry. An entry that does not decode poisons the storage.
    fn apply_entry(&self, entry: &Entry) -> io::Result<()> {
        let mut state = self.state.write();
        self.check(&state)?;
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(batch) => {
                // Up to the fuzzy end the store may hold keys that were not born yet at this entry.
                let trust_fresh = state.applied.fuzzy_end.is_none_or(|end| entry.log_id.index > end);
                let before = state.overlay.cost();
                for mutation in batch.mutations() {
                    let mutation = mutation.map_err(|error| {
                        self.poison
                            .set(format!("entry {} of group {}: {error}", entry.log_id, self.group))
                    })?;
                    state.overlay.apply(mutation.key, mutation.write, trust_fresh);
                }
                self.waiting.moved(before, state.overlay.cost());
            }
            EntryPayload::Membership(membership) => {
                state.applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        state.applied.log_id = Some(entry.log_id);
        Ok(())
    }

    /// A snapshot of what the last checkpoint left in the store.
    fn snapshot(self: &Arc<Self>, state: &mut State) -> Snapshot {
        let durable = match planted!("purge-early") {
            true => &state.applied,
            false => &state.flushed,
        };
        let meta = SnapshotMeta {
            last_log_id: durable.log_id,
            last_membership: state.flushed.membership.clone(),
        };
        let source = SnapshotSource::new(Arc::clone(self), state, meta.clone());
        Snapshot {
            meta,
            snapshot: SnapshotData::Walk(source),
        }
    }
}

impl RaftStateMachine<TypeConfig> for GroupMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = GroupSnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.cell.state.read();
        self.cell.check(&state)?;
        Ok((state.applied.log_id, state.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            // The control group is small, and everything else needs it.
            if self.cell.group != GroupId::CONTROL {
                self.cell.waiting.room(&self.cell.poison).await?;
            }
            fp!("machine.before_apply");
            self.cell.apply_entry(&entry)?;
            fp!("machine.after_apply");
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> GroupSnapshotBuilder {
        GroupSnapshotBuilder {
            cell: Arc::clone(&self.cell),
            checkpoint_keys: self.core.options.checkpoint_keys,
        }
    }

    /// Also the way back for a group whose state was lost ([`crate::Storage::needs_rebuild`]): then it is called
    /// before raft is started on the group, with a snapshot from a peer. Log and vote stay as they are.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        snapshot::install(&self.core, &self.cell, meta, data).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let mut state = self.cell.state.write();
        self.cell.check(&state)?;
        Ok(state
            .flushed
            .log_id
            .is_some()
            .then(|| self.cell.snapshot(&mut state)))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for GroupSnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let cell = &self.cell;
        loop {
            let idle = cell.idle.notified();
            let busy = {
                let mut state = cell.state.write();
                // An install is waited for, too: an error here would end the group's replica until the next start.
                let installing = state.phase == Phase::Installing && !planted!("snapshot-unready");
                if installing {
                    cell.poison.check()?;
                } else {
                    cell.check(&state)?;
                    let current = state.applied == state.flushed;
                    let too_much =
                        state.overlay.keys() > INLINE_CHECKPOINT_KEYS && state.flushed.log_id.is_some();
                    if current || too_much || planted!("purge-early") {
                        return Ok(cell.snapshot(&mut state));
                    }
                }
                state.phase != Phase::Idle
            };
            if busy {
                idle.await;
            } else if let Some(written) = checkpoint::write(cell, self.checkpoint_keys)? {
                cell.guard(cell.store.flush())?;
                written.finish();
            }
        }
    }
}
