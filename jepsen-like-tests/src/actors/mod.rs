//! The actors that workloads beyond counters call.
//!
//! Every action answers a number and a list, so that one history format holds all of them.

mod account;
mod buyer;
mod hall;
mod subject;
mod ticker;
mod worker;

pub use account::Account;
pub use buyer::Buyer;
pub use hall::{Hall, Visitor};
pub use subject::{Put, Subject};
pub use ticker::Ticker;
pub use worker::Worker;

use std::time::Duration;

use clinch::prelude::*;

/// What an action answers.
pub type Told = (i64, Vec<i64>);

/// What a panic on purpose says: no harness may take it for one of the product.
pub const ON_PURPOSE: &str = "spoilt on purpose";

/// Ways a turn fails, drawn from the number of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Error,
    Panic,
    Timeout,
}

impl Failure {
    fn of(number: i64) -> Self {
        // A time limit holds the actor up for as long as it lasts: seldom.
        match number % 8 {
            0 => Self::Timeout,
            1..=3 => Self::Panic,
            _ => Self::Error,
        }
    }

    /// Fails in this way, after everything was changed.
    async fn strike(self) -> Result<Told> {
        match self {
            Self::Error => {}
            Self::Panic => std::panic::panic_any(ON_PURPOSE),
            Self::Timeout => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
        }
        Err(Error::user(
            "spoilt",
            "everything was changed, and none of it counts",
        ))
    }
}
