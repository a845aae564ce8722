//! Snapshots of a group: sending them while writes go on, receiving them into a file, installing them.
//!
//! Invariant: an install is done as a whole. A marker on disk names the file before the old state is touched, and a
//! crash anywhere between redoes the install at the next start. Until it is done the group has no state to read.
//! Not here: when to take a snapshot, and how its chunks travel.

mod sink;
mod source;
mod stream;

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bincode::{Decode, Encode};
use clinch_types::{codec, fp};

pub use self::sink::{ReceivedSnapshot, SnapshotSink};
pub use self::source::SnapshotSource;
#[cfg(feature = "fuzzing")]
pub(crate) use self::stream::records_of;
use self::stream::{CHUNK_HEAD, Decoder, Record};
use crate::disk::{self, DiskFile};
use crate::machine::applied::Applied;
use crate::machine::cell::{Cell, Phase};
use crate::machine::{checkpoint, keys};
use crate::raft::SnapshotMeta;
use crate::storage::Core;
use crate::store::KeyWrite;
use crate::wire::SnapshotMetaWire;
use crate::{GroupId, OpenError, metric_names};

/// The folder of received snapshots and of the markers of installs under way.
const DIR: &str = "snap";
const MARKER: &str = "install-";
/// Keys and bytes in one batch of an install.
const BATCH_KEYS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;

/// What a snapshot's meta data come with.
#[derive(Debug)]
pub enum SnapshotData {
    /// A snapshot of this node, to be sent: take its chunks.
    Walk(SnapshotSource),
    /// A snapshot from another node, to be installed.
    Received(ReceivedSnapshot),
}

impl SnapshotData {
    /// The chunks to send.
    ///
    /// # Errors
    /// For a snapshot that was received: those are not passed on.
    pub fn into_source(self) -> io::Result<SnapshotSource> {
        match self {
            Self::Walk(source) => Ok(source),
            Self::Received(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a received snapshot is not sent",
            )),
        }
    }
}

/// What the marker of an install says.
#[derive(Debug, Encode, Decode)]
struct Marker {
    file: String,
    meta: SnapshotMetaWire,
}

fn marker_name(group: GroupId) -> String {
    format!("{DIR}/{MARKER}{}", group.0)
}

/// Replaces the state of a group.
pub(crate) async fn install(
    core: &Arc<Core>,
    cell: &Arc<Cell>,
    meta: &SnapshotMeta,
    data: SnapshotData,
) -> io::Result<()> {
    let mut received = match data {
        SnapshotData::Received(received) => received,
        SnapshotData::Walk(source) => receive_locally(core, cell.group, source).await?,
    };
    if received.group != cell.group || received.meta != *meta {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the snapshot is not the one its meta data describe",
        ));
    }
    let before = loop {
        let idle = cell.idle.notified();
        {
            let mut state = cell.state.write();
            cell.poison.check()?;
            if meta.last_log_id < state.applied.log_id {
                let text = format!(
                    "group {}: a snapshot older than the state is not installed",
                    cell.group
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            let before = state.phase;
            if cell.enter(&mut state, Phase::Installing) {
                break before;
            }
        }
        idle.await;
    };
    let purged = core.log.purged(cell.group);
    if before == Phase::Lost && meta.last_log_id < purged {
        cell.state.write().phase = before;
        cell.idle.notify_waiters();
        let text = format!(
            "group {}: the log starts after {purged:?}, a newer snapshot is needed",
            cell.group
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    received.kept = true;
    // From here on the old state is gone: an error leaves nothing that could be served.
    let applied = cell.guard(replace_state(core, cell, &received).await)?;
    let mut state = cell.state.write();
    cell.waiting.moved(state.overlay.cost(), 0);
    state.overlay.clear();
    state.applied = applied.clone();
    state.flushed = applied;
    state.phase = Phase::Idle;
    drop(state);
    cell.idle.notify_waiters();
    metrics::counter!(metric_names::SNAPSHOT_INSTALLS).increment(1);
    Ok(())
}

async fn receive_locally(
    core: &Arc<Core>,
    group: GroupId,
    mut source: SnapshotSource,
) -> io::Result<ReceivedSnapshot> {
    let mut sink = SnapshotSink::new(core, group, source.meta().clone())?;
    while let Some(chunk) = source.next_chunk()? {
        sink.write_chunk(chunk)?;
        tokio::task::yield_now().await;
    }
    match sink.finish()? {
        SnapshotData::Received(received) => Ok(received),
        SnapshotData::Walk(_) => unreachable!("a sink gives what it received"),
    }
}

async fn replace_state(
    core: &Arc<Core>,
    cell: &Arc<Cell>,
    received: &ReceivedSnapshot,
) -> io::Result<Applied> {
    let marker = Marker {
        file: received.name.clone(),
        meta: (&received.meta).into(),
    };
    let body = codec::encode(&marker).map_err(io::Error::other)?;
    let mut bytes = crc32c::crc32c(&body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    let marker = marker_name(cell.group);
    disk::replace(&*core.disk, &marker, &bytes)?;
    fp!("snapshot.marked");
    let mut install = Install::new(core.disk.open(&received.name, false)?, &received.meta);
    let applied = loop {
        if let Some(applied) = install.step(cell)? {
            break applied;
        }
        fp!("snapshot.part_installed");
        // Loading may take seconds; others want this thread too.
        tokio::task::yield_now().await;
    };
    fp!("snapshot.installed");
    finish_install(core, &marker, &received.name)?;
    Ok(applied)
}

/// The state is durable: the marker goes first, so that the file is never missed.
fn finish_install(core: &Core, marker: &str, file: &str) -> io::Result<()> {
    core.disk.remove(marker)?;
    fp!("snapshot.unmarked");
    core.disk.sync_dir(DIR)?;
    core.disk.remove(file)
}

/// An install, one batch at a time. Starting again from the beginning is always possible.
struct Install {
    file: Arc<dyn DiskFile>,
    at: u64,
    decoder: Decoder,
    meta: SnapshotMeta,
    wiped: bool,
}

impl Install {
    fn new(file: Arc<dyn DiskFile>, meta: &SnapshotMeta) -> Self {
        Self {
            file,
            at: 0,
            decoder: Decoder::default(),
            meta: meta.clone(),
            wiped: false,
        }
    }

    /// One batch; what the group's state is after the last one.
    fn step(&mut self, cell: &Cell) -> io::Result<Option<Applied>> {
        if !self.wiped {
            self.wiped = wipe_some(cell)?;
            return Ok(None);
        }
        let (mut batch, mut bytes) = (Vec::<KeyWrite>::new(), 0);
        while batch.len() < BATCH_KEYS && bytes < BATCH_BYTES {
            match self.next_record()? {
                Record::Head { .. } => {}
                Record::Pair { key, value } => {
                    bytes += key.len() + value.len();
                    batch.push((keys::data(cell.group, &key), Some(value)));
                }
                Record::Trailer { end, .. } => {
                    let (log_id, membership) = (self.meta.last_log_id, self.meta.last_membership.clone());
                    let applied = Applied {
                        log_id,
                        membership,
                        fuzzy_end: end,
                    };
                    batch.push(checkpoint::record(cell, &applied)?);
                    cell.store.apply(batch)?;
                    cell.store.flush()?;
                    return Ok(Some(applied));
                }
            }
        }
        cell.store.apply(batch)?;
        Ok(None)
    }

    fn next_record(&mut self) -> io::Result<Record> {
        loop {
            if let Some(record) = self.decoder.next()? {
                return Ok(record);
            }
            let mut head = [0; CHUNK_HEAD];
            disk::read_exact_at(&*self.file, self.at, &mut head)?;
            let mut chunk = vec![0; self.decoder.chunk_len(head)?];
            disk::read_exact_at(&*self.file, self.at, &mut chunk)?;
            self.decoder.feed(&chunk)?;
            self.at += chunk.len() as u64;
        }
    }
}

/// Deletes some of the keys of a group; whether none is left.
fn wipe_some(cell: &Cell) -> io::Result<bool> {
    let (low, high) = keys::data_range(cell.group, Bound::Unbounded, Bound::Unbounded);
    let found = cell
        .store
        .scan(keys::as_slice(&low), keys::as_slice(&high), BATCH_KEYS, false)?;
    let done = found.len() < BATCH_KEYS;
    // First of all: without this record nobody can take a half-replaced state for a whole one.
    let mut writes: Vec<KeyWrite> = vec![(keys::applied(cell.group), None)];
    writes.extend(found.into_iter().map(|(key, _)| (key, None)));
    cell.store.apply(writes)?;
    Ok(done)
}

/// Deletes all of the state of a group.
pub(crate) fn wipe(cell: &Cell) -> io::Result<()> {
    while !wipe_some(cell)? {}
    cell.store.flush()
}

/// At start: finishes installs a crash interrupted, and removes files nobody needs.
pub(crate) fn recover(core: &Core) -> Result<(), OpenError> {
    let listed = core.disk.list(DIR).map_err(OpenError::io("list the snapshots"))?;
    for name in &listed {
        let group = name.strip_prefix(MARKER).and_then(|group| group.parse().ok());
        if let Some(group) = group.map(GroupId) {
            redo(core, group)?;
        }
    }
    for name in core.disk.list(DIR).map_err(OpenError::io("list the snapshots"))? {
        let name = format!("{DIR}/{name}");
        core.disk
            .remove(&name)
            .map_err(OpenError::io(format!("remove {name}")))?;
    }
    Ok(())
}

fn redo(core: &Core, group: GroupId) -> Result<(), OpenError> {
    let name = marker_name(group);
    let failed = |source| OpenError::Io {
        action: format!("redo the install of {name}"),
        source,
    };
    let file = core.disk.open(&name, false).map_err(failed)?;
    let bytes = disk::read_all(&*file).map_err(failed)?;
    let damaged = || OpenError::damaged(&name, 0, "the marker of an install is not readable");
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
        return Err(damaged());
    }
    let marker: Marker = codec::decode(body).map_err(|_| damaged())?;
    let meta = SnapshotMeta::try_from(marker.meta).map_err(|_| damaged())?;
    let cell = Cell::new(
        group,
        Arc::clone(&core.store),
        core.poison.clone(),
        Arc::clone(&core.waiting),
        Applied::default(),
        false,
    );
    tracing::info!(%group, "finishing the install of a snapshot that a crash interrupted");
    let result = core.disk.open(&marker.file, false).and_then(|file| {
        let mut install = Install::new(file, &meta);
        while install.step(&cell)?.is_none() {}
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(error) if is_damage(&error) => {
            // Half of the old state is gone and the new one is not readable: better none, and ask a peer.
            tracing::error!(%group, %error, "the snapshot being installed is damaged: the group must be rebuilt");
            wipe(&cell).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    core.disk.remove(&name).map_err(failed)?;
    core.disk.sync_dir(DIR).map_err(failed)
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::InvalidData | Kind::UnexpectedEof | Kind::NotFound
    )
}
