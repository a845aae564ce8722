//! WebSockets: the upgrade, and how one ends.
//!
//! Invariant: an upgrade is always completed, for clients see nothing of a refused one; what is wrong is said in a close
//! frame with a reason they understand. A socket is open only while its other end answers pings.
//! Not here: what travels over one (`conn` for actor connections, `raw` for the actor's own messages).

mod conn;
mod line;
mod raw;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use clinch_types::{ActorError, ActorId, CallError, code, group};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{self, Address, Who, actor_id, shown};
use crate::cbor::from_json;
use crate::config::GatewayConfig;
use crate::error::HttpError;
use crate::patience::WRITE_MAX;
use crate::service::Gateway;
use crate::shares::Asking;
use crate::visitors::{Refused, Visitor};
use crate::{action, percent};

/// How long the client of an accepted upgrade may take to begin.
const UPGRADE_MAX: Duration = Duration::from_secs(10);
/// How long the other end may take to answer a close.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long a refusal waits: framework bindings start over at once, without any pause of their own.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// How long the actor may take to let a client in, all retries included.
const OPEN_MAX: Duration = Duration::from_secs(20);
/// Longest reason of a close frame, in bytes.
const REASON_MAX: usize = 123;
/// What a socket reads into: held for as long as it is open, and there may be ten thousand.
const READ_BUFFER: usize = 8 << 10;
/// Bytes of frames that may wait in memory to be written.
const WRITE_BUFFER_MAX: usize = 2 << 20;

/// The sub-protocol that both generations offer, and that is answered when it is.
const PROTOCOL: &str = "rivet";
/// What the reason of a close says when no error does.
const DRAINING: &str = "draining";

/// What sockets run on: put into each request by the server, because a socket outlives its request.
#[derive(Clone)]
pub(crate) struct SocketTasks {
    pub(crate) stop: CancellationToken,
    tracker: TaskTracker,
    /// The connection it came on; kept as long as the socket is open.
    pub(crate) visitor: Visitor,
    /// How often a socket is pinged.
    ping: Duration,
    /// Silence after which a socket counts as lost.
    silence: Duration,
}

impl SocketTasks {
    /// For sockets with the times of these settings.
    pub(crate) fn new(
        config: &GatewayConfig,
        stop: CancellationToken,
        tracker: TaskTracker,
        visitor: Visitor,
    ) -> Self {
        Self {
            stop,
            tracker,
            visitor,
            ping: config.socket_ping(),
            silence: config.socket_silence(),
        }
    }

    /// When to ping next.
    fn pings(&self) -> tokio::time::Interval {
        let mut ping = tokio::time::interval(self.ping);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ping.reset();
        ping
    }

    /// Whether what a request begins may last longer than the request: a socket, or an answer that is streamed.
    pub(crate) fn are_needed_by<B>(request: &http::Request<B>) -> bool {
        request.headers().contains_key(UPGRADE) || request.uri().path().contains("/request")
    }
}

/// When the next frame of a socket is read: what is beyond a rate waits where it is, with the client.
struct Pace {
    visitor: Visitor,
    actor: ActorId,
    due: Due,
    until: Option<Instant>,
}

/// The rates that the last frame has still to be taken from.
#[derive(PartialEq, Eq)]
enum Due {
    Nothing,
    OfActor,
    All,
}

impl Pace {
    fn of(tasks: &SocketTasks, actor: ActorId) -> Self {
        Self {
            visitor: tasks.visitor.clone(),
            actor,
            due: Due::Nothing,
            until: None,
        }
    }

    /// Counts a frame.
    fn count(&mut self) {
        if self.visitor.is_limited() {
            self.due = Due::All;
            self.pay();
        }
    }

    /// Takes the last frame from each rate; at one that is used up this goes on later.
    fn pay(&mut self) {
        let refused = match self.due {
            Due::All => self.visitor.take().inspect(|()| self.due = Due::OfActor),
            Due::OfActor | Due::Nothing => Ok(()),
        };
        let refused = refused.and_then(|()| match self.due {
            Due::OfActor => self.visitor.frame(self.actor),
            Due::All | Due::Nothing => Ok(()),
        });
        match refused {
            Ok(()) => self.due = Due::Nothing,
            Err(refused) => self.until = Some(Instant::now() + refused.after.unwrap_or_default()),
        }
    }

    /// Whether frames are read.
    fn is_open(&self) -> bool {
        self.until.is_none()
    }

    /// Ends when a wait is over; never when there is none.
    async fn wait(&mut self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        self.until = None;
        self.pay();
    }
}

/// A socket after its upgrade.
type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How a socket is to end: a close code and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    code: u16,
    reason: String,
}

impl Ending {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        Self { code, reason }
    }

    /// The reason is the error's group and code, which clients make an error of again.
    fn of(error: &ActorError) -> Self {
        Self::new(1011, format!("{}.{}", error.group, error.code))
    }

    /// The cluster cannot serve now: the one reason that every client comes back after.
    fn unavailable() -> Self {
        Self::new(1011, format!("{}.{}", group::GUARD, code::SERVICE_UNAVAILABLE))
    }

    /// As [`Self::unavailable`], and says which limit that is: behind a `#`, where clients look for no code.
    fn too_many(setting: &str, limit: usize) -> Self {
        let Self { code, reason } = Self::unavailable();
        Self::new(code, format!("{reason}#{setting}={limit}"))
    }

    /// Its address asks too much of the actor. Not `guard.rate_limit`: after that some clients never come back.
    fn beyond(refused: &Refused) -> Self {
        Self::too_many(
            refused.setting,
            usize::try_from(refused.limit).unwrap_or(usize::MAX),
        )
    }
}

/// What is said in the sub-protocols of an upgrade.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    /// `rivet` is among them.
    rivet: bool,
    encoding: Option<String>,
    params: Option<String>,
    target: Option<String>,
    actor: Option<String>,
    token: Option<String>,
}

impl Offer {
    fn read(headers: &HeaderMap) -> Self {
        let mut offer = Self::default();
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            for token in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                let Some((name, value)) = token.split_once('.') else {
                    offer.rivet |= token == PROTOCOL;
                    continue;
                };
                let place = match name {
                    "rivet_encoding" => &mut offer.encoding,
                    "rivet_conn_params" => &mut offer.params,
                    "rivet_target" => &mut offer.target,
                    "rivet_actor" => &mut offer.actor,
                    "rivet_token" => &mut offer.token,
                    _ => continue,
                };
                place.get_or_insert_with(|| value.to_owned());
            }
        }
        offer
    }

    /// The connection parameters as CBOR.
    fn params(&self) -> Result<Option<Vec<u8>>, HttpError> {
        let Some(text) = &self.params else { return Ok(None) };
        let invalid = |e: &dyn std::fmt::Display| {
            HttpError::new(
                "params",
                "invalid",
                format!("the connection parameters are no JSON: {e}"),
            )
        };
        let json: Cow<'_, str> = percent::path(text).map_err(|e| invalid(&e))?;
        from_json::convert(json.as_bytes())
            .map(Some)
            .map_err(|e| invalid(&e))
    }

    fn address(&self, uri: &http::Uri, headers: &HeaderMap) -> Result<Option<Address>, HttpError> {
        if let Some(address) = address::parse(uri, headers)? {
            let token = address.token.or_else(|| self.token.clone());
            return Ok(Some(Address { token, ..address }));
        }
        if self.target.as_deref() != Some("actor") {
            return Ok(None);
        }
        let missing = || HttpError::guard("missing_header", "Missing rivet_actor sub-protocol.");
        let id = self
            .actor
            .as_deref()
            .filter(|id| !id.is_empty())
            .ok_or_else(missing)?;
        Ok(Some(Address {
            who: Who::Id(actor_id(id)?),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            token: self.token.clone(),
        }))
    }
}

/// How sub-protocols are read, for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_offer(headers: &HeaderMap) -> String {
    let offer = Offer::read(headers);
    let uri = http::Uri::from_static("/websocket/x?y=1");
    let params = offer.params().map(|params| params.is_some());
    let address = offer.address(&uri, headers).map(|address| address.is_some());
    let said = |result: Result<bool, HttpError>| match result {
        Ok(found) => found.to_string(),
        Err(error) => format!("{}.{}", error.error().group, error.error().code),
    };
    format!("{} {}", said(params), said(address))
}

/// Whether a request asks to become a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    let has = |name: HeaderName, wanted: &str| {
        let values = request.headers().get_all(name);
        values.iter().any(|value| {
            let text = value.to_str().unwrap_or_default();
            text.split(',')
                .any(|token| token.trim().eq_ignore_ascii_case(wanted))
        })
    };
    request.method() == Method::GET && has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// Accepts an upgrade; the socket lives on in a task of its own.
pub(crate) fn accept(gateway: &Arc<Gateway>, mut request: Request) -> Result<Response, HttpError> {
    let version = request.headers().get(SEC_WEBSOCKET_VERSION);
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let (Some(key), Some(b"13")) = (key, version.map(HeaderValue::as_bytes)) else {
        return Err(HttpError::bad_request(
            "a WebSocket of version 13 with a key is expected",
        ));
    };
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is ASCII");
    let Some(tasks) = request.extensions_mut().remove::<SocketTasks>() else {
        return Err(HttpError::not_implemented("a WebSocket inside of another server"));
    };
    let offer = Offer::read(request.headers());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    if offer.rivet {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let gateway = gateway.clone();
    tasks.tracker.clone().spawn(async move {
        let Ok(permit) = gateway.sockets.clone().try_acquire_owned() else {
            gateway.metrics.shed.increment(1);
            let limit = gateway.config.max_sockets;
            tracing::warn!(limit, "too many WebSockets are open on this node");
            if let Some(socket) = open(upgrade, 0).await {
                close(socket, Ending::too_many("max-sockets", limit)).await;
            }
            return;
        };
        gateway.metrics.sockets.increment(1.0);
        run(&gateway, upgrade, &parts, offer, &tasks).await;
        gateway.metrics.sockets.decrement(1.0);
        drop(permit);
    });
    Ok(response)
}

/// What a socket is for.
struct Wanted {
    address: Address,
    params: Option<Vec<u8>>,
    offer: Offer,
    /// Its place among what its address asks of the actor, until it is open.
    asking: Option<Asking>,
}

async fn run(
    gateway: &Arc<Gateway>,
    upgrade: OnUpgrade,
    request: &http::request::Parts,
    offer: Offer,
    tasks: &SocketTasks,
) {
    let address = offer.address(&request.uri, &request.headers);
    let inner = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
    let wanted = address.and_then(|address| {
        let address = address.ok_or_else(|| {
            HttpError::guard(
                "no_route",
                format!("{} leads to no actor", shown(request.uri.path())),
            )
        })?;
        let params = offer.params()?;
        Ok((
            inner(&address.path),
            Wanted {
                address,
                params,
                offer,
                asking: None,
            },
        ))
    });
    let outcome = match wanted {
        Ok((kind, mut wanted)) if kind == "connect" || kind == "websocket" => {
            match tasks.visitor.ask(&wanted.address.who) {
                Ok(asking) => wanted.asking = asking,
                Err(refused) => {
                    gateway.metrics.shed.increment(1);
                    if let Some(socket) = open(upgrade, 0).await {
                        close(socket, Ending::beyond(&refused)).await;
                    }
                    return;
                }
            }
            return match kind.as_str() {
                "connect" => conn::serve(gateway, upgrade, &request.headers, wanted, tasks).await,
                _ => raw::serve(gateway, upgrade, &request.headers, wanted, tasks).await,
            };
        }
        Ok((_, wanted)) => HttpError::new(
            group::ACTOR,
            code::NOT_FOUND,
            format!(
                "There is no WebSocket at {} in an actor.",
                shown(&wanted.address.path)
            ),
        ),
        Err(error) => error,
    };
    if let Some(socket) = open(upgrade, 0).await {
        refuse(socket, outcome.error(), &tasks.stop).await;
    }
}

/// The socket, once the client has taken the upgrade.
async fn open(upgrade: OnUpgrade, message_max: usize) -> Option<Socket> {
    let upgraded = match tokio::time::timeout(UPGRADE_MAX, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            tracing::debug!(%error, "an upgrade was given up");
            return None;
        }
        Err(_) => return None,
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(message_max))
        .max_frame_size(Some(message_max))
        .read_buffer_size(READ_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX);
    Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
}

/// Says no, after a pause.
async fn refuse(socket: Socket, error: &ActorError, stop: &CancellationToken) {
    pause(stop).await;
    close(socket, Ending::of(error)).await;
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(REFUSAL_PAUSE) => {}
        () = stop.cancelled() => {}
    }
}

/// Sends one message; `false` when nobody takes it.
async fn send(socket: &mut Socket, message: Message) -> bool {
    matches!(
        tokio::time::timeout(WRITE_MAX, socket.send(message)).await,
        Ok(Ok(()))
    )
}

/// Ends a socket, and waits for the other end to agree.
async fn close(mut socket: Socket, ending: Ending) {
    let Ending { code, reason } = ending;
    let frame = CloseFrame {
        code: CloseCode::from(code),
        reason: reason.into(),
    };
    let end = async {
        if socket.close(Some(frame)).await.is_ok() {
            // What still comes is dropped; the answer to the close ends this.
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // One that does not answer is cut.
    let _ended = tokio::time::timeout(CLOSE_MAX, end).await;
}

/// What a failed read means for the client.
fn ending_of(error: &SocketError) -> Option<Ending> {
    match error {
        SocketError::Capacity(_) => Some(Ending::new(1011, "message.incoming_too_long")),
        SocketError::Utf8(_) => Some(Ending::new(1007, "message.invalid_utf8")),
        SocketError::Protocol(_) => Some(Ending::new(1002, "protocol error")),
        _ => None,
    }
}

/// Whether an error is one of the cluster's passing troubles.
fn is_passing(error: &CallError) -> bool {
    !matches!(error, CallError::Failed(_) | CallError::Deadlock { .. })
}

/// The headers of a request that an actor may see.
pub(crate) fn visible(headers: &HeaderMap) -> Vec<(String, String)> {
    const HIDDEN: [&str; 12] = [
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "transfer-encoding",
        "content-length",
        "proxy-authorization",
        "proxy-connection",
        "x-rivet-token",
        "x-rivet-conn-params",
        "x-rivet-encoding",
    ];
    headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            !HIDDEN.contains(&name) && !name.starts_with("sec-websocket-")
        })
        .map(|(name, value)| {
            // Bytes beyond ASCII are Latin-1, as clients write them.
            let value = value.as_bytes().iter().copied().map(char::from).collect();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// Who may be asked for, as for any request.
fn target_of(
    gateway: &Gateway,
    headers: &HeaderMap,
    address: Address,
) -> Result<(clinch_types::Target, Option<String>), HttpError> {
    action::admit(gateway, headers, address.who, address.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(protocols: &str) -> Offer {
        let value = HeaderValue::from_str(protocols).unwrap();
        Offer::read(&HeaderMap::from_iter([(SEC_WEBSOCKET_PROTOCOL, value)]))
    }

    #[test]
    fn sub_protocols_are_read_and_unknown_ones_ignored() {
        let offer =
            offer("rivet,rivet_encoding.bare, rivet_conn_params.%7B%22a%22%3A1%7D,rivet_test_ack_hook.x,x");
        assert!(offer.rivet);
        assert_eq!(offer.encoding.as_deref(), Some("bare"));
        assert_eq!(offer.params().unwrap().unwrap(), [0xa1, 0x61, b'a', 1]);
        assert!(!super::tests::offer("other").rivet);
        assert!(super::tests::offer("rivet_conn_params.%7B").params().is_err());
    }

    #[test]
    fn an_actor_is_addressed_by_sub_protocols_when_the_path_does_not() {
        let id = "000703ff0123456789abcdef00112233";
        let uri: http::Uri = "/websocket/x?y=1".parse().unwrap();
        let by = |protocols: &str| offer(protocols).address(&uri, &HeaderMap::new());
        let found = by(&format!(
            "rivet,rivet_target.actor,rivet_actor.{id},rivet_token.t"
        ))
        .unwrap()
        .unwrap();
        assert_eq!(found.who, Who::Id(id.parse().unwrap()));
        assert_eq!(
            (found.path.as_str(), found.query.as_str()),
            ("/websocket/x", "y=1")
        );
        assert_eq!(found.token.as_deref(), Some("t"));
        assert!(
            by("rivet,rivet_target.actor")
                .unwrap_err()
                .is("guard", "missing_header")
        );
        assert_eq!(by("rivet").unwrap(), None);
    }

    #[test]
    fn reasons_are_cut_to_what_a_close_frame_holds() {
        let long = Ending::new(1000, "ü".repeat(100));
        assert_eq!(long.reason.len(), 122);
    }
}
