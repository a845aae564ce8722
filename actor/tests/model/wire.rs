//! Laws of what comes over the wire.

use std::collections::BTreeMap;

use ciborium::Value;
use clinch_actor::{Any, Args, decode, encode};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    small: i8,
    signed: i64,
    unsigned: u64,
    wide: i128,
    float: f64,
    letter: char,
    text: String,
    unit: (),
    pair: (u16, String),
    option: Option<Option<u32>>,
    list: Vec<Kind>,
    map: BTreeMap<i32, String>,
    boxed: Option<Box<Everything>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    New(u64),
    Tuple(i16, bool),
    Named { a: Option<String>, b: f32 },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Unit),
        any::<u64>().prop_map(Kind::New),
        any::<(i16, bool)>().prop_map(|(a, b)| Kind::Tuple(a, b)),
        (any::<Option<String>>(), -1e6f32..1e6).prop_map(|(a, b)| Kind::Named { a, b }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let numbers = (
        any::<i8>(),
        any::<i64>(),
        any::<u64>(),
        any::<i128>(),
        -1e300f64..1e300,
    );
    let texts = (any::<bool>(), any::<char>(), ".{0,6}", any::<(u16, String)>());
    let lists = (
        prop::option::of(any::<u32>()),
        prop::collection::vec(kind(), 0..4),
        prop::collection::btree_map(any::<i32>(), ".{0,3}", 0..4),
    );
    (numbers, texts, lists).prop_map(|(numbers, texts, lists)| Everything {
        flag: texts.0,
        small: numbers.0,
        signed: numbers.1,
        unsigned: numbers.2,
        wide: numbers.3 >> 1,
        float: numbers.4,
        letter: texts.1,
        text: texts.2,
        unit: (),
        pair: texts.3,
        option: lists.0.map(Some),
        list: lists.1,
        map: lists.2,
        boxed: None,
    })
}

/// The value as JavaScript would have sent it: one type of numbers, text as keys.
fn as_javascript(value: Value) -> Value {
    match value {
        Value::Integer(integer) => {
            let wide = i128::from(integer);
            match wide.unsigned_abs() < (1 << 53) && !(-(1 << 31)..1 << 32).contains(&wide) {
                true => Value::Float(wide as f64),
                false => Value::Integer(integer),
            }
        }
        Value::Array(items) => Value::Array(items.into_iter().map(as_javascript).collect()),
        Value::Map(entries) => {
            let key = |key: Value| match key {
                Value::Integer(integer) => Value::Text(i128::from(integer).to_string()),
                other => other,
            };
            Value::Map(
                entries
                    .into_iter()
                    .map(|(k, v)| (key(k), as_javascript(v)))
                    .collect(),
            )
        }
        other => other,
    }
}

proptest! {
    /// Law: what serde wrote is what is read, whether Rust or JavaScript sent it.
    #[test]
    fn every_value_survives_the_wire(mut value in everything(), inner in everything()) {
        value.boxed = Some(Box::new(inner));
        let bytes = encode(&value).unwrap();
        prop_assert_eq!(&decode::<Everything>("it", &bytes).unwrap(), &value);
        let Any(plain) = decode("it", &bytes).unwrap();
        prop_assert_eq!(encode(&Any(plain.clone())).unwrap(), bytes);
        let javascript = encode(&as_javascript(plain)).unwrap();
        prop_assert_eq!(decode::<Everything>("it", &javascript).unwrap(), value);
    }

    /// Law: no bytes make the decoder panic or run away.
    #[test]
    fn arbitrary_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode::<Everything>("it", &bytes);
        let _ = decode::<Any>("it", &bytes);
        let _ = decode::<(Option<Kind>, BTreeMap<u8, f32>, Vec<u8>)>("it", &bytes);
        if let Ok(mut args) = Args::parse("action", &bytes) {
            let _ = args.take::<i64>("a");
            let _ = args.take::<serde_json::Value>("b");
            let _ = args.take::<Kind>("c");
            let _ = args.rest::<Any>("d");
        }
    }

    /// Law: a damaged value is a value or an error, too; this reaches deeper than arbitrary bytes.
    #[test]
    fn a_flipped_bit_is_no_panic(value in everything(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = encode(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = decode::<Everything>("it", &bytes);
        let _ = decode::<Any>("it", &bytes);
    }
}

#[test]
fn nesting_is_read_up_to_its_limit() {
    let nested = |depth: usize| [vec![0x81; depth], vec![0xf6]].concat();
    assert!(decode::<Any>("it", &nested(clinch_actor::CBOR_DEPTH_MAX - 1)).is_ok());
    let error = decode::<Any>("it", &nested(clinch_actor::CBOR_DEPTH_MAX + 1)).unwrap_err();
    assert!(error.message().contains("nested deeper than 128"), "{error}");
}

#[test]
fn integral_numbers_of_no_given_type_are_integers() {
    let json: serde_json::Value = decode("it", &encode(&(5.0, 5.5, 1e300)).unwrap()).unwrap();
    assert_eq!(json, serde_json::json!([5, 5.5, 1e300]));
}
