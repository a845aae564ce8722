//! Arguments and results of types that are not known beforehand.

use std::fmt;

use ciborium::Value;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name under which [`Any`] asks the argument deserializer for the value as it came, tags included.
pub(super) const VERBATIM: &str = "$clinch::Any";

/// Any CBOR value, as it came: an argument or a result that is passed through without being understood. Keeps what
/// a typed argument looks through: dates, sets, maps with keys that are no text.
#[derive(Debug, Clone, PartialEq)]
pub struct Any(pub Value);

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Verbatim;

        impl<'de> Visitor<'de> for Verbatim {
            type Value = Any;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Any, E> {
                super::value(&bytes).map(Any).map_err(E::custom)
            }

            /// Every other deserializer knows no [`VERBATIM`] and goes on with the value itself.
            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Any, D::Error> {
                Value::deserialize(deserializer).map(Any)
            }
        }

        deserializer.deserialize_newtype_struct(VERBATIM, Verbatim)
    }
}

/// As the last parameter of an action: all further arguments, however many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rest<T>(pub Vec<T>);
