//! `/inspector/..`: one actor as its operators see it. JSON in both directions.
//!
//! Invariant: nothing is shown or done without a token that may list actors of the namespace.
//! Not here: what the actor is made of (the backend), pages.

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use clinch_types::{ActorInfo, CallOp, Target, code, codec, group};
use http::Method;
use serde_json::json;

use crate::action::{self, JSON, call};
use crate::address::{Address, Who, shown};
use crate::backend::{GatewayCall, Scope};
use crate::cbor::rewrite::inbound;
use crate::cbor::{self, ARRAY, UNDEFINED, from_json};
use crate::error::HttpError;
use crate::plain::json_of;
use crate::service::{Gateway, bearer, respond};
use crate::{body, percent};

/// Answers a request below `/inspector`.
pub(crate) async fn answer(
    gateway: &Gateway,
    request: Request,
    address: Address,
) -> Result<Response, HttpError> {
    let token = bearer(request.headers()).map(str::to_owned);
    let namespace = match &address.who {
        Who::Key { namespace, .. } => Some(namespace.clone()),
        Who::Id(_) => None,
    };
    gateway
        .backend
        .authorize(token.as_deref(), Scope::Secret, namespace.as_deref())
        .map_err(|error| HttpError::new("inspector", "unauthorized", error.message))?;
    let path = address
        .path
        .strip_prefix("/inspector/")
        .unwrap_or_default()
        .to_owned();
    let (target, token) = action::admit(gateway, request.headers(), address.who, address.token.or(token))?;
    let actor = Inspected {
        gateway,
        target,
        token,
    };
    if let Some(name) = path.strip_prefix("action/") {
        only(&request, &Method::POST, "POST")?;
        let name = percent::path(name)
            .map_err(|e| HttpError::bad_request(format!("{e} in the action name")))?
            .into_owned();
        let body = body::read(gateway, request.into_body(), body::ACTION_MAX).await?;
        return actor.act(name, &body.bytes).await;
    }
    only(&request, &Method::GET, "GET")?;
    match path.as_str() {
        "rpcs" => Ok(json_of(&json!({ "rpcs": actor.actions().await? }))),
        "state" => {
            actor
                .part("state", "{\"isStateEnabled\":true,\"state\":", "}")
                .await
        }
        "connections" => actor.part("connections", "{\"connections\":", "}").await,
        "queue" => actor.part("queue", "", "").await,
        "summary" => actor.summary().await,
        // Traces go to the node's own log.
        "traces" => Ok(json_of(&json!({ "otlp": [], "clamped": false }))),
        "workflow-history" => Ok(json_of(&json!({
            "history": null, "workflowState": null, "isWorkflowEnabled": false,
        }))),
        _ => Err(HttpError::new(
            group::ACTOR,
            code::NOT_FOUND,
            format!("There is no {} in the inspector.", shown(&path)),
        )),
    }
}

fn only(request: &Request, method: &Method, allow: &'static str) -> Result<(), HttpError> {
    match request.method() == method {
        true => Ok(()),
        false => Err(HttpError::method(group::ACTOR, allow)),
    }
}

struct Inspected<'a> {
    gateway: &'a Gateway,
    target: Target,
    token: Option<String>,
}

impl Inspected<'_> {
    async fn ask(&self, op: CallOp) -> Result<Vec<u8>, HttpError> {
        let timeout = self.gateway.config.call_timeout();
        let asked = GatewayCall {
            token: self.token.clone(),
            ..GatewayCall::new(self.target.clone(), op, timeout)
        };
        Ok(call(self.gateway, asked).await?.output)
    }

    async fn actions(&self) -> Result<Vec<String>, HttpError> {
        let info: ActorInfo = codec::decode(&self.ask(CallOp::Resolve).await?).map_err(|error| {
            tracing::error!(%error, "the answer about an actor does not decode");
            HttpError::internal()
        })?;
        Ok(self.gateway.backend.actions(&info.name))
    }

    /// One part of the actor as JSON, between two texts.
    async fn part(&self, name: &str, before: &str, after: &str) -> Result<Response, HttpError> {
        let all = self.ask(CallOp::Inspect).await?;
        let mut out = before.as_bytes().to_vec();
        write_part(&all, name, &mut out)?;
        out.extend_from_slice(after.as_bytes());
        Ok(respond(JSON, out))
    }

    async fn summary(&self) -> Result<Response, HttpError> {
        let (rpcs, all) = (self.actions().await?, self.ask(CallOp::Inspect).await?);
        let queue = cbor::field(&all, "queue").map_err(action::broken_output)?;
        let queue = queue.map_or(&[UNDEFINED][..], |range| &all[range]);
        // There are no databases and no workflows: tools look for the flags.
        let mut out = b"{\"isStateEnabled\":true,\"isDatabaseEnabled\":false,\"isWorkflowEnabled\":false,\
            \"workflowState\":null,\"workflowHistory\":null"
            .to_vec();
        for (shown, of, name) in [
            ("state", &all[..], "state"),
            ("connections", &all, "connections"),
            ("queue", &all, "queue"),
            ("queueSize", queue, "size"),
        ] {
            out.extend_from_slice(format!(",\"{shown}\":").as_bytes());
            write_part(of, name, &mut out)?;
        }
        out.extend_from_slice(format!(",\"rpcs\":{}}}", json!(rpcs)).as_bytes());
        Ok(respond(JSON, out))
    }

    /// Calls an action as the cluster itself does: no hook of connections is asked.
    async fn act(&self, name: String, body: &Bytes) -> Result<Response, HttpError> {
        let bad = |e: &dyn std::fmt::Display| {
            HttpError::malformed(format!("the body is not {{\"args\":[…]}}: {e}"))
        };
        let args = from_json::convert_member(body, "args").map_err(|e| bad(&e))?;
        let properties = from_json::convert_member(body, "properties").map_err(|e| bad(&e))?;
        let args = match (args, properties) {
            (Some(args), None) => args,
            (None, Some(one)) => [&[0x81][..], &one].concat(),
            (None, None) => vec![0x80],
            (Some(_), Some(_)) => return Err(HttpError::malformed("either args or properties, not both")),
        };
        let args = inbound(&args, true).map_err(|e| bad(&e))?.into_owned();
        if args.first().is_none_or(|head| head >> 5 != ARRAY) {
            return Err(HttpError::malformed("args is no array"));
        }
        let output = self.ask(CallOp::Action { name, args }).await?;
        let mut out = b"{\"output\":".to_vec();
        let output = if output.is_empty() {
            &[UNDEFINED][..]
        } else {
            &output
        };
        cbor::json::write(output, &mut out).map_err(action::broken_output)?;
        out.push(b'}');
        Ok(respond(JSON, out))
    }
}

fn write_part(all: &[u8], name: &str, out: &mut Vec<u8>) -> Result<(), HttpError> {
    let range = cbor::field(all, name).map_err(action::broken_output)?;
    let part = range.map_or(&[UNDEFINED][..], |range| &all[range]);
    cbor::json::write(part, out).map_err(action::broken_output)
}
