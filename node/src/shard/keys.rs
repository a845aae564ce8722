//! Where things lie inside a shard's part of the store, and how the records are written.
//!
//! Invariant: every key starts with one letter for its kind; everything that belongs to one actor and is deleted with
//! it carries the actor's id right behind that letter.
//!
//! | key | value |
//! |---|---|
//! | `A` id | actor record |
//! | `K` hash of (namespace, name, key) | id |
//! | `S` id | version, code version, state |
//! | `V` id, KV key | KV value |
//! | `B` id | bytes of all KV keys and values of the actor |
//! | `I` id, schedule id | due time: the schedules of one actor |
//! | `T` due, id, schedule id | action and arguments: the schedules in order of time |
//! | `D` session, number | dedup record; number 0 holds the session's floor |
//! | `X` id | mark: what this destroyed actor kept in many entries is still to be deleted |
//! | `H` id, schedule id, number | one firing of a repeated schedule ([`super::records`], as the following) |
//! | `Q` id, queue, number | a message of a durable queue |
//! | `O` id, number | a one-way send that has not arrived yet |
//! | `C` id, connection | an open connection ([`super::conn_records`], as the following) |
//! | `E` id, version | what a turn told connections, as long as one may need it again |
//! | `W` id | mark: the actor is to be awake, its `run` hook has something to do |

use bincode::{Decode, Encode};
use bytes::Bytes;
use clinch_actor::ScheduleId;
use clinch_types::codec::CodecError;
use clinch_types::{ActorId, Key, RequestId, SessionId, Version, WallMs, codec, hash_128};

/// The name of (namespace, actor name, key) in the directory of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u128);

impl KeyHash {
    pub(crate) fn of(namespace: &str, name: &str, key: &Key) -> Self {
        let mut parts: Vec<&[u8]> = vec![namespace.as_bytes(), name.as_bytes()];
        parts.extend(key.components().iter().map(|c| c.as_bytes()));
        Self(hash_128(&parts))
    }
}

pub(crate) fn with_id(kind: u8, id: ActorId, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(17 + rest.len());
    key.push(kind);
    key.extend_from_slice(id.as_bytes());
    key.extend_from_slice(rest);
    key
}

pub(crate) fn record(id: ActorId) -> Vec<u8> {
    with_id(b'A', id, &[])
}

pub(crate) fn directory(hash: KeyHash) -> Vec<u8> {
    let mut key = vec![b'K'];
    key.extend_from_slice(&hash.0.to_be_bytes());
    key
}

pub(crate) fn state(id: ActorId) -> Vec<u8> {
    with_id(b'S', id, &[])
}

pub(crate) fn kv(id: ActorId, key: &[u8]) -> Vec<u8> {
    with_id(b'V', id, key)
}

/// Length of what stands before the user's part of a KV key.
pub(crate) const KV_PREFIX: usize = 17;

pub(crate) fn kv_bytes(id: ActorId) -> Vec<u8> {
    with_id(b'B', id, &[])
}

pub(crate) fn schedule_of_actor(id: ActorId, schedule: ScheduleId) -> Vec<u8> {
    with_id(b'I', id, &schedule.0.to_be_bytes())
}

/// The prefix of all of an actor's schedules.
pub(crate) fn schedules_of_actor(id: ActorId) -> Vec<u8> {
    with_id(b'I', id, &[])
}

pub(crate) fn schedule(due: WallMs, id: ActorId, schedule: ScheduleId) -> Vec<u8> {
    let mut key = Vec::with_capacity(41);
    key.push(b'T');
    key.extend_from_slice(&due.0.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key.extend_from_slice(&schedule.0.to_be_bytes());
    key
}

/// Reads a `T` key back.
pub(crate) fn parse_schedule(key: &[u8]) -> Option<(WallMs, ActorId, ScheduleId)> {
    let rest = key.strip_prefix(b"T")?;
    let (due, rest) = rest.split_first_chunk::<8>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let schedule: [u8; 16] = rest.try_into().ok()?;
    Some((
        WallMs(u64::from_be_bytes(*due)),
        ActorId::from_bytes(*id).ok()?,
        ScheduleId(u128::from_be_bytes(schedule)),
    ))
}

pub(crate) fn dedup(request: RequestId) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.push(b'D');
    key.extend_from_slice(&request.session.0.to_be_bytes());
    key.extend_from_slice(&request.seq.to_be_bytes());
    key
}

pub(crate) fn purge_mark(id: ActorId) -> Vec<u8> {
    with_id(b'X', id, &[])
}

/// Reads a `D` key back.
pub(crate) fn parse_dedup(key: &[u8]) -> Option<RequestId> {
    let rest = key.strip_prefix(b"D")?;
    let (session, seq) = rest.split_first_chunk::<16>()?;
    Some(RequestId {
        session: SessionId(u128::from_be_bytes(*session)),
        seq: u64::from_be_bytes(seq.try_into().ok()?),
    })
}

/// The smallest key above every key with this prefix.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Only a prefix of nothing but 0xff has no such key; ours start with a letter.
    vec![u8::MAX]
}

/// What never changes in an actor's life.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ActorRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) key: Key,
    pub(crate) created: WallMs,
}

/// A state as stored: fixed header, then the encoded state.
///
/// Header: format (1 byte, 1), the actor's version (8, little-endian), the code version that wrote it (4).
pub(crate) fn write_state(version: Version, code: u32, state: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(STATE_HEADER + state.len());
    out.push(codec::FORMAT);
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(state);
    out
}

const STATE_HEADER: usize = 13;

/// Reads what [`write_state`] wrote.
pub(crate) fn read_state(bytes: &Bytes) -> Result<(Version, u32, Bytes), CodecError> {
    let malformed = || CodecError::Malformed {
        reason: format!("state record of {} bytes", bytes.len()),
    };
    match bytes.first() {
        None => return Err(CodecError::Empty),
        Some(&codec::FORMAT) => {}
        Some(&format) => return Err(CodecError::Format { format }),
    }
    let header: [u8; STATE_HEADER] = bytes
        .get(..STATE_HEADER)
        .and_then(|h| h.try_into().ok())
        .ok_or_else(malformed)?;
    let version = u64::from_le_bytes(header[1..9].try_into().map_err(|_| malformed())?);
    let code = u32::from_le_bytes(header[9..13].try_into().map_err(|_| malformed())?);
    Ok((Version(version), code, bytes.slice(STATE_HEADER..)))
}

/// The first answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DedupRecord {
    /// When it was written, by the owner's wall clock.
    pub(crate) at: WallMs,
    /// Whether it is kept for the long window.
    pub(crate) long: bool,
    pub(crate) reply: clinch_types::CallReply,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinch_types::{RegionId, Slot};

    #[test]
    fn keys_and_records_read_back_and_keep_their_bytes() {
        let id = ActorId::new(RegionId(0), Slot(3), 9);
        let (due, schedule_id) = (WallMs(77), ScheduleId(5));
        assert_eq!(
            parse_schedule(&schedule(due, id, schedule_id)),
            Some((due, id, schedule_id))
        );
        let request = RequestId {
            session: SessionId(1 << 100),
            seq: 4,
        };
        assert_eq!(parse_dedup(&dedup(request)), Some(request));
        let state = Bytes::from(write_state(Version(2), 3, b"xyz"));
        assert_eq!(
            &state[..],
            [1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'x', b'y', b'z']
        );
        assert_eq!(
            read_state(&state).unwrap(),
            (Version(2), 3, Bytes::from_static(b"xyz"))
        );
        assert!(read_state(&Bytes::from_static(&[1, 2])).is_err());
        assert_eq!(
            read_state(&Bytes::from_static(&[9])),
            Err(CodecError::Format { format: 9 })
        );
    }

    #[test]
    fn schedules_sort_by_time_and_prefixes_end_after_their_keys() {
        let id = ActorId::new(RegionId(0), Slot(3), 9);
        assert!(schedule(WallMs(255), id, ScheduleId(9)) < schedule(WallMs(256), id, ScheduleId(1)));
        let prefix = schedules_of_actor(id);
        assert!(schedule_of_actor(id, ScheduleId(u128::MAX)) < end_of(&prefix));
        assert_eq!(end_of(&[1, 255, 255]), [2]);
    }
}
