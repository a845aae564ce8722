//! Arguments from any client, the three kinds of actions, what they may and may not do.

use std::collections::BTreeMap;
use std::sync::Arc;

use ciborium::Value;
use clinch_actor::{ActionKind, Actor, ActorType, Any, Ctx, Event, RawHandle, Registry, Rest, TypeOf};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    notes: Vec<String>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "clinch_actor")]
struct NoteAdded(String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Shape {
    Circle { radius: u32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    Off,
    Level(u8),
    At { x: i32, y: i32 },
}

#[clinch_actor::actor(events(NoteAdded), crate = "clinch_actor")]
impl Desk {
    #[action]
    fn integer(&self, n: i64) -> i64 {
        n
    }

    #[action]
    fn small(&self, n: u8) -> u8 {
        n
    }

    #[action]
    fn float(&self, x: f64) -> f64 {
        x
    }

    #[action]
    fn bytes(&self, bytes: Vec<u8>) -> usize {
        bytes.len()
    }

    #[action]
    fn by_number(&self, map: BTreeMap<u32, bool>) -> BTreeMap<u32, bool> {
        map
    }

    #[action]
    fn choose(&self, choice: Choice, shape: Option<Shape>) -> (Choice, Option<Shape>) {
        (choice, shape)
    }

    #[action(name = "many-words")]
    fn words(&self, first: String, second: Option<u32>, third: Option<bool>) -> String {
        format!("{first} {second:?} {third:?}")
    }

    #[action]
    fn echo(&self, value: Any) -> Any {
        value
    }

    #[action]
    fn count_all(&self, first: String, rest: Rest<Any>) -> (String, usize) {
        (first, rest.0.len())
    }

    #[action]
    async fn add(&mut self, c: &Ctx<Self>, text: String) -> usize {
        self.notes.push(text.clone());
        c.broadcast(NoteAdded(text));
        self.notes.len()
    }

    #[action]
    fn nothing(&mut self) {}

    #[action]
    fn sneaky(&self, c: &Ctx<Self>) {
        c.broadcast(NoteAdded(String::new()));
    }

    #[action]
    fn huge(&self, bytes: usize) -> String {
        "x".repeat(bytes)
    }

    #[action]
    fn flood(&mut self, c: &Ctx<Self>, bytes: usize) {
        for _ in 0..5 {
            c.broadcast(NoteAdded("x".repeat(bytes)));
        }
    }

    /// Long work beside everything.
    #[action]
    async fn collect(c: Ctx<Self>, words: Vec<String>) -> clinch_actor::Result<usize> {
        for word in words {
            c.try_update(|desk, c| {
                if word == "bad" {
                    return Err(clinch_actor::Error::user("bad_word", "no bad words"));
                }
                desk.notes.push(word.clone());
                c.broadcast(NoteAdded(word));
                Ok(())
            })
            .await?;
        }
        c.read(|desk| desk.notes.len()).await
    }

    #[action]
    async fn confused(&self, c: &Ctx<Self>) -> clinch_actor::Result<usize> {
        c.read(|desk| desk.notes.len()).await
    }

    #[action]
    #[cfg(not(miri))]
    fn r#type(&self) -> String {
        "this one".to_owned()
    }

    #[action]
    #[cfg(any())]
    fn r#type(&self) -> String {
        "never compiled".to_owned()
    }

    #[action]
    #[cfg(any())]
    fn gone(&self) {}

    #[action]
    fn pure(a: i64, b: i64) -> i64 {
        a + b
    }
}

fn cbor(value: &Value) -> Vec<u8> {
    clinch_actor::encode(value).unwrap()
}

fn args(values: Vec<Value>) -> Vec<u8> {
    cbor(&Value::Array(values))
}

#[test]
fn receivers_tell_how_actions_run_and_names_are_camel_case() {
    let desk = TypeOf::<Desk>::new().unwrap();
    let kind = |name: &str| desk.action(name).map(|index| desk.actions()[index].kind);
    assert_eq!(Desk::NAME, "desk");
    assert_eq!(kind("add"), Some(ActionKind::Exclusive));
    assert_eq!(kind("byNumber"), Some(ActionKind::Shared));
    assert_eq!(kind("collect"), Some(ActionKind::Interleaved));
    assert_eq!(kind("pure"), Some(ActionKind::Interleaved));
    assert_eq!(kind("many-words"), Some(ActionKind::Shared));
    assert_eq!(kind("words"), None);
    assert_eq!(kind("by_number"), None);
}

#[tokio::test]
async fn functions_that_are_configured_out_are_no_actions() {
    let node = Node::start::<Desk>().await;
    assert_eq!(node.call::<String>("type", ()).await.unwrap(), "this one");
    assert!(
        node.call::<()>("gone", ())
            .await
            .unwrap_err()
            .is("actor", "action_not_found")
    );
}

#[tokio::test]
async fn numbers_come_as_javascript_has_them() {
    let node = Node::start::<Desk>().await;
    assert_eq!(
        node.call::<i64>("integer", (1_700_000_000_000.0,)).await.unwrap(),
        1_700_000_000_000
    );
    assert_eq!(node.call::<i64>("integer", (-0.0,)).await.unwrap(), 0);
    assert_eq!(node.call::<i64>("integer", (i64::MIN,)).await.unwrap(), i64::MIN);
    assert_eq!(node.call::<f64>("float", (5,)).await.unwrap(), 5.0);
    for (action, bad) in [
        ("integer", 1.5),
        ("integer", 9_007_199_254_740_992.0),
        ("small", 256.0),
        ("small", -1.0),
    ] {
        let error = node.call::<i64>(action, (bad,)).await.unwrap_err();
        assert!(error.is("actor", "invalid_request"), "{action} {bad}: {error}");
    }
    assert!(node.call::<i64>("integer", (f64::NAN,)).await.is_err());
    assert!(node.call::<i64>("integer", ("5",)).await.is_err());
    // A BigInt: tag 2 and bytes.
    let big = |tag, bytes: &[u8]| args(vec![Value::Tag(tag, Box::new(Value::Bytes(bytes.to_vec())))]);
    assert_eq!(
        node.run("integer", &big(2, &[0, 1, 0])).await.unwrap(),
        clinch_actor::encode(&256).unwrap()
    );
    assert_eq!(
        node.run("integer", &big(3, &[0])).await.unwrap(),
        clinch_actor::encode(&-1).unwrap()
    );
    assert!(node.run("integer", &big(2, &[1; 9])).await.is_err());
    assert!(node.run("integer", &big(2, &[0xff; 40])).await.is_err());
}

#[tokio::test]
async fn bytes_maps_and_enums_come_as_javascript_has_them() {
    let node = Node::start::<Desk>().await;
    let buffer = Value::Tag(64, Box::new(Value::Bytes(vec![1, 2, 3])));
    assert_eq!(node.run("bytes", &args(vec![buffer])).await.unwrap(), [3]);
    assert_eq!(node.call::<usize>("bytes", (vec![1, 2],)).await.unwrap(), 2);
    let object = BTreeMap::from([("7", true), ("8", false)]);
    let numbers = BTreeMap::from([(7, true), (8, false)]);
    assert_eq!(
        node.call::<BTreeMap<u32, bool>>("byNumber", (object,))
            .await
            .unwrap(),
        numbers
    );
    assert!(
        node.call::<BTreeMap<u32, bool>>("byNumber", (BTreeMap::from([("x", true)]),))
            .await
            .is_err()
    );
    let shape = serde_json::json!({"kind": "circle", "radius": 3.0});
    for choice in [Choice::Off, Choice::Level(4), Choice::At { x: -1, y: 2 }] {
        let (got, circle): (Choice, Option<Shape>) = node.call("choose", (&choice, &shape)).await.unwrap();
        assert_eq!((got, circle), (choice, Some(Shape::Circle { radius: 3 })));
    }
}

#[tokio::test]
async fn missing_options_are_none_and_extra_arguments_are_ignored() {
    let node = Node::start::<Desk>().await;
    assert_eq!(
        node.call::<String>("many-words", ("a",)).await.unwrap(),
        "a None None"
    );
    assert_eq!(
        node.call::<String>("many-words", ("a", None::<u32>, true))
            .await
            .unwrap(),
        "a None Some(true)"
    );
    assert_eq!(
        node.call::<String>("many-words", ("a", 1, true, "more", 9))
            .await
            .unwrap(),
        "a Some(1) Some(true)"
    );
}

#[tokio::test]
async fn an_argument_that_does_not_fit_is_named_with_its_action_position_and_type() {
    let node = Node::start::<Desk>().await;
    let error = node.call::<String>("many-words", ()).await.unwrap_err();
    assert!(error.is("actor", "invalid_request"));
    assert_eq!(
        error.message(),
        "many-words: argument 1 `first` must be alloc::string::String: it is missing"
    );
    let error = node.call::<String>("many-words", ("a", "b")).await.unwrap_err();
    assert!(
        error
            .message()
            .starts_with("many-words: argument 2 `second` must be core::option::Option<u32>: ")
    );
}

#[tokio::test]
async fn bytes_that_are_no_argument_list_are_refused() {
    let node = Node::start::<Desk>().await;
    let deep = [vec![0x81; 100_000], vec![0]].concat();
    let claims = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for bad in [
        &[0xa0][..],
        &[0x05],
        &[0x81, 0x05, 0x05],
        &[0x81],
        &[0xff],
        &[0x1c],
        &deep,
        &claims,
    ] {
        let error = node.run("integer", bad).await.unwrap_err();
        assert!(
            error.is("actor", "invalid_request"),
            "{:?}: {error}",
            &bad[..bad.len().min(9)]
        );
    }
    // No bytes at all are no arguments.
    assert_eq!(node.run("nothing", &[]).await.unwrap(), [0xf6]);
}

#[tokio::test]
async fn values_of_any_type_pass_through_with_their_tags() {
    let node = Node::start::<Desk>().await;
    let date = Value::Tag(1, Box::new(Value::Float(1_700_000_000.5)));
    let map = Value::Tag(
        259,
        Box::new(Value::Map(vec![(Value::from(1), Value::from("one"))])),
    );
    for value in [date, map, Value::Null, Value::Float(5.0), Value::Bytes(vec![9])] {
        assert_eq!(
            node.run("echo", &args(vec![value.clone()])).await.unwrap(),
            cbor(&value),
            "{value:?}"
        );
    }
    let rest = args(vec![Value::from("a"), Value::Null, Value::from(2)]);
    assert_eq!(
        node.run("countAll", &rest).await.unwrap(),
        clinch_actor::encode(&("a", 2)).unwrap()
    );
    let handle = DeskHandle::from(RawHandle::by_key(node.caller(), "default", "desk", "a"));
    let forty = Rest(vec![Any(Value::Null); 40]);
    assert_eq!(
        handle.count_all("b".to_owned(), forty).await.unwrap(),
        ("b".to_owned(), 40)
    );
}

#[tokio::test]
async fn a_read_that_asks_for_effects_fails_and_leaves_none() {
    let node = Node::start::<Desk>().await;
    let turns = node.store.lock().committed.len();
    let error = node.call::<()>("sneaky", ()).await.unwrap_err();
    assert!(error.is("actor", "read_only"));
    assert!(
        error.message().contains("sneaky") && error.message().contains("&mut self"),
        "{error}"
    );
    assert_eq!(node.store.lock().committed.len(), turns);
}

#[tokio::test]
async fn replies_and_effects_are_bounded() {
    let node = Node::start::<Desk>().await;
    let max = clinch_types::limits::REPLY_MAX;
    // The head of a text of this length has five bytes.
    assert_eq!(
        node.call::<String>("huge", (max - 5,)).await.unwrap().len(),
        max - 5
    );
    let error = node.call::<String>("huge", (max - 4,)).await.unwrap_err();
    assert!(error.is("message", "outgoing_too_long"));
    assert!(error.message().contains(&(max + 1).to_string()) && error.message().contains(&max.to_string()));

    node.call::<()>("flood", (700_000,)).await.unwrap();
    assert_eq!(node.last().events.len(), 5);
    let turns = node.store.lock().committed.len();
    let error = node.call::<()>("flood", (900_000,)).await.unwrap_err();
    assert!(error.is("actor", "turn_too_large"), "{error}");
    assert!(
        node.call::<()>("flood", (2_000_000,))
            .await
            .unwrap_err()
            .is("message", "incoming_too_long")
    );
    assert_eq!(node.store.lock().committed.len(), turns);
}

#[tokio::test]
async fn an_action_without_self_works_on_the_state_in_turns_of_its_own() {
    let node = Node::start::<Desk>().await;
    let before = node.store.lock().committed.len();
    assert_eq!(node.call::<usize>("collect", (["a", "b"],)).await.unwrap(), 2);
    let turns = node.store.lock().committed.split_off(before);
    let events: Vec<usize> = turns.iter().map(|turn| turn.events.len()).collect();
    assert_eq!(events, [1, 1, 0]);

    let error = node
        .call::<usize>("collect", (["c", "bad", "d"],))
        .await
        .unwrap_err();
    assert!(error.is("user", "bad_word"));
    assert_eq!(
        node.call::<usize>("collect", (Vec::<String>::new(),))
            .await
            .unwrap(),
        3
    );
}

#[tokio::test]
async fn an_action_with_self_is_told_not_to_ask_for_the_state() {
    let node = Node::start::<Desk>().await;
    let error = node.call::<usize>("confused", ()).await.unwrap_err();
    assert!(
        error.to_string().contains("for actions without `self`"),
        "{error}"
    );
}

#[tokio::test]
async fn an_action_run_in_the_wrong_way_is_an_error_and_no_panic() {
    let node = Node::start::<Desk>().await;
    let desk = TypeOf::<Desk>::new().unwrap();
    let turn = node.turn(ActionKind::Exclusive, clinch_actor::Origin::Call, None);
    let state = desk.create(turn.clone(), None).await.unwrap();
    let add = desk.action("add").unwrap();
    let text = clinch_actor::encode(&("a",)).unwrap();

    let shared = state.clone();
    let (state, result) = desk
        .exclusive(add, state, turn.clone(), text.clone().into())
        .await;
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("shared during an exclusive turn")
    );
    drop(shared);
    let (state, result) = desk
        .exclusive(add, state, turn.clone(), text.clone().into())
        .await;
    assert_eq!(result.unwrap(), [1]);
    assert!(
        desk.shared(add, state.clone(), turn.clone(), text.clone().into())
            .await
            .is_err()
    );
    assert!(
        desk.interleaved(99, turn.clone(), text.clone().into())
            .await
            .is_err()
    );
    let (_, result) = desk.exclusive(add, Arc::new(5u8), turn, text.into()).await;
    assert!(result.unwrap_err().to_string().contains("another type"));
    assert!(Registry::new().actor::<Desk>().check().is_ok());
}
