//! Connections as their actor sees them: who is there, what it knows of each, and what it tells them.
//!
//! Invariant: as everything a turn asks for, what it tells a connection leaves when the turn has committed, and a change
//! of a connection's state commits with it. A turn sees its own changes at once.
//! Not here: sockets and protocols (gateway), delivery and what survives a change of owner (node).

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use clinch_types::{ConnId, ConnKind, Door, group, limits};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::turn::Effect;
use crate::{Actor, Audience, Body, ConnOp, EmittedBy, Error, EventOut, Turn, cbor};

/// Longest reason of a close, in bytes: what fits a WebSocket close frame.
pub const CLOSE_REASON_MAX: usize = 123;

/// What is known of a connection; replaced whole when its state changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnSeat {
    /// Its name.
    pub id: ConnId,
    /// What travels over it.
    pub kind: ConnKind,
    /// Path and query that were asked for, of a raw one.
    pub path: String,
    /// CBOR of its parameters.
    pub params: Option<Bytes>,
    /// CBOR of its state.
    pub state: Bytes,
}

/// Who came in with a turn: set by the node where the turn begins.
#[derive(Debug)]
pub struct Visit {
    door: Door,
    seat: Mutex<Option<Arc<ConnSeat>>>,
    /// The body of the answer to a raw request, if it is streamed.
    answer: Mutex<Option<Body>>,
}

impl Visit {
    /// A call that came through `door`, over the connection of `seat` if there is one.
    pub fn new(door: Door, seat: Option<Arc<ConnSeat>>) -> Self {
        Self {
            door,
            seat: Mutex::new(seat),
            answer: Mutex::new(None),
        }
    }

    /// The answer to a raw request has a body that is streamed.
    pub(crate) fn set_answer(&self, body: Body) {
        *self.answer.lock() = Some(body);
    }

    /// Takes the body that the answer announces, once.
    pub fn take_answer(&self) -> Option<Body> {
        self.answer.lock().take()
    }

    /// The connection has its state now.
    pub(crate) fn set_seat(&self, seat: Arc<ConnSeat>) {
        *self.seat.lock() = Some(seat);
    }

    /// The connection, once there is one.
    pub fn seat(&self) -> Option<Arc<ConnSeat>> {
        self.seat.lock().clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .door
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.door.headers
    }
}

/// A message of a raw WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

/// Which conn hooks an actor type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnHooks {
    /// `before_connect`, `conn_state`, `on_connect` or `on_disconnect`: a call without a socket runs them, too.
    pub any: bool,
    /// `on_disconnect`.
    pub disconnect: bool,
    /// `on_websocket` or `on_message`.
    pub websocket: bool,
    /// `on_request`.
    pub request: bool,
    /// `can_subscribe`.
    pub can_subscribe: bool,
    /// `can_publish`.
    pub can_publish: bool,
}

/// What a client wants to be let do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access<'a> {
    /// Receive events of this name.
    Subscribe(&'a str),
    /// Add to the queue of this name.
    Publish(&'a str),
}

/// One connection of an actor of type `A`, as of the turn it was got from.
pub struct Conn<A> {
    seat: Arc<ConnSeat>,
    turn: Arc<Turn>,
    actor: PhantomData<fn() -> A>,
}

impl<A> Clone for Conn<A> {
    fn clone(&self) -> Self {
        Self {
            seat: self.seat.clone(),
            turn: self.turn.clone(),
            actor: PhantomData,
        }
    }
}

impl<A: Actor> Conn<A> {
    pub(crate) fn new(seat: Arc<ConnSeat>, turn: Arc<Turn>) -> Self {
        Self {
            seat,
            turn,
            actor: PhantomData,
        }
    }

    /// Its name: another one after each reconnect.
    pub fn id(&self) -> ConnId {
        self.seat.id
    }

    /// What travels over it.
    pub fn kind(&self) -> ConnKind {
        self.seat.kind
    }

    /// Path and query that were asked for, of a raw WebSocket: `/websocket/..`.
    pub fn path(&self) -> &str {
        &self.seat.path
    }

    /// The parameters it was opened with. Without any, `P` is read from nothing: an `Option` is `None`.
    ///
    /// # Errors
    /// `actor.invalid_request` when they are missing or do not fit.
    pub fn params<P: DeserializeOwned>(&self) -> Result<P, Error> {
        crate::args::optional("the connection parameters", self.seat.params.as_deref())
    }

    /// Its state: what `conn_state` made and turns changed since. It lives as long as the connection, whatever happens to
    /// the actor or its node.
    ///
    /// # Errors
    /// An internal error when the state was written by code whose type had another shape.
    pub fn state(&self) -> Result<A::ConnState, Error> {
        let own = self.turn.peek(|effects| {
            let mut changes = effects.conns.iter().rev();
            changes.find_map(|op| match op {
                ConnOp::State { conn, state } if *conn == self.seat.id => Some(state.clone()),
                _ => None,
            })
        });
        let bytes = own.unwrap_or_else(|| self.seat.state.clone());
        cbor::from_slice_strict(&bytes)
            .map_err(|error| Error::internal(format!("the state of connection {}: {error}", self.seat.id)))
    }

    /// Replaces its state.
    ///
    /// # Errors
    /// When the value refuses to be serialized, is over 64 KiB, or the turn's effects are over their limit.
    pub fn set_state(&self, state: &A::ConnState) -> Result<(), Error> {
        let state = encode_state(state)?.into();
        let conn = self.seat.id;
        self.turn.record(Effect::Conn(ConnOp::State { conn, state }))
    }

    /// Changes its state and returns what `change` returns.
    ///
    /// # Errors
    /// As [`Conn::state`] and [`Conn::set_state`].
    pub fn update<R>(&self, change: impl FnOnce(&mut A::ConnState) -> R) -> Result<R, Error> {
        let mut state = self.state()?;
        let value = change(&mut state);
        self.set_state(&state)?;
        Ok(value)
    }

    /// Tells this connection alone, whether it listens to the event or not.
    ///
    /// An event that cannot be encoded, or is over the limit, fails the turn.
    pub fn send<E: EmittedBy<A>>(&self, event: E) {
        let event = event_out(&event, Audience::One(self.seat.id));
        self.turn.record_or_fail(event.map(Effect::Event));
    }

    /// Sends text over a raw WebSocket. Over [`limits::RAW_MESSAGE_MAX`] it fails the turn.
    pub fn send_text(&self, text: impl Into<String>) {
        self.message(true, text.into().into());
    }

    /// Sends bytes over a raw WebSocket. Over [`limits::RAW_MESSAGE_MAX`] they fail the turn.
    pub fn send_binary(&self, bytes: impl Into<Bytes>) {
        self.message(false, bytes.into());
    }

    /// Ends the connection when the turn has committed, with code 1000 and this reason for the client (cut to 123 bytes).
    /// `on_disconnect` follows. Clients of the protocol connect again at once; to keep one out, refuse it in
    /// `before_connect`.
    pub fn disconnect(&self, reason: impl Into<String>) {
        self.close(1000, reason);
    }

    /// As [`Conn::disconnect`], with a WebSocket close code of one's own, 1000 or 3000 to 4999; others are sent as 1000.
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        let code = match code {
            3000..=4999 => code,
            _ => 1000,
        };
        let mut reason: String = reason.into();
        reason.truncate(reason.floor_char_boundary(CLOSE_REASON_MAX));
        let conn = self.seat.id;
        self.turn
            .record_or_fail(Ok(Effect::Conn(ConnOp::Close { conn, code, reason })));
    }

    fn message(&self, text: bool, data: Bytes) {
        let (conn, len, max) = (self.seat.id, data.len(), limits::RAW_MESSAGE_MAX);
        let checked = match len > max {
            true => {
                let message = format!("a message of {len} bytes, at most {max} are allowed");
                Err(Error::new(
                    group::MESSAGE,
                    clinch_types::code::OUTGOING_TOO_LONG,
                    message,
                ))
            }
            false => Ok(Effect::Conn(ConnOp::Message { conn, text, data })),
        };
        self.turn.record_or_fail(checked);
    }
}

/// The bytes of a connection's state.
pub(crate) fn encode_state<S: Serialize>(state: &S) -> Result<Vec<u8>, Error> {
    let bytes = cbor::to_vec(state)?;
    match bytes.len() {
        len if len <= limits::CONN_STATE_MAX => Ok(bytes),
        len => Err(Error::new(
            group::ACTOR,
            clinch_types::code::STATE_TOO_LARGE,
            format!(
                "the state of a connection has {len} bytes, at most {} are allowed",
                limits::CONN_STATE_MAX
            ),
        )),
    }
}

/// An event on its way.
pub(crate) fn event_out<E: crate::Event>(event: &E, to: Audience) -> Result<EventOut, Error> {
    Ok(EventOut {
        name: E::NAME.to_owned(),
        args: event.encode_args()?.into(),
        to,
    })
}
