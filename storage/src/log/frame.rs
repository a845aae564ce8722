//! One frame of the log: header, two checksums, body.
//!
//! Invariant: both checksums are seeded with the segment's sequence number, so a frame left over from a segment's
//! earlier life never counts. The batch number says which sync a frame belongs to: a frame of batch n + 1 exists
//! only if batch n was synced, and a `Synced` mark of batch n only after n was. That tells a torn tail (never
//! acknowledged) from damage (acknowledged once).
//!
//! Header, little-endian: length u32 (header and body), header crc u32, body crc u32, group u32, kind u8, flags u8,
//! version u8, zero u8, batch u64, term u64, index u64.

use crate::GroupId;
use crate::wire::{le_u32, le_u64};

/// Bytes of a header.
pub(crate) const HEADER: usize = 44;
/// The format written by this release.
const VERSION: u8 = 1;
/// Set on the last frame of a batch.
const FLAG_LAST: u8 = 1;
/// Where the kind is in a header.
pub(crate) const KIND_AT: usize = 16;
/// Where the part of the header starts that its checksum covers, besides the length.
const CHECKED_FROM: usize = 8;

/// What a frame says. The numbers are on disk: never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// First frame of a segment: which segment came before, and where that one ends.
    Segment = 1,
    /// Everything about a group that is not entries, so that older segments are needed only for entries.
    Group = 2,
    /// An entry.
    Entry = 3,
    /// The group's vote.
    Vote = 4,
    /// A hint how far the group had committed: term and index of the header.
    Committed = 5,
    /// Entries above an index are gone.
    Truncate = 6,
    /// Entries up to the header's term and index are gone.
    Purge = 7,
    /// The group is gone.
    Forget = 8,
    /// The batch of this number has been synced.
    Synced = 9,
}

impl Kind {
    fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Segment,
            2 => Self::Group,
            3 => Self::Entry,
            4 => Self::Vote,
            5 => Self::Committed,
            6 => Self::Truncate,
            7 => Self::Purge,
            8 => Self::Forget,
            9 => Self::Synced,
            _ => return None,
        })
    }
}

/// A header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Length of the frame in bytes, header included.
    pub(crate) len: usize,
    pub(crate) group: GroupId,
    pub(crate) kind: Kind,
    /// The last frame of its batch.
    pub(crate) last: bool,
    pub(crate) batch: u64,
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// What the writer knows of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) group: GroupId,
    pub(crate) kind: Kind,
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// The seed of all checksums of a segment.
pub(crate) fn seed(segment: u64) -> u32 {
    crc32c::crc32c(&segment.to_le_bytes())
}

/// Reserves a header at the end of `buf`; the body follows, then [`close`].
pub(crate) fn open(buf: &mut Vec<u8>) -> usize {
    let at = buf.len();
    buf.resize(at + HEADER, 0);
    at
}

/// Completes the frame that starts at `at` and ends at the end of `buf`.
pub(crate) fn close(buf: &mut [u8], at: usize, seed: u32, batch: u64, head: Head) {
    let frame = &mut buf[at..];
    let body_crc = crc32c::crc32c_append(seed, &frame[HEADER..]);
    let len = u32::try_from(frame.len()).expect("segments are far below 4 GiB");
    frame[0..4].copy_from_slice(&len.to_le_bytes());
    frame[8..12].copy_from_slice(&body_crc.to_le_bytes());
    frame[12..16].copy_from_slice(&head.group.0.to_le_bytes());
    frame[KIND_AT] = head.kind as u8;
    frame[17] = 0;
    frame[18] = VERSION;
    frame[19] = 0;
    frame[20..28].copy_from_slice(&batch.to_le_bytes());
    frame[28..36].copy_from_slice(&head.term.to_le_bytes());
    frame[36..44].copy_from_slice(&head.index.to_le_bytes());
    let crc = header_crc(frame, seed);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Marks the frame that starts at `at` as the last of its batch.
pub(crate) fn mark_last(buf: &mut [u8], at: usize, seed: u32) {
    let frame = &mut buf[at..];
    frame[17] |= FLAG_LAST;
    let crc = header_crc(frame, seed);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Makes length and checksums of a frame right, whatever it says.
#[cfg(feature = "fuzzing")]
pub(crate) fn seal(frame: &mut [u8], seed: u32) {
    let len = u32::try_from(frame.len()).expect("inputs are short");
    frame[0..4].copy_from_slice(&len.to_le_bytes());
    let body_crc = crc32c::crc32c_append(seed, &frame[HEADER..]);
    frame[8..12].copy_from_slice(&body_crc.to_le_bytes());
    let crc = header_crc(frame, seed);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The frame that says that a batch has been synced.
pub(crate) fn synced_mark(seed: u32, batch: u64) -> Vec<u8> {
    let mut buf = Vec::with_capacity(HEADER);
    let at = open(&mut buf);
    close(
        &mut buf,
        at,
        seed,
        batch,
        Head {
            group: GroupId::CONTROL,
            kind: Kind::Synced,
            term: 0,
            index: 0,
        },
    );
    buf
}

fn header_crc(frame: &[u8], seed: u32) -> u32 {
    let crc = crc32c::crc32c_append(seed, &frame[0..4]);
    crc32c::crc32c_append(crc, &frame[CHECKED_FROM..HEADER])
}

/// Reads the frame at the start of `bytes`, which reach to the end of the segment. `None` when it is not valid.
pub(crate) fn parse(bytes: &[u8], seed: u32) -> Option<(Header, &[u8])> {
    // Cheap tests first: the search for frames behind a bad one tries every byte.
    if bytes.len() < HEADER || bytes[18] != VERSION || bytes[19] != 0 || bytes[17] > FLAG_LAST {
        return None;
    }
    let kind = Kind::from_u8(bytes[KIND_AT])?;
    let len = le_u32(bytes, 0) as usize;
    if len < HEADER || len > bytes.len() || header_crc(bytes, seed) != le_u32(bytes, 4) {
        return None;
    }
    let body = &bytes[HEADER..len];
    if crc32c::crc32c_append(seed, body) != le_u32(bytes, 8) {
        return None;
    }
    let header = Header {
        len,
        group: GroupId(le_u32(bytes, 12)),
        kind,
        last: bytes[17] & FLAG_LAST != 0,
        batch: le_u64(bytes, 20),
        term: le_u64(bytes, 28),
        index: le_u64(bytes, 36),
    };
    Some((header, body))
}

/// Whether there is no frame at the start of `bytes` by design: the end of the data in a segment's first life.
pub(crate) fn is_end(bytes: &[u8]) -> bool {
    bytes.iter().take(HEADER).all(|&b| b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segment: u64) -> Vec<u8> {
        let mut buf = Vec::new();
        let at = open(&mut buf);
        buf.extend_from_slice(b"body");
        close(
            &mut buf,
            at,
            seed(segment),
            7,
            Head {
                group: GroupId(2),
                kind: Kind::Entry,
                term: 3,
                index: 4,
            },
        );
        mark_last(&mut buf, at, seed(segment));
        buf
    }

    /// Released bytes: a change here makes existing logs unreadable.
    #[test]
    fn the_bytes_of_a_frame_never_change() {
        let mut golden = vec![48, 0, 0, 0];
        golden.extend_from_slice(&GOLDEN_CRCS);
        golden.extend_from_slice(&[2, 0, 0, 0, 3, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(b"body");
        assert_eq!(frame(9), golden);
    }
    const GOLDEN_CRCS: [u8; 8] = [136, 119, 149, 154, 139, 52, 43, 250];

    #[test]
    fn a_frame_of_a_segments_earlier_life_is_not_valid() {
        let old = frame(1);
        assert!(parse(&old, seed(1)).is_some());
        assert!(parse(&old, seed(2)).is_none());
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_not_valid() {
        let good = frame(5);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, seed(5)).is_none(), "bit {bit}");
        }
    }
}
