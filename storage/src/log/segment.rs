//! One file of the log, and how an entry is read back from it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{self, HEADER, Kind};
use crate::GroupId;
use crate::disk::{DiskFile, read_exact_at};
use crate::raft::{Entry, log_id};
use crate::wire::{decode_payload, le_u32};

/// The folder of the log.
pub(crate) const DIR: &str = "log";

/// A segment: a file that is appended to until it is full, and reused when nothing in it is needed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// The name of a segment in use.
pub(crate) fn name(seq: u64) -> String {
    format!("{DIR}/{seq:016}.seg")
}

/// The name of a segment that waits to be used again.
pub(crate) fn free_name(seq: u64) -> String {
    format!("{DIR}/free-{seq:016}")
}

/// The sequence number in a file name as listed.
pub(crate) fn seq_of(listed: &str) -> Option<u64> {
    listed.strip_suffix(".seg")?.parse().ok()
}

impl Segment {
    /// Reads an entry back, checking that it is the one that was put there.
    ///
    /// # Errors
    /// Any error means damage or a failing disk: the caller poisons the storage.
    pub(crate) fn read(&self, offset: u64, group: GroupId, term: u64, index: u64) -> io::Result<Entry> {
        let damaged = |why: &str| {
            let text = format!(
                "{}: entry {index} of group {group} at byte {offset}: {why}",
                name(self.seq)
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut head = [0; HEADER];
        read_exact_at(&*self.file, offset, &mut head)?;
        let len = le_u32(&head, 0) as usize;
        if len < HEADER || offset + len as u64 > self.file.len()? {
            return Err(damaged("impossible length"));
        }
        let mut bytes = vec![0; len];
        read_exact_at(&*self.file, offset, &mut bytes)?;
        let Some((header, _)) = frame::parse(&bytes, frame::seed(self.seq)) else {
            return Err(damaged("wrong checksum"));
        };
        if (header.group, header.kind, header.term, header.index) != (group, Kind::Entry, term, index) {
            return Err(damaged("another frame is there"));
        }
        let payload =
            decode_payload(Bytes::from(bytes).slice(HEADER..)).map_err(|e| damaged(&e.to_string()))?;
        Ok(Entry {
            log_id: log_id(term, index),
            payload,
        })
    }
}
