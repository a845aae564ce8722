//! Events on the wire.

use clinch_actor::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(crate = "clinch_actor")]
struct NewCount(i64);

#[derive(Debug, PartialEq, Event)]
#[event(name = "user.moved", crate = "clinch_actor")]
struct Moved(String, f64, Option<bool>);

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(crate = "clinch_actor")]
#[serde(rename_all = "camelCase")]
struct MessageSent {
    user_name: String,
    text: String,
}

#[derive(Debug, PartialEq, Event)]
#[event(crate = "clinch_actor")]
struct Reset;

fn survives<E: Event + PartialEq + std::fmt::Debug>(event: E, name: &str, wire: &[u8]) {
    assert_eq!(E::NAME, name);
    assert_eq!(event.encode_args().unwrap(), wire);
    assert_eq!(E::decode_args(wire).unwrap(), event);
}

#[test]
fn fields_of_tuples_are_positional_and_named_fields_are_one_map() {
    survives(NewCount(3), "newCount", b"\x81\x03");
    survives(
        Moved("a".to_owned(), 0.5, None),
        "user.moved",
        b"\x83\x61a\xf9\x38\x00\xf6",
    );
    let message = MessageSent {
        user_name: "u".to_owned(),
        text: "t".to_owned(),
    };
    survives(message, "messageSent", b"\x81\xa2\x68userName\x61u\x64text\x61t");
    survives(Reset, "reset", b"\x80");
}

#[test]
fn an_event_that_does_not_fit_is_refused_by_field() {
    let error = Moved::decode_args(b"\x82\x61a\x61b").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("user.moved: argument 2 `1` must be f64"),
        "{error}"
    );
    assert!(NewCount::decode_args(b"\xa0").is_err());
    assert!(NewCount::decode_args(b"\x80").is_err());
    assert_eq!(NewCount::decode_args(b"\x82\x01\x02").unwrap(), NewCount(1));
}
