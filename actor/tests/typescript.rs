//! What TypeScript is told of actors. The text is compiled against the npm client's own types by `.ci/typescript`.

#![allow(dead_code, reason = "the shapes count, not what the actors do")]

use std::collections::BTreeMap;

use clinch_actor::{Any, Ctx, Error, Event, Registry, Rest, Result, TypeScriptError, WideIntegers, actor};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What is thrown together.
#[derive(Serialize, Deserialize, TS)]
struct Item {
    name: String,
    price: f64,
    /// A picture, as bytes.
    #[serde(with = "as_bytes")]
    #[ts(type = "Uint8Array")]
    picture: Vec<u8>,
    tags: Vec<String>,
    note: Option<String>,
    kind: Kind,
}

/// As the crate `serde_bytes` does it.
mod as_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Vec::deserialize(deserializer)
    }
}

#[derive(Serialize, Deserialize, TS)]
enum Kind {
    Plain,
    Weighed(u32),
    Made { by: String },
}

#[derive(Serialize, Deserialize, TS)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

#[derive(Event, Serialize, Deserialize, TS)]
#[event(crate = "clinch_actor")]
struct Added {
    item: Item,
}

#[derive(Event, TS)]
#[event(crate = "clinch_actor")]
struct Counted(i64);

#[derive(Event, TS)]
#[event(crate = "clinch_actor", name = "moved-by")]
struct Moved(i32, i32);

#[derive(Event, TS)]
#[event(crate = "clinch_actor")]
struct Cleared;

#[derive(Default, Serialize, Deserialize)]
struct Cart {
    items: u64,
}

#[actor(
    name = "cart",
    typescript,
    events(Added, Counted, Moved, Cleared),
    crate = "clinch_actor"
)]
impl Cart {
    /// Adds an item. Says how many there are.
    #[action]
    fn add(&mut self, _c: &Ctx<Self>, item: Item, times: Option<u32>, new: Option<bool>) -> Result<u64> {
        let _ = (item, times, new);
        Ok(self.items)
    }

    /// The items,
    /// page by page: never */ all.
    #[action]
    async fn list_items(&self, after: Option<u64>, at_most: u32) -> Result<Page<Item>, Error> {
        let _ = (after, at_most);
        Ok(Page {
            items: Vec::new(),
            next: None,
        })
    }

    #[action]
    fn clear(&mut self) {}

    #[action(name = "prices-of")]
    fn prices(&self, names: Rest<String>) -> BTreeMap<String, (f64, i128)> {
        let _ = names;
        BTreeMap::new()
    }

    #[action]
    fn by_number(&self, numbers: BTreeMap<u64, Page<String>>) -> Option<Kind> {
        let _ = numbers;
        None
    }

    #[action]
    async fn anything(_c: Ctx<Self>, value: Any) -> Any {
        value
    }

    #[cfg(any())]
    #[action]
    fn not_there(&self) {}
}

#[derive(Default, Serialize, Deserialize)]
struct Quiet(u8);

#[actor(typescript, crate = "clinch_actor")]
impl Quiet {}

#[derive(Default, Serialize, Deserialize)]
struct Plain(u8);

#[actor(crate = "clinch_actor")]
impl Plain {
    #[action]
    fn read(&self) -> u8 {
        self.0
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Cart>().actor::<Quiet>().actor::<Plain>()
}

#[test]
fn typescript_of_actors_is_the_text_that_is_compiled_against_the_npm_client() {
    let text = registry().typescript().expect("sound types");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/typescript/actors.d.ts");
    if std::env::var_os("CLINCH_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &text).expect("writable");
    }
    assert_eq!(text, std::fs::read_to_string(path).expect("the text"), "{path}");
}

#[test]
fn wide_integers_are_what_they_are_said_to_be_but_never_keys() {
    let text = registry()
        .typescript_with(WideIntegers::NumberOrBigInt)
        .expect("sound types");
    assert!(text.contains("=> number | bigint;"), "{text}");
    assert!(text.contains("next: number | bigint | null"), "{text}");
    assert!(
        text.contains("numbers: { [key in number]: Page<string> }"),
        "{text}"
    );
    assert!(text.contains("at_most: number"), "small ones stay: {text}");
}

mod other {
    use super::*;

    #[derive(Serialize, Deserialize, TS)]
    pub(super) struct Kind {
        pub(super) weight: u8,
    }

    #[derive(Serialize, Deserialize, TS)]
    pub(super) struct Registry {
        pub(super) entries: u8,
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Twice(u8);

#[actor(typescript, crate = "clinch_actor")]
impl Twice {
    #[action]
    fn first(&self) -> Option<Kind> {
        None
    }
    #[action]
    fn second(&self) -> other::Kind {
        other::Kind { weight: self.0 }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Taken(u8);

#[actor(typescript, crate = "clinch_actor")]
impl Taken {
    #[action]
    fn entries(&self) -> other::Registry {
        other::Registry { entries: self.0 }
    }
}

#[test]
fn a_name_that_would_mean_two_things_in_typescript_is_refused() {
    match Registry::new().actor::<Twice>().typescript() {
        Err(error @ TypeScriptError::TwoTypes { .. }) => {
            let told = error.to_string();
            for part in ["typescript::Kind", "typescript::other::Kind", "rename"] {
                assert!(told.contains(part), "{told}");
            }
        }
        other => panic!("{other:?}"),
    }
    let taken = Registry::new().actor::<Taken>().typescript();
    assert!(
        matches!(taken, Err(TypeScriptError::Reserved { ref name, .. }) if name == "Registry"),
        "{taken:?}"
    );
    let twice = Registry::new().actor::<Plain>().actor::<Plain>().typescript();
    assert!(matches!(twice, Err(TypeScriptError::Registry(_))), "{twice:?}");
}
