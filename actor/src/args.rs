//! Positional arguments: one CBOR array, taken apart by the action's signature.
//!
//! JavaScript clients pass more arguments than are declared, or fewer: extra ones are ignored, missing ones are
//! `None` where the signature says `Option`, else an error that names action, position and type.

use ciborium::Value;
use clinch_types::limits;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cbor::{self, CborError, Coerce, CoerceError, Rest};

/// The arguments of one call, in order.
pub struct Args {
    /// What is called, for errors.
    what: &'static str,
    values: std::vec::IntoIter<Value>,
    taken: usize,
}

impl Args {
    /// Takes the array apart. No bytes at all are no arguments.
    ///
    /// # Errors
    /// `actor.invalid_request` when the bytes are no CBOR array.
    pub fn parse(what: &'static str, bytes: &[u8]) -> Result<Self, Error> {
        let values = match if bytes.is_empty() {
            Ok(Value::Null)
        } else {
            cbor::value(bytes)
        } {
            Ok(Value::Array(values)) => values,
            Ok(Value::Null) => Vec::new(),
            Ok(_) => {
                return Err(Error::invalid_request(format!(
                    "{what}: the arguments are no CBOR array"
                )));
            }
            Err(error) => return Err(Error::invalid_request(format!("{what}: arguments: {error}"))),
        };
        Ok(Self {
            what,
            values: values.into_iter(),
            taken: 0,
        })
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The next argument; `name` is for the error.
    ///
    /// # Errors
    /// `actor.invalid_request` naming the action, the argument's position (from 1) and the type expected.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Error> {
        self.taken += 1;
        let decoded = match self.values.next() {
            Some(value) => T::deserialize(Coerce::new(value)),
            None => T::deserialize(Missing),
        };
        decoded.map_err(|error| {
            let (what, position, expected) = (self.what, self.taken, std::any::type_name::<T>());
            Error::invalid_request(format!(
                "{what}: argument {position} `{name}` must be {expected}: {error}"
            ))
        })
    }

    /// All arguments that are left.
    ///
    /// # Errors
    /// As [`Args::take`], for the first that does not fit.
    pub fn rest<T: DeserializeOwned>(&mut self, name: &str) -> Result<Rest<T>, Error> {
        (0..self.values.len())
            .map(|_| self.take(name))
            .collect::<Result<_, _>>()
            .map(Rest)
    }
}

/// An argument that was not given: `None` for an option, an error for everything else.
struct Missing;

impl<'de> Deserializer<'de> for Missing {
    type Error = CoerceError;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CoerceError> {
        Err(serde::de::Error::custom("it is missing"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Writes positional arguments.
pub struct ArgsWriter {
    bytes: Result<Vec<u8>, Error>,
}

impl ArgsWriter {
    /// For exactly `len` arguments.
    pub fn new(len: usize) -> Self {
        // More would be over the limit of bytes anyway.
        let bytes =
            u32::try_from(len).map_err(|_| Error::invalid_request(format!("{len} arguments are too many")));
        let bytes = bytes.map(|len| {
            let [_, _, high, low] = len.to_be_bytes();
            match len {
                0..=23 => vec![0x80 | low],
                24..=0xff => vec![0x98, low],
                0x100..=0xffff => vec![0x99, high, low],
                _ => [&[0x9a][..], &len.to_be_bytes()].concat(),
            }
        });
        Self { bytes }
    }

    /// The next argument.
    #[must_use]
    pub fn push<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        if let Ok(bytes) = &mut self.bytes
            && let Err(error) = cbor::write_to(value, bytes)
        {
            self.bytes = Err(error);
        }
        self
    }

    /// All further arguments; `len` in [`ArgsWriter::new`] counts them.
    #[must_use]
    pub fn rest<T: Serialize>(self, rest: &Rest<T>) -> Self {
        rest.0.iter().fold(self, Self::push)
    }

    /// The array.
    ///
    /// # Errors
    /// When an argument refused to be serialized, or all together are over the limit.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        check_size(self.bytes?)
    }
}

/// A value that is to reach a caller.
pub(crate) fn bounded_reply<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    use clinch_types::{code, group};
    let bytes = cbor::to_vec(value)?;
    match bytes.len() {
        len if len <= limits::REPLY_MAX => Ok(bytes),
        len => {
            let message = format!(
                "the reply has {len} bytes, at most {} are allowed",
                limits::REPLY_MAX
            );
            Err(Error::new(group::MESSAGE, code::OUTGOING_TOO_LONG, message))
        }
    }
}

/// Any tuple, array or vector as arguments; `()` is none.
pub(crate) fn encode<T: Serialize + ?Sized>(args: &T) -> Result<Vec<u8>, Error> {
    const NULL: &[u8] = &[0xf6];
    const ARRAY: u8 = 4;
    let bytes = cbor::to_vec(args)?;
    match bytes.first() {
        _ if bytes == NULL => Ok(vec![0x80]),
        Some(head) if head >> 5 == ARRAY => check_size(bytes),
        _ => Err(Error::invalid_request(
            "arguments must be a tuple, an array or a vector",
        )),
    }
}

fn check_size(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    let (len, max) = (bytes.len(), limits::ARGS_MAX);
    if len <= max {
        return Ok(bytes);
    }
    let message = format!("arguments have {len} bytes, at most {max} are allowed");
    Err(Error::new(
        clinch_types::group::MESSAGE,
        clinch_types::code::INCOMING_TOO_LONG,
        message,
    ))
}

impl From<CborError> for CoerceError {
    fn from(error: CborError) -> Self {
        serde::de::Error::custom(error)
    }
}

/// Reads one value that may be absent, like the input of a new actor.
pub(crate) fn optional<T: for<'de> Deserialize<'de>>(what: &str, bytes: Option<&[u8]>) -> Result<T, Error> {
    let decoded = match bytes {
        Some(bytes) => cbor::value(bytes)
            .map_err(CoerceError::from)
            .and_then(|v| T::deserialize(Coerce::new(v))),
        None => T::deserialize(Missing),
    };
    decoded.map_err(|error| {
        let expected = std::any::type_name::<T>();
        Error::invalid_request(format!("{what} must be {expected}: {error}"))
    })
}
