//! How an actor is, as its owner tells without waking it, and how that is written.

use clinch_types::{ActorInfo, ActorLook, ActorStatus, ActorWarning, CallOp, Target, codec};
use serde::Serialize;
use serde_json::{Value, json};

use crate::action::call;
use crate::backend::GatewayCall;
use crate::error::HttpError;
use crate::service::Gateway;

/// Looks at an actor; `actor.not_found` when there is none. An owner of an earlier release cannot look: it is asked to
/// find the actor, which wakes it.
pub(crate) async fn look(
    gateway: &Gateway,
    target: Target,
    token: Option<String>,
) -> Result<ActorLook, HttpError> {
    let timeout = gateway.config.call_timeout();
    let mut wish = GatewayCall::resolve(target, token, timeout);
    wish.op = CallOp::Look;
    let looked = call(gateway, wish.clone()).await;
    if looked.as_ref().is_err_and(HttpError::is_not_supported) {
        wish.op = CallOp::Resolve;
        if let Target::Key { create, .. } = &mut wish.target {
            *create = None;
        }
        let info: ActorInfo = decoded(&call(gateway, wish).await?.output)?;
        let (view, warnings) = (info.into(), Vec::new());
        return Ok(ActorLook { view, warnings });
    }
    decoded(&looked?.output)
}

/// What an owner says in our own format.
pub(crate) fn decoded<T: codec::Decode<()>>(output: &[u8]) -> Result<T, HttpError> {
    codec::decode(output).map_err(|error| {
        tracing::error!(%error, "the answer about an actor does not decode");
        HttpError::internal()
    })
}

/// Why an actor is not as it should be. Times are Unix milliseconds.
#[derive(Serialize)]
pub(crate) struct Crash<'a> {
    group: &'a str,
    code: &'a str,
    failures: u32,
    since_ts: u64,
    next_try_ts: Option<u64>,
}

impl<'a> Crash<'a> {
    pub(crate) fn of(status: &'a ActorStatus) -> Option<Self> {
        status.crash().map(|crash| Self {
            group: &crash.group,
            code: &crash.code,
            failures: crash.failures,
            since_ts: crash.since.0,
            next_try_ts: crash.next_try.map(|at| at.0),
        })
    }
}

/// Warnings as clients see them.
pub(crate) fn shown(warnings: &[ActorWarning]) -> Value {
    let shown = warnings
        .iter()
        .map(|warning| json!({ "code": warning.code, "message": warning.message }));
    Value::Array(shown.collect())
}
