//! `/queue/NAME`: a message for one of an actor's durable queues.

use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use clinch_types::{CallError, CallOp, limits};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::action::{BINARY, door, encoding_of, is_modern, params, trace};
use crate::address::Who;
use crate::backend::GatewayCall;
use crate::cbor::rewrite::{inbound, outbound};
use crate::cbor::{self, CborError, NULL, UNDEFINED, from_json};
use crate::error::HttpError;
use crate::frames::{Encoding, number_of};
use crate::plain::json_of;
use crate::service::{Gateway, respond};
use crate::{action, bare, body, shares};

/// Longest time a sender may wait for its message to be dealt with.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How much longer the owner is given than the sender waits: so that it is the sender's time that ends first.
const SLACK: Duration = Duration::from_millis(50);

/// What is sent.
struct Sending {
    version: u16,
    /// CBOR.
    body: Vec<u8>,
    wait: bool,
    timeout: Option<u64>,
}

pub(crate) async fn send(
    gateway: &Gateway,
    request: Request,
    who: Who,
    token: Option<String>,
    queue: String,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let encoding = encoding_of(&parts.headers)?;
    let params = params(&parts.headers)?;
    let modern = matches!(who, Who::Key { .. }) || is_modern(&parts.headers);
    let (target, token) = action::admit(gateway, &parts.headers, who, token)?;
    let max = limits::QUEUE_MESSAGE_MAX + body::ACTION_MAX;
    let body = body::read(gateway, body, max).await?;
    let sending = decode(encoding, &body.bytes)?;
    let wait = sending.wait;
    let timeout = match sending.timeout.filter(|_| wait) {
        Some(ms) => Duration::from_millis(ms).min(WAIT_MAX),
        None if wait => WAIT_MAX,
        None => gateway.config.call_timeout(),
    };
    let op = CallOp::Push {
        queue,
        body: sending.body,
        wait,
    };
    let call = GatewayCall {
        params,
        token,
        trace: trace(&parts.headers),
        door: Some(door(&parts.headers)),
        ..GatewayCall::new(target, op, timeout)
    };
    let begun = Instant::now();
    let reply = tokio::time::timeout(timeout + SLACK, gateway.backend.call(call)).await;
    if let Ok(Ok(reply)) = &reply {
        shares::was_for(&parts.extensions, reply.meta.actor);
    }
    let response = match reply {
        Ok(Ok(reply)) if wait => Some(reply.output),
        Ok(Ok(_)) => None,
        // The message is there; nobody has dealt with it in time.
        Err(_) if wait => return encode(encoding, sending.version, modern, "timedOut", None),
        Ok(Err(CallError::Perhaps { .. })) if wait && begun.elapsed() >= timeout.saturating_sub(SLACK) => {
            return encode(encoding, sending.version, modern, "timedOut", None);
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => {
            let reason = format!("no answer within {} ms", timeout.as_millis());
            return Err(CallError::Perhaps { reason }.into());
        }
    };
    let response = response.filter(|output| !matches!(output[..], [] | [NULL] | [UNDEFINED]));
    encode(
        encoding,
        sending.version,
        modern,
        "completed",
        response.as_deref(),
    )
}

fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Sending, HttpError> {
    let cbor_error = |e: CborError| HttpError::malformed(format!("the message: {e}"));
    match encoding {
        Encoding::Json => {
            #[derive(Deserialize)]
            struct Options {
                #[serde(default)]
                wait: bool,
                #[serde(default)]
                timeout: Option<f64>,
            }
            let no_object =
                |e: serde_json::Error| HttpError::malformed(format!("the body is not {{\"body\":…}}: {e}"));
            let options: Options = serde_json::from_slice(bytes).map_err(no_object)?;
            let body = from_json::convert_member(bytes, "body").map_err(no_object)?;
            let body = body.unwrap_or_else(|| vec![UNDEFINED]);
            Ok(Sending {
                version: 0,
                body: inbound(&body, true).map_err(cbor_error)?.into_owned(),
                wait: options.wait,
                // Saturates: what is no time is none, or a very long one.
                timeout: options.timeout.map(|ms| ms.max(0.0) as u64),
            })
        }
        Encoding::Cbor => {
            let field = |name| {
                let range = cbor::field(bytes, name).map_err(cbor_error)?;
                Ok::<_, HttpError>(range.map(|range| &bytes[range]))
            };
            let body = field("body")?.unwrap_or(&[UNDEFINED]);
            Ok(Sending {
                version: 0,
                body: inbound(body, false).map_err(cbor_error)?.into_owned(),
                wait: field("wait")? == Some(&[0xf5]),
                timeout: field("timeout")?.and_then(number_of),
            })
        }
        Encoding::Bare => {
            let (version, send) =
                bare::queue_request(bytes).map_err(|e| HttpError::malformed(e.to_string()))?;
            let unwrap = version >= bare::VERSION_MARKERS_READ;
            Ok(Sending {
                version,
                body: inbound(send.body, unwrap).map_err(cbor_error)?.into_owned(),
                wait: send.wait,
                timeout: send.timeout,
            })
        }
    }
}

fn encode(
    encoding: Encoding,
    version: u16,
    modern: bool,
    status: &str,
    response: Option<&[u8]>,
) -> Result<Response, HttpError> {
    let broken = action::broken_output;
    match encoding {
        Encoding::Json => {
            let Some(response) = response else {
                return Ok(json_of(&json!({ "status": status })));
            };
            let mut out = format!("{{\"status\":\"{status}\",\"response\":").into_bytes();
            cbor::json::write(response, &mut out).map_err(broken)?;
            out.push(b'}');
            Ok(respond(action::JSON, out))
        }
        Encoding::Cbor => {
            let mut out = Vec::new();
            cbor::head(&mut out, cbor::MAP, 1 + u64::from(response.is_some()));
            cbor::text(&mut out, "status");
            cbor::text(&mut out, status);
            if let Some(response) = response {
                cbor::text(&mut out, "response");
                out.extend_from_slice(&outbound(response, modern).map_err(broken)?);
            }
            Ok(respond(BINARY, out))
        }
        Encoding::Bare => {
            let escape = version >= bare::VERSION_MARKERS_WRITTEN;
            let response = response
                .map(|r| outbound(r, escape))
                .transpose()
                .map_err(broken)?;
            Ok(respond(
                BINARY,
                bare::queue_response(version, status, response.as_deref()),
            ))
        }
    }
}
