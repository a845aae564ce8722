//! The bytes of a snapshot: records, cut into chunks with checksums.
//!
//! Invariant: a chunk's checksum is seeded with its number, so a chunk that is lost, repeated or out of order is
//! found at once, and the trailer says how many pairs there were. Sizes are checked before anything is allocated.
//!
//! Chunk: length u32, crc u32, payload. Record: tag u8 and length u32 (head: group, meta), or tag, key length u32,
//! value length u32, key, value (pair), or tag, end index u64, pairs u64 (trailer). Little-endian.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::GroupId;
use crate::raft::SnapshotMeta;
use crate::wire::{decode_snapshot_meta, encode_snapshot_meta, le_u32, le_u64};

/// Largest payload of a chunk.
pub(super) const CHUNK_MAX: usize = 256 << 10;
/// Bytes before a chunk's payload.
pub(super) const CHUNK_HEAD: usize = 8;
/// Largest key or value: larger ones are not written by anybody.
const PART_MAX: usize = 64 << 20;

const TAG_HEAD: u8 = 1;
const TAG_PAIR: u8 = 2;
const TAG_TRAILER: u8 = 3;

/// Why a snapshot is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    #[error("chunk {number} of the snapshot is damaged or out of order")]
    Chunk { number: u64 },
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
}

impl From<StreamError> for std::io::Error {
    fn from(error: StreamError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// One part of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Head {
        group: GroupId,
        meta: SnapshotMeta,
    },
    Pair {
        key: Bytes,
        value: Bytes,
    },
    /// Nothing may be served before this index is applied.
    Trailer {
        end: Option<u64>,
        pairs: u64,
    },
}

/// Appends a record to `out`.
pub(super) fn put(record: &Record, out: &mut BytesMut) -> Result<(), StreamError> {
    match record {
        Record::Head { group, meta } => {
            let meta = encode_snapshot_meta(meta).map_err(|e| StreamError::Malformed(e.to_string()))?;
            out.extend_from_slice(&[TAG_HEAD]);
            put_len(out, 4 + meta.len());
            out.extend_from_slice(&group.0.to_le_bytes());
            out.extend_from_slice(&meta);
        }
        Record::Pair { key, value } => {
            out.extend_from_slice(&[TAG_PAIR]);
            put_len(out, key.len());
            put_len(out, value.len());
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        Record::Trailer { end, pairs } => {
            out.extend_from_slice(&[TAG_TRAILER, u8::from(end.is_some())]);
            out.extend_from_slice(&end.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&pairs.to_le_bytes());
        }
    }
    Ok(())
}

fn put_len(out: &mut BytesMut, len: usize) {
    out.extend_from_slice(
        &u32::try_from(len)
            .expect("keys and values are far below 4 GiB")
            .to_le_bytes(),
    );
}

fn chunk_crc(number: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), payload)
}

/// Makes the chunk of this number, from 0.
pub(super) fn chunk(number: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(CHUNK_HEAD + payload.len());
    put_len(&mut out, payload.len());
    out.extend_from_slice(&chunk_crc(number, payload).to_le_bytes());
    out.extend_from_slice(payload);
    out.freeze()
}

/// Reads chunks in order and gives records.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    chunks: u64,
    buffer: BytesMut,
    pairs: u64,
    headed: bool,
    ended: bool,
}

impl Decoder {
    /// The length of the chunk that starts with these bytes, itself included.
    pub(super) fn chunk_len(&self, head: [u8; CHUNK_HEAD]) -> Result<usize, StreamError> {
        let len = le_u32(&head, 0) as usize;
        if len == 0 || len > CHUNK_MAX {
            return Err(StreamError::Chunk { number: self.chunks });
        }
        Ok(CHUNK_HEAD + len)
    }

    /// Takes the next chunk.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Result<(), StreamError> {
        let damaged = StreamError::Chunk { number: self.chunks };
        let Some((head, payload)) = chunk.split_first_chunk::<CHUNK_HEAD>() else {
            return Err(damaged);
        };
        if self.chunk_len(*head)? != chunk.len() || chunk_crc(self.chunks, payload) != le_u32(head, 4) {
            return Err(damaged);
        }
        if self.ended {
            return Err(StreamError::Malformed("something follows the trailer".into()));
        }
        self.chunks += 1;
        self.buffer.extend_from_slice(payload);
        Ok(())
    }

    /// The next record; `None` when its end has not been fed yet.
    pub(super) fn next(&mut self) -> Result<Option<Record>, StreamError> {
        let malformed = |why: &str| Err(StreamError::Malformed(why.into()));
        let bytes = &self.buffer[..];
        let (need, parts) = match bytes.first() {
            None => return Ok(None),
            Some(&TAG_HEAD) if bytes.len() >= 5 => (5 + checked(bytes, 1)?, (0, 0)),
            Some(&TAG_PAIR) if bytes.len() >= 9 => {
                let (key, value) = (checked(bytes, 1)?, checked(bytes, 5)?);
                (9 + key + value, (key, value))
            }
            Some(&TAG_TRAILER) => (18, (0, 0)),
            Some(&(TAG_HEAD | TAG_PAIR)) => return Ok(None),
            Some(_) => return malformed("unknown record"),
        };
        if bytes.len() < need {
            return Ok(None);
        }
        if self.ended || (bytes[0] == TAG_HEAD) == self.headed {
            return malformed("records out of order");
        }
        let mut record = self.buffer.split_to(need).freeze();
        Ok(Some(match record[0] {
            TAG_HEAD => {
                self.headed = true;
                if need < 9 {
                    return malformed("short head");
                }
                let meta =
                    decode_snapshot_meta(&record[9..]).map_err(|e| StreamError::Malformed(e.to_string()))?;
                Record::Head {
                    group: GroupId(le_u32(&record, 5)),
                    meta,
                }
            }
            TAG_PAIR => {
                self.pairs += 1;
                record.advance(9);
                let key = record.split_to(parts.0);
                Record::Pair { key, value: record }
            }
            _ => {
                self.ended = true;
                let (end, pairs) = (le_u64(&record, 2), le_u64(&record, 10));
                if pairs != self.pairs {
                    return Err(StreamError::Malformed(format!("{} pairs of {pairs}", self.pairs)));
                }
                Record::Trailer {
                    end: (record[1] != 0).then_some(end),
                    pairs,
                }
            }
        }))
    }

    /// Whether the trailer has been read, and nothing is left over.
    pub(super) fn is_complete(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }
}

/// What is read from contents that arrive in sound chunks of this length, and the error that ended it.
#[cfg(feature = "fuzzing")]
pub(crate) fn records_of(bytes: &[u8], len: usize) -> (Vec<String>, Option<String>) {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    for (number, payload) in (0..).zip(bytes.chunks(len)) {
        if let Err(error) = decoder.feed(&chunk(number, payload)) {
            return (found, Some(error.to_string()));
        }
        loop {
            match decoder.next() {
                Ok(Some(record)) => found.push(format!("{record:?}")),
                Ok(None) => break,
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }
    (found, None)
}

fn checked(bytes: &[u8], at: usize) -> Result<usize, StreamError> {
    let len = le_u32(bytes, at) as usize;
    if len > PART_MAX {
        return Err(StreamError::Malformed(format!(
            "a part of {len} bytes, at most {PART_MAX} are allowed"
        )));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{StoredMembership, log_id};
    use proptest::prelude::*;

    fn head() -> Record {
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, 2)),
            last_membership: StoredMembership::default(),
        };
        Record::Head {
            group: GroupId(3),
            meta,
        }
    }

    fn decode(chunks: &[Bytes]) -> Result<(Vec<Record>, bool), StreamError> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            decoder.feed(chunk)?;
            while let Some(record) = decoder.next()? {
                out.push(record);
            }
        }
        Ok((out, decoder.is_complete()))
    }

    fn chunks(records: &[Record], size: usize) -> Vec<Bytes> {
        let mut bytes = BytesMut::new();
        for record in records {
            put(record, &mut bytes).unwrap();
        }
        bytes
            .chunks(size)
            .enumerate()
            .map(|(n, payload)| chunk(n as u64, payload))
            .collect()
    }

    #[test]
    fn a_lost_repeated_or_swapped_chunk_is_refused() {
        let records = [head(), Record::Trailer { end: None, pairs: 0 }];
        let good = chunks(&records, 10);
        assert_eq!(decode(&good), Ok((records.to_vec(), true)));
        let lost: Vec<Bytes> = good.iter().skip(1).cloned().collect();
        assert_eq!(decode(&lost), Err(StreamError::Chunk { number: 0 }));
        let repeated: Vec<Bytes> = good[..1].iter().chain(&good).cloned().collect();
        assert_eq!(decode(&repeated), Err(StreamError::Chunk { number: 1 }));
        assert!(!decode(&good[..good.len() - 1]).unwrap().1);
    }

    #[test]
    fn a_trailer_that_counts_other_pairs_is_refused() {
        let records = [
            head(),
            Record::Trailer {
                end: Some(4),
                pairs: 1,
            },
        ];
        assert_eq!(
            decode(&chunks(&records, 100)),
            Err(StreamError::Malformed("0 pairs of 1".into()))
        );
    }

    proptest! {
        #[test]
        fn every_snapshot_survives_its_chunks(
            pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..90)), 0..20),
            size in 1usize..200,
        ) {
            let mut records = vec![head()];
            records.extend(pairs.into_iter().map(|(key, value)| Record::Pair { key: key.into(), value: value.into() }));
            records.push(Record::Trailer { end: Some(9), pairs: records.len() as u64 - 1 });
            prop_assert_eq!(decode(&chunks(&records, size)), Ok((records, true)));
        }

        #[test]
        fn arbitrary_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 1..200), size in 1usize..50) {
            let chunks: Vec<Bytes> = bytes.chunks(size).enumerate().map(|(n, p)| chunk(n as u64, p)).collect();
            let _ = decode(&chunks);
            let _ = Decoder::default().feed(&bytes);
        }
    }
}
