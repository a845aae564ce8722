//! An ordered map made durable on the Disk seam: the [`StateStore`] of the simulator.
//!
//! Invariant: the file is a sequence of records, each a write (after a rewrite: all that is there) with its checksum; what
//! follows the first bad one was never flushed and is cut. When most of the file is history, it is rewritten and renamed
//! into place.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;

use super::mem::{apply_map, scan_map};
use super::{KeyWrite, StateStore};
use crate::disk::{Disk, DiskFile, dir_of, read_all};
use crate::wire::le_u32;

const NAME: &str = "state.map";
/// Length, then checksum, before each record.
const HEAD: usize = 8;
/// Below this size the file is never rewritten.
const REWRITE_MIN: u64 = 1 << 20;
/// No value, in place of a length.
const DELETED: u32 = u32::MAX;

/// A store on a [`Disk`].
pub struct DiskStore {
    disk: Arc<dyn Disk>,
    inner: Mutex<Inner>,
}

struct Inner {
    map: BTreeMap<Bytes, Bytes>,
    file: Arc<dyn DiskFile>,
    len: u64,
    /// Size after the last rewrite.
    base: u64,
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskStore")
    }
}

impl DiskStore {
    /// Opens the store on a disk, reading all of it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let file = disk.open(NAME, true)?;
        let bytes = Bytes::from(read_all(&*file)?);
        let mut map = BTreeMap::new();
        let mut at = 0;
        while let Some((writes, len)) = read_record(&bytes.slice(at..)) {
            apply_map(&mut map, writes);
            at += len;
        }
        let mut inner = Inner {
            map,
            file,
            len: at as u64,
            base: at as u64,
        };
        if !bytes.is_empty() {
            // Readable may still mean not durable, and after a failed sync only new bytes are safe.
            inner.rewrite(&*disk)?;
        }
        disk.sync_dir(dir_of(NAME))?;
        Ok(Self {
            disk,
            inner: Mutex::new(inner),
        })
    }
}

fn read_record(bytes: &Bytes) -> Option<(Vec<KeyWrite>, usize)> {
    if bytes.len() < HEAD {
        return None;
    }
    let len = le_u32(bytes, 0) as usize;
    if bytes.len() - HEAD < len || checksum(&bytes[..4], &bytes[HEAD..HEAD + len]) != le_u32(bytes, 4) {
        return None;
    }
    let mut body = bytes.slice(HEAD..HEAD + len);
    let mut writes = Vec::new();
    while body.remaining() >= 8 {
        let (key_len, value_len) = (body.get_u32_le() as usize, body.get_u32_le());
        let value_len = (value_len != DELETED).then_some(value_len as usize);
        if body.remaining() < key_len + value_len.unwrap_or(0) {
            return None;
        }
        let key = body.split_to(key_len);
        writes.push((key, value_len.map(|len| body.split_to(len))));
    }
    body.is_empty().then_some((writes, HEAD + len))
}

fn encode_record<'a>(writes: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>) -> Vec<u8> {
    let mut out = vec![0; HEAD];
    for (key, value) in writes {
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&value.map_or(DELETED, |v| v.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value.map_or(&[], |v| &v[..]));
    }
    let len = ((out.len() - HEAD) as u32).to_le_bytes();
    let crc = checksum(&len, &out[HEAD..]);
    out[..4].copy_from_slice(&len);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Of the length as well: else zeros, which a write that was lost leaves behind, would be an empty record.
fn checksum(len: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), body)
}

impl Inner {
    fn rewrite(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let bytes = encode_record(self.map.iter().map(|(k, v)| (k, Some(v))));
        crate::disk::replace(disk, NAME, &bytes)?;
        self.file = disk.open(NAME, false)?;
        self.len = bytes.len() as u64;
        self.base = self.len;
        Ok(())
    }
}

impl StateStore for DiskStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.inner.lock().map.get(key).cloned())
    }

    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        Ok(scan_map(&self.inner.lock().map, start, end, limit, reverse))
    }

    fn apply(&self, writes: Vec<KeyWrite>) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let records = writes
            .iter()
            .map(|(key, value)| encode_record(std::iter::once((key, value.as_ref()))));
        let bytes = records.collect::<Vec<_>>().concat();
        inner.file.write_at(inner.len, &bytes)?;
        inner.len += bytes.len() as u64;
        apply_map(&mut inner.map, writes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.len > REWRITE_MIN && inner.len > 4 * inner.base {
            return inner.rewrite(&*self.disk);
        }
        inner.file.sync_data()
    }
}
