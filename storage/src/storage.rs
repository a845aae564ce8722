//! All durable bytes of a node: one log and one state store for all groups.
//!
//! Invariant: the log forgets an entry only after its effects are durable in the store. After the first failure of
//! log or store everything errs with the reason. Not here: when to checkpoint, purge or take snapshots (`node`).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clinch_types::{fp, planted};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::disk::Disk;
use crate::error::Poison;
use crate::log::Log;
use crate::machine::applied::Applied;
use crate::machine::cell::{Cell, Phase};
use crate::machine::waiting::Waiting;
use crate::machine::{checkpoint, keys};
use crate::node_meta::NodeMeta;
use crate::store::StateStore;
use crate::{GroupId, GroupLog, GroupMachine, GroupReader, OpenError, StorageOptions, snapshot};

/// The storage of a node. Clones share it; it closes with the last of them and of the handles made from it.
#[derive(Debug, Clone)]
pub struct Storage {
    core: Arc<Core>,
}

pub(crate) struct Core {
    pub(crate) options: StorageOptions,
    // Dropped before the disk, whose lock must outlive the writer.
    pub(crate) log: Arc<Log>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) poison: Poison,
    pub(crate) waiting: Arc<Waiting>,
    cells: Mutex<BTreeMap<GroupId, Arc<Cell>>>,
    meta: Mutex<NodeMeta>,
    numbers: AtomicU64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A number not given before by this process.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn cell(&self, group: GroupId) -> io::Result<Arc<Cell>> {
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.get(&group) {
            return Ok(Arc::clone(cell));
        }
        let stored = match self.store.get(&keys::applied(group))? {
            Some(bytes) => Applied::decode(&bytes).map_err(io::Error::other)?,
            None => Applied::default(),
        };
        // What was purged cannot be replayed, so a store behind that has lost something.
        let lost = self
            .log
            .purged(group)
            .is_some_and(|purged| stored.index() < Some(purged.index) && !planted!("old-state-accepted"));
        if lost {
            tracing::error!(%group, stored = ?stored.index(), "state lost: the group must be rebuilt from a peer");
        }
        let cell = Arc::new(Cell::new(
            group,
            Arc::clone(&self.store),
            self.poison.clone(),
            Arc::clone(&self.waiting),
            stored,
            lost,
        ));
        cells.insert(group, Arc::clone(&cell));
        Ok(cell)
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.cells.lock().values().cloned().collect()
    }
}

impl Storage {
    /// Opens the storage on a disk: recovers the log, finishes interrupted installs of snapshots, finds the groups.
    /// Reads the whole log, so it may take seconds. With [`crate::Driver::Task`] it must be called in a runtime.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        options: StorageOptions,
        disk: Arc<dyn Disk>,
        store: Arc<dyn StateStore>,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        let poison = Poison::new();
        let meta = NodeMeta::open(&*disk)?;
        let log = Arc::new(Log::open(&options, &disk, poison.clone())?);
        let core = Arc::new(Core {
            waiting: Arc::new(Waiting::new(options.waiting_bytes_max)),
            options,
            log,
            store,
            disk,
            poison,
            cells: Mutex::default(),
            meta: Mutex::new(meta),
            numbers: AtomicU64::new(0),
        });
        snapshot::recover(&core)?;
        for group in core.log.groups().into_iter().chain(stored_groups(&*core.store)?) {
            core.cell(group)
                .map_err(OpenError::io(format!("read the state of group {group}")))?;
        }
        Ok(Self { core })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Log, state machine and reader of a group; a new group is empty. The log and the machine are for the one raft
    /// instance of the group.
    ///
    /// # Errors
    /// When the state store fails.
    pub fn group(&self, group: GroupId) -> io::Result<(GroupLog, GroupMachine, GroupReader)> {
        self.core.poison.check()?;
        let cell = self.core.cell(group)?;
        let log = GroupLog::new(Arc::clone(&self.core.log), group);
        let machine = GroupMachine::new(Arc::clone(&self.core), Arc::clone(&cell));
        Ok((log, machine, GroupReader::new(cell)))
    }

    /// The state of a group as one number, with the last entry applied to it: equal on all replicas that have applied
    /// the same. `None` while it cannot be read.
    #[cfg(any(test, feature = "test-util"))]
    pub fn digest(&self, group: GroupId) -> Option<(crate::raft::LogId, u64)> {
        let cell = self.core.cells.lock().get(&group).cloned()?;
        let reader = GroupReader::new(cell);
        let applied = reader.applied()?;
        let pairs = reader
            .scan(Bound::Unbounded, Bound::Unbounded, usize::MAX, false)
            .ok()?;
        let digest = pairs.iter().fold(0u64, |digest, (key, value)| {
            let pair = u64::from(crc32c::crc32c(key)) << 32 | u64::from(crc32c::crc32c(value));
            (digest ^ pair).wrapping_mul(0x0100_0000_01b3)
        });
        Some((applied, digest))
    }

    /// The groups that have anything here, in ascending order.
    pub fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.core.log.groups();
        groups.extend(
            self.core
                .cells()
                .iter()
                .filter(|c| c.state.read().applied != Applied::default())
                .map(|c| c.group),
        );
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The groups whose state was lost (the state store was set aside, or came back older than what the log has
    /// purged). They serve nothing and raft does not start on them until a peer's snapshot was installed with
    /// [`GroupMachine`]'s `install_snapshot`, or the group is removed.
    pub fn needs_rebuild(&self) -> Vec<GroupId> {
        self.core
            .cells()
            .iter()
            .filter(|c| c.state.read().phase == Phase::Lost)
            .map(|c| c.group)
            .collect()
    }

    /// Deletes everything about a group: state, log, vote. Only for a replica that is no member any more: a replica
    /// that forgets its vote must come back under another node id.
    ///
    /// # Errors
    /// When disk or state store fail.
    pub async fn remove_group(&self, group: GroupId) -> io::Result<()> {
        let cell = self.core.cell(group)?;
        loop {
            let idle = cell.idle.notified();
            {
                let mut state = cell.state.write();
                self.core.poison.check()?;
                if matches!(state.phase, Phase::Idle | Phase::Lost) {
                    state.phase = Phase::Lost;
                    cell.waiting.moved(state.overlay.cost(), 0);
                    state.overlay.clear();
                    state.applied = Applied::default();
                    state.flushed = Applied::default();
                    break;
                }
            }
            idle.await;
        }
        // State first: a crash in between leaves a group that is known to have lost it.
        cell.guard(snapshot::wipe(&cell))?;
        self.core.log.forget(group).await?;
        self.core.cells.lock().remove(&group);
        Ok(())
    }

    /// Brings what has been applied into the state store and makes it durable. Blocks: call it from a thread of its
    /// own, about every second (in simulation, from a task). A group whose state is being replaced is left out.
    ///
    /// # Errors
    /// When the state store fails; the storage is poisoned then.
    pub fn checkpoint_blocking(&self) -> io::Result<()> {
        let mut written = Vec::new();
        for cell in self.core.cells() {
            written.extend(checkpoint::write(&cell, self.core.options.checkpoint_keys)?);
        }
        if written.is_empty() {
            return Ok(());
        }
        fp!("checkpoint.before_flush");
        if planted!("checkpoint-not-flushed") {
            written.into_iter().for_each(checkpoint::Written::finish);
            return Ok(());
        }
        self.core
            .store
            .flush()
            .map_err(|error| self.core.poison.set(format!("state store: {error}")))?;
        written.into_iter().for_each(checkpoint::Written::finish);
        Ok(())
    }

    /// Whether so much waits for a checkpoint that it should be taken early: 64 k keys or 32 MiB over all groups.
    pub fn checkpoint_presses(&self) -> bool {
        const KEYS: usize = 64 << 10;
        const BYTES: u64 = 32 << 20;
        let (keys, bytes) = self.waiting();
        keys >= KEYS || bytes >= BYTES
    }

    /// Keys waiting for a checkpoint, over all groups.
    pub fn dirty_keys(&self) -> usize {
        self.waiting().0
    }

    /// Keys and bytes waiting for a checkpoint, over all groups.
    fn waiting(&self) -> (usize, u64) {
        self.core.cells().iter().fold((0, 0), |(keys, bytes), cell| {
            let state = cell.state.read();
            (keys + state.overlay.keys(), bytes + state.overlay.bytes())
        })
    }

    /// Returns when everything given to the log before is durable.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn sync_log(&self) -> io::Result<()> {
        self.core.log.barrier().await
    }

    /// Watches for the failure after which nothing here may be trusted: its reason, once there is one.
    pub fn poisoned(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.core.poison.subscribe()
    }

    /// A fact about the node.
    pub fn node_meta_get(&self, key: &str) -> Option<Vec<u8>> {
        self.core.meta.lock().get(key)
    }

    /// Keeps a fact about the node; durable on return. Blocks.
    ///
    /// # Errors
    /// When the disk fails; the storage is poisoned then.
    pub fn node_meta_put(&self, key: &str, value: &[u8]) -> io::Result<()> {
        self.core.poison.check()?;
        let result = self.core.meta.lock().put(&*self.core.disk, key, value);
        result.map_err(|error| {
            self.core
                .poison
                .set(format!("node.meta cannot be written: {error}"))
        })
    }

    /// Bytes of a group's log: when it is large, a checkpoint and a purge are due.
    pub fn log_bytes(&self, group: GroupId) -> u64 {
        self.core.log.bytes(group)
    }

    /// Bytes of the segments of the log, on disk.
    pub fn log_disk_bytes(&self) -> u64 {
        self.core.log.disk_bytes()
    }

    /// The index up to which the log of a group may be purged: what is durable in the state store, keeping
    /// `retain_bytes` for followers that lag (unless the log as a whole is above `log_bytes_max`), and everything a
    /// snapshot being sent will need after it. `None` when nothing may be purged.
    pub fn purge_target(&self, group: GroupId) -> Option<u64> {
        let cell = self.core.cells.lock().get(&group).cloned()?;
        let limit = {
            let state = cell.state.read();
            let flushed = match planted!("purge-early") {
                true => state.applied.index()?,
                false => state.flushed.index()?,
            };
            state
                .sending
                .keys()
                .next()
                .map_or(flushed, |start| flushed.min(*start))
        };
        let forced = self.core.log.disk_bytes() > self.core.options.log_bytes_max;
        let retain = if forced { 0 } else { self.core.options.retain_bytes };
        self.core.log.index_keeping(group, limit, retain)
    }
}

/// The groups in the state store, found by jumping from one to the next.
fn stored_groups(store: &dyn StateStore) -> Result<Vec<GroupId>, OpenError> {
    let mut out = Vec::new();
    let mut from = keys::applied(GroupId(0));
    loop {
        let found = store
            .scan(Bound::Included(&from), Bound::Unbounded, 1, false)
            .map_err(OpenError::io("read the state store"))?;
        let Some(group) = found.first().and_then(|(key, _)| keys::group_of(key)) else {
            return Ok(out);
        };
        out.push(group);
        let Some(next) = group.0.checked_add(1) else {
            return Ok(out);
        };
        from = keys::applied(GroupId(next));
    }
}
