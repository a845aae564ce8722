//! JSON text to CBOR, in one pass, without a tree in between. Markers stay as they are; `rewrite` turns them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{ARRAY, MAP, NEGATIVE, NULL, UNSIGNED, head, number, text};

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Converts one JSON value. `serde_json` bounds the depth.
///
/// # Errors
/// What `serde_json` says, with line and column.
pub(crate) fn convert(json: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Item(&mut out).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(out)
}

/// Converts the member `name` of a JSON object; all others are skipped.
///
/// # Errors
/// What `serde_json` says; also when it is no object, or has the member twice.
pub(crate) fn convert_member(json: &[u8], name: &str) -> serde_json::Result<Option<Vec<u8>>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Member {
        name,
        len: json.len(),
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

struct Member<'a> {
    name: &'a str,
    len: usize,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the member {:?}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key != self.name {
                map.next_value::<IgnoredAny>()?;
            } else if found.is_some() {
                return Err(serde::de::Error::custom(format!(
                    "the member {:?} is there twice",
                    self.name
                )));
            } else {
                let mut out = Vec::with_capacity(self.len);
                map.next_value_seed(Item(&mut out))?;
                found = Some(out);
            }
        }
        Ok(found)
    }
}

/// Appends what is deserialized.
struct Item<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { TRUE } else { FALSE });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        match u64::try_from(value) {
            Ok(value) => head(self.0, UNSIGNED, value),
            Err(_) => head(self.0, NEGATIVE, !value as u64),
        }
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        head(self.0, UNSIGNED, value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        number(self.0, value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        text(self.0, value);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(NULL);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let start = open(self.0);
        let mut items = 0;
        while seq.next_element_seed(Item(self.0))?.is_some() {
            items += 1;
        }
        close(self.0, start, ARRAY, items);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = open(self.0);
        let mut items = 0;
        while map.next_key_seed(Item(self.0))?.is_some() {
            map.next_value_seed(Item(self.0))?;
            items += 1;
        }
        close(self.0, start, MAP, items);
        Ok(())
    }
}

/// Leaves room for a head of one byte, enough for most.
fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Puts the head in its place; the content moves only when the head is longer than a byte.
fn close(out: &mut Vec<u8>, start: usize, major: u8, items: u64) {
    let mut real = Vec::new();
    head(&mut real, major, items);
    out.splice(start..=start, real);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{json, whole};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn json_becomes_the_shortest_cbor() {
        assert_eq!(
            convert(br#"[1,-1,"a",null,true,false,3.5,{"k":[]}]"#).unwrap(),
            [
                0x88, 1, 0x20, 0x61, b'a', 0xf6, 0xf5, 0xf4, 0xfb, 0x40, 0x0c, 0, 0, 0, 0, 0, 0, 0xa1, 0x61,
                b'k', 0x80
            ]
        );
        assert_eq!(
            convert(b"1700000000000").unwrap(),
            [0x1b, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0]
        );
        assert_eq!(convert(b"5.0").unwrap(), [5]);
        let long = format!("[{}]", vec!["0"; 300].join(","));
        assert_eq!(convert(long.as_bytes()).unwrap()[..4], [0x99, 1, 44, 0]);
    }

    #[test]
    fn a_member_is_found_among_others() {
        assert_eq!(
            convert_member(br#"{"x":{"args":[9]},"args":[1]}"#, "args").unwrap(),
            Some(vec![0x81, 1])
        );
        assert_eq!(convert_member(b"{}", "args").unwrap(), None);
        for wrong in [
            &b"[]"[..],
            b"",
            b"{",
            b"{}{}",
            br#"{"args":[],"args":[]}"#,
            b"\xff",
            br#"{"args":[1,]}"#,
        ] {
            assert!(convert_member(wrong, "args").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(convert(&deep).is_err());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-9_007_199_254_740_991..9_007_199_254_740_991i64).prop_map(|v| json!(v)),
            (-1e6..1e6f64).prop_map(|v| json!(v + 0.5_f64.copysign(v))),
            "[a-z\\\\\"漢]{0,6}".prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 60, 30, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..30).prop_map(Value::Array),
                prop::collection::btree_map("[a-z]{0,3}", inner, 0..30)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// Numbers compare by what they are: `5.0` comes back as `5`.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|b| same(v, b)))
            }
            _ => a == b,
        }
    }

    proptest! {
        #[test]
        fn json_survives_the_way_through_cbor(value in value()) {
            let bytes = convert(value.to_string().as_bytes()).unwrap();
            prop_assert!(whole(&bytes).is_ok());
            let mut out = Vec::new();
            json::write(&bytes, &mut out).unwrap();
            let back: Value = serde_json::from_slice(&out).unwrap();
            prop_assert!(same(&back, &value), "{} {}", back, value);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = convert(&bytes);
            let _ = convert_member(&bytes, "args");
        }
    }
}
