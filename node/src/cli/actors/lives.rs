//! Actors that record what happens to them: creation, waking, sleep, the end.

use clinch_actor::{Any, Ctx, Error, Event};
use serde::{Deserialize, Serialize};

/// Remembers what it was created with.
#[derive(Serialize, Deserialize)]
pub(crate) struct WithInput {
    input: Option<Any>,
    on_create: Option<Any>,
}

/// What [`WithInput`] tells.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inputs {
    input: Option<Any>,
    on_create: Option<Any>,
}

#[clinch_actor::actor(name = "withInput", crate = "clinch_actor")]
impl WithInput {
    #[hook]
    fn create(input: Option<Any>) -> Self {
        Self {
            input,
            on_create: None,
        }
    }

    #[hook]
    fn on_create(&mut self, input: Option<Any>) {
        self.on_create = input;
    }

    #[action]
    fn read(&self) -> Inputs {
        Inputs {
            input: self.input.clone(),
            on_create: self.on_create.clone(),
        }
    }
}

/// Keeps a log of its life.
#[derive(Serialize, Deserialize)]
pub(crate) struct Lifecycle {
    log: Vec<String>,
    input: Option<Any>,
    /// Drawn at each start.
    boot: String,
}

#[clinch_actor::actor(name = "lifecycle", crate = "clinch_actor")]
impl Lifecycle {
    #[hook]
    fn create(input: Option<Any>) -> Self {
        Self {
            log: vec!["createState".into()],
            input,
            boot: String::new(),
        }
    }

    #[hook]
    fn on_create(&mut self) {
        self.log.push("onCreate".into());
    }

    #[hook]
    fn on_wake(&mut self, c: &Ctx<Self>) {
        self.boot = drawn(c);
        self.log.push("onWake".into());
    }

    #[hook]
    fn on_sleep(&mut self) {
        self.log.push("onSleep".into());
    }

    #[action]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }

    #[action]
    fn boot(&self) -> String {
        self.boot.clone()
    }

    #[action]
    fn go_to_sleep(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }
}

/// Falls asleep after half a second.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Sleeper {
    count: u64,
    wakes: u64,
    sleeps: u64,
    boot: String,
}

/// What [`Sleeper`] tells.
#[derive(Serialize, Deserialize)]
pub(crate) struct SleeperReport {
    count: u64,
    wakes: u64,
    sleeps: u64,
    boot: String,
}

#[derive(Event)]
#[event(crate = "clinch_actor")]
struct Bumped(u64);

#[clinch_actor::actor(
    name = "sleeper",
    sleep_after = "500ms",
    events(Bumped),
    crate = "clinch_actor"
)]
impl Sleeper {
    #[hook]
    fn on_wake(&mut self, c: &Ctx<Self>) {
        self.wakes += 1;
        self.boot = drawn(c);
    }

    #[hook]
    fn on_sleep(&mut self) {
        self.sleeps += 1;
    }

    #[action]
    fn bump(&mut self, c: &Ctx<Self>) -> u64 {
        self.count += 1;
        c.broadcast(Bumped(self.count));
        self.count
    }

    #[action]
    fn read(&self) -> SleeperReport {
        let Self {
            count,
            wakes,
            sleeps,
            ref boot,
        } = *self;
        SleeperReport {
            count,
            wakes,
            sleeps,
            boot: boot.clone(),
        }
    }
}

fn drawn<A>(c: &Ctx<A>) -> String {
    format!("{:016x}", c.random_u64())
}

/// Takes notes for others.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Observer {
    notes: Vec<String>,
}

#[clinch_actor::actor(name = "observer", crate = "clinch_actor")]
impl Observer {
    #[action]
    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    #[action]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

/// Ends for ever when told to, and leaves a note.
#[derive(Serialize, Deserialize)]
pub(crate) struct Destroyable {
    value: Option<Any>,
}

/// What it may be created with.
#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    value: Option<Any>,
}

#[clinch_actor::actor(name = "destroyable", crate = "clinch_actor")]
impl Destroyable {
    #[hook]
    fn create(input: Option<Start>) -> Self {
        let value = input.and_then(|input| input.value);
        Self {
            value: Some(value.unwrap_or(Any(ciborium::Value::from(0)))),
        }
    }

    #[hook]
    async fn on_destroy(&mut self, c: &Ctx<Self>) -> Result<(), Error> {
        c.get::<Observer>(["destroyed"])
            .note(c.key().components().join("/"))
            .await
    }

    #[action]
    fn set(&mut self, value: Option<Any>) {
        self.value = value;
    }

    #[action]
    fn get(&self) -> Option<Any> {
        self.value.clone()
    }

    #[action]
    fn remove(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }

    #[action]
    fn destroy(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }
}
