//! Reminders per user: they fire when they are due, whatever happens to the program until then.

use std::time::Duration;

use clinch::ScheduleId;
use clinch::prelude::*;
use serde::{Deserialize, Serialize};

/// One per user; the key is the user's name.
#[derive(Default, Serialize, Deserialize)]
struct Reminders {
    /// What the user has been reminded of.
    delivered: Vec<String>,
}

#[clinch::actor(name = "reminders")]
impl Reminders {
    /// Sets one. It is stored in the same commit as everything else this action does.
    #[action]
    fn remind(&mut self, c: &Ctx<Self>, text: String, after: Duration) -> Result<ScheduleId> {
        c.me().deliver(text).after(after)
    }

    /// A digest on working days, by the user's wall clock. Setting it again replaces it.
    #[action]
    fn daily_digest(&mut self, c: &Ctx<Self>, zone: String) -> Result<ScheduleId> {
        c.me()
            .deliver("your digest".into())
            .cron_in("digest", "0 9 * * MON-FRI", &zone)
    }

    #[action]
    fn cancel(&mut self, c: &Ctx<Self>, id: ScheduleId) -> Result<bool> {
        c.schedules().cancel(id)
    }

    /// An ordinary action, and what the schedules run: exactly once each.
    #[action]
    fn deliver(&mut self, c: &Ctx<Self>, text: String) {
        println!("{}: {text}", c.key());
        self.delivered.push(text);
    }

    #[action]
    fn waiting(&self, c: &Ctx<Self>) -> Result<usize> {
        Ok(c.schedules().list()?.len())
    }

    #[action]
    fn delivered(&self) -> Vec<String> {
        self.delivered.clone()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new().actor::<Reminders>().start_local().await?;
    let ada = node.cluster().get::<Reminders>("ada");
    ada.remind("stretch".into(), Duration::from_millis(200)).await?;
    let lunch = ada.remind("lunch".into(), Duration::from_secs(3600)).await?;
    ada.daily_digest("Europe/Berlin".into()).await?;
    println!("waiting: {}", ada.waiting().await?);
    ada.cancel(lunch).await?;
    while ada.delivered().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("still waiting: {}", ada.waiting().await?);
    node.stop().await;
    Ok(())
}
