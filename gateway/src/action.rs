//! What is inside an actor: `/action/NAME`, and the way to everything else that is addressed there.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use clinch_types::{
    ActorError, CallError, CallMeta, CallOp, CallReply, CreateSpec, Door, Target, code, group, limits,
};
use http::header::{HeaderMap, HeaderName, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::json;

use crate::address::{Address, Create, Who, shown};
use crate::backend::{GatewayCall, Scope};
use crate::cbor::rewrite::{arguments, inbound, outbound};
use crate::cbor::{self, CborError, UNDEFINED, from_json};
use crate::error::HttpError;
use crate::frames::Encoding;
use crate::service::{Gateway, actor_token, respond};
use crate::{bare, body, inspector, percent, plain, queue, raw, shares, socket};

const ENCODING: HeaderName = HeaderName::from_static("x-rivet-encoding");
const PARAMS: HeaderName = HeaderName::from_static("x-rivet-conn-params");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Where in the actor's life an answer was produced, for checkers and for people.
const TURN: HeaderName = HeaderName::from_static("x-clinch-turn");
/// How much longer than its own time limit a backend may take before the gateway answers for it.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) const BINARY: &str = "application/octet-stream";
pub(crate) const JSON: &str = "application/json";

/// Answers a request to an actor.
pub(crate) async fn answer(
    gateway: &Gateway,
    request: Request,
    address: Address,
) -> Result<Response, HttpError> {
    let path = address.path.as_str();
    if let Some(name) = path.strip_prefix("/action/").filter(|name| is_segment(name)) {
        if request.method() != Method::POST {
            return Err(HttpError::method(group::ACTOR, "POST"));
        }
        let name = percent::path(name)
            .map_err(|e| HttpError::bad_request(format!("{e} in the action name")))?
            .into_owned();
        return action(gateway, request, address.who, address.token, name).await;
    }
    if let Some(name) = path.strip_prefix("/queue/").filter(|name| is_segment(name)) {
        if request.method() != Method::POST {
            return Err(HttpError::method(group::ACTOR, "POST"));
        }
        let name = percent::path(name)
            .map_err(|e| HttpError::bad_request(format!("{e} in the queue name")))?
            .into_owned();
        return queue::send(gateway, request, address.who, address.token, name).await;
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "request" => raw::answer(gateway, request, address).await,
        "connect" | "websocket" => Err(HttpError::bad_request(format!("/{first} is for WebSockets"))),
        "inspector" => inspector::answer(gateway, request, address).await,
        "inspect" | "dynamic" => Err(HttpError::not_implemented(&format!("/{first}"))),
        "health" | "metadata" if path.len() == first.len() + 1 => {
            let (parts, _) = request.into_parts();
            about(gateway, &parts, address).await
        }
        _ => Err(HttpError::new(
            group::ACTOR,
            code::NOT_FOUND,
            format!("There is no {} in an actor.", shown(path)),
        )),
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// How the values of a request are written.
pub(crate) fn encoding_of(headers: &HeaderMap) -> Result<Encoding, HttpError> {
    let Some(value) = headers.get(ENCODING) else {
        return Ok(Encoding::Json);
    };
    match value.as_bytes() {
        b"json" => Ok(Encoding::Json),
        b"cbor" => Ok(Encoding::Cbor),
        b"bare" => Ok(Encoding::Bare),
        other => Err(HttpError::new(
            "encoding",
            "invalid",
            format!(
                "unknown encoding {}, there are json, cbor and bare",
                shown(&String::from_utf8_lossy(other))
            ),
        )),
    }
}

/// What an actor's hooks may see of a request.
pub(crate) fn door(headers: &HeaderMap) -> Box<Door> {
    Box::new(Door {
        conn: None,
        headers: socket::visible(headers),
    })
}

async fn action(
    gateway: &Gateway,
    request: Request,
    who: Who,
    token: Option<String>,
    name: String,
) -> Result<Response, HttpError> {
    if name.len() > limits::ACTION_NAME_MAX {
        return Err(ActorError::too_long("action name", name.len(), limits::ACTION_NAME_MAX).into());
    }
    let (parts, body) = request.into_parts();
    let encoding = encoding_of(&parts.headers)?;
    let params = params(&parts.headers)?;
    let modern = matches!(who, Who::Key { .. }) || is_modern(&parts.headers);
    let target = admit(gateway, &parts.headers, who, token)?;
    let body = body::read(gateway, body, body::ACTION_MAX).await?;
    let (version, args) = decode(encoding, &body.bytes)?;
    let began = tokio::time::Instant::now();
    let reply = call(
        gateway,
        GatewayCall {
            op: CallOp::Action { name, args },
            params,
            timeout: gateway.config.call_timeout(),
            if_active: false,
            token: target.1,
            trace: trace(&parts.headers),
            door: Some(door(&parts.headers)),
            target: target.0,
        },
    )
    .await;
    gateway.metrics.action_seconds.record(began.elapsed());
    let reply = reply?;
    shares::was_for(&parts.extensions, reply.meta.actor);
    encode(encoding, version, modern, &reply)
}

/// Makes the target of a call, if the caller may make it; the token goes along when only the backend can judge it.
pub(crate) fn admit(
    gateway: &Gateway,
    headers: &HeaderMap,
    who: Who,
    token: Option<String>,
) -> Result<(Target, Option<String>), HttpError> {
    let token = token.or_else(|| actor_token(headers).map(str::to_owned));
    let allow = |namespace| {
        gateway
            .backend
            .authorize(token.as_deref(), Scope::Publishable, namespace)
    };
    match who {
        Who::Id(id) => {
            allow(None)?;
            Ok((Target::Id(id), token))
        }
        Who::Key {
            namespace,
            name,
            key,
            create,
        } => {
            allow(Some(&namespace))?;
            plain::known_namespace(gateway, &namespace)?;
            let create = match create {
                Some(create) => Some(spec(gateway, create)?),
                None => None,
            };
            let target = Target::Key {
                namespace,
                name,
                key,
                create,
            };
            Ok((target, None))
        }
    }
}

/// Checks how an actor is to be created.
pub(crate) fn spec(gateway: &Gateway, create: Create) -> Result<CreateSpec, HttpError> {
    if let Some(len) = create.input.as_ref().map(Vec::len)
        && len > limits::INPUT_MAX
    {
        return Err(HttpError::new(
            group::ACTOR,
            code::INPUT_TOO_LARGE,
            format!("input has {len} bytes, at most {} are allowed", limits::INPUT_MAX),
        ));
    }
    let region = match create.region {
        Some(name) => Some(
            gateway
                .backend
                .region(&name)
                .ok_or_else(|| HttpError::invalid_input(format!("there is no region {}", shown(&name))))?,
        ),
        None => None,
    };
    Ok(CreateSpec {
        input: create.input,
        region,
    })
}

/// Asks the backend, and answers for it when it does not answer at all.
pub(crate) async fn call(gateway: &Gateway, call: GatewayCall) -> Result<CallReply, HttpError> {
    in_time(call.timeout, gateway.backend.call(call)).await
}

/// Waits for a backend that has this time itself.
pub(crate) async fn in_time<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<T, HttpError> {
    let limit = timeout.saturating_add(GRACE);
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(HttpError::guard(
            code::REQUEST_TIMEOUT,
            format!(
                "no answer within {} ms; perhaps the call took effect",
                limit.as_millis()
            ),
        )),
    }
}

/// The connection parameters. Clients write the header byte by byte, as Latin-1.
pub(crate) fn params(headers: &HeaderMap) -> Result<Option<Vec<u8>>, HttpError> {
    let Some(value) = headers.get(PARAMS).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text: Cow<'_, str> = match value.to_str() {
        Ok(ascii) => ascii.into(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    };
    from_json::convert(text.as_bytes()).map(Some).map_err(|e| {
        HttpError::new(
            "params",
            "invalid",
            format!("x-rivet-conn-params is no JSON: {e}"),
        )
    })
}

/// Whether this client undoes markers in CBOR: generation 2.3 does, those before do not, others are not known to.
pub(crate) fn is_modern(headers: &HeaderMap) -> bool {
    let version = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .and_then(|agent| agent.strip_prefix("RivetKit/"));
    let mut numbers = version.unwrap_or_default().split(['.', '-', ' ']);
    let mut next = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    (next(), next()) >= (Some(2), Some(3))
}

/// The W3C trace context: `00-TRACE-PARENT-FLAGS`.
pub(crate) fn trace(headers: &HeaderMap) -> [u8; 25] {
    let read = || {
        let text = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        parts.next().filter(|version| version.len() == 2)?;
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if (trace.len(), span.len(), flags.len()) != (32, 16, 2) {
            return None;
        }
        let hex = |text: &str| {
            // Small letters only: what goes on is what came.
            let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            u128::from_str_radix(text, 16).ok().filter(|_| plain)
        };
        let mut out = [0; 25];
        out[..16].copy_from_slice(&hex(trace)?.to_be_bytes());
        out[16..24].copy_from_slice(&hex(span)?.to_be_bytes()[8..]);
        out[24] = hex(flags)?.to_be_bytes()[15];
        Some(out)
    };
    read().unwrap_or([0; 25])
}

/// The arguments as the actor decodes them, and the version of a BARE request.
fn decode(encoding: Encoding, body: &Bytes) -> Result<(u16, Vec<u8>), HttpError> {
    let cbor_error = |e: CborError| HttpError::malformed(format!("arguments: {e}"));
    match encoding {
        Encoding::Json => {
            let args = from_json::convert_member(body, "args")
                .map_err(|e| HttpError::malformed(format!("the body is not {{\"args\":[…]}}: {e}")))?
                .unwrap_or_default();
            Ok((0, unwrapped(args).map_err(cbor_error)?))
        }
        Encoding::Cbor => {
            let field = cbor::field(body, "args")
                .map_err(|e| HttpError::malformed(format!("the body is no CBOR map with args: {e}")))?;
            let args = field.map_or(&[][..], |range| &body[range]);
            if args.is_empty() {
                return Ok((0, arguments(Cow::Borrowed(args)).into_owned()));
            }
            let args = inbound(args, false).map_err(cbor_error)?;
            Ok((0, arguments(args).into_owned()))
        }
        Encoding::Bare => {
            let (version, args) =
                bare::action_request(body).map_err(|e| HttpError::malformed(e.to_string()))?;
            let args = inbound(args, version >= bare::VERSION_MARKERS_READ).map_err(cbor_error)?;
            Ok((version, arguments(args).into_owned()))
        }
    }
}

/// Undoes markers in arguments that came as JSON; without any the bytes are not copied.
fn unwrapped(args: Vec<u8>) -> Result<Vec<u8>, CborError> {
    if args.is_empty() {
        return Ok(arguments(Cow::Owned(args)).into_owned());
    }
    let changed = match inbound(&args, true)? {
        Cow::Owned(changed) => Some(changed),
        Cow::Borrowed(_) => None,
    };
    Ok(arguments(Cow::Owned(changed.unwrap_or(args))).into_owned())
}

/// The answer in the encoding of the request.
fn encode(encoding: Encoding, version: u16, modern: bool, reply: &CallReply) -> Result<Response, HttpError> {
    // An answer without the member fails the client's validation.
    let output = if reply.output.is_empty() {
        &[UNDEFINED]
    } else {
        &reply.output[..]
    };
    if output.len() > limits::REPLY_MAX {
        return Err(HttpError::new(
            group::MESSAGE,
            code::OUTGOING_TOO_LONG,
            format!(
                "the reply has {} bytes, at most {} are allowed",
                output.len(),
                limits::REPLY_MAX
            ),
        ));
    }
    let mut response = match encoding {
        Encoding::Json => {
            let mut out = Vec::with_capacity(output.len() + 16);
            out.extend_from_slice(b"{\"output\":");
            cbor::json::write(output, &mut out).map_err(broken_output)?;
            out.push(b'}');
            respond(JSON, out)
        }
        Encoding::Cbor => {
            let output = outbound(output, modern).map_err(broken_output)?;
            let mut out = Vec::with_capacity(output.len() + 8);
            cbor::head(&mut out, cbor::MAP, 1);
            cbor::text(&mut out, "output");
            out.extend_from_slice(&output);
            respond(BINARY, out)
        }
        Encoding::Bare => {
            let escape = version >= bare::VERSION_MARKERS_WRITTEN;
            let output = outbound(output, escape).map_err(broken_output)?;
            respond(BINARY, bare::action_response(version, &output))
        }
    };
    response.headers_mut().insert(TURN, turn(&reply.meta));
    Ok(response)
}

/// Our own side wrote it, so this is a bug of ours; the client learns no more than that.
pub(crate) fn broken_output(error: CborError) -> HttpError {
    tracing::error!(%error, "the output of an action does not decode");
    HttpError::internal()
}

fn turn(meta: &CallMeta) -> HeaderValue {
    let text = format!(
        "actor={};shard={};epoch={};version={};created={}",
        meta.actor, meta.shard, meta.epoch, meta.version, meta.created
    );
    HeaderValue::try_from(text).expect("ids and numbers are ASCII")
}

/// `/health` and `/metadata` of an actor: answered when there is such an actor.
async fn about(gateway: &Gateway, request: &Parts, address: Address) -> Result<Response, HttpError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(HttpError::method(group::ACTOR, "GET, HEAD"));
    }
    let (target, token) = admit(gateway, &request.headers, address.who, address.token)?;
    call(
        gateway,
        GatewayCall::resolve(target, token, gateway.config.call_timeout()),
    )
    .await?;
    if address.path == "/health" {
        return Ok(respond("text/plain; charset=utf-8", "ok"));
    }
    Ok(plain::json_of(&json!({
        "runtime": plain::RUNTIME, "version": plain::VERSION, "type": "actor",
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn only_generation_2_3_undoes_markers() {
        for (agent, modern) in [
            ("RivetKit/2.3.19", true),
            ("RivetKit/2.3.0-rc.5", true),
            ("RivetKit/2.10.0", true),
            ("RivetKit/3.0.0", true),
            ("RivetKit/2.0.33", false),
            ("RivetKit/2.2.1", false),
            ("RivetKit/", false),
            ("node", false),
        ] {
            assert_eq!(
                is_modern(&headers(USER_AGENT, agent.as_bytes())),
                modern,
                "{agent}"
            );
        }
        assert!(!is_modern(&HeaderMap::new()));
    }

    #[test]
    fn connection_parameters_are_latin_1() {
        let params = params(&headers(PARAMS, b"{\"u\":\"zo\xeb\"}")).unwrap().unwrap();
        assert_eq!(params, [&[0xa1, 0x61, b'u', 0x64][..], "zoë".as_bytes()].concat());
    }

    #[test]
    fn a_trace_context_is_read_or_ignored() {
        let good = trace(&headers(
            TRACEPARENT,
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ));
        assert_eq!(
            (good[0], good[15], good[16], good[23], good[24]),
            (0x0a, 0x9c, 0xb7, 0x31, 1)
        );
        for bad in [
            &b"x"[..],
            b"00-0af7-b7-01",
            b"",
            b"00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(trace(&headers(TRACEPARENT, bad)), [0; 25]);
        }
    }

    #[test]
    fn arguments_of_every_encoding_are_one_array() {
        let of = |encoding, body: &'static [u8]| decode(encoding, &Bytes::from_static(body)).unwrap();
        assert_eq!(of(Encoding::Json, b"{\"args\":[1]}"), (0, vec![0x81, 1]));
        assert_eq!(of(Encoding::Json, b"{}"), (0, vec![0x80]));
        assert_eq!(of(Encoding::Json, b"{\"args\":null}"), (0, vec![0x80]));
        assert_eq!(
            of(Encoding::Json, b"{\"args\":[[\"$Undefined\",0]]}"),
            (0, vec![0x81, 0xf7])
        );
        assert_eq!(
            of(Encoding::Cbor, b"\xb9\0\x01\x64args\x81\x05"),
            (0, vec![0x81, 5])
        );
        assert_eq!(of(Encoding::Cbor, b"\xa0"), (0, vec![0x80]));
        assert_eq!(of(Encoding::Cbor, b"\xa1\x64args\xf6"), (0, vec![0x80]));
        // Raw CBOR is never unwrapped, and in BARE only from version 3 on.
        let marker = b"\xa1\x64args\x81\x82\x64$Set\x80";
        assert_eq!(of(Encoding::Cbor, marker).1, marker[6..]);
        assert_eq!(
            of(Encoding::Bare, b"\x02\0\x08\x81\x82\x64$Set\x80"),
            (2, marker[6..].to_vec())
        );
        assert_eq!(
            of(Encoding::Bare, b"\x03\0\x08\x81\x82\x64$Set\x80").1,
            [0x81, 0xd9, 1, 2, 0x80]
        );
    }
}
