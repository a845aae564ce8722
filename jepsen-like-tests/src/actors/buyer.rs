//! An actor that waits for another one's answer and keeps it.

use std::time::Duration;

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Failure, Subject, Told};

/// The list of all buyers.
const TILL: &str = "v0";
/// How long the other may take: less than the turn may.
const CALL_MAX: Duration = Duration::from_millis(700);

/// What was bought: of each thing its number, and its place in the other's list.
#[derive(Default, Serialize, Deserialize)]
pub struct Buyer {
    bought: Vec<i64>,
}

/// Under a key of its own: a turn that is executed once more, because its owner was lost, finds what it did.
async fn pay(c: &Ctx<Buyer>, number: i64) -> Result<i64> {
    let till = c.get::<Subject>(TILL).append(number);
    let (place, _) = till.idempotency_key(number.to_string()).timeout(CALL_MAX).await?;
    Ok(place)
}

#[clinch::actor(name = "buyer", sleep_after = "2s", action_timeout = "900ms")]
impl Buyer {
    /// Answers the place.
    #[action]
    async fn buy(&mut self, c: &Ctx<Self>, number: i64) -> Result<Told> {
        let place = pay(c, number).await?;
        self.bought.extend([number, place]);
        Ok((place, Vec::new()))
    }

    #[action]
    fn bought(&self) -> Told {
        (self.bought.len() as i64, self.bought.clone())
    }

    /// Buys, and then fails: the other keeps it, this one does not.
    #[action]
    async fn spoil(&mut self, c: &Ctx<Self>, number: i64) -> Result<Told> {
        let place = pay(c, number).await?;
        self.bought.extend([number, place]);
        Failure::of(number).strike().await
    }
}
