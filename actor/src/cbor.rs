//! CBOR of states, arguments, results, events and metadata.
//!
//! Invariant: decoding never panics, nests at most [`DEPTH_MAX`] deep, refuses trailing bytes, and allocates in
//! proportion to the bytes given. What clients send goes through [`coerce`], which forgives what JavaScript
//! cannot express; states are read strictly, as we wrote them.
//! Not here: frames between nodes (bincode, `types::codec`), the wrappers of client protocols (gateway).

mod any;
mod coerce;

use ciborium::Value;
use clinch_types::{code, group};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use any::{Any, Rest};
pub(crate) use coerce::{Coerce, CoerceError};

use crate::Error;

/// Deepest nesting of arrays, maps and tags that is read.
pub const DEPTH_MAX: usize = 128;

/// Why bytes are not the value that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CborError {
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    #[error("malformed CBOR at byte {0}")]
    Syntax(usize),
    #[error("CBOR ends early")]
    Short,
    #[error("{0} bytes after the end of the value")]
    Trailing(usize),
    #[error("{0}")]
    Shape(String),
}

impl From<CborError> for Error {
    fn from(error: CborError) -> Self {
        Self::invalid_request(error.to_string())
    }
}

/// Reads one value, as it is.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, CborError> {
    read(bytes)
}

/// Reads what a client sent.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    T::deserialize(Coerce::new(value(bytes)?)).map_err(|e| CborError::Shape(e.to_string()))
}

/// Reads what this release or an older one wrote itself, without coercion.
pub(crate) fn from_slice_strict<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    read(bytes)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    use ciborium::de::Error as E;
    let mut rest = bytes;
    let value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX).map_err(|e| match e {
            E::Io(_) => CborError::Short,
            E::Syntax(at) => CborError::Syntax(at),
            E::Semantic(_, message) => CborError::Shape(message),
            E::RecursionLimitExceeded => CborError::Depth,
        })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(CborError::Trailing(rest.len()))
    }
}

/// Appends a value to `out`; on failure `out` may end in part of it.
pub(crate) fn write_to<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    ciborium::into_writer(value, out).map_err(|e| match e {
        ciborium::ser::Error::Io(error) => Error::internal(error),
        ciborium::ser::Error::Value(message) => Error::internal(format!("not serializable: {message}")),
    })
}

/// A value as bytes.
///
/// # Errors
/// When the value refuses to be serialized.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(32);
    write_to(value, &mut out)?;
    Ok(out)
}

/// A result or an input from bytes, coerced like arguments.
///
/// # Errors
/// `actor.invalid_request` saying what does not fit.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    from_slice(bytes).map_err(|error| {
        let expected = std::any::type_name::<T>();
        Error::new(
            group::ACTOR,
            code::INVALID_REQUEST,
            format!("{what} is not a {expected}: {error}"),
        )
    })
}
