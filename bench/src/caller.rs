//! The callers of all workloads: an operation on an actor, by the Rust client (QUIC) or by a gateway (HTTP).
//!
//! Set-up (handles, addresses) is made before a run and shared by its callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clinch::Cluster;
use http::{Method, StatusCode, Uri};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::actors::{BenchCounter, BenchCounterHandle, COUNTER};
use crate::http::Http;
use crate::load::Caller;
use crate::tally::Failure;

/// Time limit of one operation: long enough for a failover, short enough that a run ends.
pub(crate) const OPERATION_MAX: Duration = Duration::from_secs(10);

/// What is done to an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `increment(1)`: a turn that is committed.
    Increment,
    /// `getCount()`: a read.
    Get,
}

/// How it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Via {
    /// The Rust client, straight to the owner.
    Quic,
    /// A gateway, one keep-alive connection a caller.
    Http,
}

/// Draws the actor of the next operation, uniformly.
fn draw<'a, T>(rng: &mut StdRng, all: &'a [T]) -> &'a T {
    &all[rng.random_range(0..all.len())]
}

/// Calls actors by the Rust client.
pub(crate) struct QuicCaller {
    op: Op,
    actors: Arc<[BenchCounterHandle]>,
    rng: StdRng,
}

impl QuicCaller {
    /// So many callers of these actors.
    pub(crate) fn many(count: usize, op: Op, actors: &Arc<[BenchCounterHandle]>) -> Vec<Self> {
        let one = |n| Self {
            op,
            actors: actors.clone(),
            rng: StdRng::seed_from_u64(n as u64),
        };
        (0..count).map(one).collect()
    }
}

impl Caller for QuicCaller {
    async fn call(&mut self) -> Result<i64, Failure> {
        let actor = draw(&mut self.rng, &self.actors);
        let call = match self.op {
            Op::Increment => actor.increment(1),
            Op::Get => actor.get_count(),
        };
        Ok(call.timeout(OPERATION_MAX).await?)
    }
}

/// Handles to actors by their keys.
pub(crate) fn handles<'a>(
    cluster: &Cluster,
    keys: impl IntoIterator<Item = &'a String>,
) -> Arc<[BenchCounterHandle]> {
    keys.into_iter()
        .map(|key| cluster.get::<BenchCounter>(key))
        .collect()
}

/// Calls actors through a gateway.
pub(crate) struct HttpCaller {
    actors: Arc<[Uri]>,
    body: Bytes,
    http: Http,
    rng: StdRng,
}

impl HttpCaller {
    /// A caller of these actors at a gateway. `number` seeds what it draws.
    ///
    /// # Errors
    /// When that is no address of a gateway.
    pub(crate) fn new(gateway: &str, op: Op, actors: Arc<[Uri]>, number: usize) -> anyhow::Result<Self> {
        let http = Http::new(gateway, OPERATION_MAX)?;
        Ok(Self {
            actors,
            body: body(op),
            http,
            rng: StdRng::seed_from_u64(number as u64),
        })
    }
}

impl Caller for HttpCaller {
    async fn call(&mut self) -> Result<i64, Failure> {
        let uri = draw(&mut self.rng, &self.actors).clone();
        post(&mut self.http, uri, self.body.clone()).await
    }
}

/// The body of an action.
pub(crate) fn body(op: Op) -> Bytes {
    Bytes::from_static(match op {
        Op::Increment => br#"{"args":[1]}"#,
        Op::Get => br#"{"args":[]}"#,
    })
}

/// The address of an action of the counter with this key. Keys here are made of letters, digits and `-`.
///
/// # Errors
/// When the key is not.
pub(crate) fn uri(key: &str, op: Op) -> anyhow::Result<Uri> {
    let action = match op {
        Op::Increment => "increment",
        Op::Get => "getCount",
    };
    let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=";
    Ok(format!("/gateway/{COUNTER}/action/{action}?{query}{key}").parse()?)
}

/// Addresses of actors by their keys.
///
/// # Errors
/// As [`uri`].
pub(crate) fn uris<'a>(op: Op, keys: impl IntoIterator<Item = &'a String>) -> anyhow::Result<Arc<[Uri]>> {
    keys.into_iter().map(|key| uri(key, op)).collect()
}

/// Calls an action and reads its number.
///
/// # Errors
/// What the gateway said.
pub(crate) async fn post(http: &mut Http, uri: Uri, body: Bytes) -> Result<i64, Failure> {
    let (status, answer) = http.send(Method::POST, uri, body).await?;
    output(status, &answer)
}

fn output(status: StatusCode, answer: &[u8]) -> Result<i64, Failure> {
    #[derive(Deserialize)]
    struct Output {
        output: i64,
    }
    #[derive(Deserialize)]
    struct Refusal {
        group: String,
        code: String,
        message: String,
    }
    if status == StatusCode::OK {
        let output: Result<Output, _> = serde_json::from_slice(answer);
        return output
            .map(|o| o.output)
            .map_err(|e| Failure::perhaps("http.answer", e.to_string()));
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(answer) else {
        return Err(Failure::perhaps(
            "http.status",
            format!("{status} without an error in JSON"),
        ));
    };
    let kind = format!("{}.{}", refusal.group, refusal.code);
    // The gateway's own time limit says nothing about the turn; every other refusal is definite.
    let perhaps = kind == "guard.request_timeout";
    Err(Failure {
        kind,
        text: refusal.message,
        perhaps,
    })
}

/// Keys nobody has used: each call gives another one.
pub(crate) struct FreshKeys {
    prefix: String,
    next: AtomicU64,
}

impl FreshKeys {
    /// Keys that begin with `prefix`, which nothing else uses.
    pub(crate) fn new(prefix: String) -> Arc<Self> {
        Arc::new(Self {
            prefix,
            next: AtomicU64::new(0),
        })
    }

    fn next(&self) -> String {
        format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// A first increment must answer 1, or the actor was there before.
fn first(value: i64) -> Result<i64, Failure> {
    match value {
        1 => Ok(value),
        other => Err(Failure::refused(
            "bench.not_fresh",
            format!("the first increment answered {other}"),
        )),
    }
}

/// Creates an actor with each call, by the Rust client.
pub(crate) struct QuicCreator {
    pub(crate) cluster: Cluster,
    pub(crate) keys: Arc<FreshKeys>,
}

impl Caller for QuicCreator {
    async fn call(&mut self) -> Result<i64, Failure> {
        let actor = self.cluster.get::<BenchCounter>(self.keys.next());
        first(actor.increment(1).timeout(OPERATION_MAX).await?)
    }
}

/// Creates an actor with each call, through a gateway.
pub(crate) struct HttpCreator {
    pub(crate) http: Http,
    pub(crate) keys: Arc<FreshKeys>,
}

impl Caller for HttpCreator {
    async fn call(&mut self) -> Result<i64, Failure> {
        let op = Op::Increment;
        let uri = uri(&self.keys.next(), op).map_err(|e| Failure::refused("bench.key", e.to_string()))?;
        first(post(&mut self.http, uri, body(op)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_gateway_is_its_number_or_its_error_by_name() {
        assert_eq!(output(StatusCode::OK, br#"{"output":-7}"#).unwrap(), -7);
        assert!(output(StatusCode::OK, b"{}").unwrap_err().perhaps);
        let refusal = br#"{"group":"actor","code":"overloaded","message":"full"}"#;
        let failure = output(StatusCode::SERVICE_UNAVAILABLE, refusal).unwrap_err();
        assert_eq!(
            (failure.kind.as_str(), failure.perhaps),
            ("actor.overloaded", false)
        );
        let late = br#"{"group":"guard","code":"request_timeout","message":"late"}"#;
        assert!(output(StatusCode::GATEWAY_TIMEOUT, late).unwrap_err().perhaps);
        assert!(output(StatusCode::BAD_GATEWAY, b"<html>").unwrap_err().perhaps);
    }

    #[test]
    fn fresh_keys_do_not_repeat_and_fit_into_an_address() {
        let keys = FreshKeys::new("cold-1".into());
        assert_ne!(keys.next(), keys.next());
        let uri = uri(&keys.next(), Op::Increment).unwrap();
        assert_eq!(uri.path(), "/gateway/counter/action/increment");
        assert!(uri.query().unwrap().ends_with("rvt-key=cold-1-2"));
    }
}
