//! What an actor has beside its state and turns: variables, `run`, spawned work, and the hooks that watch its turns.

use std::sync::atomic::{AtomicU32, Ordering};

use clinch_actor::{ActionKind, Any, Ctx, Error, Event, Origin, Result};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Serialize, Deserialize, Event)]
#[event(name = "changed")]
struct Changed(i64);

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    papers: i64,
}

/// How often something was looked up; in memory only.
struct Lookups {
    made_for: i64,
    count: AtomicU32,
}

#[clinch::actor(name = "desk", events(Changed))]
impl Desk {
    #[hook]
    fn create() -> Self {
        Self { papers: 3 }
    }

    #[hook]
    async fn vars(&self, c: &Ctx<Self>) -> Result<Lookups> {
        if c.key().components() == ["locked"] {
            return Err(Error::user("locked", "no variables today"));
        }
        Ok(Lookups {
            made_for: self.papers,
            count: AtomicU32::new(0),
        })
    }

    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        c.update(|desk| desk.papers += 100).await?;
        c.cancelled().await;
        Err(Error::user("over", "stopped"))
    }

    #[hook]
    fn on_state_change(&self, c: &Ctx<Self>) -> Result<()> {
        if self.papers == 13 {
            return Err(Error::user("unlucky", "not 13 papers"));
        }
        c.broadcast(Changed(self.papers));
        Ok(())
    }

    #[hook]
    fn before_action_response(&self, c: &Ctx<Self>, action: &str, output: Any) -> Result<Any> {
        if action != "raw" {
            return Ok(output);
        }
        let seen = format!(
            "{} of {} at {}",
            output.0.as_integer().is_some(),
            self.papers,
            c.key()
        );
        Ok(Any(seen.into()))
    }

    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.papers += by;
        self.papers
    }

    #[action]
    fn look_up(&self, c: &Ctx<Self>) -> (i64, u32) {
        let vars = c.vars();
        (vars.made_for, vars.count.fetch_add(1, Ordering::Relaxed))
    }

    #[action]
    fn raw(&self) -> i64 {
        1
    }

    #[action(name = "rawBeside")]
    async fn raw_beside(c: Ctx<Self>) -> i64 {
        c.read(|desk| desk.papers).await.unwrap_or_default()
    }

    #[action]
    fn start_work(&mut self, c: &Ctx<Self>, fail: bool) -> Result<()> {
        c.keep_awake(|c| async move {
            c.update(|desk| desk.papers += 1000)
                .await
                .expect("the actor is there");
        });
        match fail {
            true => Err(Error::user("no", "changed my mind")),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn variables_are_made_from_the_state_once_per_activation_and_any_turn_uses_them() {
    let node = Node::start::<Desk>().await;
    assert_eq!(node.call::<(i64, u32)>("lookUp", ()).await.unwrap(), (3, 0));
    node.call::<i64>("add", (1,)).await.unwrap();
    assert_eq!(node.call::<(i64, u32)>("lookUp", ()).await.unwrap(), (3, 1));
    assert!(node.actor.has_vars() && node.actor.has_run());
}

#[tokio::test]
async fn on_state_change_speaks_inside_the_turn_that_changed_the_state() {
    let node = Node::start::<Desk>().await;
    node.call::<i64>("add", (4,)).await.unwrap();
    let events = node.last().events;
    assert_eq!(
        (events[0].name.as_str(), &events[0].args[..]),
        ("changed", &[0x81, 7][..])
    );
    let error = node.call::<i64>("add", (6,)).await.unwrap_err();
    assert!(error.is("user", "unlucky"), "{error}");
    assert_eq!(
        node.call::<i64>("add", (1,)).await.unwrap(),
        8,
        "the failed turn left no trace"
    );
    node.call::<i64>("add", (0,)).await.unwrap();
    assert!(node.last().events.is_empty(), "nothing changed, nobody is told");
}

#[tokio::test]
async fn a_result_passes_before_action_response() {
    let node = Node::start::<Desk>().await;
    assert_eq!(node.call::<String>("raw", ()).await.unwrap(), "true of 3 at a");
    assert_eq!(node.call::<i64>("rawBeside", ()).await.unwrap(), 3);
}

#[tokio::test]
async fn work_is_begun_when_its_turn_commits_and_never_when_it_fails() {
    let node = Node::start::<Desk>().await;
    node.call::<()>("startWork", (true,)).await.unwrap_err();
    node.call::<()>("startWork", (false,)).await.unwrap();
    assert!(node.life.is_held(), "the actor stays awake for it");
    node.life.quiet().await;
    assert!(!node.life.is_held());
    assert_eq!(node.call::<i64>("add", (0,)).await.unwrap(), 1003, "once");
}

#[tokio::test]
async fn run_writes_through_turns_of_its_own_and_hears_of_the_end() {
    let node = Node::start::<Desk>().await;
    let turn = node.turn(ActionKind::Interleaved, Origin::Background, None);
    let run = tokio::spawn(node.actor.run(turn.clone()).expect("a run hook"));
    while node.call::<i64>("add", (0,)).await.unwrap() != 103 {
        tokio::task::yield_now().await;
    }
    let c = Ctx::<Desk>::new(turn);
    let error = c.kv().put("k", &1).unwrap_err();
    assert!(error.is("actor", "no_turn"), "{error}");
    node.life.end();
    assert!(run.await.unwrap().unwrap_err().is("user", "over"));
}
