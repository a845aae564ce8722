//! Where a group's keys are in the state store: group first, so that a group is one range.
//!
//! Layout: group (4 bytes, big-endian), space (1 byte), key. The layout is on disk: never change it.

use std::ops::Bound;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::GroupId;

/// How far the group has been applied, and its membership.
const SPACE_APPLIED: u8 = 0;
/// The group's data.
const SPACE_DATA: u8 = 1;
/// Bytes before a key.
pub(crate) const PREFIX: usize = 5;

fn prefix(group: GroupId, space: u8) -> [u8; PREFIX] {
    let [a, b, c, d] = group.0.to_be_bytes();
    [a, b, c, d, space]
}

/// Where [`super::applied::Applied`] of a group is.
pub(crate) fn applied(group: GroupId) -> Bytes {
    Bytes::copy_from_slice(&prefix(group, SPACE_APPLIED))
}

/// A key of the group's data.
pub(crate) fn data(group: GroupId, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + key.len());
    out.put_slice(&prefix(group, SPACE_DATA));
    out.put_slice(key);
    out.freeze()
}

/// A range of the group's data; open ends stop at the group's.
pub(crate) fn data_range(
    group: GroupId,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> (Bound<Bytes>, Bound<Bytes>) {
    let low = match start {
        Bound::Included(key) => Bound::Included(data(group, key)),
        Bound::Excluded(key) => Bound::Excluded(data(group, key)),
        Bound::Unbounded => Bound::Included(data(group, &[])),
    };
    let high = match end {
        Bound::Included(key) => Bound::Included(data(group, key)),
        Bound::Excluded(key) => Bound::Excluded(data(group, key)),
        Bound::Unbounded => Bound::Excluded(Bytes::copy_from_slice(&prefix(group, SPACE_DATA + 1))),
    };
    (low, high)
}

/// A bound as the store wants it.
pub(crate) fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The group a stored key belongs to.
pub(crate) fn group_of(key: &[u8]) -> Option<GroupId> {
    let (head, _) = key.split_first_chunk::<4>()?;
    Some(GroupId(u32::from_be_bytes(*head)))
}
