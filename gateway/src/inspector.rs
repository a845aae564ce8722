//! `/inspector/..`: one actor as its operators see it, and change it by hand. JSON in both directions.
//!
//! Invariant: nothing is shown or done without a token that may list actors of the namespace, or the actor's own.
//! Not here: what the actor is made of (the backend), pages.

use std::fmt::Display;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use clinch_types::{
    ActorInfo, ActorLook, ActorStatus, CallOp, Target, TurnsReply, WallMs, code, group, limits,
};
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::json;

use crate::action::{self, JSON, call};
use crate::address::{Address, Who, shown};
use crate::backend::{GatewayCall, Scope};
use crate::cbor::rewrite::inbound;
use crate::cbor::{self, ARRAY, UNDEFINED, from_json};
use crate::error::HttpError;
use crate::look::{self, Crash, decoded};
use crate::plain::{VERSION, json_of};
use crate::service::{Gateway, bearer, respond};
use crate::{body, otlp, percent};

/// CBOR of `{}`.
const EMPTY_MAP: u8 = 0xa0;

/// Answers a request below `/inspector`.
pub(crate) async fn answer(
    gateway: &Gateway,
    request: Request,
    address: Address,
) -> Result<Response, HttpError> {
    let path = address
        .path
        .strip_prefix("/inspector/")
        .unwrap_or_default()
        .to_owned();
    let query = address.query.clone();
    let (target, token) = admit(gateway, request.headers(), address)?;
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
    match (request.method(), path.as_str()) {
        (&Method::PATCH, "state") => return actor.replace_state(request.into_body()).await,
        (&Method::POST, "queue") => return actor.push(request.into_body()).await,
        (&Method::DELETE, "queue") => return actor.clear_queues().await,
        _ => {}
    }
    let allow = match path.as_str() {
        "state" => "GET, PATCH",
        "queue" => "GET, POST, DELETE",
        _ => "GET",
    };
    only(&request, &Method::GET, allow)?;
    actor.show(&path, &query).await
}

fn admit(
    gateway: &Gateway,
    headers: &HeaderMap,
    address: Address,
) -> Result<(Target, Option<String>), HttpError> {
    let token = bearer(headers);
    if let (Who::Id(id), Some(own)) = (&address.who, token.and_then(own_token))
        && gateway.backend.opens_inspector(*id, &own)
    {
        // It says nothing to anybody else, and goes no further.
        return Ok((Target::Id(*id), None));
    }
    let namespace = match &address.who {
        Who::Key { namespace, .. } => Some(namespace.as_str()),
        Who::Id(_) => None,
    };
    gateway
        .backend
        .authorize(token, Scope::Secret, namespace)
        .map_err(|error| HttpError::new("inspector", "unauthorized", error.message))?;
    // Not the token of the address: what it may do says nothing about what the one shown here may.
    action::admit(gateway, headers, address.who, token.map(str::to_owned))
}

/// A token of an actor, from how it is written.
fn own_token(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Where the peer keeps the token of an actor among its KV entries, and where its tools look for it.
const TOKEN_KEY: &[u8] = &[3];

/// Answers `/actors/ID/kv/keys/KEY`, of which there is one, for those who may list the actors of the namespace.
pub(crate) async fn token(gateway: &Gateway, actor: &ActorInfo, key: &str) -> Result<Response, HttpError> {
    let bytes = STANDARD
        .decode(key)
        .map_err(|e| HttpError::invalid_input(format!("the KV key {} is no base64: {e}", shown(key))))?;
    if bytes != TOKEN_KEY {
        let message = format!(
            "Of the KV entries of an actor only {:?} is shown here, the token of its inspector; not {}.",
            STANDARD.encode(TOKEN_KEY),
            shown(key)
        );
        return Err(HttpError::new("api", code::NOT_FOUND, message));
    }
    let token = gateway.backend.inspector_token(actor.id).await?;
    let token = STANDARD.encode(URL_SAFE_NO_PAD.encode(token));
    Ok(json_of(&json!({ "value": token, "update_ts": actor.created.0 })))
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

    async fn show(&self, path: &str, query: &str) -> Result<Response, HttpError> {
        match path {
            "rpcs" => Ok(json_of(&json!({ "rpcs": self.actions().await? }))),
            "state" => self.parts(&["isStateEnabled", "state"]).await,
            "connections" => self.parts(&["connections"]).await,
            "queue" => {
                let all = self.ask(CallOp::Inspect).await?;
                let mut out = Vec::new();
                write_part(&all, "queue", &mut out)?;
                Ok(respond(JSON, out))
            }
            "summary" => self.summary().await,
            "traces" => self.traces(query).await,
            "workflow-history" => Ok(json_of(&json!({
                "history": null, "workflowState": null, "isWorkflowEnabled": false,
            }))),
            _ => Err(HttpError::new(
                group::ACTOR,
                code::NOT_FOUND,
                format!("There is no {} in the inspector.", shown(path)),
            )),
        }
    }

    async fn actions(&self) -> Result<Vec<String>, HttpError> {
        let info: ActorInfo = decoded(&self.ask(CallOp::Resolve).await?)?;
        Ok(self.gateway.backend.actions(&info.name))
    }

    /// Parts of the actor, as an object with them.
    async fn parts(&self, names: &[&str]) -> Result<Response, HttpError> {
        let all = self.ask(CallOp::Inspect).await?;
        let mut out = Vec::new();
        for name in names {
            member(name, &all, name, &mut out)?;
        }
        out.push(b'}');
        Ok(respond(JSON, out))
    }

    /// The turns that the actor ran last, as far as its owner remembers them.
    async fn traces(&self, query: &str) -> Result<Response, HttpError> {
        let timeout = self.gateway.config.call_timeout();
        let asked = GatewayCall {
            token: self.token.clone(),
            ..GatewayCall::new(self.target.clone(), asked_turns(query)?, timeout)
        };
        let reply = call(self.gateway, asked).await?;
        let TurnsReply { turns, clamped } = decoded(&reply.output)?;
        let otlp = otlp::export(&turns, &reply.meta, VERSION);
        Ok(json_of(&json!({ "otlp": otlp, "clamped": clamped })))
    }

    async fn look(&self) -> Result<ActorLook, HttpError> {
        look::look(self.gateway, self.target.clone(), self.token.clone()).await
    }

    async fn summary(&self) -> Result<Response, HttpError> {
        // Before the actor is woken by what follows.
        let before = match self.look().await {
            Ok(look) => Some(look),
            Err(error) if error.error().is(group::ACTOR, code::NOT_FOUND) => None,
            Err(error) => return Err(error),
        };
        let (look, all) = match self.ask(CallOp::Inspect).await {
            Ok(all) => match before {
                Some(look) => (look, all),
                // It was made just now, as the target says.
                None => (self.look().await?, all),
            },
            // What cannot be woken is shown as far as it is known.
            Err(error) => match self.look().await {
                Ok(look) if matches!(look.view.status, ActorStatus::Crashed(_)) => (look, vec![EMPTY_MAP]),
                _ => return Err(error),
            },
        };
        let rpcs = self.gateway.backend.actions(&look.view.info.name);
        let queue = cbor::field(&all, "queue").map_err(action::broken_output)?;
        let queue = queue.map_or(&[EMPTY_MAP][..], |range| &all[range]);
        // There are no databases and no workflows: tools look for the flags.
        let mut out = b"{\"isDatabaseEnabled\":false,\"isWorkflowEnabled\":false,\
            \"workflowState\":null,\"workflowHistory\":null"
            .to_vec();
        for name in ["isStateEnabled", "state", "connections", "queue"] {
            member(name, &all, name, &mut out)?;
        }
        member("queueSize", queue, "size", &mut out)?;
        let status = &look.view.status;
        let told = format!(
            ",\"rpcs\":{},\"status\":{},\"crash\":{},\"warnings\":{}}}",
            json!(rpcs),
            json!(status.name()),
            json!(Crash::of(status)),
            look::shown(&look.warnings),
        );
        out.extend_from_slice(told.as_bytes());
        Ok(respond(JSON, out))
    }

    /// Puts another state in the place of the actor's; answered when that is durable.
    async fn replace_state(&self, body: Body) -> Result<Response, HttpError> {
        // As JSON it may be longer than as the CBOR it becomes, which has the limit of its actor.
        let body = body::read(self.gateway, body, limits::STATE_MAX + body::ACTION_MAX).await?;
        let state = value(&body.bytes, "state")?;
        let state = state.ok_or_else(|| HttpError::malformed("the body has no \"state\""))?;
        self.ask(CallOp::ReplaceState { state }).await?;
        Ok(json_of(&json!({ "ok": true })))
    }

    /// Adds a message to a queue, as the cluster itself does: `can_publish` is not asked.
    async fn push(&self, body: Body) -> Result<Response, HttpError> {
        #[derive(Deserialize)]
        struct Queue {
            name: String,
        }
        let max = limits::QUEUE_MESSAGE_MAX + body::ACTION_MAX;
        let body = body::read(self.gateway, body, max).await?;
        let Queue { name } = serde_json::from_slice(&body.bytes)
            .map_err(|e| HttpError::malformed(format!("the body has no \"name\" of a queue: {e}")))?;
        let push = CallOp::Push {
            queue: name,
            body: value(&body.bytes, "body")?.unwrap_or_else(|| vec![UNDEFINED]),
            wait: false,
        };
        let id = self.number(push).await?;
        Ok(json_of(&json!({ "ok": true, "id": id.to_string() })))
    }

    /// Empties the queues but for what somebody works on.
    async fn clear_queues(&self) -> Result<Response, HttpError> {
        let removed = self.number(CallOp::ClearQueues).await?;
        Ok(json_of(&json!({ "ok": true, "removed": removed })))
    }

    /// Asks for something that is answered with a number.
    async fn number(&self, op: CallOp) -> Result<u64, HttpError> {
        let output = self.ask(op).await?;
        let head = cbor::Head::read(&output, 0).map_err(action::broken_output)?;
        Ok(head.argument)
    }

    /// Calls an action as the cluster itself does: no hook of connections is asked.
    async fn act(&self, name: String, body: &Bytes) -> Result<Response, HttpError> {
        let args = match (value(body, "args")?, value(body, "properties")?) {
            (Some(args), None) => args,
            (None, Some(one)) => [&[0x81][..], &one].concat(),
            (None, None) => vec![0x80],
            (Some(_), Some(_)) => return Err(HttpError::malformed("either args or properties, not both")),
        };
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

/// The turns that `startMs`, `endMs` (Unix milliseconds, both included) and `limit` ask for; all, unless they are given.
fn asked_turns(query: &str) -> Result<CallOp, HttpError> {
    let (mut from, mut to, mut limit) = (0, u64::MAX, u64::from(limits::TURNS_MAX));
    for part in query.split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let place = match name {
            "startMs" => &mut from,
            "endMs" => &mut to,
            "limit" => &mut limit,
            _ => continue,
        };
        *place = value.parse().map_err(|_| {
            HttpError::bad_request(format!("{name} is {}, it must be a whole number", shown(value)))
        })?;
    }
    if from > to {
        return Err(HttpError::bad_request(format!(
            "startMs is {from}, after endMs, which is {to}"
        )));
    }
    let max = limits::TURNS_MAX;
    match u32::try_from(limit) {
        Ok(limit) if (1..=max).contains(&limit) => Ok(CallOp::Turns {
            from: WallMs(from),
            to: WallMs(to),
            limit,
        }),
        _ => Err(HttpError::bad_request(format!(
            "limit is {limit}, it must be 1 to {max}"
        ))),
    }
}

/// A member of a body, as its actor reads values.
fn value(body: &Bytes, name: &str) -> Result<Option<Vec<u8>>, HttpError> {
    let bad =
        |e: &dyn Display| HttpError::malformed(format!("the body is no object with {name:?} in it: {e}"));
    let Some(value) = from_json::convert_member(body, name).map_err(|e| bad(&e))? else {
        return Ok(None);
    };
    Ok(Some(inbound(&value, true).map_err(|e| bad(&e))?.into_owned()))
}

/// Adds the part `name` of something to the object being written, as its member `shown`.
fn member(shown: &str, of: &[u8], name: &str, out: &mut Vec<u8>) -> Result<(), HttpError> {
    out.push(if out.is_empty() { b'{' } else { b',' });
    out.extend_from_slice(format!("\"{shown}\":").as_bytes());
    write_part(of, name, out)
}

fn write_part(of: &[u8], name: &str, out: &mut Vec<u8>) -> Result<(), HttpError> {
    let range = cbor::field(of, name).map_err(action::broken_output)?;
    let part = range.map_or(&[UNDEFINED][..], |range| &of[range]);
    cbor::json::write(part, out).map_err(action::broken_output)
}
