//! A raw WebSocket to an actor as a program holds it.
//!
//! Invariant: messages reach the actor one by one, in the order they were sent, and come from it in the order of its
//! history, none twice and none left out before the end.
//! Not here: sockets of browsers (gateway), the actor's side (`conn`).

use std::sync::Arc;

use bytes::Bytes;
use clinch_types::{CallOp, ConnId, ConnKind};
use tokio::sync::{mpsc, oneshot, watch};

use crate::connection::Shared;
use crate::{ConnStatus, Error, Frame, RawHandle};

/// Messages that wait for their reader; then the socket asks for no more until it reads. Few: each may have 1 MiB.
const UNREAD_MAX: usize = 8;

/// An open raw WebSocket to an actor, whose `on_websocket` and `on_message` see it as one of a gateway. Dropping it closes
/// it. It outlives the owner: the next one goes on with it.
pub struct RawSocket {
    shared: Arc<Shared>,
    received: mpsc::Receiver<Frame>,
    /// Messages are sent one after the other: calls may overtake each other.
    sending: Arc<tokio::sync::Mutex<()>>,
    _open: oneshot::Sender<()>,
}

impl RawHandle {
    /// Opens a raw WebSocket. The actor sees `/websocket/` and `path`, a query included, as it does through a gateway; the
    /// handle's parameters go to the hooks of the connection.
    ///
    /// # Errors
    /// What the actor's hooks refuse with; as every call; `actor.not_supported` where calls are carried by something that
    /// has no connections (HTTP).
    pub async fn websocket(&self, path: &str) -> Result<RawSocket, Error> {
        let path = format!("/websocket/{}", path.strip_prefix('/').unwrap_or(path));
        let (messages, received) = mpsc::channel(UNREAD_MAX);
        let (shared, open) = Shared::open(self, ConnKind::Raw, path, Some(messages)).await?;
        Ok(RawSocket {
            shared,
            received,
            sending: Arc::default(),
            _open: open,
        })
    }
}

impl RawSocket {
    /// The connection's name, as the actor's `conn.id()` has it.
    pub fn id(&self) -> ConnId {
        self.shared.conn
    }

    /// Sends a message; ends when the actor's turn with it has committed. Dropped before, it may have been sent or not; the order of
    /// messages holds all the same.
    ///
    /// # Errors
    /// What `on_message` fails with: then its turn has left no trace, and the socket stays open. `actor.invalid_request` above
    /// 1 MiB; as every call.
    pub async fn send(&self, message: impl Into<Frame>) -> Result<(), Error> {
        let (text, data) = match message.into() {
            Frame::Text(text) => (true, text.into_bytes()),
            Frame::Binary(data) => (false, data.into()),
        };
        let conn = self.shared.conn;
        let alone = self.sending.clone().lock_owned().await;
        let sent = self.shared.call(CallOp::Message { conn, text, data }, None);
        // Beside this call, which may be dropped: the next message begins when this one has ended.
        let sent = tokio::spawn(async move {
            let _alone = alone;
            sent.await.map(drop)
        });
        sent.await.map_err(Error::internal)?
    }

    /// The next message of the actor; `None` when the socket has ended. Read them: with eight unread ones, which may have 1 MiB
    /// each, it asks for no more, and one that lags by more than the actor keeps for it is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        self.received.recv().await
    }

    /// How it is, now and from now on.
    pub fn status(&self) -> watch::Receiver<ConnStatus> {
        self.shared.status.subscribe()
    }

    /// Waits for the end of the socket and tells its reason; metadata `closeCode` has the actor's code, if it closed it.
    pub async fn ended(&self) -> Error {
        self.shared.ended().await
    }
}

impl From<&str> for Frame {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Frame {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}
