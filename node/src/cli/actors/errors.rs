//! Actors that fail, in every way there is, and one that takes too long.

use std::time::Duration;

use clinch_actor::{BoxError, Error};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Fails as it is told to.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Errors {}

#[clinch_actor::actor(name = "errors", crate = "clinch_actor")]
impl Errors {
    #[action]
    fn simple(&mut self) -> Result<(), Error> {
        Err(Error::user(
            clinch_types::code::USER_ERROR,
            "Username is too long",
        ))
    }

    #[action]
    fn with_code(&mut self) -> Result<(), Error> {
        Err(Error::user("username_too_short", "Username is too short"))
    }

    #[action]
    fn with_metadata(&mut self) -> Result<(), Error> {
        Err(Error::user("rate_limited", "Rate limit exceeded")
            .with("limit", 100)
            .with("retryAfter", 1.5)
            .with("nested", json!({"list": [1, "two", null, true]})))
    }

    /// Its text is for the log only: callers get a reference to it.
    #[action]
    fn internal(&mut self) -> Result<(), BoxError> {
        Err("the database's password is hunter2".into())
    }

    #[action]
    async fn async_internal(&mut self) -> Result<(), BoxError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err("internal detail".into())
    }

    #[action]
    fn throw_string(&mut self) -> Result<(), String> {
        Err("just a string".into())
    }

    #[action]
    fn fine(&self) -> String {
        "fine".into()
    }
}

/// Has little time.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Slowpoke {}

#[clinch_actor::actor(name = "slowpoke", action_timeout = "400ms", crate = "clinch_actor")]
impl Slowpoke {
    #[action]
    fn quick(&self) -> String {
        "quick".into()
    }

    #[action]
    async fn stall(&mut self) -> String {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        "never seen".into()
    }
}
