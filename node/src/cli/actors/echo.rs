//! Actors that give back what they get, and what they are.

use std::time::Duration;

use ciborium::Value;
use clinch_actor::{Any, Ctx, Error, Rest};
use clinch_types::limits;
use serde::{Deserialize, Serialize};

/// Values of every kind, there and back.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Echo {}

/// Tags that JavaScript's CBOR gives to values of its own classes.
mod tag {
    pub(super) const DATE: u64 = 1;
    pub(super) const BIGNUM: u64 = 2;
    pub(super) const NEGATIVE_BIGNUM: u64 = 3;
    pub(super) const UINT8_ARRAY: u64 = 64;
    pub(super) const SET: u64 = 258;
    pub(super) const MAP: u64 = 259;
}

/// 2^53 + 1: the first integer that JavaScript's numbers cannot hold.
const BIG: u64 = 9_007_199_254_740_993;
const SAFE: i128 = 9_007_199_254_740_991;

#[clinch_actor::actor(name = "echo", crate = "clinch_actor")]
impl Echo {
    #[action]
    fn echo(&self, value: Option<Any>) -> Option<Any> {
        value
    }

    #[action]
    fn args(&self, args: Rest<Any>) -> Vec<Any> {
        args.0
    }

    #[action]
    fn arg_count(&self, args: Rest<Any>) -> usize {
        args.0.len()
    }

    #[action]
    fn nothing(&self) {}

    #[action]
    fn nullish(&self) -> Option<Any> {
        None
    }

    #[action]
    fn type_of(&self, args: Rest<Any>) -> String {
        args.0
            .first()
            .map_or("undefined".into(), |Any(value)| type_of(value))
    }

    #[action]
    fn bytes(&self, len: u64) -> Result<Any, Error> {
        let len = reply_len(len)?;
        Ok(Any(Value::Bytes((0..len).map(|i| (i % 256) as u8).collect())))
    }

    #[action]
    fn big(&self) -> u64 {
        BIG
    }

    #[action]
    fn make_string(&self, len: u64) -> Result<String, Error> {
        Ok("x".repeat(reply_len(len)?))
    }

    /// Without `self`: others are answered while it waits.
    #[action]
    async fn slow(c: Ctx<Self>, ms: u64, value: Option<Any>) -> Option<Any> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
            () = c.cancelled() => {}
        }
        value
    }
}

/// A length that is made here must not be one that nobody could send.
fn reply_len(len: u64) -> Result<usize, Error> {
    // A little more than fits, so that the limit of replies is seen at work.
    let max = 2 * limits::REPLY_MAX;
    match usize::try_from(len) {
        Ok(len) if len <= max => Ok(len),
        _ => Err(Error::user(
            "too_long",
            format!("a length of {len} was asked for, at most {max} is allowed"),
        )),
    }
}

/// What JavaScript would call a value.
fn type_of(value: &Value) -> String {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Text(_) => "string",
        Value::Float(_) => "number",
        Value::Integer(integer) if i128::from(*integer).abs() > SAFE => "bigint",
        Value::Integer(_) => "number",
        Value::Bytes(bytes) => return format!("arraybuffer:{}", bytes.len()),
        Value::Array(items) => return format!("array:{}", items.len()),
        Value::Map(_) => "object",
        Value::Tag(tag, content) => return tagged(*tag, content),
        _ => "undefined",
    };
    name.into()
}

fn tagged(tag: u64, content: &Value) -> String {
    match (tag, content) {
        (tag::UINT8_ARRAY, Value::Bytes(bytes)) => format!("bytes:{}", bytes.len()),
        (tag::BIGNUM | tag::NEGATIVE_BIGNUM, Value::Bytes(_)) => "bigint".into(),
        // Seconds on the wire, milliseconds in JavaScript.
        (tag::DATE, Value::Integer(seconds)) => format!("date:{}", i128::from(*seconds) * 1000),
        (tag::DATE, Value::Float(seconds)) => format!("date:{}", (seconds * 1000.0).round() as i64),
        (tag::SET, Value::Array(items)) => format!("set:{}", items.len()),
        (tag::MAP, Value::Map(entries)) => format!("map:{}", entries.len()),
        (_, content) => type_of(content),
    }
}

/// Who an actor is.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Meta {}

#[clinch_actor::actor(name = "meta", crate = "clinch_actor")]
impl Meta {
    #[action]
    fn key(&self, c: &Ctx<Self>) -> Vec<String> {
        c.key().components().to_vec()
    }

    #[action]
    fn name(&self, c: &Ctx<Self>) -> String {
        c.name().to_owned()
    }

    #[action]
    fn actor_id(&self, c: &Ctx<Self>) -> String {
        c.id().to_string()
    }

    /// The type of the region's name in JavaScript.
    #[action]
    fn region(&self) -> String {
        "string".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_named_as_javascript_does() {
        let tagged = |tag, content| Value::Tag(tag, Box::new(content));
        let cases = [
            (Value::Null, "null"),
            (Value::from(1), "number"),
            (Value::from(BIG), "bigint"),
            (Value::Bytes(vec![1, 2]), "arraybuffer:2"),
            (tagged(64, Value::Bytes(vec![1])), "bytes:1"),
            (tagged(1, Value::Float(1_700_000_000.123)), "date:1700000000123"),
            (tagged(258, Value::Array(vec![1.into(), 2.into()])), "set:2"),
            (tagged(259, Value::Map(vec![(1.into(), 2.into())])), "map:1"),
            (Value::Map(vec![]), "object"),
        ];
        for (value, name) in cases {
            assert_eq!(type_of(&value), name, "{value:?}");
        }
    }
}
