//! The actor's key-value store: data beside the state that is read and written piece by piece.
//!
//! Reads see the last executed turn with this turn's own writes laid over it, and are local. Writes commit with
//! the turn.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use clinch_types::{group, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::turn::Effect;
use crate::{Error, Turn, cbor};

/// Most entries that one listing returns, and that one range deletion deletes.
pub const KV_LIST_MAX: usize = 16_384;

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The key; without the prefix in a listing by prefix.
    pub key: Vec<u8>,
    /// The value.
    pub value: Bytes,
}

impl KvEntry {
    /// The key as text, if it is.
    pub fn key_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.key).ok()
    }

    /// The value as [`Kv::put`] wrote it.
    ///
    /// # Errors
    /// `actor.invalid_request` when it is no `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        cbor::decode("the KV value", &self.value)
    }
}

/// The actor's key-value store. Keys are text or bytes, ordered by their bytes.
pub struct Kv<'a> {
    turn: &'a Arc<Turn>,
}

impl<'a> Kv<'a> {
    pub(crate) fn new(turn: &'a Arc<Turn>) -> Self {
        Self { turn }
    }

    /// A value that [`Kv::put`] wrote.
    ///
    /// # Errors
    /// When the key is over its limit, the store cannot be read, or the value is no `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, Error> {
        self.get_bytes(key)?
            .map(|bytes| cbor::decode("the KV value", &bytes))
            .transpose()
    }

    /// A value as bytes.
    ///
    /// # Errors
    /// When the key is over its limit or the store cannot be read.
    pub fn get_bytes(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let key = key.as_ref();
        check_key(key)?;
        match self.turn.peek(|effects| effects.kv.get(key).cloned()) {
            Some(own) => Ok(own),
            None => self.turn.host.kv_get(self.turn.actor.id, key),
        }
    }

    /// Several values, in the order of the keys.
    ///
    /// # Errors
    /// As [`Kv::get_bytes`], or when there are too many keys.
    pub fn get_batch<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let keys: Vec<K> = keys.into_iter().take(limits::KV_BATCH_KEYS_MAX + 1).collect();
        check_batch_keys(keys.len())?;
        keys.iter().map(|key| self.get_bytes(key)).collect()
    }

    /// Writes a value of any serializable type.
    ///
    /// # Errors
    /// When key, encoded value or the turn's effects are over their limit.
    pub fn put<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<(), Error> {
        self.put_bytes(key, cbor::to_vec(value)?)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When key, value or the turn's effects are over their limit.
    pub fn put_bytes(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<(), Error> {
        let (key, value) = (key.as_ref(), value.into());
        check_key(key)?;
        check_value(&value)?;
        self.turn.record(Effect::Kv(key.to_vec(), Some(value)))
    }

    /// Writes several values.
    ///
    /// # Errors
    /// When an entry, or the batch as a whole, is over its limit; then nothing is written.
    pub fn put_batch<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: AsRef<[u8]>,
        V: Into<Bytes>,
    {
        let entries: Vec<(K, Bytes)> = entries
            .into_iter()
            .take(limits::KV_BATCH_KEYS_MAX + 1)
            .map(|(key, value)| (key, value.into()))
            .collect();
        check_batch_keys(entries.len())?;
        let mut bytes = 0;
        for (key, value) in &entries {
            check_key(key.as_ref())?;
            check_value(value)?;
            bytes += key.as_ref().len() + value.len();
        }
        if bytes > limits::KV_BATCH_BYTES_MAX {
            return Err(too_large(
                "batch_too_large",
                "KV batch",
                bytes,
                limits::KV_BATCH_BYTES_MAX,
                "bytes",
            ));
        }
        let effects = entries
            .into_iter()
            .map(|(key, value)| Effect::Kv(key.as_ref().to_vec(), Some(value)));
        self.turn.record_all(effects.collect())
    }

    /// Deletes a key, whether it is there or not.
    ///
    /// # Errors
    /// When the key or the turn's effects are over their limit.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        let key = key.as_ref();
        check_key(key)?;
        self.turn.record(Effect::Kv(key.to_vec(), None))
    }

    /// The first entries, at most [`KV_LIST_MAX`], whose keys begin with `prefix`; the keys are returned without it.
    ///
    /// # Errors
    /// When the prefix is over the limit of keys or the store cannot be read.
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<KvEntry>, Error> {
        let prefix = prefix.as_ref();
        check_key(prefix)?;
        let end = after_prefix(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries = self.scan(Bound::Included(prefix), end, KV_LIST_MAX, false)?;
        for entry in &mut entries {
            entry.key.drain(..prefix.len());
        }
        Ok(entries)
    }

    /// At most `limit` (and [`KV_LIST_MAX`]) entries with keys from `start` up to and without `end`, in key order, or
    /// the last ones against it.
    ///
    /// # Errors
    /// When a bound is over the limit of keys or the store cannot be read.
    pub fn list_range(
        &self,
        start: impl AsRef<[u8]>,
        end: impl AsRef<[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<KvEntry>, Error> {
        let (start, end) = (start.as_ref(), end.as_ref());
        check_key(start)?;
        check_key(end)?;
        self.scan(
            Bound::Included(start),
            Bound::Excluded(end),
            limit.min(KV_LIST_MAX),
            reverse,
        )
    }

    /// Deletes all keys from `start` up to and without `end`; tells how many there were.
    ///
    /// # Errors
    /// When there are more than [`KV_LIST_MAX`]: then nothing is deleted. When the turn's effects are over their limit.
    pub fn delete_range(&self, start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Result<usize, Error> {
        let (start, end) = (start.as_ref(), end.as_ref());
        check_key(start)?;
        check_key(end)?;
        let found = self.scan(
            Bound::Included(start),
            Bound::Excluded(end),
            KV_LIST_MAX + 1,
            false,
        )?;
        if found.len() > KV_LIST_MAX {
            let message = format!(
                "the range holds more than {KV_LIST_MAX} keys: delete it in parts, over several turns"
            );
            return Err(Error::new(group::KV, "range_too_large", message));
        }
        let count = found.len();
        self.turn.record_all(
            found
                .into_iter()
                .map(|entry| Effect::Kv(entry.key, None))
                .collect(),
        )?;
        Ok(count)
    }

    /// The store's entries with this turn's writes laid over them.
    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<KvEntry>, Error> {
        // An empty or turned-around range holds nothing; `BTreeMap::range` would panic on it.
        if let (Bound::Included(start), Bound::Excluded(end)) = (start, end)
            && start >= end
        {
            return Ok(Vec::new());
        }
        let own: Vec<(Vec<u8>, Option<Bytes>)> = self.turn.peek(|effects| {
            effects
                .kv
                .range::<[u8], _>((start, end))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        });
        let deleted = own.iter().filter(|(_, value)| value.is_none()).count();
        // At most `deleted` of the stored entries drop out, so `limit` remain if there are as many.
        let stored = self
            .turn
            .host
            .kv_scan(self.turn.actor.id, start, end, limit + deleted, reverse)?;
        let mut merged: BTreeMap<Vec<u8>, Bytes> = stored.into_iter().collect();
        for (key, value) in own {
            match value {
                Some(value) => drop(merged.insert(key, value)),
                None => drop(merged.remove(&key)),
            }
        }
        let entries = merged.into_iter().map(|(key, value)| KvEntry { key, value });
        Ok(if reverse {
            entries.rev().take(limit).collect()
        } else {
            entries.take(limit).collect()
        })
    }
}

/// The first key after all that begin with `prefix`; `None` when there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn too_large(code: &str, what: &str, value: usize, max: usize, unit: &str) -> Error {
    let message = format!("{what} has {value} {unit}, at most {max} are allowed");
    Error::new(group::KV, code, message)
}

fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        len if len <= limits::KV_KEY_MAX => Ok(()),
        len => Err(too_large(
            "key_too_large",
            "KV key",
            len,
            limits::KV_KEY_MAX,
            "bytes",
        )),
    }
}

fn check_value(value: &Bytes) -> Result<(), Error> {
    match value.len() {
        len if len <= limits::KV_VALUE_MAX => Ok(()),
        len => Err(too_large(
            "value_too_large",
            "KV value",
            len,
            limits::KV_VALUE_MAX,
            "bytes",
        )),
    }
}

fn check_batch_keys(keys: usize) -> Result<(), Error> {
    if keys <= limits::KV_BATCH_KEYS_MAX {
        return Ok(());
    }
    // The rest was not counted.
    let message = format!("KV batch has more than {} keys", limits::KV_BATCH_KEYS_MAX);
    Err(Error::new(group::KV, "batch_too_large", message))
}
