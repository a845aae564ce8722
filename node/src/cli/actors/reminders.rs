//! Actors that act later, whatever happens until then.

use std::time::Duration;

use clinch_actor::{Any, Ctx, Error, Event};
use clinch_types::WallMs;
use serde::{Deserialize, Serialize};

/// One that fired.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Fired {
    message: Option<Any>,
    kind: String,
}

/// Fires in time.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Reminder {
    fired: Vec<Fired>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "reminder", crate = "clinch_actor")]
struct Reminded {
    message: Option<Any>,
    kind: String,
}

#[clinch_actor::actor(name = "reminder", events(Reminded), crate = "clinch_actor")]
impl Reminder {
    #[action]
    fn after(&mut self, c: &Ctx<Self>, ms: u64, message: Option<Any>) -> Result<(), Error> {
        c.me()
            .fire(message, "after".into())
            .after(Duration::from_millis(ms))?;
        Ok(())
    }

    #[action]
    fn at(&mut self, c: &Ctx<Self>, time_ms: u64, message: Option<Any>) -> Result<(), Error> {
        c.me().fire(message, "at".into()).at(WallMs(time_ms))?;
        Ok(())
    }

    #[action]
    fn fire(&mut self, c: &Ctx<Self>, message: Option<Any>, kind: String) {
        c.broadcast(Reminded {
            message: message.clone(),
            kind: kind.clone(),
        });
        self.fired.push(Fired { message, kind });
    }

    #[action]
    fn fired(&self) -> Vec<Fired> {
        self.fired.clone()
    }
}

/// Sleeps soon, and is woken by what it scheduled.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SleepyReminder {
    fired: Vec<Option<Any>>,
    wakes: u64,
}

/// What [`SleepyReminder`] tells.
#[derive(Serialize, Deserialize)]
pub(crate) struct SleepyReport {
    fired: Vec<Option<Any>>,
    wakes: u64,
}

#[clinch_actor::actor(name = "sleepyReminder", sleep_after = "300ms", crate = "clinch_actor")]
impl SleepyReminder {
    #[hook]
    fn on_wake(&mut self) {
        self.wakes += 1;
    }

    #[action]
    fn after(&mut self, c: &Ctx<Self>, ms: u64, message: Option<Any>) -> Result<(), Error> {
        c.me().fire(message).after(Duration::from_millis(ms))?;
        Ok(())
    }

    #[action]
    fn fire(&mut self, message: Option<Any>) {
        self.fired.push(message);
    }

    #[action]
    fn report(&self) -> SleepyReport {
        SleepyReport {
            fired: self.fired.clone(),
            wakes: self.wakes,
        }
    }
}
