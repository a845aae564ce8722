//! The door: connections that peers dial, their streams, and the end of the endpoint.
//!
//! Invariant: nothing a peer sends reaches the handler before both certificates are verified; what strangers can make
//! us hold is bounded by [`HALF_OPEN_MAX`] and `connections_max`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::close;
use crate::exchange::{self, EXCHANGE};
use crate::inbound::{InboundStream, Side};
use crate::lane::{ReadEnd, STREAM_VERSION, ServeLane};
use crate::meters;
use crate::metric_names::{ACCEPTS, CONNECTIONS, MALFORMED};
use crate::shared::Shared;
use crate::stream::InStream;
use crate::tls::peer_of;
use crate::{Class, PeerId};

/// What an acceptor says once it has verified the dialler: magic, lowest and highest frame version.
pub(crate) const WELCOME: &[u8] = &[b'C', b'L', 1, 1];
/// Handshakes under way before strangers must prove their address first.
const HALF_OPEN_MAX: usize = 256;
/// How long peers may take to hear that we are leaving.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a new stream may take to say what it is.
const PREAMBLE_TIME: Duration = Duration::from_secs(10);

/// What may still be admitted.
struct Room {
    half_open: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Accepts connections until the transport stops, then says farewell to every peer.
pub(crate) async fn run(shared: Arc<Shared>) {
    let room = Room {
        half_open: Arc::new(Semaphore::new(HALF_OPEN_MAX)),
        connections: Arc::new(Semaphore::new(shared.config.connections_max)),
    };
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            incoming = shared.endpoint.accept() => match incoming {
                Some(incoming) => admit(&shared, &room, incoming),
                // The endpoint's driver has ended: its socket failed.
                None => {
                    tracing::error!("the socket failed; no connection can be accepted or dialled");
                    break;
                }
            },
        }
    }
    shared.endpoint.close(close::SHUTDOWN, b"shutting down");
    if timeout(FAREWELL, shared.endpoint.wait_idle()).await.is_err() {
        tracing::debug!("some peers did not confirm our farewell");
    }
}

fn admit(shared: &Arc<Shared>, room: &Room, incoming: quinn::Incoming) {
    let Ok(place) = room.connections.clone().try_acquire_owned() else {
        metrics::counter!(ACCEPTS, "result" => "busy").increment(1);
        let (remote, limit) = (incoming.remote_address(), shared.config.connections_max);
        tracing::warn!(%remote, limit, "connection refused: too many");
        return incoming.refuse();
    };
    let half_open = room.half_open.clone().try_acquire_owned().ok();
    if half_open.is_none() && incoming.may_retry() {
        // It comes again with a proof of its address; `may_retry` was just checked.
        let _ = incoming.retry();
        return;
    }
    shared
        .tracker
        .spawn(serve(shared.clone(), place, half_open, incoming));
}

async fn serve(
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
    half_open: Option<OwnedSemaphorePermit>,
    incoming: quinn::Incoming,
) {
    let remote = incoming.remote_address();
    let (connection, peer) = match timeout(shared.config.idle_timeout, handshake(&shared, incoming)).await {
        Ok(Ok(verified)) => verified,
        Ok(Err(refused)) => {
            metrics::counter!(ACCEPTS, "result" => "refused").increment(1);
            if refused.worth_a_warning {
                tracing::warn!(%remote, reason = refused.reason, "connection refused");
            } else {
                tracing::debug!(%remote, reason = refused.reason, "handshake not completed");
            }
            return;
        }
        Err(_) => {
            metrics::counter!(ACCEPTS, "result" => "refused").increment(1);
            tracing::debug!(%remote, "handshake not completed in time");
            return;
        }
    };
    drop(half_open);
    metrics::counter!(ACCEPTS, "result" => "ok").increment(1);
    let up = metrics::gauge!(CONNECTIONS, "side" => "accepted");
    up.increment(1);
    tracing::debug!(%peer, %remote, "peer connected");
    shared.handler.peer_up(&peer, Side::Accepted);
    let error = streams(&shared, &connection, &peer).await;
    up.decrement(1);
    if close::is_misfit(&error) {
        tracing::warn!(%peer, %remote, reason = close::describe(&error), "the dialler did not want this node");
    } else {
        tracing::debug!(%peer, %remote, reason = close::describe(&error), "peer gone");
    }
    shared.handler.peer_down(&peer, Side::Accepted);
}

struct Refused {
    reason: String,
    /// A stranger that just went away is no news; a certificate that does not fit is.
    worth_a_warning: bool,
}

/// Verifies the dialler and tells it so.
async fn handshake(
    shared: &Shared,
    incoming: quinn::Incoming,
) -> Result<(quinn::Connection, PeerId), Refused> {
    let from_error = |e: quinn::ConnectionError| Refused {
        reason: close::describe(&e),
        worth_a_warning: close::is_misfit(&e),
    };
    let connection = incoming.await.map_err(from_error)?;
    let refuse = |reason: String| {
        connection.close(close::WRONG_PEER, reason.as_bytes());
        Refused {
            reason,
            worth_a_warning: true,
        }
    };
    let (cluster, peer) = peer_of(&connection).map_err(|e| refuse(e.to_string()))?;
    if cluster != shared.cluster {
        return Err(refuse(format!(
            "{peer} belongs to cluster {cluster}, this is cluster {}",
            shared.cluster
        )));
    }
    let welcome = async {
        let mut stream = connection.open_uni().await.map_err(|e| from_error(e).reason)?;
        stream.write_all(WELCOME).await.map_err(|e| e.to_string())?;
        stream.finish().map_err(|e| e.to_string())
    };
    welcome.await.map_err(|reason| Refused {
        reason,
        worth_a_warning: false,
    })?;
    Ok((connection, peer))
}

/// Takes the streams of a connection until it ends.
async fn streams(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    peer: &PeerId,
) -> quinn::ConnectionError {
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    let task = serve_bidirectional(shared.clone(), connection.clone(), peer.clone(), send, receive);
                    shared.tracker.spawn(task);
                }
                Err(error) => return error,
            },
            stream = connection.accept_uni() => match stream {
                Ok(receive) => {
                    shared.tracker.spawn(serve_stream(shared.clone(), peer.clone(), receive));
                }
                Err(error) => return error,
            },
        }
    }
}

async fn serve_exchange(shared: &Shared, peer: PeerId, send: quinn::SendStream, receive: quinn::RecvStream) {
    match timeout(PREAMBLE_TIME, exchange::accept(send, receive, peer.clone())).await {
        Ok(Ok(inbound)) => shared.handler.exchange(inbound),
        // Dropping both halves has told the peer.
        Ok(Err(error)) => tracing::warn!(%peer, %error, "exchange refused"),
        Err(_) => tracing::warn!(%peer, "exchange refused: its header did not come in time"),
    }
}

/// Serves a stream of requests, or hands an exchange over.
async fn serve_bidirectional(
    shared: Arc<Shared>,
    connection: quinn::Connection,
    peer: PeerId,
    send: quinn::SendStream,
    mut receive: quinn::RecvStream,
) {
    let mut preamble = [0; 2];
    match timeout(PREAMBLE_TIME, receive.read_exact(&mut preamble)).await {
        Ok(Ok(())) => {}
        // A stream that ends before it says what it is asks for nothing.
        Ok(Err(_)) | Err(_) => return,
    }
    if preamble == [STREAM_VERSION, EXCHANGE] {
        return serve_exchange(&shared, peer, send, receive).await;
    }
    let class = match preamble {
        [STREAM_VERSION, class] => Class::ALL.get(usize::from(class)).copied(),
        _ => None,
    };
    let Some(class) = class else {
        return malformed(
            &connection,
            &peer,
            &format!("stream with unknown preamble {preamble:?}"),
        );
    };
    let lane = Arc::new(ServeLane::new(
        peer.clone(),
        class,
        shared.config.inbound_max,
        meters::requests(class),
    ));
    shared.tracker.spawn({
        let (lane, connection, peer) = (lane.clone(), connection.clone(), peer.clone());
        async move {
            if let Err(error) = lane.run_writer(send).await {
                lane.close();
                if let quinn::WriteError::Stopped(code) = error {
                    malformed(&connection, &peer, &format!("answers were stopped (code {code})"));
                }
            }
        }
    });
    let end = lane.run_reader(receive, &*shared.handler).await;
    match end {
        // The dialler ends a stream only with its connection; answers still waiting have nobody to go to.
        Ok(()) | Err(ReadEnd::Lost) => connection.close(close::UNUSED, b"the stream of a class ended"),
        Err(ReadEnd::Malformed(reason)) => malformed(&connection, &peer, &reason),
    }
    lane.close();
}

fn malformed(connection: &quinn::Connection, peer: &PeerId, reason: &str) {
    metrics::counter!(MALFORMED).increment(1);
    tracing::warn!(%peer, reason, "connection closed: the peer broke the protocol");
    connection.close(close::MALFORMED, reason.as_bytes());
}

async fn serve_stream(shared: Arc<Shared>, peer: PeerId, receive: quinn::RecvStream) {
    match timeout(PREAMBLE_TIME, InStream::accept(receive, peer.clone())).await {
        Ok(Ok((kind, header, stream))) => {
            shared.handler.stream(InboundStream {
                from: peer,
                kind,
                header,
                stream,
            });
        }
        // Dropping the stream has stopped its sender.
        Ok(Err(error)) => tracing::warn!(%peer, %error, "stream refused"),
        Err(_) => tracing::warn!(%peer, "stream refused: its header did not come in time"),
    }
}
