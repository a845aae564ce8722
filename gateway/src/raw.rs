//! `/request/..`: raw HTTP, answered by the actor itself, bodies streamed both ways.
//!
//! A short body of known length is taken along whole, so that the request can be asked again when an owner moves; any other
//! flows from the client to the actor, no faster than the actor reads.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::Response;
use clinch_types::{CallOp, HttpBody, HttpReply, HttpRequest, code, codec, group};
use http::header::{HeaderName, HeaderValue};
use http::{Extensions, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::action::{self, door, params, trace};
use crate::address::Address;
use crate::backend::{GatewayCall, StreamBody};
use crate::body::{self, ACTION_MAX};
use crate::error::HttpError;
use crate::flow::{Flow, Upload};
use crate::service::Gateway;
use crate::shares::{self, Asking};
use crate::socket::SocketTasks;

/// Headers that are the connection's or the gateway's, not the actor's: what an actor answers with is no ground for a script to
/// stand between a browser and all other addresses of the gateway.
const HOP_BY_HOP: [&str; 7] = [
    "service-worker-allowed",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "trailer",
];
/// How long an answer may pause while the gateway stops; one that flows has `drain-timeout-ms`.
const LULL: Duration = Duration::from_millis(500);

pub(crate) async fn answer(
    gateway: &Gateway,
    request: Request,
    address: Address,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let params = params(&parts.headers)?;
    let rest = address.path.strip_prefix("/request").unwrap_or_default();
    let path = match rest {
        "" => "/",
        rest => rest,
    };
    let uri = match address.query.as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    let (target, token) = action::admit(gateway, &parts.headers, address.who, address.token)?;
    let length = body.size_hint().exact();
    let (body, upload) = match length {
        Some(len) if len <= ACTION_MAX as u64 => {
            let body = body::read(gateway, body, ACTION_MAX).await?;
            (HttpBody::Whole(body.bytes.to_vec()), None)
        }
        _ => {
            let limit = gateway.config.max_large_bodies;
            let permit = permit(&gateway.large_bodies, "memory for large requests", limit)?;
            let patience = gateway.config.body_read_timeout();
            let upload = Upload::new(Flow::new(body, length, patience, None, Box::new(permit)));
            (HttpBody::Streamed { length }, Some(upload))
        }
    };
    let request = HttpRequest {
        method: parts.method.as_str().to_owned(),
        uri,
        body,
    };
    let call = GatewayCall {
        params,
        token,
        trace: trace(&parts.headers),
        door: Some(door(&parts.headers)),
        ..GatewayCall::new(
            target,
            CallOp::Http(Box::new(request)),
            gateway.config.call_timeout(),
        )
    };
    let streamed = upload.clone().map(StreamBody::new);
    let answered = action::in_time(call.timeout, gateway.backend.exchange(call, streamed)).await;
    let (reply, answer) = match (answered, upload) {
        (Err(error), Some(upload)) => {
            upload.drain().await;
            return Err(error);
        }
        (answered, _) => answered?,
    };
    shares::was_for(&parts.extensions, reply.meta.actor);
    let reply: HttpReply = codec::decode(&reply.output).map_err(|error| {
        tracing::error!(%error, "the answer of an actor to a request cannot be read");
        HttpError::internal()
    })?;
    response(gateway, &parts.extensions, reply, answer)
}

fn permit(semaphore: &Arc<Semaphore>, what: &str, limit: usize) -> Result<OwnedSemaphorePermit, HttpError> {
    let permit = semaphore.clone().try_acquire_owned();
    permit.map_err(|_| HttpError::overloaded(what, limit))
}

fn response(
    gateway: &Gateway,
    extensions: &Extensions,
    reply: HttpReply,
    answer: Option<StreamBody>,
) -> Result<Response, HttpError> {
    let body = match (reply.body, answer) {
        (HttpBody::Whole(body), _) => Body::from(body),
        (HttpBody::Streamed { length }, Some(answer)) => {
            let limit = gateway.config.max_sockets;
            let permit = permit(&gateway.sockets, "room for sockets and streamed answers", limit)?;
            let stop = extensions
                .get()
                .map(|tasks: &SocketTasks| tasks.stop.clone().cancelled_owned());
            let stop = stop.unwrap_or_else(|| tokio_util::sync::CancellationToken::new().cancelled_owned());
            let held = (permit, extensions.get::<Asking>().cloned());
            Body::new(Flow::new(answer, length, LULL, Some(stop), Box::new(held)))
        }
        // The second answer to one request: the first had the body.
        (HttpBody::Streamed { .. }, None) => {
            let message = "the request took effect; its answer was streamed, and is lost";
            return Err(HttpError::new(
                group::GUARD,
                code::ANSWER_LOST,
                message.to_owned(),
            ));
        }
    };
    let mut response = Response::new(body);
    // Made by the `http` crate at the owner, so both are sound.
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if HOP_BY_HOP.contains(&name.as_str()) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}
