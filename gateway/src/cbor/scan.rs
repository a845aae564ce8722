//! Reads an item to its end without building it, and notes what about it needs rewriting.

use super::{
    ARRAY, BREAK, BYTES, CborError, DEPTH_MAX, FLOAT64, Head, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED,
    as_integer, integer, is_safe,
};

/// What was seen inside an item. All false: the bytes mean the same on both sides and need no copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// An array that may look like a marker, such as `["$x", 1]`.
    pub(crate) marker: bool,
    /// An 8-byte integer within ±(2^53-1): JavaScript would read a BigInt where the actor meant a number.
    pub(crate) wide: bool,
    /// A 64-bit float that stands for an integer: typed actors would refuse it.
    pub(crate) integral: bool,
}

/// An open array, map or tag.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Items still to come; for an indefinite one how many came, of which only the parity counts.
    items: u64,
    indefinite: bool,
    map: bool,
}

/// Finds the end of the item at `at`.
pub(crate) fn scan(bytes: &[u8], at: usize) -> Result<(usize, Facts), CborError> {
    let mut open = [Open::default(); DEPTH_MAX];
    let mut depth = 0;
    let mut facts = Facts::default();
    let mut at = at;
    loop {
        let head = Head::read(bytes, at)?;
        let mut inner = None;
        match head.major {
            BYTES | TEXT => at = string(bytes, at, head)?,
            ARRAY | MAP | TAG => {
                note_array(bytes, head, &mut facts);
                inner = Some(container(bytes, at, head)?);
                at = head.next;
            }
            SIMPLE if head.indefinite() => {
                at = close(&open[..depth], at)?;
                depth -= 1;
            }
            _ => {
                note_number(bytes[at], head, &mut facts);
                at = simple(head, at)?;
            }
        }
        if let Some(inner) = inner
            && (inner.indefinite || inner.items > 0)
        {
            let Some(place) = open.get_mut(depth) else {
                return Err(CborError::Depth { at });
            };
            *place = inner;
            depth += 1;
            continue;
        }
        // One item ended, and with it every container it was the last of.
        loop {
            let Some(top) = open[..depth].last_mut() else {
                return Ok((at, facts));
            };
            if top.indefinite {
                top.items += 1;
                break;
            }
            top.items -= 1;
            if top.items > 0 {
                break;
            }
            depth -= 1;
        }
    }
}

/// Scans bytes that must be exactly one item.
pub(crate) fn whole(bytes: &[u8]) -> Result<Facts, CborError> {
    let (end, facts) = scan(bytes, 0)?;
    match bytes.len() - end {
        0 => Ok(facts),
        extra => Err(CborError::Trailing { extra }),
    }
}

/// The end of a string, whose parts must be of its own kind.
fn string(bytes: &[u8], at: usize, head: Head) -> Result<usize, CborError> {
    if !head.indefinite() {
        return definite(bytes, head);
    }
    let mut part = at + 1;
    loop {
        if bytes.get(part) == Some(&BREAK) {
            return Ok(part + 1);
        }
        let inner = Head::read(bytes, part)?;
        if inner.major != head.major || inner.indefinite() {
            return Err(CborError::Malformed { at: part });
        }
        part = definite(bytes, inner)?;
    }
}

fn definite(bytes: &[u8], head: Head) -> Result<usize, CborError> {
    let short = CborError::Short { at: bytes.len() };
    match usize::try_from(head.argument) {
        Ok(len) if len <= bytes.len() - head.next => Ok(head.next + len),
        _ => Err(short),
    }
}

fn container(bytes: &[u8], at: usize, head: Head) -> Result<Open, CborError> {
    let map = head.major == MAP;
    if head.indefinite() {
        if head.major == TAG {
            return Err(CborError::Malformed { at });
        }
        return Ok(Open {
            items: 0,
            indefinite: true,
            map,
        });
    }
    let items = match head.major {
        TAG => 1,
        MAP => head.argument.saturating_mul(2),
        _ => head.argument,
    };
    // An item has at least one byte: a larger claim is refused here, not after reading that far.
    if items > (bytes.len() - head.next) as u64 {
        return Err(CborError::Short { at: bytes.len() });
    }
    Ok(Open {
        items,
        indefinite: false,
        map,
    })
}

/// A break ends an indefinite container; in a map, behind a whole pair only.
fn close(open: &[Open], at: usize) -> Result<usize, CborError> {
    match open.last() {
        Some(top) if top.indefinite && !(top.map && top.items % 2 == 1) => Ok(at + 1),
        _ => Err(CborError::Malformed { at }),
    }
}

fn simple(head: Head, at: usize) -> Result<usize, CborError> {
    match (head.major, head.info) {
        (UNSIGNED | NEGATIVE, 31) => Err(CborError::Malformed { at }),
        // Simple values below 32 have a one-byte form, the only one allowed.
        (SIMPLE, 24) if head.argument < 32 => Err(CborError::Malformed { at }),
        _ => Ok(head.next),
    }
}

fn note_number(first: u8, head: Head, facts: &mut Facts) {
    if head.major == SIMPLE {
        facts.integral |= first == FLOAT64 && as_integer(f64::from_bits(head.argument)).is_some();
    } else {
        facts.wide |= head.info == 27 && is_safe(integer(head));
    }
}

/// Looks at the beginning of an array only: a false alarm costs a copy, no more.
fn note_array(bytes: &[u8], head: Head, facts: &mut Facts) {
    if head.major != ARRAY || !(head.argument == 2 || head.indefinite()) {
        return;
    }
    if let Ok(first) = Head::read(bytes, head.next)
        && first.major == TEXT
        && first.content(bytes).first() == Some(&b'$')
    {
        facts.marker = true;
    }
}

/// Where a field of a map with text keys is, as a range of `bytes`; the last one wins when there are several.
///
/// # Errors
/// Unless `bytes` are exactly one map.
pub(crate) fn field(bytes: &[u8], name: &str) -> Result<Option<std::ops::Range<usize>>, CborError> {
    whole(bytes)?;
    let head = Head::read(bytes, 0)?;
    if head.major != MAP {
        return Err(CborError::NoMap);
    }
    let mut found = None;
    let mut at = head.next;
    let mut left = head.argument;
    while if head.indefinite() {
        bytes.get(at) != Some(&BREAK)
    } else {
        left > 0
    } {
        left = left.wrapping_sub(1);
        let key = Head::read(bytes, at)?;
        let named = key.major == TEXT && !key.indefinite() && key.content(bytes) == name.as_bytes();
        let (value, _) = scan(bytes, at)?;
        let (end, _) = scan(bytes, value)?;
        if named {
            found = Some(value..end);
        }
        at = end;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn items_are_read_to_their_end_and_no_further() {
        for (bytes, end) in [
            (&[0x00, 0xaa][..], 1),
            (&[0x82, 0x01, 0x61, b'a', 0xaa], 4),
            (&[0x9f, 0x01, 0xff, 0xaa], 3),
            (&[0x5f, 0x41, 0x01, 0x40, 0xff, 0xaa], 5),
            (&[0xbf, 0x61, b'a', 0x01, 0xff, 0xaa], 5),
            (&[0xc1, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa], 10),
            (&[0xa0, 0xaa], 1),
            (&[0xb9, 0, 1, 0x61, b'a', 0x80, 0xaa], 6),
            (&[0x83, 0x80, 0x80, 0x9f, 0xff, 0xaa], 5),
            (&[0xf8, 32, 0xaa], 2),
        ] {
            assert_eq!(scan(bytes, 0).map(|(end, _)| end), Ok(end), "{bytes:x?}");
            assert_eq!(whole(bytes), Err(CborError::Trailing { extra: 1 }));
        }
    }

    #[test]
    fn what_is_no_item_is_refused() {
        let malformed: &[&[u8]] = &[
            &[0xff],
            &[0x1c],
            &[0x1f],
            &[0x82, 0x01, 0xff],
            &[0xbf, 0x61, b'a', 0xff],
            &[0x5f, 0x61, b'a', 0xff],
            &[0x5f, 0x5f, 0xff, 0xff],
            &[0xdf, 0x01],
            &[0xf8, 31],
            &[0x9f, 0xc1, 0xff],
        ];
        for bytes in malformed {
            assert!(
                matches!(whole(bytes), Err(CborError::Malformed { .. })),
                "{bytes:x?}"
            );
        }
        let short: &[&[u8]] = &[
            &[],
            &[0x19, 1],
            &[0x82, 1],
            &[0x62, b'a'],
            &[0x9f],
            &[0xbf, 0x61, b'a'],
            &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0x5b, 255, 255, 255, 255, 255, 255, 255, 255],
        ];
        for bytes in short {
            assert!(matches!(whole(bytes), Err(CborError::Short { .. })), "{bytes:x?}");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert!(whole(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(
            whole(&nested(DEPTH_MAX + 1)),
            Err(CborError::Depth { at: DEPTH_MAX + 1 })
        );
        assert!(matches!(
            whole(&vec![0x9f; 100_000]),
            Err(CborError::Depth { .. })
        ));
        assert!(matches!(
            whole(&vec![0xc1; 100_000]),
            Err(CborError::Depth { .. })
        ));
    }

    #[test]
    fn a_field_is_found_in_definite_and_indefinite_maps() {
        // {"x": [1], "args": [2]} as clients write it, with a 16-bit count.
        let map = [
            0xb9, 0, 2, 0x61, b'x', 0x81, 1, 0x64, b'a', b'r', b'g', b's', 0x81, 2,
        ];
        assert_eq!(field(&map, "args"), Ok(Some(12..14)));
        assert_eq!(field(&map, "y"), Ok(None));
        let map = [0xbf, 0x64, b'a', b'r', b'g', b's', 0x80, 0xff];
        assert_eq!(field(&map, "args"), Ok(Some(6..7)));
        assert_eq!(field(&[0x80], "args"), Err(CborError::NoMap));
        assert_eq!(field(&[0xa0, 0], "args"), Err(CborError::Trailing { extra: 1 }));
    }

    #[test]
    fn facts_name_what_needs_rewriting() {
        let facts = |bytes: &[u8]| whole(bytes).unwrap();
        assert_eq!(facts(&[0x82, 0x18, 42, 0x62, b'$', b'x']), Facts::default());
        assert!(facts(&[0x82, 0x62, b'$', b'x', 1]).marker);
        assert!(!facts(&[0x83, 0x62, b'$', b'x', 1, 2]).marker);
        assert!(facts(&[0x1b, 0, 0, 0, 0, 0, 0, 0, 5]).wide);
        assert!(!facts(&[0x1b, 0, 0x20, 0, 0, 0, 0, 0, 0]).wide);
        assert!(facts(&[0x3b, 0, 0, 1, 0, 0, 0, 0, 0]).wide);
        // 1700000000000 and 3.5
        assert!(facts(&[0xfb, 0x42, 0x78, 0xbc, 0xfe, 0x56, 0x80, 0, 0]).integral);
        assert!(!facts(&[0xfb, 0x40, 0x0c, 0, 0, 0, 0, 0, 0]).integral);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((end, _)) = scan(&bytes, 0) {
                prop_assert!(end <= bytes.len());
            }
            let _ = field(&bytes, "args");
        }

        /// A second opinion: what the library reads completely, the scan reads to the same end.
        #[test]
        fn the_scan_ends_where_the_library_does(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut rest = &bytes[..];
            if ciborium::from_reader::<ciborium::Value, _>(&mut rest).is_ok() {
                let read = bytes.len() - rest.len();
                if let Ok((end, _)) = scan(&bytes, 0) {
                    prop_assert_eq!(end, read);
                }
            }
        }
    }
}
