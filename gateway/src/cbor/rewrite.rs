//! Copies an item while changing what the two sides understand differently.
//!
//! Towards the actor: integral floats become integers, and (where the client writes them) markers become values.
//! Towards the client: 8-byte integers that are numbers become floats, and user arrays that look like markers are
//! escaped.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::bignum::{from_decimal, text_of};
use super::{
    ARRAY, BREAK, CborError, FLOAT64, Head, MAP, NEGATIVE, SIMPLE, TAG, UNDEFINED, UNSIGNED, bytes, float64,
    head, integer, is_safe, number, scan, tag, text, whole,
};

/// Makes an item of a client what an actor decodes; `unwrap` when this client writes markers.
///
/// # Errors
/// Unless `item` is exactly one CBOR item, with a fitting value behind each marker.
pub(crate) fn inbound(item: &[u8], unwrap: bool) -> Result<Cow<'_, [u8]>, CborError> {
    let facts = whole(item)?;
    let changes = facts.integral || (unwrap && facts.marker);
    if !changes {
        return Ok(Cow::Borrowed(item));
    }
    let mut rewrite = Rewrite::new(item);
    rewrite.integers = true;
    rewrite.unwrap = unwrap;
    rewrite.item()?;
    Ok(Cow::Owned(rewrite.out))
}

/// Makes an item of an actor what a client decodes; `escape` when this client reads markers.
///
/// # Errors
/// Unless `item` is exactly one CBOR item.
pub(crate) fn outbound(item: &[u8], escape: bool) -> Result<Cow<'_, [u8]>, CborError> {
    let facts = whole(item)?;
    let changes = facts.wide || (escape && facts.marker);
    if !changes {
        return Ok(Cow::Borrowed(item));
    }
    let mut rewrite = Rewrite::new(item);
    rewrite.floats = true;
    rewrite.escape = escape;
    rewrite.item()?;
    Ok(Cow::Owned(rewrite.out))
}

struct Rewrite<'a> {
    bytes: &'a [u8],
    at: usize,
    out: Vec<u8>,
    integers: bool,
    floats: bool,
    unwrap: bool,
    escape: bool,
}

impl<'a> Rewrite<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            out: Vec::with_capacity(bytes.len() + 16),
            integers: false,
            floats: false,
            unwrap: false,
            escape: false,
        }
    }

    /// Copies one item; recursion is bounded, because a scan has bounded the depth.
    fn item(&mut self) -> Result<(), CborError> {
        let start = self.at;
        let head = Head::read(self.bytes, start)?;
        match head.major {
            UNSIGNED | NEGATIVE if self.floats && head.info == 27 && is_safe(integer(head)) => {
                // Exact within the safe range.
                float64(&mut self.out, integer(head) as f64);
                self.at = head.next;
                Ok(())
            }
            SIMPLE if self.integers && self.bytes[start] == FLOAT64 => {
                number(&mut self.out, f64::from_bits(head.argument));
                self.at = head.next;
                Ok(())
            }
            ARRAY => match self.pair(head) {
                Some((marker, value)) => self.marked(head, marker, value),
                None => self.container(head),
            },
            MAP | TAG => self.container(head),
            _ => {
                self.at = scan(self.bytes, start)?.0;
                self.out.extend_from_slice(&self.bytes[start..self.at]);
                Ok(())
            }
        }
    }

    fn container(&mut self, head: Head) -> Result<(), CborError> {
        self.out.extend_from_slice(&self.bytes[self.at..head.next]);
        self.at = head.next;
        if head.indefinite() {
            while self.bytes.get(self.at) != Some(&BREAK) {
                self.item()?;
            }
            self.out.push(BREAK);
            self.at += 1;
            return Ok(());
        }
        let items = match head.major {
            TAG => 1,
            MAP => head.argument.saturating_mul(2),
            _ => head.argument,
        };
        for _ in 0..items {
            self.item()?;
        }
        Ok(())
    }

    /// The marker and the place of the value, when this array is `["$…", value]`.
    fn pair(&self, array: Head) -> Option<(&'a str, usize)> {
        if !(self.unwrap || self.escape) || !(array.argument == 2 || array.indefinite()) {
            return None;
        }
        let marker = text_of(self.bytes, array.next).filter(|text| text.starts_with('$'))?;
        let (value, _) = scan(self.bytes, array.next).ok()?;
        if array.indefinite() {
            let (end, _) = scan(self.bytes, value).ok()?;
            (self.bytes.get(end) == Some(&BREAK)).then_some((marker, value))
        } else {
            Some((marker, value))
        }
    }

    /// Copies a pair, unwrapped or escaped.
    fn marked(&mut self, array: Head, marker: &'a str, value: usize) -> Result<(), CborError> {
        self.at = value;
        if self.escape {
            head(&mut self.out, ARRAY, 2);
            text(&mut self.out, &format!("${marker}"));
            self.item()?;
        } else {
            self.unwrapped(marker)?;
        }
        if array.indefinite() {
            self.at += 1;
        }
        Ok(())
    }

    fn unwrapped(&mut self, marker: &'a str) -> Result<(), CborError> {
        match marker {
            "$BigInt" => {
                let digits = self.text("$BigInt")?;
                from_decimal(digits, &mut self.out)
            }
            "$Uint8Array" => {
                let content = self.base64("$Uint8Array")?;
                head(&mut self.out, TAG, tag::UINT8_ARRAY);
                bytes(&mut self.out, &content);
                Ok(())
            }
            "$ArrayBuffer" => {
                let content = self.base64("$ArrayBuffer")?;
                bytes(&mut self.out, &content);
                Ok(())
            }
            "$Undefined" => {
                self.at = scan(self.bytes, self.at)?.0;
                self.out.push(UNDEFINED);
                Ok(())
            }
            "$Set" => {
                if Head::read(self.bytes, self.at)?.major != ARRAY {
                    return Err(CborError::Marker { marker: "$Set" });
                }
                head(&mut self.out, TAG, tag::SET);
                self.item()
            }
            // `$$x` is the user's own `$x`; any other is the user's own as well, from a client that escapes nothing.
            other => {
                head(&mut self.out, ARRAY, 2);
                let own = if other.starts_with("$$") {
                    &other[1..]
                } else {
                    other
                };
                text(&mut self.out, own);
                self.item()
            }
        }
    }

    fn text(&mut self, marker: &'static str) -> Result<&'a str, CborError> {
        let text = text_of(self.bytes, self.at).ok_or(CborError::Marker { marker })?;
        self.at = scan(self.bytes, self.at)?.0;
        Ok(text)
    }

    fn base64(&mut self, marker: &'static str) -> Result<Vec<u8>, CborError> {
        let text = self.text(marker)?;
        let padded = if text.ends_with('=') || text.len().is_multiple_of(4) {
            STANDARD.decode(text)
        } else {
            STANDARD_NO_PAD.decode(text)
        };
        padded.map_err(|_| CborError::Marker { marker })
    }
}

/// The positional arguments in a client's item: an array as it is, nothing as no argument, a value as the only one.
pub(crate) fn arguments(item: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match item.first() {
        None | Some(&super::NULL | &UNDEFINED) => Cow::Borrowed(&[0x80]),
        Some(first) if first >> 5 == ARRAY => item,
        Some(_) => Cow::Owned([&[0x81], &item[..]].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciborium::Value;
    use ciborium::value::Integer;
    use proptest::prelude::*;

    fn cbor(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        ciborium::into_writer(value, &mut out).unwrap();
        out
    }

    fn pair(marker: &str, value: Value) -> Value {
        Value::Array(vec![Value::from(marker), value])
    }

    fn unwrap(value: &Value) -> Vec<u8> {
        inbound(&cbor(value), true).unwrap().into_owned()
    }

    #[test]
    fn markers_become_the_values_they_stand_for() {
        assert_eq!(
            unwrap(&pair("$BigInt", "1152921504606846976".into())),
            [0x1b, 0x10, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            unwrap(&pair("$Uint8Array", "AQL/".into())),
            [0xd8, 64, 0x43, 1, 2, 255]
        );
        assert_eq!(unwrap(&pair("$ArrayBuffer", "AQI=".into())), [0x42, 1, 2]);
        assert_eq!(unwrap(&pair("$Undefined", 0.into())), [UNDEFINED]);
        assert_eq!(
            unwrap(&pair("$Set", Value::Array(vec![1.into(), 2.into()]))),
            [0xd9, 1, 2, 0x82, 1, 2]
        );
        let user = pair("$$weird", 1.into());
        assert_eq!(unwrap(&user), cbor(&pair("$weird", 1.into())));
        // Inside other values, and inside each other.
        let nested = Value::Array(vec![pair(
            "$Set",
            Value::Array(vec![pair("$Undefined", 0.into())]),
        )]);
        assert_eq!(unwrap(&nested), [0x81, 0xd9, 1, 2, 0x81, UNDEFINED]);
    }

    #[test]
    fn markers_in_indefinite_arrays_count_only_when_they_are_pairs() {
        let two = [
            0x9f, 0x6a, b'$', b'U', b'n', b'd', b'e', b'f', b'i', b'n', b'e', b'd', 0, 0xff,
        ];
        assert_eq!(inbound(&two, true).unwrap()[..], [UNDEFINED]);
        let three = [&two[..13], &[0, 0xff]].concat();
        assert_eq!(inbound(&three, true).unwrap()[..], three);
        let inner = [&[0x82][..], &two, &[7]].concat();
        assert_eq!(inbound(&inner, true).unwrap()[..], [0x82, UNDEFINED, 7]);
    }

    #[test]
    fn a_marker_with_a_wrong_value_is_refused_and_an_unknown_one_is_the_users() {
        for (marker, value) in [
            ("$BigInt", Value::from("x")),
            ("$BigInt", 5.into()),
            ("$Uint8Array", "*".into()),
            ("$ArrayBuffer", Value::Null),
            ("$Set", "x".into()),
        ] {
            let bytes = cbor(&pair(marker, value));
            assert_eq!(inbound(&bytes, true), Err(CborError::Marker { marker }));
            assert!(matches!(inbound(&bytes, false), Ok(Cow::Borrowed(_))));
        }
        let unknown = cbor(&pair("$price", 5.into()));
        assert_eq!(inbound(&unknown, true).unwrap()[..], unknown);
    }

    #[test]
    fn what_needs_no_change_is_not_copied() {
        let value = cbor(&Value::Array(vec![1.into(), "two".into(), Value::Float(3.5)]));
        assert!(matches!(inbound(&value, true), Ok(Cow::Borrowed(_))));
        assert!(matches!(outbound(&value, true), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn integral_floats_arrive_as_integers_and_leave_as_floats() {
        // Date.now(), as JavaScript writes it
        let float = [0xfb, 0x42, 0x78, 0xbc, 0xfe, 0x56, 0x80, 0, 0];
        let integer = [0x1b, 0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0];
        assert_eq!(inbound(&float, false).unwrap()[..], integer);
        assert_eq!(outbound(&integer, false).unwrap()[..], float);
        // -0, beyond 2^53, not a number: they stay
        for stays in [-0.0, 9_007_199_254_740_992.0, f64::NAN, f64::INFINITY, 0.5] {
            let bytes = [&[0xfb][..], &f64::to_be_bytes(stays)].concat();
            assert!(matches!(inbound(&bytes, false), Ok(Cow::Borrowed(_))), "{stays}");
        }
        // 2^53 + 1 is a BigInt to the client
        let big = cbor(&Value::from(9_007_199_254_740_993u64));
        assert!(matches!(outbound(&big, true), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn arguments_are_an_array_whatever_came() {
        let arguments = |bytes: &[u8]| arguments(Cow::Borrowed(bytes)).into_owned();
        assert_eq!(arguments(&[]), [0x80]);
        assert_eq!(arguments(&[0xf6]), [0x80]);
        assert_eq!(arguments(&[0xf7]), [0x80]);
        assert_eq!(arguments(&[0x81, 7]), [0x81, 7]);
        assert_eq!(arguments(&[0x9f, 7, 0xff]), [0x9f, 7, 0xff]);
        assert_eq!(arguments(&[7]), [0x81, 7]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
            any::<i64>().prop_map(|v| Value::Integer(Integer::from(v))),
            (-1e18..1e18f64).prop_map(Value::Float),
            "\\$?\\$?[a-z]{0,4}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..5).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                ("\\$[a-z]{0,3}", inner.clone()).prop_map(|(m, v)| pair(&m, v)),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
                inner.prop_map(|v| Value::Tag(64, Box::new(v))),
            ]
        })
    }

    proptest! {
        /// What an actor returns reaches it unchanged when a client sends it back: numbers and marker look-alikes.
        #[test]
        fn a_value_survives_the_way_to_a_client_and_back(value in value()) {
            let bytes = cbor(&value);
            let normal = inbound(&bytes, false).unwrap();
            for markers in [true, false] {
                let sent = outbound(&bytes, markers).unwrap();
                let back = inbound(&sent, markers).unwrap();
                prop_assert_eq!(&back, &normal);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flag in any::<bool>()) {
            let _ = inbound(&bytes, flag);
            let _ = outbound(&bytes, flag);
        }

        /// Nothing that leaves is read as a BigInt although it is a number.
        #[test]
        fn no_safe_integer_leaves_in_the_8_byte_form(value in value()) {
            let sent = outbound(&cbor(&value), false).unwrap().into_owned();
            prop_assert!(!whole(&sent).unwrap().wide);
        }
    }
}
