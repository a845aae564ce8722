//! Receiving a snapshot into a file.
//!
//! Invariant: a [`ReceivedSnapshot`] is complete, checked and durable. A file nobody installs is removed when it is
//! dropped, or at the next start.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use clinch_types::fp;

use super::stream::{CHUNK_HEAD, Decoder, Record};
use super::{DIR, SnapshotData};
use crate::GroupId;
use crate::disk::{Disk, DiskFile};
use crate::raft::SnapshotMeta;
use crate::storage::{Core, Storage};

/// Takes the chunks of one snapshot.
#[derive(Debug)]
pub struct SnapshotSink {
    received: ReceivedSnapshot,
    file: Arc<dyn DiskFile>,
    len: u64,
    decoder: Decoder,
    /// The beginning of a chunk of which the rest has not come yet.
    partial: BytesMut,
}

/// A snapshot that has arrived.
#[derive(Debug)]
pub struct ReceivedSnapshot {
    core: Arc<Core>,
    pub(super) group: GroupId,
    pub(super) meta: SnapshotMeta,
    pub(super) name: String,
    /// The file belongs to an install now.
    pub(super) kept: bool,
}

impl SnapshotSink {
    /// Starts to receive a snapshot of a group.
    ///
    /// # Errors
    /// When the disk fails; nothing is poisoned.
    pub fn begin(storage: &Storage, group: GroupId, meta: SnapshotMeta) -> io::Result<Self> {
        Self::new(storage.core(), group, meta)
    }

    pub(super) fn new(core: &Arc<Core>, group: GroupId, meta: SnapshotMeta) -> io::Result<Self> {
        core.poison.check()?;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        // Two transfers may overlap, so the index alone does not name the file.
        let name = format!("{DIR}/{}-{index}-{}.tmp", group.0, core.next_number());
        let file = core.disk.open(&name, true)?;
        let received = ReceivedSnapshot {
            core: Arc::clone(core),
            group,
            meta,
            name,
            kept: false,
        };
        file.set_len(0)?;
        Ok(Self {
            received,
            file,
            len: 0,
            decoder: Decoder::default(),
            partial: BytesMut::new(),
        })
    }

    /// Takes the next bytes of the chunks, cut anywhere: a network does not keep the pieces it was given.
    ///
    /// # Errors
    /// As [`SnapshotSink::write_chunk`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        while let Some(head) = self.partial.first_chunk::<CHUNK_HEAD>() {
            // Bounded before anything waits for it.
            let len = self.decoder.chunk_len(*head)?;
            if self.partial.len() < len {
                break;
            }
            let chunk = self.partial.split_to(len).freeze();
            self.write_chunk(chunk)?;
        }
        Ok(())
    }

    /// Takes the next chunk, whole.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged, out of order, or of another snapshot: start again. Anything else is the
    /// disk.
    pub fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        self.decoder.feed(&chunk)?;
        while let Some(record) = self.decoder.next()? {
            if let Record::Head { group, meta } = record
                && (group != self.received.group || meta != self.received.meta)
            {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the chunks are of another snapshot",
                ));
            }
        }
        self.file.write_at(self.len, &chunk)?;
        fp!("snapshot.chunk_received");
        self.len += chunk.len() as u64;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// All chunks have been written: makes the file durable.
    ///
    /// # Errors
    /// `InvalidData` when chunks are missing. Anything else is the disk.
    pub fn finish(self) -> io::Result<SnapshotData> {
        if !self.decoder.is_complete() || !self.partial.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the snapshot is not complete",
            ));
        }
        self.file.sync_data()?;
        let mut received = self.received;
        let done = format!("{}.snap", received.name.trim_end_matches(".tmp"));
        received.core.disk.rename(&received.name, &done)?;
        fp!("snapshot.received");
        received.name = done;
        received.core.disk.sync_dir(DIR)?;
        Ok(SnapshotData::Received(received))
    }
}

impl ReceivedSnapshot {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Last log id and membership.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }
}

impl Drop for ReceivedSnapshot {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_quietly(&*self.core.disk, &self.name)
        {
            tracing::warn!(name = %self.name, %error, "left-over snapshot cannot be removed");
        }
    }
}

fn remove_quietly(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
