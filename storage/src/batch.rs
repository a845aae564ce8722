//! What a log entry carries: unconditional absolute writes, in order.
//!
//! Invariant: a [`Batch`] that exists is well formed, because it was built here or checked by
//! [`Batch::from_bytes`]. Applying it twice is the same as applying it once.
//! Not here: who decides what to write, and where the writes go (`machine`).
//!
//! Bytes: version 1, then per write: tag (0 delete, 1 put, 2 put fresh), key length (LEB128), for puts the
//! value length (LEB128), key, value.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format written by this release.
const VERSION: u8 = 1;
const TAG_DELETE: u8 = 0;
const TAG_PUT: u8 = 1;
const TAG_PUT_FRESH: u8 = 2;

/// The writes of one entry. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch(Bytes);

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not even a version.
    #[error("empty batch")]
    Empty,
    /// Written by a release whose format this one does not know.
    #[error("unknown batch version {version}, this release reads {VERSION}")]
    Version {
        /// The version byte found.
        version: u8,
    },
    /// No such kind of write.
    #[error("unknown write {tag} at byte {at}")]
    Tag {
        /// The tag found.
        tag: u8,
        /// Where, counted from the start of the batch.
        at: usize,
    },
    /// Ends inside a write, or a length is malformed.
    #[error("write at byte {at} is cut short")]
    Cut {
        /// Where that write starts.
        at: usize,
    },
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The key, without any group prefix.
    pub key: Bytes,
    /// What happens to it.
    pub write: Write,
}

/// What happens to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// It has this value from now on.
    Put(Bytes),
    /// The same, and the proposer knows that the key had no value before.
    PutFresh(Bytes),
    /// It has no value from now on.
    Delete,
}

impl Batch {
    /// The batch without writes.
    pub fn empty() -> Self {
        BatchBuilder::new().finish()
    }

    /// Checks bytes that came from outside or from disk.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BatchError> {
        match bytes.first() {
            None => return Err(BatchError::Empty),
            Some(&VERSION) => {}
            Some(&version) => return Err(BatchError::Version { version }),
        }
        let mut at = 1;
        while at < bytes.len() {
            at = Layout::read(&bytes, at)?.end;
        }
        Ok(Self(bytes))
    }

    /// The bytes, for the log and the wire.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The writes, in order; keys and values are slices of the batch's buffer.
    pub fn mutations(&self) -> Mutations {
        Mutations {
            bytes: self.0.clone(),
            at: 1,
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a batch")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        let bytes = deserializer.deserialize_byte_buf(Visitor)?;
        Self::from_bytes(bytes.into()).map_err(serde::de::Error::custom)
    }
}

/// Iterator over the writes of a batch.
#[derive(Debug, Clone)]
pub struct Mutations {
    bytes: Bytes,
    at: usize,
}

impl Iterator for Mutations {
    type Item = Result<Mutation, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let layout = match Layout::read(&self.bytes, self.at) {
            Ok(layout) => layout,
            Err(error) => {
                self.at = self.bytes.len();
                return Some(Err(error));
            }
        };
        self.at = layout.end;
        let key = self.bytes.slice(layout.key_at..layout.value_at);
        let value = self.bytes.slice(layout.value_at..layout.end);
        let write = match layout.tag {
            TAG_PUT => Write::Put(value),
            TAG_PUT_FRESH => Write::PutFresh(value),
            // `Layout::read` refuses any other tag.
            _ => Write::Delete,
        };
        Some(Ok(Mutation { key, write }))
    }
}

/// Where the parts of one write are.
struct Layout {
    tag: u8,
    key_at: usize,
    value_at: usize,
    end: usize,
}

impl Layout {
    fn read(bytes: &[u8], at: usize) -> Result<Self, BatchError> {
        let cut = BatchError::Cut { at };
        let &tag = bytes.get(at).ok_or(cut)?;
        if tag > TAG_PUT_FRESH {
            return Err(BatchError::Tag { tag, at });
        }
        let (key_len, mut next) = read_varint(bytes, at + 1).ok_or(cut)?;
        let mut value_len = 0;
        if tag != TAG_DELETE {
            (value_len, next) = read_varint(bytes, next).ok_or(cut)?;
        }
        let value_at = next.checked_add(key_len).ok_or(cut)?;
        let end = value_at.checked_add(value_len).ok_or(cut)?;
        if end > bytes.len() {
            return Err(cut);
        }
        Ok(Self {
            tag,
            key_at: next,
            value_at,
            end,
        })
    }
}

/// Reads a length of at most 32 bits; refuses longer forms so that every batch has one encoding.
fn read_varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value: u64 = 0;
    for shift in (0..35).step_by(7) {
        let &byte = bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 {
                return None;
            }
            return u32::try_from(value).ok().map(|v| (v as usize, at));
        }
    }
    None
}

/// Builds a [`Batch`].
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    bytes: BytesMut,
    count: usize,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::with_capacity(256)
    }

    /// An empty builder with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes.max(1));
        buffer.put_u8(VERSION);
        Self {
            bytes: buffer,
            count: 0,
        }
    }

    /// Most bytes that one write takes.
    pub fn room_for(key: &[u8], value: &[u8]) -> usize {
        let len = |len: usize| (usize::BITS - len.leading_zeros()).div_ceil(7).max(1) as usize;
        1 + len(key.len()) + len(value.len()) + key.len() + value.len()
    }

    /// Gives a key a value.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.add(TAG_PUT, key, value);
    }

    /// Gives a key that has no value now a value. The hint lets a key that is born and deleted between two
    /// checkpoints pass without touching the store; given wrongly, an old value comes back after a delete.
    pub fn put_fresh(&mut self, key: &[u8], value: &[u8]) {
        self.add(TAG_PUT_FRESH, key, value);
    }

    /// Takes a key's value away.
    pub fn delete(&mut self, key: &[u8]) {
        self.add(TAG_DELETE, key, &[]);
    }

    /// Size of the batch so far, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there are no writes yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch.
    pub fn finish(self) -> Batch {
        Batch(self.bytes.freeze())
    }

    fn add(&mut self, tag: u8, key: &[u8], value: &[u8]) {
        self.bytes.reserve(Self::room_for(key, value));
        self.bytes.put_u8(tag);
        self.put_len(key.len());
        if tag != TAG_DELETE {
            self.put_len(value.len());
        }
        self.bytes.put_slice(key);
        self.bytes.put_slice(value);
        self.count += 1;
    }

    fn put_len(&mut self, len: usize) {
        let mut rest = u32::try_from(len).expect("keys and values are far below 4 GiB");
        while rest >= 0x80 {
            self.bytes.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.put_u8(rest as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Released bytes: a change here makes existing logs unreadable.
    #[test]
    fn the_bytes_of_a_batch_never_change() {
        let mut builder = BatchBuilder::new();
        builder.put(b"k", b"value");
        builder.put_fresh(b"", &[7; 200]);
        builder.delete(b"gone");
        assert_eq!(builder.count(), 3);
        let batch = builder.finish();
        let mut golden = vec![1, 1, 1, 5, b'k', b'v', b'a', b'l', b'u', b'e', 2, 0, 0xc8, 1];
        golden.extend_from_slice(&[7; 200]);
        golden.extend_from_slice(&[0, 4, b'g', b'o', b'n', b'e']);
        assert_eq!(batch.as_bytes(), &golden);
    }

    #[test]
    fn malformed_bytes_are_refused_with_the_place() {
        let from = |bytes: &'static [u8]| Batch::from_bytes(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(from(&[]), BatchError::Empty);
        assert_eq!(from(&[2]), BatchError::Version { version: 2 });
        assert_eq!(from(&[1, 3, 0]), BatchError::Tag { tag: 3, at: 1 });
        assert_eq!(from(&[1, 0, 2, 9]), BatchError::Cut { at: 1 });
        assert_eq!(
            from(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff]),
            BatchError::Cut { at: 1 }
        );
    }

    fn mutation() -> impl Strategy<Value = (u8, Vec<u8>, Vec<u8>)> {
        (
            0u8..3,
            prop::collection::vec(any::<u8>(), 0..300),
            prop::collection::vec(any::<u8>(), 0..300),
        )
    }

    proptest! {
        #[test]
        fn every_batch_gives_its_writes_back(writes in prop::collection::vec(mutation(), 0..20)) {
            let mut builder = BatchBuilder::new();
            for (tag, key, value) in &writes {
                match *tag {
                    TAG_DELETE => builder.delete(key),
                    TAG_PUT => builder.put(key, value),
                    _ => builder.put_fresh(key, value),
                }
            }
            prop_assert_eq!(builder.count(), writes.len());
            let batch = Batch::from_bytes(builder.finish().as_bytes().clone()).unwrap();
            let read: Vec<_> = batch.mutations().map(|m| m.unwrap()).map(|m| match m.write {
                Write::Delete => (TAG_DELETE, m.key.to_vec(), None),
                Write::Put(v) => (TAG_PUT, m.key.to_vec(), Some(v.to_vec())),
                Write::PutFresh(v) => (TAG_PUT_FRESH, m.key.to_vec(), Some(v.to_vec())),
            }).collect();
            let expected: Vec<_> = writes.into_iter()
                .map(|(tag, key, value)| (tag, key, (tag != TAG_DELETE).then_some(value))).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(batch) = Batch::from_bytes(bytes.into()) {
                prop_assert!(batch.mutations().all(|m| m.is_ok()));
            }
        }
    }
}
