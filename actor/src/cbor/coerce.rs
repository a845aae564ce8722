//! A deserializer over one CBOR value that forgives what JavaScript cannot express.
//!
//! JavaScript has one number type, sends every integer beyond 32 bits as a float, has no tuple keys, and marks
//! bytes, dates and sets with tags. So: an integral float inside ±(2^53-1) reads as an integer, an integer as a
//! float, text as an integer or boolean where it is a map key, bytes as a sequence of `u8`, and tags without a
//! meaning here are looked through.

use ciborium::Value;
use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::any::VERBATIM;

/// What did not fit.
pub(crate) type CoerceError = de::value::Error;

/// The greatest integer up to which every integer is a float of its own.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

const TAG_BIGNUM: u64 = 2;
const TAG_NEGATIVE_BIGNUM: u64 = 3;

/// Deserializes from one value.
pub(crate) struct Coerce(Value);

impl Coerce {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    /// The value without the tags that only tell JavaScript which class to build.
    fn plain(self) -> Self {
        Self(untag(self.0))
    }

    /// The value as an integer, if it is one or equals one exactly.
    fn integer(&self) -> Option<i128> {
        match &self.0 {
            Value::Integer(integer) => Some(i128::from(*integer)),
            Value::Float(float) if float.fract() == 0.0 && float.abs() <= SAFE_INTEGER_MAX => {
                Some(*float as i128)
            }
            Value::Tag(tag, content) => bignum(*tag, content),
            _ => None,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0 {
            Value::Bool(x) => Unexpected::Bool(*x),
            Value::Integer(_) => match self.integer() {
                Some(x) if u64::try_from(x).is_ok() => Unexpected::Unsigned(x as u64),
                Some(x) if i64::try_from(x).is_ok() => Unexpected::Signed(x as i64),
                _ => Unexpected::Other("large integer"),
            },
            Value::Float(x) => Unexpected::Float(*x),
            Value::Bytes(_) => Unexpected::Other("byte string"),
            Value::Text(x) => Unexpected::Str(x),
            Value::Array(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
            Value::Tag(..) => Unexpected::Other("large integer"),
            Value::Null => Unexpected::Unit,
            _ => Unexpected::Other("unknown value"),
        }
    }

    fn visit_integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.integer() {
            Some(x) => match (u64::try_from(x), i64::try_from(x)) {
                (Ok(x), _) => visitor.visit_u64(x),
                (_, Ok(x)) => visitor.visit_i64(x),
                _ if x > 0 => visitor.visit_u128(x as u128),
                _ => visitor.visit_i128(x),
            },
            None => Err(de::Error::invalid_type(this.unexpected(), &visitor)),
        }
    }

    fn visit_float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match &this.0 {
            Value::Float(float) => visitor.visit_f64(*float),
            _ => match this.integer() {
                Some(integer) => visitor.visit_f64(integer as f64),
                None => Err(de::Error::invalid_type(this.unexpected(), &visitor)),
            },
        }
    }
}

/// Looks through tags that only tell JavaScript which class to build: typed array, date, set, map. Bignums keep
/// theirs, it is their sign.
fn untag(mut value: Value) -> Value {
    loop {
        match value {
            Value::Tag(tag, content) if !is_bignum(tag, &content) => value = *content,
            other => return other,
        }
    }
}

fn is_bignum(tag: u64, content: &Value) -> bool {
    matches!(tag, TAG_BIGNUM | TAG_NEGATIVE_BIGNUM) && matches!(content, Value::Bytes(_))
}

fn bignum(tag: u64, content: &Value) -> Option<i128> {
    let Value::Bytes(bytes) = content else { return None };
    let digits = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len())..];
    let mut wide = [0; 16];
    wide.get_mut(16usize.checked_sub(digits.len())?..)?
        .copy_from_slice(digits);
    let magnitude = i128::try_from(u128::from_be_bytes(wide)).ok()?;
    if tag == TAG_BIGNUM {
        Some(magnitude)
    } else {
        (-1i128).checked_sub(magnitude)
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
            self.visit_integer(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Coerce {
    type Error = CoerceError;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.0 {
            Value::Bool(x) => visitor.visit_bool(x),
            // JavaScript has one type of numbers: where no type is asked for, 5.0 is 5.
            Value::Float(x) if this.integer().is_none() || (x == 0.0 && x.is_sign_negative()) => {
                visitor.visit_f64(x)
            }
            Value::Text(x) => visitor.visit_string(x),
            Value::Bytes(x) => visitor.visit_byte_buf(x),
            Value::Null => visitor.visit_unit(),
            Value::Array(items) => visit_items(items, visitor),
            Value::Map(entries) => visit_entries(entries, visitor),
            Value::Integer(_) | Value::Float(_) | Value::Tag(..) => this.visit_integer(visitor),
            _ => Err(de::Error::invalid_type(this.unexpected(), &visitor)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        self.visit_float(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        self.visit_float(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.0 {
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Value::Text(text) => visitor.visit_string(text),
            Value::Array(items) => visit_items(items, visitor),
            _ => Err(de::Error::invalid_type(this.unexpected(), &visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.0 {
            Value::Array(items) => visit_items(items, visitor),
            Value::Bytes(bytes) => {
                let mut access = de::value::SeqDeserializer::<_, CoerceError>::new(bytes.into_iter());
                let value = visitor.visit_seq(&mut access)?;
                access.end()?;
                Ok(value)
            }
            _ => Err(de::Error::invalid_type(this.unexpected(), &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, CoerceError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(this),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        if name == VERBATIM {
            return visitor
                .visit_byte_buf(super::to_vec(&self.0).map_err(<CoerceError as de::Error>::custom)?);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.0 {
            Value::Text(variant) => visitor.visit_enum(Choice {
                variant,
                content: None,
            }),
            Value::Map(mut entries) if entries.len() == 1 => match entries.pop() {
                Some((Value::Text(variant), content)) => visitor.visit_enum(Choice {
                    variant,
                    content: Some(content),
                }),
                _ => Err(de::Error::invalid_type(
                    Unexpected::Map,
                    &"a map with the name of a variant as its key",
                )),
            },
            _ => Err(de::Error::invalid_type(
                this.unexpected(),
                &"a variant's name, or a map with it as the only key",
            )),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let this = self.plain();
        match this.0 {
            Value::Null => visitor.visit_unit(),
            _ => Err(de::Error::invalid_type(this.unexpected(), &visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        self.deserialize_unit(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool char str string map struct identifier
    }
}

fn visit_items<'de, V: Visitor<'de>>(items: Vec<Value>, visitor: V) -> Result<V::Value, CoerceError> {
    let mut access = Items(items.into_iter());
    let value = visitor.visit_seq(&mut access)?;
    match access.0.len() {
        0 => Ok(value),
        extra => Err(de::Error::custom(format_args!(
            "{extra} elements more than expected"
        ))),
    }
}

fn visit_entries<'de, V: Visitor<'de>>(
    entries: Vec<(Value, Value)>,
    visitor: V,
) -> Result<V::Value, CoerceError> {
    visitor.visit_map(Entries {
        entries: entries.into_iter(),
        value: None,
    })
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = CoerceError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CoerceError> {
        self.0
            .next()
            .map(|value| seed.deserialize(Coerce::new(value)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries {
    entries: std::vec::IntoIter<(Value, Value)>,
    value: Option<Value>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = CoerceError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CoerceError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(MapKey(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CoerceError> {
        match self.value.take() {
            Some(value) => seed.deserialize(Coerce::new(value)),
            None => Err(de::Error::custom("a map value was asked for before its key")),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A map's key: the keys of a JavaScript object are always text.
struct MapKey(Value);

macro_rules! parsed_keys {
    ($($method:ident $ty:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
            match &self.0 {
                Value::Text(text) => match text.parse::<$ty>() {
                    Ok(value) => IntoDeserializer::<CoerceError>::into_deserializer(value).deserialize_any(visitor),
                    Err(_) => Err(de::Error::invalid_value(Unexpected::Str(text), &visitor)),
                },
                _ => Coerce::new(self.0).$method(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for MapKey {
    type Error = CoerceError;

    parsed_keys! {
        deserialize_bool bool,
        deserialize_i8 i8, deserialize_i16 i16, deserialize_i32 i32, deserialize_i64 i64, deserialize_i128 i128,
        deserialize_u8 u8, deserialize_u16 u16, deserialize_u32 u32, deserialize_u64 u64, deserialize_u128 u128,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        Coerce::new(self.0).deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        Coerce::new(self.0).deserialize_option(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        Coerce::new(self.0).deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// One variant of an enum, with or without content.
struct Choice {
    variant: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Choice {
    type Error = CoerceError;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), CoerceError> {
        let name: StringDeserializer<CoerceError> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

struct Content(Option<Value>);

impl Content {
    fn need(self, what: &str) -> Result<Coerce, CoerceError> {
        self.0
            .map(Coerce::new)
            .ok_or_else(|| de::Error::invalid_type(Unexpected::UnitVariant, &what))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = CoerceError;

    fn unit_variant(self) -> Result<(), CoerceError> {
        match self.0 {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(de::Error::invalid_type(
                Unexpected::NewtypeVariant,
                &"a variant without content",
            )),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CoerceError> {
        seed.deserialize(self.need("a variant with content")?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, CoerceError> {
        self.need("a variant with a list of contents")?
            .deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        self.need("a variant with fields")?.deserialize_any(visitor)
    }
}
