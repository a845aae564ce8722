//! The few facts a node keeps about itself: its id, its cluster, its incarnation.
//!
//! Invariant: one small file, replaced as a whole. Not in the state store, because that may be set aside.

use std::collections::BTreeMap;
use std::io;

use clinch_types::{codec, fp};

use crate::OpenError;
use crate::disk::{self, Disk};

pub(crate) const NAME: &str = "node.meta";

#[derive(Debug, Default)]
pub(crate) struct NodeMeta {
    values: BTreeMap<String, Vec<u8>>,
}

impl NodeMeta {
    pub(crate) fn open(disk: &dyn Disk) -> Result<Self, OpenError> {
        if !disk
            .list("")
            .map_err(OpenError::io("list the data directory"))?
            .iter()
            .any(|name| name == NAME)
        {
            return Ok(Self::default());
        }
        let file = disk
            .open(NAME, false)
            .map_err(OpenError::io(format!("open {NAME}")))?;
        let bytes = disk::read_all(&*file).map_err(OpenError::io(format!("read {NAME}")))?;
        let damaged = |reason: String| OpenError::damaged(NAME, 0, reason);
        let (crc, body) = bytes
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged("too short".into()))?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return Err(damaged("wrong checksum".into()));
        }
        let values = codec::decode(body).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { values })
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.values.get(key).cloned()
    }

    /// Durable on return. On error memory still has the old value.
    pub(crate) fn put(&mut self, disk: &dyn Disk, key: &str, value: &[u8]) -> io::Result<()> {
        let mut values = self.values.clone();
        values.insert(key.to_string(), value.to_vec());
        let body = codec::encode(&values).map_err(io::Error::other)?;
        let mut bytes = crc32c::crc32c(&body).to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        fp!("meta.before_write");
        disk::replace(disk, NAME, &bytes)?;
        fp!("meta.after_write");
        self.values = values;
        Ok(())
    }
}
