//! The raft log of all groups of a node: one sequence of segments, one writer, one sync for everybody who waits.
//!
//! Invariant: what was answered is on disk; what is on disk and was answered is found again or its loss is
//! reported. Not here: what entries mean (`machine`), snapshots, the disk itself.

mod driver;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod recovery;
mod segment;
mod state;
mod writer;

use std::fmt::{self, Debug};
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use clinch_types::fp;
use futures_util::stream;
use openraft::OptionalSend;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use self::driver::DriverHandle;
use self::state::{Found, LogState};
use self::writer::LogWriter;
use crate::disk::Disk;
use crate::error::Poison;
use crate::raft::{self, Entry, IoFlushed, LogId, TypeConfig, Vote};
use crate::{GroupId, OpenError, StorageOptions};

/// What the readers, the groups and the writer share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<LogState>,
    /// Wakes the writer thread.
    pub(crate) work: Condvar,
    /// Wakes the writer task.
    pub(crate) notify: Notify,
    pub(crate) poison: Poison,
}

impl Shared {
    pub(crate) fn wake(&self) {
        self.work.notify_one();
        self.notify.notify_one();
    }
}

impl Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("log::Shared")
    }
}

/// The log of a node.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    read_bytes_max: u64,
    segment_bytes: u64,
    // Dropped with the last handle: stops the writer.
    _driver: DriverHandle,
}

impl Log {
    /// Recovers the log and starts its writer.
    pub(crate) fn open(
        options: &StorageOptions,
        disk: &Arc<dyn Disk>,
        poison: Poison,
    ) -> Result<Self, OpenError> {
        let recovered = recovery::recover(&**disk, options.free_segments_max)?;
        let cache_max = options.cache_bytes as u64;
        let state = LogState::new(recovered.groups, recovered.segments, cache_max);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            notify: Notify::new(),
            poison,
        });
        let writer = LogWriter::new(
            Arc::clone(&shared),
            Arc::clone(disk),
            options.clone(),
            recovered.writer,
        );
        let driver = driver::start(writer, options.driver)?;
        Ok(Self {
            shared,
            read_bytes_max: options.read_bytes_max,
            segment_bytes: options.segment_bytes,
            _driver: driver,
        })
    }

    /// The groups the log knows.
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        self.shared.state.lock().groups.keys().copied().collect()
    }

    pub(crate) fn purged(&self, group: GroupId) -> Option<LogId> {
        self.shared.state.lock().groups.get(&group).and_then(|g| g.purged)
    }

    /// Bytes of the entries of a group.
    pub(crate) fn bytes(&self, group: GroupId) -> u64 {
        self.shared.state.lock().groups.get(&group).map_or(0, |g| g.bytes)
    }

    /// Bytes of all segments in use, on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.shared.state.lock().segments.len() as u64 * self.segment_bytes
    }

    /// The highest index at or below `upto` such that at least `retain` bytes of entries stay above it.
    pub(crate) fn index_keeping(&self, group: GroupId, upto: u64, retain: u64) -> Option<u64> {
        let state = self.shared.state.lock();
        let index = state.groups.get(&group)?;
        let mut left = index.bytes;
        let mut found = None;
        for (at, slot) in (index.first..=upto).zip(&index.slots) {
            left -= slot.bytes;
            if left < retain {
                break;
            }
            found = Some(at);
        }
        found
    }

    /// Drops everything about a group.
    pub(crate) async fn forget(&self, group: GroupId) -> io::Result<()> {
        self.wait(|state, done| state.forget(group, done)).await
    }

    /// Returns when everything queued before is durable.
    pub(crate) async fn barrier(&self) -> io::Result<()> {
        self.wait(|state, done| state.queue.push_back(state::Op::Barrier { done }))
            .await
    }

    async fn wait(
        &self,
        push: impl FnOnce(&mut LogState, oneshot::Sender<io::Result<()>>),
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.push(|state| {
            push(state, done);
            Ok(())
        })?;
        answer
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the log writer has stopped")))
    }

    fn push(&self, change: impl FnOnce(&mut LogState) -> io::Result<()>) -> io::Result<()> {
        self.shared.poison.check()?;
        {
            let mut state = self.shared.state.lock();
            change(&mut state)?;
        }
        self.shared.wake();
        Ok(())
    }

    fn read(&self, group: GroupId, start: u64, end: u64, bytes_max: u64) -> io::Result<Vec<Entry>> {
        self.shared.poison.check()?;
        let found = self.shared.state.lock().read(group, start, end, bytes_max);
        found
            .into_iter()
            .map(|found| match found {
                Found::Memory(entry) => Ok(entry),
                // The segment cannot be reused while `found` holds it, so any error is real.
                Found::Disk {
                    segment,
                    offset,
                    term,
                    index,
                } => segment
                    .read(offset, group, term, index)
                    .map_err(|error| self.shared.poison.set(format!("the log cannot be read: {error}"))),
            })
            .collect()
    }
}

/// The log of one group, for openraft. Clones are readers of the same log.
#[derive(Debug, Clone)]
pub struct GroupLog {
    log: Arc<Log>,
    group: GroupId,
}

impl GroupLog {
    pub(crate) fn new(log: Arc<Log>, group: GroupId) -> Self {
        Self { log, group }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.log.read(self.group, start, end, u64::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.log.read(self.group, start, end, self.log.read_bytes_max)
    }

    /// Reads in pieces, so that applying a long stretch does not hold all of it in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl stream::Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let (log, group) = (Arc::clone(&self.log), self.group);
        let pieces = stream::unfold(Some(start), move |next| {
            let log = Arc::clone(&log);
            async move {
                let piece = log.read(group, next?, end, log.read_bytes_max);
                let next = match &piece {
                    Ok(entries) => Some(entries.last()?.log_id.index + 1),
                    Err(_) => None,
                };
                Some((piece, next))
            }
        });
        use futures_util::StreamExt as _;
        Box::pin(pieces.flat_map(|piece| {
            stream::iter(match piece {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.shared.poison.check()?;
        Ok(self
            .log
            .shared
            .state
            .lock()
            .groups
            .get(&self.group)
            .and_then(|g| g.vote))
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        self.log.shared.poison.check()?;
        let state = self.log.shared.state.lock();
        let index = state.groups.get(&self.group);
        Ok(index.map_or_else(Vec::new, |g| {
            g.key_log_ids(range.start().index, range.end().index)
        }))
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<raft::LogState> {
        self.log.shared.poison.check()?;
        Ok(self.log.shared.state.lock().raft_state(self.group))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        fp!("log.before_vote");
        let group = self.group;
        self.log
            .wait(|state, done| {
                state.groups.entry(group).or_default().vote = Some(*vote);
                state.queue.push_back(state::Op::Vote {
                    group,
                    vote: *vote,
                    done,
                });
            })
            .await
    }

    /// Only a hint after a restart, so it costs no sync: it goes to disk with the next batch of the log.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.shared.poison.check()?;
        let mut state = self.log.shared.state.lock();
        state.groups.entry(self.group).or_default().committed = committed;
        state.committed_dirty.insert(self.group);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.log.shared.poison.check()?;
        Ok(self
            .log
            .shared
            .state
            .lock()
            .groups
            .get(&self.group)
            .and_then(|g| g.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.log.push(|state| state.append(self.group, entries, callback))
    }

    /// Durable with the next sync: whatever is appended after it is behind it in the queue.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        fp!("log.before_truncate");
        self.log.push(|state| {
            state.truncate(self.group, last_log_id.map(|id| id.index));
            Ok(())
        })
    }

    /// Durable with the next sync; a purge forgotten in a crash is only repeated.
    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.push(|state| {
            state.purge(self.group, log_id);
            Ok(())
        })
    }
}
