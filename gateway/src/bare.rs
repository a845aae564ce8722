//! The two BARE messages of an action over HTTP, and the few primitives they are made of.

/// Versions of the protocol spoken; a client that speaks another refuses ours, so we refuse theirs.
pub(crate) const VERSION_MIN: u16 = 2;
/// See [`VERSION_MIN`].
pub(crate) const VERSION_MAX: u16 = 4;
/// From this version on, payloads inside a message may hold markers.
pub(crate) const VERSION_MARKERS_READ: u16 = 3;
/// From this version on, clients undo markers in what they get.
pub(crate) const VERSION_MARKERS_WRITTEN: u16 = 4;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BareError {
    #[error("the message ends early, after {len} bytes")]
    Short { len: usize },
    #[error("protocol version {version} is not spoken here, {VERSION_MIN} to {VERSION_MAX} are")]
    Version { version: u16 },
    #[error("a length that is no 64-bit number")]
    Length,
    #[error("{extra} bytes after the end of the message")]
    Trailing { extra: usize },
}

/// Reads `HttpActionRequest`: the version and the arguments.
pub(crate) fn action_request(bytes: &[u8]) -> Result<(u16, &[u8]), BareError> {
    let short = BareError::Short { len: bytes.len() };
    let Some((version, rest)) = bytes.split_first_chunk::<2>() else {
        return Err(short);
    };
    let version = u16::from_le_bytes(*version);
    if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
        return Err(BareError::Version { version });
    }
    let (len, rest) = read_uint(rest).map_err(|cut| if cut { short.clone() } else { BareError::Length })?;
    match usize::try_from(len) {
        Ok(len) if len == rest.len() => Ok((version, rest)),
        Ok(len) if len < rest.len() => Err(BareError::Trailing {
            extra: rest.len() - len,
        }),
        _ => Err(short),
    }
}

/// Writes `HttpActionResponse`.
pub(crate) fn action_response(version: u16, output: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(output.len() + 12);
    out.extend_from_slice(&version.to_le_bytes());
    write_uint(&mut out, output.len() as u64);
    out.extend_from_slice(output);
    out
}

/// LEB128. The error says whether the bytes ended; else the number is too large.
fn read_uint(bytes: &[u8]) -> Result<(u64, &[u8]), bool> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate() {
        // The tenth byte holds the last bit of 64.
        if index == 9 && byte > 1 {
            return Err(false);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(true)
}

fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // Exact: the low seven bits.
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recorded_messages_are_read_and_written() {
        assert_eq!(action_request(&[2, 0, 1, 0x80]), Ok((2, &[0x80][..])));
        assert_eq!(action_response(2, &[0xf7]), [2, 0, 1, 0xf7]);
        assert_eq!(action_response(4, &[0x18, 0x2a]), [4, 0, 2, 0x18, 0x2a]);
        let long = action_response(4, &[7; 300]);
        assert_eq!(long[..4], [4, 0, 0xac, 2]);
        assert_eq!(action_request(&long), Ok((4, &[7; 300][..])));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        assert_eq!(action_request(&[]), Err(BareError::Short { len: 0 }));
        assert_eq!(action_request(&[4, 0]), Err(BareError::Short { len: 2 }));
        assert_eq!(action_request(&[4, 0, 2, 1]), Err(BareError::Short { len: 4 }));
        assert_eq!(action_request(&[1, 0, 0]), Err(BareError::Version { version: 1 }));
        assert_eq!(action_request(&[5, 0, 0]), Err(BareError::Version { version: 5 }));
        assert_eq!(
            action_request(&[4, 0, 1, 1, 1]),
            Err(BareError::Trailing { extra: 1 })
        );
        let endless = [&[4, 0][..], &[0xff; 20]].concat();
        assert_eq!(action_request(&endless), Err(BareError::Length));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = action_request(&bytes);
        }

        #[test]
        fn numbers_survive(value in any::<u64>()) {
            let mut out = Vec::new();
            write_uint(&mut out, value);
            prop_assert_eq!(read_uint(&out), Ok((value, &[][..])));
        }
    }
}
