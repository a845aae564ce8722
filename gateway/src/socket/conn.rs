//! Actor connections: subscriptions, actions and events over one socket.
//!
//! Invariant: frames of a client begin in the order they came, a subscription before anything behind it. Events go out in
//! the order of the actor's history, each before the answer of the action that caused it.

use std::sync::Arc;

use clinch_types::{
    ActorError, CallError, CallOp, CallReply, ConnItem, ConnKind, ConnReply, code, codec, group, limits,
};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::line::{Answer, Line, Opening};
use super::{
    DRAINING, Ending, Pace, Socket, SocketTasks, WRITE_MAX, Wanted, close, ending_of, is_passing, open,
    pause, send, target_of, visible,
};
use crate::action::is_modern;
use crate::address::Who;
use crate::error::HttpError;
use crate::frames::{Dialect, Encoding, Incoming, Outgoing};
use crate::service::Gateway;

/// Largest frame of a client, in bytes: the limit of the reference servers, which clients know.
const FRAME_MAX: usize = 64 << 10;
/// Largest frame that is read at all: what is over the limit of a frame is refused with a reason.
const READ_MAX: usize = 256 << 10;
/// Actions of one connection that run at a time; further frames wait in the socket.
const ACTIONS_MAX: usize = 128;

/// Serves one connection to its end.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    upgrade: OnUpgrade,
    headers: &HeaderMap,
    wanted: Wanted,
    tasks: &SocketTasks,
) {
    let Some(mut socket) = open(upgrade, READ_MAX).await else {
        return;
    };
    let encoding = match wanted.offer.encoding.as_deref() {
        None | Some("json") => Encoding::Json,
        Some("cbor") => Encoding::Cbor,
        Some("bare") => Encoding::Bare,
        Some(_) => {
            let ending = Ending::new(1003, "actor.unsupported_websocket_encoding");
            return close(socket, ending).await;
        }
    };
    let modern = matches!(wanted.address.who, Who::Key { .. }) || is_modern(headers);
    let dialect = Dialect::new(encoding, modern);
    let line = match enter(gateway, headers, wanted).await {
        Ok(line) => line,
        Err(error) => {
            if is_passing(&error) {
                tracing::info!(%error, "a connection could not be opened");
                return close(socket, Ending::unavailable()).await;
            }
            let error = error.into_actor_error();
            pause(&tasks.stop).await;
            let frame = Outgoing::Error {
                error: &error,
                action: None,
            };
            if let Some(frame) = message(&dialect, frame) {
                send(&mut socket, frame).await;
            }
            return close(socket, Ending::of(&error)).await;
        }
    };
    let (actor, conn) = (line.actor.to_string(), line.conn.to_string());
    let init = Outgoing::Init {
        actor: &actor,
        conn: &conn,
    };
    let begun = match message(&dialect, init) {
        Some(init) => send(&mut socket, init).await,
        None => false,
    };
    let mut session = Session {
        poll: line.poll(),
        line,
        dialect,
        actions: FuturesUnordered::new(),
        subscribing: None,
        held: Vec::new(),
    };
    let ending = match begun {
        true => session.run(&mut socket, tasks).await,
        false => None,
    };
    match ending {
        Some(ending) => tokio::join!(close(socket, ending), session.line.leave()).0,
        None => {
            drop(socket);
            session.line.leave().await;
        }
    }
}

/// Asks the actor to let the client in.
async fn enter(gateway: &Arc<Gateway>, headers: &HeaderMap, wanted: Wanted) -> Result<Line, CallError> {
    let refused = |error: HttpError| CallError::Failed(error.error().clone());
    let asking = wanted.asking;
    let (target, token) = target_of(gateway, headers, wanted.address).map_err(refused)?;
    let opening = Opening {
        target,
        token,
        kind: ConnKind::Events,
        path: String::new(),
        params: wanted.params,
        headers: visible(headers),
    };
    let line = Line::open(gateway, opening).await?;
    if let Some(asking) = asking {
        asking.was_for(line.actor);
    }
    Ok(line)
}

/// A frame as a message of its encoding. A value of ours that is no CBOR is our bug, and is left out.
fn message(dialect: &Dialect, frame: Outgoing<'_>) -> Option<Message> {
    match dialect.write(frame) {
        Ok(bytes) => Some(match dialect.encoding {
            // Made of texts and of JSON that was made of them.
            Encoding::Json => Message::text(String::from_utf8_lossy(&bytes).into_owned()),
            Encoding::Cbor | Encoding::Bare => Message::binary(bytes),
        }),
        Err(error) => {
            tracing::error!(%error, "a frame cannot be written");
            None
        }
    }
}

type Called = (u64, Result<CallReply, CallError>);

struct Session {
    line: Line,
    dialect: Dialect,
    /// The question for items that is on its way.
    poll: BoxFuture<'static, Answer>,
    actions: FuturesUnordered<BoxFuture<'static, Called>>,
    /// A subscription on its way: what comes behind it waits.
    subscribing: Option<BoxFuture<'static, Result<CallReply, CallError>>>,
    /// Answers that wait for the events before them.
    held: Vec<(u64, Message)>,
}

impl Session {
    /// Runs until one side ends it; the ending, if the client can still hear one.
    async fn run(&mut self, socket: &mut Socket, tasks: &SocketTasks) -> Option<Ending> {
        let mut pace = Pace::of(tasks, self.line.actor);
        let mut heard = Instant::now();
        let mut ping = tasks.pings();
        loop {
            let listens = pace.is_open() && self.subscribing.is_none() && self.actions.len() < ACTIONS_MAX;
            let step = tokio::select! {
                biased;
                () = tasks.stop.cancelled() => return Some(Ending::new(1001, DRAINING)),
                () = pace.wait() => Step::On,
                answer = &mut self.poll => self.items(socket, answer).await,
                Some((id, result)) = self.actions.next(), if !self.actions.is_empty() => {
                    self.answer(socket, id, result).await
                }
                result = maybe(&mut self.subscribing) => {
                    self.subscribing = None;
                    self.subscribed(socket, result).await
                }
                read = socket.next(), if listens => {
                    heard = Instant::now();
                    pace.count();
                    match read {
                        Some(Ok(read)) => self.frame(read),
                        Some(Err(error)) => return ending_of(&error),
                        None => return None,
                    }
                }
                _ = ping.tick() => {
                    if listens && heard.elapsed() > tasks.silence {
                        tracing::debug!(conn = %self.line.conn, "no pong: the client is gone");
                        return None;
                    }
                    match send(socket, Message::Ping(Default::default())).await {
                        true => Step::On,
                        false => Step::Gone,
                    }
                }
            };
            match step {
                Step::On => {}
                Step::Gone => return None,
                Step::End(ending) => return Some(ending),
            }
        }
    }

    /// A frame of the client.
    fn frame(&mut self, read: Message) -> Step {
        let bytes = match &read {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes.as_ref(),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Step::On,
            // Answered by the library with the next read, which ends the loop.
            Message::Close(_) => return Step::On,
        };
        if bytes.len() > FRAME_MAX {
            let (len, conn) = (bytes.len(), self.line.conn);
            tracing::info!(%conn, len, limit = FRAME_MAX, "a frame is over its limit");
            return Step::End(Ending::new(1011, "message.incoming_too_long"));
        }
        match self.dialect.read(bytes) {
            Ok(Incoming::Action { id, name, args }) => {
                if name.len() > limits::ACTION_NAME_MAX {
                    let error = ActorError::too_long("action name", name.len(), limits::ACTION_NAME_MAX);
                    let refused = async move { (id, Err(CallError::Failed(error))) };
                    self.actions.push(refused.boxed());
                    return Step::On;
                }
                let call = self.line.act(name, args);
                self.actions.push(async move { (id, call.await) }.boxed());
            }
            Ok(Incoming::Subscribe { event, on }) => {
                let conn = self.line.conn;
                self.subscribing = Some(self.line.ask_op(CallOp::Subscribe { conn, event, on }));
            }
            Err(error) => {
                tracing::info!(conn = %self.line.conn, %error, "a frame cannot be read");
                return Step::End(Ending::of(&ActorError::new(
                    group::ACTOR,
                    code::INVALID_REQUEST,
                    error.to_string(),
                )));
            }
        }
        Step::On
    }

    /// What the actor has for the client.
    async fn items(&mut self, socket: &mut Socket, answer: Answer) -> Step {
        let polled = match answer {
            Ok(polled) => polled,
            Err(error) if is_passing(&error) => return Step::End(Ending::unavailable()),
            // It ended without a reason that could still be told.
            Err(error) => {
                tracing::info!(conn = %self.line.conn, %error, "a connection has ended");
                return Step::End(Ending::new(1012, "connection ended"));
            }
        };
        let mut frames = Vec::new();
        let mut end = None;
        for item in self.line.take(polled) {
            match item {
                ConnItem::Event { name, args } => {
                    let event = Outgoing::Event {
                        name: &name,
                        args: &args,
                    };
                    frames.extend(message(&self.dialect, event));
                }
                ConnItem::Message { .. } => {}
                ConnItem::Close { code, reason } => end = Some(Ending::new(code, reason)),
            }
        }
        let seen = self.line.seen;
        frames.extend(
            self.held
                .extract_if(.., |(after, _)| *after <= seen)
                .map(|(_, frame)| frame),
        );
        self.poll = self.line.poll();
        if !send_all(socket, frames).await {
            return Step::Gone;
        }
        end.map_or(Step::On, Step::End)
    }

    /// An action has ended.
    async fn answer(&mut self, socket: &mut Socket, id: u64, result: Result<CallReply, CallError>) -> Step {
        let reply = result.and_then(|reply| {
            codec::decode::<ConnReply>(&reply.output).map_err(|error| {
                tracing::error!(%error, "the answer of an action cannot be read");
                CallError::Failed(ActorError::internal("unreadable answer"))
            })
        });
        let (after, frame) = match &reply {
            Ok(reply) => {
                let response = Outgoing::Response {
                    id,
                    output: &reply.output,
                };
                (reply.after, message(&self.dialect, response))
            }
            Err(error) => {
                let error = error.clone().into_actor_error();
                let failed = Outgoing::Error {
                    error: &error,
                    action: Some(id),
                };
                (0, message(&self.dialect, failed))
            }
        };
        let Some(frame) = frame else { return Step::On };
        if after > self.line.seen {
            self.held.push((after, frame));
            return Step::On;
        }
        match send(socket, frame).await {
            true => Step::On,
            false => Step::Gone,
        }
    }

    /// A subscription is in effect, or refused: the protocol has no answer to it, so a refusal concerns the connection.
    async fn subscribed(&mut self, socket: &mut Socket, result: Result<CallReply, CallError>) -> Step {
        let error = match result {
            Ok(_) => return Step::On,
            Err(error) if is_passing(&error) => return Step::End(Ending::unavailable()),
            Err(error) => error.into_actor_error(),
        };
        let refused = Outgoing::Error {
            error: &error,
            action: None,
        };
        let Some(frame) = message(&self.dialect, refused) else {
            return Step::On;
        };
        match send(socket, frame).await {
            true => Step::On,
            false => Step::Gone,
        }
    }
}

/// What comes next.
enum Step {
    On,
    /// Nobody listens any more.
    Gone,
    End(Ending),
}

/// Waits for a future that may not be there: then for ever.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Sends frames with one flush; `false` when nobody takes them.
async fn send_all(socket: &mut Socket, frames: Vec<Message>) -> bool {
    let write = async {
        for frame in frames {
            socket.feed(frame).await?;
        }
        socket.flush().await
    };
    matches!(tokio::time::timeout(WRITE_MAX, write).await, Ok(Ok(())))
}
