//! What an actor's KV store holds in all: counted with every turn that writes to it, and bounded.
//!
//! Invariant: the sum of the bytes of all keys and values stands in a record of its own, written in the batch that changes
//! it, as it is afterwards. So whoever owns the actor next knows it, and no repeat of a batch counts twice.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use bytes::Bytes;
use clinch_actor::{Effects, Error};
use clinch_types::{ActorId, code, codec, group, planted};

use crate::shard::{Owner, keys};

/// Entries looked at in one go where nothing has been counted yet.
const PAGE: usize = 256;

/// What a turn writes: keys, and values to put or nothing for a deletion.
type Writes = BTreeMap<Vec<u8>, Option<Bytes>>;

impl Owner {
    /// Refuses a turn after which the actor would keep more than it may. One that makes it less is let through.
    pub(crate) fn check_kv(&mut self, id: ActorId, effects: &Effects) -> Result<(), Error> {
        let Some(slot) = self.slots.get(&id).filter(|_| !effects.kv.is_empty()) else {
            return Ok(());
        };
        let max = slot.actor_type.options().kv_max as u64;
        let counted = self
            .kv_bytes(id)
            .and_then(|before| Ok((before, self.kv_after(id, before, &effects.kv)?)));
        match counted {
            Ok((before, after)) if after > before && after > max => {
                let message = format!("the KV store would have {after} bytes, at most {max} are allowed");
                Err(Error::new(group::KV, code::FULL, message))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Error::internal(error)),
        }
    }

    /// Puts a turn's KV writes into the batch being filled, and what the store holds then.
    pub(crate) fn write_kv(&mut self, id: ActorId, version: u64, kv: Writes, keys: &mut Vec<Vec<u8>>) {
        if kv.is_empty() {
            return;
        }
        let counted = self
            .kv_bytes(id)
            .and_then(|before| self.kv_after(id, before, &kv));
        match counted.and_then(|after| codec::encode(&after).map_err(io::Error::other)) {
            Ok(total) => self.put(keys, keys::kv_bytes(id), total.into()),
            Err(error) => return self.fail(format!("the store cannot be read: {error}")),
        }
        for (key, value) in kv {
            if planted!("kv-left-out") && version.is_multiple_of(8) {
                continue;
            }
            match value {
                Some(value) => self.put(keys, keys::kv(id, &key), value),
                None => self.delete(keys, keys::kv(id, &key)),
            }
        }
    }

    /// The bytes of all keys and values as of the last executed turn.
    fn kv_bytes(&self, id: ActorId) -> io::Result<u64> {
        if let Some(bytes) = self.provisional.get(&keys::kv_bytes(id))? {
            return codec::decode(&bytes).map_err(io::Error::other);
        }
        // Nothing was written since there is such a record.
        let prefix = keys::kv(id, &[]);
        let end = keys::end_of(&prefix);
        let (mut total, mut from) = (0, Bound::Included(prefix));
        loop {
            let start = from.as_ref().map(Vec::as_slice);
            let page = self.provisional.scan(start, Bound::Excluded(&end), PAGE, false)?;
            total += page
                .iter()
                .map(|(key, value)| entry(&key[keys::KV_PREFIX..], value))
                .sum::<u64>();
            match page.into_iter().nth(PAGE - 1) {
                Some((last, _)) => from = Bound::Excluded(last.to_vec()),
                None => return Ok(total),
            }
        }
    }

    fn kv_after(&self, id: ActorId, before: u64, kv: &Writes) -> io::Result<u64> {
        let mut after = before;
        for (key, value) in kv {
            let old = self.provisional.get(&keys::kv(id, key))?;
            after = after.saturating_sub(old.map_or(0, |old| entry(key, &old)));
            after += value.as_ref().map_or(0, |value| entry(key, value));
        }
        Ok(after)
    }
}

fn entry(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}
