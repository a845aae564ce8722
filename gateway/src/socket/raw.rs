//! Raw WebSockets: messages as the client and the actor make them.
//!
//! Invariant: messages reach the actor one by one, in the order they came: the next begins when the one before it is
//! committed.

use std::sync::Arc;

use clinch_types::{CallError, CallOp, CallReply, ConnItem, ConnKind, limits};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::line::{Answer, Line, Opening};
use super::{
    DRAINING, Ending, Pace, Socket, SocketTasks, Wanted, close, ending_of, is_passing, open, refuse, send,
    target_of, visible,
};
use crate::service::Gateway;

/// Serves one socket to its end.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    upgrade: OnUpgrade,
    headers: &HeaderMap,
    wanted: Wanted,
    tasks: &SocketTasks,
) {
    let Some(mut socket) = open(upgrade, limits::RAW_MESSAGE_MAX).await else {
        return;
    };
    let Wanted {
        address,
        params,
        asking,
        ..
    } = wanted;
    let path = match address.query.as_str() {
        "" => address.path.clone(),
        query => format!("{}?{query}", address.path),
    };
    let opened = match target_of(gateway, headers, address) {
        Ok((target, token)) => {
            let opening = Opening {
                target,
                token,
                kind: ConnKind::Raw,
                path,
                params,
                headers: visible(headers),
            };
            Line::open(gateway, opening).await
        }
        Err(error) => Err(CallError::Failed(error.error().clone())),
    };
    if let (Some(asking), Ok(line)) = (asking, &opened) {
        asking.was_for(line.actor);
    }
    let mut line = match opened {
        Ok(line) => line,
        Err(error) if is_passing(&error) => return close(socket, Ending::unavailable()).await,
        Err(error) => return refuse(socket, &error.into_actor_error(), &tasks.stop).await,
    };
    match run(&mut socket, &mut line, tasks).await {
        Some(ending) => tokio::join!(close(socket, ending), line.leave()).0,
        None => {
            drop(socket);
            line.leave().await;
        }
    }
}

type Sent = BoxFuture<'static, Result<CallReply, CallError>>;

/// Runs until one side ends it; the ending, if the client can still hear one.
async fn run(socket: &mut Socket, line: &mut Line, tasks: &SocketTasks) -> Option<Ending> {
    let mut pace = Pace::of(tasks, line.actor);
    let mut heard = Instant::now();
    let mut ping = tasks.pings();
    let mut poll = line.poll();
    let mut sending: Option<Sent> = None;
    loop {
        tokio::select! {
            biased;
            () = tasks.stop.cancelled() => return Some(Ending::new(1001, DRAINING)),
            () = pace.wait() => {}
            answer = &mut poll => {
                match items(socket, line, answer).await {
                    Ok(()) => poll = line.poll(),
                    Err(ending) => return ending,
                }
            }
            result = sent(&mut sending) => {
                sending = None;
                match result {
                    Ok(_) => {}
                    Err(error) if is_passing(&error) => return Some(Ending::unavailable()),
                    Err(error) => return Some(Ending::of(&error.into_actor_error())),
                }
            }
            read = socket.next(), if sending.is_none() && pace.is_open() => {
                heard = Instant::now();
                pace.count();
                let (text, data) = match read {
                    Some(Ok(Message::Text(text))) => (true, text.as_bytes().to_vec()),
                    Some(Ok(Message::Binary(data))) => (false, data.to_vec()),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return ending_of(&error),
                    None => return None,
                };
                let conn = line.conn;
                sending = Some(line.ask_op(CallOp::Message { conn, text, data }));
            }
            _ = ping.tick() => {
                let silent = sending.is_none() && pace.is_open() && heard.elapsed() > tasks.silence;
                if silent || !send(socket, Message::Ping(Default::default())).await {
                    return None;
                }
            }
        }
    }
}

async fn sent(sending: &mut Option<Sent>) -> Result<CallReply, CallError> {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

/// Passes on what the actor has for the client. `Err` for the end of the socket.
async fn items(socket: &mut Socket, line: &mut Line, answer: Answer) -> Result<(), Option<Ending>> {
    let polled = match answer {
        Ok(polled) => polled,
        Err(error) if is_passing(&error) => return Err(Some(Ending::unavailable())),
        Err(_) => return Err(Some(Ending::new(1012, "connection ended"))),
    };
    for item in line.take(polled) {
        let message = match item {
            ConnItem::Message { text: false, data } => Message::binary(data),
            // The owner has checked that it is text.
            ConnItem::Message { text: true, data } => {
                Message::text(String::from_utf8_lossy(&data).into_owned())
            }
            ConnItem::Event { .. } => continue,
            ConnItem::Close { code, reason } => return Err(Some(Ending::new(code, reason))),
        };
        if !send(socket, message).await {
            return Err(None);
        }
    }
    Ok(())
}
