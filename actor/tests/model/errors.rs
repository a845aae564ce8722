//! Errors: what a caller gets of what an action returned.

use std::collections::BTreeMap;
use std::io;

use clinch_actor::{ActionResult, BoxError, Error};
use clinch_types::{CallError, NodeId, ShardId};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Default, Serialize, Deserialize)]
struct Faulty {
    touched: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("disk on fire")]
struct Own(#[source] io::Error);

fn refuse() -> Result<(), Error> {
    Err(Error::user("rate_limited", "too fast")
        .with("limit", 100)
        .with("list", ["a"])
        .with("limit", 99))
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Faulty {
    #[action]
    fn plain(&mut self) -> Result<(), Error> {
        self.touched = true;
        refuse()
    }

    #[action]
    fn boxed(&mut self) -> ActionResult {
        refuse()?;
        Ok(())
    }

    #[action]
    fn question_mark(&mut self) -> ActionResult<u32> {
        Ok("not a number".parse()?)
    }

    #[action]
    fn with_anyhow(&mut self, user: bool) -> anyhow::Result<u32> {
        use anyhow::Context;
        if user {
            refuse().context("while testing")?;
        }
        "x".parse().context("parsing x")
    }

    #[action]
    fn own(&mut self) -> Result<u32, Own> {
        Err(Own(io::Error::other("smoke")))
    }

    #[action]
    fn text(&mut self) -> Result<u32, String> {
        Err("just text".to_owned())
    }

    #[action]
    fn touched(&self) -> bool {
        self.touched
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct Facts {
    limit: u32,
    list: Vec<String>,
}

#[tokio::test]
async fn an_error_of_the_application_reaches_the_caller_in_full_however_it_travelled() {
    let node = Node::start::<Faulty>().await;
    for (action, args) in [("plain", vec![]), ("boxed", vec![]), ("withAnyhow", vec![true])] {
        let error = node.call::<()>(action, args).await.unwrap_err();
        assert_eq!(
            (error.group(), error.code(), error.message()),
            ("user", "rate_limited", "too fast"),
            "{action}"
        );
        assert_eq!(
            error.metadata(),
            Some(Facts {
                limit: 99,
                list: vec!["a".to_owned()]
            })
        );
        assert_eq!(error.metadata::<Vec<u8>>(), None);
        let CallError::Failed(wire) = error.into_call_error("ref-1") else {
            panic!("{action}")
        };
        assert_eq!(wire.message, "too fast");
    }
    assert!(!node.call::<bool>("touched", ()).await.unwrap());
}

#[tokio::test]
async fn every_other_error_is_internal_and_only_the_log_sees_its_cause() {
    let node = Node::start::<Faulty>().await;
    let cases = [
        ("questionMark", "invalid digit found in string"),
        ("withAnyhow", "parsing x"),
        ("own", "disk on fire"),
        ("text", "just text"),
    ];
    for (action, cause) in cases {
        let error = node.call::<u32>(action, [false]).await.unwrap_err();
        assert!(
            error.is("rivetkit", "internal_error") && !error.is_retryable(),
            "{action}"
        );
        assert_eq!(error.internal_cause().unwrap().to_string(), cause);
        assert!(!error.message().contains(cause) && error.to_string().contains(cause));
        let CallError::Failed(wire) = error.into_call_error("ref-1") else {
            panic!("{action}")
        };
        assert!(
            wire.message.contains("ref-1") && !wire.message.contains(cause),
            "{}",
            wire.message
        );
        assert_eq!(wire.metadata, None);
    }
    let error = node.call::<u32>("own", ()).await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "smoke");
}

#[test]
fn errors_say_whether_to_try_again() {
    let shard = ShardId(12);
    let unavailable = CallError::Unavailable {
        shard,
        reason: "no quorum: nodes 2, 3 down".to_owned(),
    };
    let moved = CallError::Moved {
        shard,
        owner: Some(NodeId(2)),
        epoch: clinch_types::Epoch(1),
        map_version: 1,
    };
    let full = CallError::Overloaded {
        what: "actor queue".to_owned(),
        limit: 1024,
    };
    for error in [unavailable.clone(), moved, full] {
        let error = Error::from(error);
        assert!(error.is_retryable() && !error.is_perhaps(), "{error}");
        assert!(!error.clone().into_definite().is_retryable());
    }
    let error = Error::from(unavailable);
    assert!(error.is("guard", "service_unavailable") && error.message().contains("nodes 2, 3 down"));
    let deadlock = Error::from(CallError::Deadlock { chain: vec![] });
    assert!(deadlock.is("actor", "deadlock") && !deadlock.is_retryable());
}

#[test]
fn errors_work_with_question_mark_in_ordinary_programs() {
    fn boxed() -> Result<(), BoxError> {
        Ok(refuse()?)
    }
    fn with_anyhow() -> anyhow::Result<()> {
        Ok(refuse()?)
    }
    assert_eq!(boxed().unwrap_err().to_string(), "user.rate_limited: too fast");
    assert!(
        with_anyhow()
            .unwrap_err()
            .downcast::<Error>()
            .unwrap()
            .is("user", "rate_limited")
    );
}

#[test]
fn metadata_that_cannot_be_serialized_says_so_instead_of_failing() {
    let broken = BTreeMap::from([(Unserializable, 1)]);
    let error = Error::user("x", "y").with("bad", &broken).with("good", 1);
    let facts: BTreeMap<String, serde_json::Value> = error.metadata().unwrap();
    assert_eq!(facts["good"], 1);
    assert_eq!(facts["bad"], "not serializable: broken on purpose");
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Unserializable;

impl Serialize for Unserializable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("broken on purpose"))
    }
}

/// Written by hand, so nothing stands between its error and the node but the node's interface.
#[derive(Default, Serialize, Deserialize)]
struct Relay {}

impl clinch_actor::Actor for Relay {
    const NAME: &'static str = "relay";
    type Handle = clinch_actor::RawHandle;
    type Vars = ();
    type ConnState = ();

    fn spec() -> clinch_actor::Spec<Self> {
        clinch_actor::Spec::<Self>::from_default()
            .exclusive("pass", |_, _, _| {
                Box::pin(async {
                    Err(CallError::Perhaps {
                        reason: String::new(),
                    }
                    .into())
                })
            })
            .shared("peek", |_, _, _| {
                Box::pin(async {
                    Err(CallError::Perhaps {
                        reason: String::new(),
                    }
                    .into())
                })
            })
    }
}

#[tokio::test]
async fn an_actor_written_by_hand_cannot_answer_perhaps_either() {
    let node = Node::start::<Relay>().await;
    for action in ["pass", "peek"] {
        let error = node.call::<()>(action, ()).await.unwrap_err();
        assert!(
            !error.is_perhaps() && error.is("guard", "request_timeout"),
            "{error}"
        );
    }
}
