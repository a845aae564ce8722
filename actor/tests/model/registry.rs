//! Registries: what is refused, and what actors find in them.

use std::any::TypeId;

use clinch_actor::{
    Actor, ActorOptions, Ctx, OptionsError, RawHandle, Registry, RegistryError, Spec, TypeOf, reply,
};
use serde::{Deserialize, Serialize};

use crate::support::Node;

/// An actor of any name, with one action name given twice if asked.
#[derive(Default, Serialize, Deserialize)]
struct Named<const N: usize>;

const LONG: &str = "0123456789012345678901234567890123456789012345678901234567890123x";
const NAMES: [&str; 9] = ["ok", "", "a/b", "a@b", "a,b", "a b", "a\u{7}", LONG, "twice"];

impl<const N: usize> Actor for Named<N> {
    const NAME: &'static str = NAMES[N];
    type Handle = RawHandle;
    type Vars = ();
    type ConnState = ();

    fn options() -> ActorOptions {
        let mut options = ActorOptions::default();
        if Self::NAME == "a b" {
            options.queue_max = 0;
        }
        options
    }

    fn spec() -> Spec<Self> {
        let spec = Spec::from_default().shared("x", |_, _, _| Box::pin(async { reply(&1) }));
        match Self::NAME {
            "twice" => spec.interleaved("x", |_, _| Box::pin(async { reply(&2) })),
            _ => spec,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Zero;

impl Actor for Zero {
    const NAME: &'static str = "zero";
    type Handle = RawHandle;
    type Vars = ();
    type ConnState = ();

    fn options() -> ActorOptions {
        let mut options = ActorOptions::default();
        options.queue_max = 0;
        options
    }

    fn spec() -> Spec<Self> {
        Spec::from_default().exclusive("", |_, _, _| Box::pin(async { reply(&()) }))
    }
}

fn refusal<A: Actor>() -> Option<String> {
    Registry::new()
        .actor::<A>()
        .check()
        .err()
        .map(|error| error.to_string())
}

#[test]
fn names_that_cannot_stand_in_paths_are_refused_by_name() {
    assert_eq!(refusal::<Named<0>>(), None);
    assert!(refusal::<Named<1>>().unwrap().contains("\"\""));
    assert!(refusal::<Named<2>>().unwrap().contains("a/b"));
    assert!(refusal::<Named<3>>().unwrap().contains("a@b"));
    assert!(refusal::<Named<4>>().unwrap().contains("a,b"));
    assert!(refusal::<Named<5>>().unwrap().contains("a b"));
    assert!(refusal::<Named<6>>().unwrap().contains("control"));
    assert!(refusal::<Named<7>>().unwrap().contains("64"));
    let action = "x";
    assert_eq!(
        TypeOf::<Named<8>>::new().err(),
        Some(RegistryError::DuplicateAction {
            actor: "twice",
            action
        })
    );
}

#[test]
fn options_out_of_range_are_refused_with_the_actor() {
    let source = OptionsError::Range {
        option: "queue_max",
        value: 0,
        max: 1 << 20,
    };
    let refused = Registry::new().actor::<Zero>().check();
    assert_eq!(
        refused,
        Err(RegistryError::Options {
            actor: "zero",
            source
        })
    );
}

#[test]
fn the_first_mistake_is_the_one_reported() {
    let registry = Registry::new()
        .actor::<Named<0>>()
        .actor::<Named<0>>()
        .actor::<Named<2>>();
    assert_eq!(
        registry.check(),
        Err(RegistryError::DuplicateActor { name: "ok" })
    );
    let registry = Registry::new().data(1u8).data(2u16).data(3u8);
    assert_eq!(
        registry.check(),
        Err(RegistryError::DuplicateData { type_name: "u8" })
    );
}

#[test]
fn a_registry_finds_types_by_name_and_is_not_changed_by_its_clones() {
    let registry = Registry::new().actor::<Named<0>>();
    let more = registry.clone().data(7u32);
    assert_eq!(registry.get("ok").map(|actor| actor.name()), Some("ok"));
    assert!(registry.get("no").is_none());
    assert_eq!(more.types().count(), 1);
    assert!(registry.data_of(TypeId::of::<u32>()).is_none());
    assert!(more.data_of(TypeId::of::<u32>()).is_some());
}

#[derive(Default, Serialize, Deserialize)]
struct Reader {}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Reader {
    #[action]
    fn number(&self, c: &Ctx<Self>) -> clinch_actor::Result<u32> {
        c.data::<u32>().map(|number| *number)
    }
}

#[tokio::test]
async fn actors_find_application_data_by_its_type() {
    let node = Node::create::<Reader>(Registry::new().data(7u32), None)
        .await
        .unwrap();
    assert_eq!(node.call::<u32>("number", ()).await.unwrap(), 7);
    let node = Node::start::<Reader>().await;
    let error = node.call::<u32>("number", ()).await.unwrap_err();
    assert!(
        error.to_string().contains("no application data of type u32"),
        "{error}"
    );
}

#[derive(Default, Serialize, Deserialize)]
struct Longest {}

#[clinch_actor::actor(
    name = "0123456789012345678901234567890123456789012345678901234567890123",
    crate = "clinch_actor"
)]
impl Longest {}

#[test]
fn the_macro_and_the_registry_agree_on_the_longest_name() {
    assert_eq!(Longest::NAME.len(), clinch_types::limits::ACTOR_NAME_MAX);
    assert_eq!(refusal::<Longest>(), None);
}
