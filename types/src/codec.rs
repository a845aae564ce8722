//! The one place that turns our own wire and log types into bytes and back.
//!
//! Format byte 1 is bincode 2 "standard". Decoding is bounded, refuses trailing bytes, and never panics on
//! bytes from outside. Wire types must not contain `Vec<()>` or other zero-sized elements: a claimed length of
//! 2^32 would decode for seconds.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
pub use bincode::{Decode, Encode};

use crate::limits::FRAME_MAX;

/// The format written by this release.
pub const FORMAT: u8 = 1;

const CONFIG: Configuration<LittleEndian, Varint, Limit<FRAME_MAX>> =
    bincode::config::standard().with_limit::<FRAME_MAX>();

/// Why bytes could not be read, or a value could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("empty message")]
    Empty,
    /// Written by a release whose format this one does not know.
    #[error("unknown format {format}, this release reads {FORMAT}")]
    Format {
        /// The format byte found.
        format: u8,
    },
    /// Bytes were left over.
    #[error("{extra} bytes after the end of the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Not a value of the expected type, or over the limit.
    #[error("malformed message: {reason}")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
}

/// Encodes a value behind its format byte.
///
/// # Errors
/// Only when the value is larger than [`FRAME_MAX`].
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![FORMAT];
    encode_into(value, &mut out)?;
    Ok(out)
}

/// Encodes a value at the end of `out`, without a format byte.
///
/// # Errors
/// Only when the value is larger than [`FRAME_MAX`]; `out` may then end in part of it.
pub fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::encode_into_std_write(value, out, CONFIG).map_err(|e| CodecError::Malformed {
        reason: e.to_string(),
    })?;
    Ok(())
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// See [`CodecError`].
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&FORMAT, body)) => decode_body(body),
        Some((&format, _)) => Err(CodecError::Format { format }),
    }
}

/// Decodes what [`encode_into`] wrote: a value without a format byte.
///
/// # Errors
/// See [`CodecError`].
pub fn decode_body<T: Decode<()>>(body: &[u8]) -> Result<T, CodecError> {
    if body.len() > FRAME_MAX {
        return Err(CodecError::Malformed {
            reason: format!("{} bytes, at most {FRAME_MAX} are allowed", body.len()),
        });
    }
    let (value, read) = bincode::decode_from_slice(body, CONFIG).map_err(|e| CodecError::Malformed {
        reason: e.to_string(),
    })?;
    if read < body.len() {
        return Err(CodecError::Trailing {
            extra: body.len() - read,
        });
    }
    Ok(value)
}

/// Encodes a value of a foreign type through serde, without a format byte.
///
/// # Errors
/// Only when the value is larger than [`FRAME_MAX`].
pub fn encode_serde<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|e| CodecError::Malformed {
        reason: e.to_string(),
    })
}

/// Decodes what [`encode_serde`] wrote.
///
/// # Errors
/// See [`CodecError`].
pub fn decode_serde<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let (value, read) =
        bincode::serde::decode_from_slice(body, CONFIG).map_err(|e| CodecError::Malformed {
            reason: e.to_string(),
        })?;
    if read < body.len() {
        return Err(CodecError::Trailing {
            extra: body.len() - read,
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trailing_bytes_and_foreign_formats_are_refused() {
        let bytes = encode(&7u64).unwrap();
        assert_eq!(bytes, [1, 7]);
        assert_eq!(decode::<u64>(&[1, 7, 0]), Err(CodecError::Trailing { extra: 1 }));
        assert_eq!(decode::<u64>(&[9, 7]), Err(CodecError::Format { format: 9 }));
        assert_eq!(decode::<u64>(&[]), Err(CodecError::Empty));
    }

    #[test]
    fn a_claimed_length_beyond_the_limit_is_refused_without_allocating() {
        let mut hostile = vec![FORMAT, 253];
        hostile.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(&hostile),
            Err(CodecError::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<crate::CallRequest>(&bytes);
            let _ = decode::<Result<crate::CallReply, crate::CallError>>(&bytes);
            let _ = decode::<crate::RouteMap>(&bytes);
        }
    }
}
