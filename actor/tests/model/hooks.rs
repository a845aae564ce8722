//! The life of an actor: what runs when, with what, and what becomes of old states.

use std::time::Duration;

use clinch_actor::{Actor, ActorType, BoxError, Ctx, Error, Hook, Registry, TypeOf};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Serialize, Deserialize)]
struct Diary {
    owner: String,
    log: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Start {
    owner: String,
}

#[clinch_actor::actor(
    name = "diary",
    version = 3,
    handle = "DiaryClient",
    action_timeout = "250ms",
    sleep_after = "never",
    queue_max = 9,
    state_max = "64KiB",
    on_wake_timeout = "2min",
    crate = "clinch_actor"
)]
impl Diary {
    #[hook]
    async fn create(c: &Ctx<Self>, input: Option<Start>) -> Result<Self, Error> {
        let Some(Start { owner }) = input else {
            return Err(Error::user("no_owner", "a diary has an owner"));
        };
        Ok(Self {
            owner,
            log: vec![format!("create {}", c.key())],
        })
    }

    #[hook]
    fn on_create(&mut self, c: Ctx<Self>, input: Start) {
        self.log
            .push(format!("on_create {} {:?}", input.owner, c.origin()));
    }

    #[hook]
    async fn on_wake(&mut self, c: &Ctx<Self>) -> Result<(), BoxError> {
        self.log.push(format!("on_wake {}", c.now().0));
        Ok(())
    }

    #[hook]
    fn on_sleep(&mut self) {
        self.log.push("on_sleep".to_owned());
    }

    #[hook]
    async fn on_destroy(&self) -> Result<(), Error> {
        Err(Error::user(
            "kept",
            format!("the diary of {} is kept", self.owner),
        ))
    }

    #[hook]
    fn migrate(from: u32, bytes: &[u8]) -> Result<Self, BoxError> {
        match from {
            1 => Ok(Self {
                owner: String::from_utf8(bytes.to_vec())?,
                log: Vec::new(),
            }),
            other => Err(format!("version {other} was never released").into()),
        }
    }

    #[action]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }

    #[action]
    fn nap(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }

    #[action]
    fn end(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }
}

fn input(owner: &str) -> Vec<u8> {
    clinch_actor::encode(&Start {
        owner: owner.to_owned(),
    })
    .unwrap()
}

#[tokio::test]
async fn hooks_run_in_order_with_their_context_and_input() {
    let node = Node::create::<Diary>(Registry::new(), Some(&input("ann")))
        .await
        .unwrap();
    node.run_hook(Hook::OnSleep).await.unwrap();
    node.run_hook(Hook::OnWake).await.unwrap();
    let log: Vec<String> = node.call("log", ()).await.unwrap();
    assert_eq!(
        log,
        [
            "create a",
            "on_create ann Create",
            "on_wake 1000",
            "on_sleep",
            "on_wake 1000"
        ]
    );
    let error = node.run_hook(Hook::OnDestroy).await.unwrap_err();
    assert_eq!(error.message(), "the diary of ann is kept");
}

#[tokio::test]
async fn an_input_that_is_missing_or_does_not_fit_aborts_the_creation() {
    let error = Node::create::<Diary>(Registry::new(), None).await.err().unwrap();
    assert!(error.is("user", "no_owner"));
    let error = Node::create::<Diary>(Registry::new(), Some(&[0x05]))
        .await
        .err()
        .unwrap();
    assert!(
        error.is("actor", "invalid_request") && error.message().starts_with("the input must be "),
        "{error}"
    );
    let error = Node::create::<Diary>(Registry::new(), Some(&[0x05, 0x05]))
        .await
        .err()
        .unwrap();
    assert!(error.is("actor", "invalid_request"), "{error}");
}

#[tokio::test]
async fn sleep_and_destroy_are_asked_for_by_the_turn() {
    let node = Node::create::<Diary>(Registry::new(), Some(&input("bob")))
        .await
        .unwrap();
    node.call::<()>("nap", ()).await.unwrap();
    assert!(node.store.lock().asleep && node.last().is_empty());
    node.call::<()>("end", ()).await.unwrap();
    assert!(node.store.lock().destroyed && !node.last().is_empty());
}

#[test]
fn the_attribute_sets_name_version_and_options() {
    let diary = TypeOf::<Diary>::new().unwrap();
    assert_eq!((diary.name(), diary.version()), ("diary", 3));
    let options = diary.options();
    assert_eq!(options.action_timeout, Duration::from_millis(250));
    assert_eq!(options.sleep_after, None);
    assert_eq!((options.queue_max, options.state_max), (9, 64 << 10));
    assert_eq!(options.on_wake_timeout, Duration::from_secs(120));
    assert_eq!(options.on_sleep_timeout, Duration::from_secs(5));
    assert!(
        [Hook::OnCreate, Hook::OnWake, Hook::OnSleep, Hook::OnDestroy]
            .iter()
            .all(|hook| diary.has_hook(*hook))
    );
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Grown {
    name: String,
    #[serde(default)]
    added: Option<u32>,
}

#[clinch_actor::actor(version = 2, crate = "clinch_actor")]
impl Grown {
    #[action]
    fn get(&self) -> Option<u32> {
        self.added
    }
}

fn encoded<A: Actor>(state: A) -> Vec<u8> {
    let mut bytes = Vec::new();
    let state: clinch_actor::StateArc = std::sync::Arc::new(state);
    TypeOf::<A>::new().unwrap().encode(&state, &mut bytes).unwrap();
    bytes
}

#[test]
fn states_are_stored_with_field_names_and_a_new_field_just_works() {
    let grown = TypeOf::<Grown>::new().unwrap();
    // Golden: {"name": "x"} as the first release wrote it.
    let old = b"\xa1\x64name\x61x";
    let state = grown.decode(1, old).unwrap();
    assert_eq!(
        state.downcast_ref(),
        Some(&Grown {
            name: "x".to_owned(),
            added: None
        })
    );
    let now = Grown {
        name: "x".to_owned(),
        added: Some(3),
    };
    assert_eq!(encoded(now), b"\xa2\x64name\x61x\x65added\x03");
}

#[test]
fn a_state_newer_than_the_code_is_refused_naming_both_versions() {
    let error = TypeOf::<Grown>::new()
        .unwrap()
        .decode(5, b"\xa1\x64name\x61x")
        .unwrap_err();
    assert!(error.is("actor", "state_too_new"));
    assert!(
        error.message().contains("version 5") && error.message().contains("version 2"),
        "{error}"
    );
}

#[test]
fn a_state_of_an_older_version_goes_through_migrate() {
    let diary = TypeOf::<Diary>::new().unwrap();
    let state = diary.decode(1, b"cleo").unwrap();
    assert_eq!(state.downcast_ref::<Diary>().unwrap().owner, "cleo");
    let error = diary.decode(2, b"").unwrap_err().to_string();
    assert!(
        error.contains("from version 2 to 3") && error.contains("never released"),
        "{error}"
    );
    assert!(diary.decode(3, b"cleo").is_err());
}

#[test]
fn a_damaged_state_is_an_error_that_names_the_actor() {
    let grown = TypeOf::<Grown>::new().unwrap();
    for bad in [
        &b""[..],
        b"\xa1\x64name",
        b"\xa1\x64name\x05",
        b"\xa1\x64name\x61x\x00",
        b"\xff",
    ] {
        let error = grown.decode(2, bad).unwrap_err().to_string();
        assert!(error.contains("reading the state of grown, version 2"), "{error}");
    }
}
