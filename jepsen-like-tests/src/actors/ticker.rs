//! Repeated schedules: an interval and a cron expression.

use std::time::Duration;

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Failure, Told};

/// The interval, in ms.
const BEAT_MS: u64 = 400;
/// The cron expression: every two seconds.
const CRON: &str = "*/2 * * * * *";

/// Keeps what fired.
#[derive(Default, Serialize, Deserialize)]
pub struct Ticker {
    /// Of each tick: 0 (interval) or 1 (cron), when it was due and when it fired, both by the owner's clock in ms.
    ticks: Vec<i64>,
}

#[clinch::actor(name = "ticker", sleep_after = "1s", action_timeout = "900ms")]
impl Ticker {
    /// Starts both, or leaves them as they are.
    #[action]
    fn begin(&mut self, c: &Ctx<Self>, number: i64) -> Result<Told> {
        if c.schedules().named("beat")?.is_none() {
            c.me().tick(0).every("beat", Duration::from_millis(BEAT_MS))?;
        }
        c.me().tick(1).cron("cron", CRON)?;
        Ok((number, Vec::new()))
    }

    #[action]
    fn tick(&mut self, c: &Ctx<Self>, which: i64) -> Result<()> {
        let info = c
            .fire_info()
            .ok_or_else(|| Error::user("no_info", "a tick is a firing"))?;
        self.ticks.extend([which, info.due.0 as i64, c.now().0 as i64]);
        Ok(())
    }

    /// The time, and what fired.
    #[action]
    fn ticks(&self, c: &Ctx<Self>) -> Told {
        (c.now().0 as i64, self.ticks.clone())
    }

    /// Sets a schedule of its own and cancels the others, and then fails.
    #[action]
    async fn spoil(&mut self, c: &Ctx<Self>, number: i64) -> Result<Told> {
        c.schedules().cancel_named("beat")?;
        c.me().tick(2).every("spoilt", Duration::from_millis(BEAT_MS))?;
        self.ticks.extend([2, 0, 0]);
        Failure::of(number).strike().await
    }
}
