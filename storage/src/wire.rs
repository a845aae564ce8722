//! Bytes of raft's own types: entries, log ids, votes, memberships.
//!
//! Invariant: independent of openraft's serde layout, which moves between its releases; golden bytes in the tests.
//! Batches are not copied when an entry is decoded. The network of `node` uses the same functions.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use bytes::Bytes;
use clinch_types::codec::{self, CodecError};

use crate::raft::{
    Entry, EntryPayload, LeaderId, LogId, Membership, RaftNode, SnapshotMeta, StoredMembership, Vote, log_id,
    term_of,
};
use crate::{Batch, BatchError};

const PAYLOAD_BLANK: u8 = 0;
const PAYLOAD_BATCH: u8 = 1;
const PAYLOAD_MEMBERSHIP: u8 = 2;

/// Term, then index, of an encoded entry.
const ENTRY_HEAD: usize = 16;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Too short.
    #[error("{what} is cut short at {len} bytes")]
    Cut {
        /// What was being read.
        what: &'static str,
        /// How many bytes there were.
        len: usize,
    },
    /// An entry of a kind this release does not know.
    #[error("unknown kind of entry {kind}")]
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// The batch in an entry.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A value behind a format byte.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A membership that contradicts itself.
    #[error("impossible membership: {reason}")]
    Membership {
        /// What openraft says about it.
        reason: String,
    },
}

#[derive(Debug, Encode, Decode)]
struct MembershipWire {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LogIdWire {
    term: u64,
    index: u64,
}

#[derive(Debug, Encode, Decode)]
pub(crate) struct StoredMembershipWire {
    log_id: Option<LogIdWire>,
    membership: MembershipWire,
}

#[derive(Debug, Encode, Decode)]
pub(crate) struct SnapshotMetaWire {
    last_log_id: Option<LogIdWire>,
    membership: StoredMembershipWire,
}

impl From<LogId> for LogIdWire {
    fn from(id: LogId) -> Self {
        Self {
            term: term_of(&id),
            index: id.index,
        }
    }
}

impl From<LogIdWire> for LogId {
    fn from(id: LogIdWire) -> Self {
        log_id(id.term, id.index)
    }
}

impl From<&Membership> for MembershipWire {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership
                .nodes()
                .map(|(&id, node)| (id, node.addr.clone()))
                .collect(),
        }
    }
}

impl TryFrom<MembershipWire> for Membership {
    type Error = WireError;

    fn try_from(wire: MembershipWire) -> Result<Self, WireError> {
        // The state before the first membership has no voters, which `Membership::new` refuses.
        if wire.configs.is_empty() && wire.nodes.is_empty() {
            return Ok(Self::default());
        }
        let nodes: BTreeMap<u64, RaftNode> = wire
            .nodes
            .into_iter()
            .map(|(id, addr)| (id, RaftNode { addr }))
            .collect();
        Self::new(wire.configs, nodes).map_err(|e| WireError::Membership {
            reason: e.to_string(),
        })
    }
}

impl From<&StoredMembership> for StoredMembershipWire {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            log_id: stored.log_id().map(LogIdWire::from),
            membership: stored.membership().into(),
        }
    }
}

impl TryFrom<StoredMembershipWire> for StoredMembership {
    type Error = WireError;

    fn try_from(wire: StoredMembershipWire) -> Result<Self, WireError> {
        Ok(Self::new(
            wire.log_id.map(LogId::from),
            wire.membership.try_into()?,
        ))
    }
}

impl From<&SnapshotMeta> for SnapshotMetaWire {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last_log_id: meta.last_log_id.map(LogIdWire::from),
            membership: (&meta.last_membership).into(),
        }
    }
}

impl TryFrom<SnapshotMetaWire> for SnapshotMeta {
    type Error = WireError;

    fn try_from(wire: SnapshotMetaWire) -> Result<Self, WireError> {
        Ok(Self {
            last_log_id: wire.last_log_id.map(LogId::from),
            last_membership: wire.membership.try_into()?,
        })
    }
}

/// Encodes the meta data of a snapshot behind a format byte.
///
/// # Errors
/// Only when it is larger than a frame may be.
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Result<Vec<u8>, WireError> {
    Ok(codec::encode(&SnapshotMetaWire::from(meta))?)
}

/// Decodes what [`encode_snapshot_meta`] wrote.
///
/// # Errors
/// See [`WireError`].
pub fn decode_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, WireError> {
    codec::decode::<SnapshotMetaWire>(bytes)?.try_into()
}

/// Appends an entry to `out`: term, index, payload.
///
/// # Errors
/// Only when a membership is larger than a frame may be.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<(), WireError> {
    out.extend_from_slice(&term_of(&entry.log_id).to_le_bytes());
    out.extend_from_slice(&entry.log_id.index.to_le_bytes());
    encode_payload(&entry.payload, out)
}

/// Decodes what [`encode_entry`] wrote; `bytes` is exactly one entry.
///
/// # Errors
/// See [`WireError`].
pub fn decode_entry(bytes: Bytes) -> Result<Entry, WireError> {
    let Some((head, _)) = bytes.split_first_chunk::<ENTRY_HEAD>() else {
        return Err(WireError::Cut {
            what: "entry",
            len: bytes.len(),
        });
    };
    let (term, index) = (le_u64(head, 0), le_u64(head, 8));
    Ok(Entry {
        log_id: log_id(term, index),
        payload: decode_payload(bytes.slice(ENTRY_HEAD..))?,
    })
}

pub(crate) fn encode_payload(payload: &EntryPayload, out: &mut Vec<u8>) -> Result<(), WireError> {
    match payload {
        EntryPayload::Blank => out.push(PAYLOAD_BLANK),
        EntryPayload::Normal(batch) => {
            out.push(PAYLOAD_BATCH);
            out.extend_from_slice(batch.as_bytes());
        }
        EntryPayload::Membership(membership) => {
            out.push(PAYLOAD_MEMBERSHIP);
            out.extend_from_slice(&codec::encode(&MembershipWire::from(membership))?);
        }
    }
    Ok(())
}

pub(crate) fn decode_payload(bytes: Bytes) -> Result<EntryPayload, WireError> {
    match bytes.first() {
        None => Err(WireError::Cut {
            what: "payload",
            len: 0,
        }),
        Some(&PAYLOAD_BLANK) if bytes.len() == 1 => Ok(EntryPayload::Blank),
        Some(&PAYLOAD_BATCH) => Ok(EntryPayload::Normal(Batch::from_bytes(bytes.slice(1..))?)),
        Some(&PAYLOAD_MEMBERSHIP) => Ok(EntryPayload::Membership(
            codec::decode::<MembershipWire>(&bytes[1..])?.try_into()?,
        )),
        Some(&kind) => Err(WireError::Kind { kind }),
    }
}

/// Bytes of memory and disk a payload takes, near enough for budgets.
pub(crate) fn payload_len(payload: &EntryPayload) -> usize {
    match payload {
        EntryPayload::Blank => 1,
        EntryPayload::Normal(batch) => 1 + batch.as_bytes().len(),
        EntryPayload::Membership(membership) => 64 + 64 * membership.nodes().count(),
    }
}

/// A vote takes this many bytes.
pub const VOTE_LEN: usize = 17;

/// Encodes a vote.
pub fn encode_vote(vote: &Vote) -> [u8; VOTE_LEN] {
    let mut out = [0; VOTE_LEN];
    out[..8].copy_from_slice(&vote.leader_id.term.to_le_bytes());
    out[8..16].copy_from_slice(&vote.leader_id.voted_for.to_le_bytes());
    out[16] = u8::from(vote.committed);
    out
}

/// Decodes what [`encode_vote`] wrote.
///
/// # Errors
/// When it is not exactly one vote.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, WireError> {
    let bytes: &[u8; VOTE_LEN] = bytes.try_into().map_err(|_| WireError::Cut {
        what: "vote",
        len: bytes.len(),
    })?;
    let leader_id = LeaderId {
        term: le_u64(bytes, 0),
        voted_for: le_u64(bytes, 8),
    };
    Ok(Vote {
        leader_id,
        committed: bytes[16] != 0,
    })
}

/// Reads a little-endian integer; the caller has checked that it is there.
pub(crate) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

/// Reads a little-endian integer; the caller has checked that it is there.
pub(crate) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;
    use proptest::prelude::*;

    fn entry(payload: EntryPayload) -> Entry {
        Entry {
            log_id: log_id(3, 258),
            payload,
        }
    }

    fn bytes_of(entry: &Entry) -> Vec<u8> {
        let mut out = Vec::new();
        encode_entry(entry, &mut out).unwrap();
        out
    }

    /// Released bytes: a change here makes existing logs unreadable.
    #[test]
    fn the_bytes_of_entries_and_votes_never_change() {
        let head = [3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        let mut batch = BatchBuilder::new();
        batch.put(b"k", b"v");
        let voters = BTreeSet::from([1, 2]);
        let nodes = BTreeMap::from([
            (1, RaftNode { addr: "a".into() }),
            (2, RaftNode { addr: "b".into() }),
        ]);
        let membership = Membership::new(vec![voters], nodes).unwrap();
        for (payload, golden) in [
            (EntryPayload::Blank, vec![0]),
            (
                EntryPayload::Normal(batch.finish()),
                vec![1, 1, 1, 1, 1, b'k', b'v'],
            ),
            (
                EntryPayload::Membership(membership),
                vec![2, 1, 1, 2, 1, 2, 2, 1, 1, b'a', 2, 1, b'b'],
            ),
        ] {
            let entry = entry(payload);
            let bytes = bytes_of(&entry);
            assert_eq!(bytes[..16], head);
            assert_eq!(bytes[16..], golden);
            assert_eq!(decode_entry(bytes.into()).unwrap(), entry);
        }
        let vote = Vote {
            leader_id: LeaderId {
                term: 5,
                voted_for: 9,
            },
            committed: true,
        };
        assert_eq!(
            encode_vote(&vote),
            [5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    }

    #[test]
    fn a_snapshots_meta_survives_its_bytes_even_before_the_first_membership() {
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(2, 7)),
            last_membership: StoredMembership::default(),
        };
        assert_eq!(
            decode_snapshot_meta(&encode_snapshot_meta(&meta).unwrap()).unwrap(),
            meta
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_vote(&bytes);
            let _ = decode_snapshot_meta(&bytes);
            let _ = decode_entry(bytes.into());
        }
    }
}
