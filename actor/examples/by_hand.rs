//! The counter without the macro: an actor is one trait with one table, nothing else is hidden.

use clinch_actor::{Actor, Call, Ctx, Emits, Event, RawHandle, Registry, Spec, reply};
use serde::{Deserialize, Serialize};

/// The persisted state.
#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    count: i64,
}

/// Tells connections the new value.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "count", crate = "clinch_actor")]
pub struct Count(pub i64);

impl Counter {
    async fn increment(&mut self, c: &Ctx<Self>, by: i64) -> i64 {
        self.count += by;
        c.broadcast(Count(self.count));
        self.count
    }
}

impl Emits<Count> for Counter {}

impl Actor for Counter {
    const NAME: &'static str = "counter";
    type Handle = CounterHandle;
    type Vars = ();
    type ConnState = ();

    fn spec() -> Spec<Self> {
        Spec::<Self>::from_default()
            .exclusive("increment", |state, c, mut args| {
                Box::pin(async move {
                    let by = args.take("by")?;
                    reply(&state.increment(&c, by).await)
                })
            })
            .shared("getCount", |state, _, _| {
                Box::pin(async move { reply(&state.count) })
            })
    }
}

/// Calls counters. With `type Handle = RawHandle` in the trait, this could be left out.
pub struct CounterHandle(RawHandle);

impl From<RawHandle> for CounterHandle {
    fn from(raw: RawHandle) -> Self {
        Self(raw)
    }
}

impl CounterHandle {
    /// Adds `by` and returns the sum.
    pub fn increment(&self, by: i64) -> Call<i64> {
        self.0.action("increment", (by,))
    }

    /// The sum.
    pub fn get_count(&self) -> Call<i64> {
        self.0.action("getCount", ())
    }
}

fn main() -> Result<(), clinch_actor::RegistryError> {
    let registry = Registry::new().actor::<Counter>();
    registry.check()?;
    for actor in registry.types() {
        println!("{} {:?}", actor.name(), actor.actions());
    }
    Ok(())
}
