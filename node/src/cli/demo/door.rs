//! The way of the load into the cluster: QUIC straight to the owners, or HTTP through any gateway.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clinch_actor::Error;
use clinch_client::{Cluster, HttpClient};
use clinch_types::{ActorError, CallMeta, Reaction, group};
use serde_json::{Value, json};

use crate::cli::actors::Counter;

/// How long one call may take: longer than any outage the demo makes.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Via {
    /// The Rust client, straight to the owners
    Quic,
    /// JSON over HTTP, through all gateways
    Http,
}

impl Via {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Http => "http",
        }
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It certainly had no effect.
    Refused,
    /// Perhaps it had.
    Open,
}

/// Where an answer was produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In this turn.
    Turn(CallMeta),
    /// Somewhere behind the gateway with this index.
    Gateway(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn(turn) => write!(
                f,
                "shard {}, epoch {}, version {}",
                turn.shard, turn.epoch, turn.version
            ),
            Self::Gateway(index) => write!(f, "gateway {}", index + 1),
        }
    }
}

/// Calls counters.
pub(super) enum Door {
    Quic(Cluster),
    Http {
        gateways: Vec<HttpClient>,
        /// The gateway that is used until it fails.
        turn: AtomicUsize,
    },
}

impl Door {
    pub(super) fn http(gateways: &[String]) -> Self {
        let gateways = gateways
            .iter()
            .map(|g| HttpClient::new(g, None, CALL_MAX))
            .collect();
        Self::Http {
            gateways,
            turn: AtomicUsize::new(0),
        }
    }

    /// A door of the same kind for one caller. Callers over HTTP begin at different gateways.
    pub(super) fn for_caller(&self, index: usize) -> Self {
        match self {
            Self::Quic(cluster) => Self::Quic(cluster.clone()),
            Self::Http { gateways, .. } => Self::Http {
                gateways: gateways.clone(),
                turn: AtomicUsize::new(index),
            },
        }
    }

    pub(super) async fn increment(&self, key: &str) -> Result<(i64, Place), Fault> {
        match self {
            Self::Quic(cluster) => told(
                cluster
                    .get::<Counter>(key)
                    .increment(Some(1))
                    .timeout(CALL_MAX)
                    .meta()
                    .await,
            ),
            Self::Http { .. } => self.ask(key, "increment", json!([1])).await,
        }
    }

    pub(super) async fn get_count(&self, key: &str) -> Result<(i64, Place), Fault> {
        match self {
            Self::Quic(cluster) => told(
                cluster
                    .get::<Counter>(key)
                    .get_count()
                    .timeout(CALL_MAX)
                    .meta()
                    .await,
            ),
            Self::Http { .. } => self.ask(key, "getCount", json!([])).await,
        }
    }

    async fn ask(&self, key: &str, action: &str, args: Value) -> Result<(i64, Place), Fault> {
        let Self::Http { gateways, turn } = self else {
            return Err(Fault::Refused);
        };
        let now = turn.load(Ordering::Relaxed);
        let answer = match gateways.get(now % gateways.len().max(1)) {
            Some(gateway) => gateway.call("counter", &[key.to_owned()], action, args).await,
            None => return Err(Fault::Refused),
        };
        match answer {
            // An answer that is no number is no answer.
            Ok(value) => value
                .as_i64()
                .map(|value| (value, Place::Gateway(now % gateways.len())))
                .ok_or(Fault::Open),
            Err(error) => {
                if error.group == group::GUARD {
                    // This gateway is down or cut off: the others are not.
                    turn.store(now.wrapping_add(1), Ordering::Relaxed);
                }
                Err(judge_http(&error))
            }
        }
    }
}

fn told(answer: Result<(i64, CallMeta), Error>) -> Result<(i64, Place), Fault> {
    answer
        .map(|(value, turn)| (value, Place::Turn(turn)))
        .map_err(|error| judge(&error))
}

fn judge(error: &Error) -> Fault {
    match error.reaction() {
        Reaction::SameRequest => Fault::Open,
        Reaction::Elsewhere | Reaction::BackOff | Reaction::Final => Fault::Refused,
    }
}

/// Over HTTP an error of the guard may have come after the call was passed on; only a connection that was never made
/// says for certain that nothing happened.
fn judge_http(error: &ActorError) -> Fault {
    match error.group == group::GUARD && !error.message.contains("client error (Connect)") {
        true => Fault::Open,
        false => Fault::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinch_types::code;

    #[tokio::test]
    async fn a_gateway_that_is_not_there_refuses_and_the_next_one_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let door = Door::http(&[address.clone(), address]);
        assert_eq!(door.increment("k").await, Err(Fault::Refused));
        let Door::Http { turn, .. } = &door else {
            unreachable!()
        };
        assert_eq!(turn.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_error_after_the_call_was_passed_on_leaves_its_outcome_open() {
        let error = ActorError::new(group::GUARD, code::REQUEST_TIMEOUT, "perhaps done: silence");
        assert_eq!(judge_http(&error), Fault::Open);
        let error = ActorError::new(group::ACTOR, code::OVERLOADED, "full");
        assert_eq!(judge_http(&error), Fault::Refused);
    }
}
