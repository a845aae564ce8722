//! What arrives: requests and streams of peers, and the handler they are given to.
//!
//! Invariant: every request is answered exactly once. A [`Responder`] that is dropped answers "dropped", so a caller
//! never waits for a handler that forgot it.
//! Not here: tasks. The transport calls the handler on the task that reads the stream; a handler that waits, or
//! works for long, moves the request to a task of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lane::ServeLane;
use crate::{Class, InStream, InboundExchange, PeerId, Refusal, RefusalCode};

/// W3C trace context as it travels: trace id, parent span id, flags.
pub type Trace = [u8; 25];

/// Takes what peers send. Called on the reading task of a stream: must not block.
pub trait Handler: Send + Sync + 'static {
    /// A request arrived.
    fn request(&self, inbound: Inbound);

    /// A peer opened a stream (a snapshot) and its header arrived.
    fn stream(&self, inbound: InboundStream);

    /// A peer began an exchange and its header arrived. One that is dropped breaks off, in both directions.
    fn exchange(&self, inbound: InboundExchange) {
        drop(inbound);
    }

    /// A connection is up, verified in both directions.
    fn peer_up(&self, peer: &PeerId, side: Side) {
        let _ = (peer, side);
    }

    /// A connection that was up is gone. A peer may have several: count them.
    fn peer_down(&self, peer: &PeerId, side: Side) {
        let _ = (peer, side);
    }
}

/// Which end opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// This process dialled the peer.
    Dialled,
    /// The peer dialled this process.
    Accepted,
}

/// The handler of a process that only asks: refuses everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefuseAll;

impl Handler for RefuseAll {
    fn request(&self, inbound: Inbound) {
        let kind = inbound.kind;
        inbound.refuse(Refusal::new(
            RefusalCode::UnknownKind,
            format!("no service for kind {kind}"),
        ));
    }

    fn stream(&self, inbound: InboundStream) {
        // Dropping the stream stops the sender.
        drop(inbound);
    }
}

/// One request of a peer.
#[derive(Debug)]
pub struct Inbound {
    /// Who asks.
    pub from: PeerId,
    /// The class it came by.
    pub class: Class,
    /// Which service is meant; the caller and the handler agree on it.
    pub kind: u8,
    /// The body: a slice of a receive buffer of at most 64 KiB (or of the frame's own size), which it keeps alive.
    pub body: Bytes,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// Trace context of the caller.
    pub trace: Option<Trace>,
    /// Where the answer goes.
    pub responder: Responder,
}

impl Inbound {
    /// Answers. Never blocks; may be called from any task.
    pub fn respond(self, body: Bytes) {
        self.responder.respond(body);
    }

    /// Answers "no". Never blocks; may be called from any task.
    pub fn refuse(self, refusal: Refusal) {
        self.responder.refuse(refusal);
    }

    /// A request that never was on a wire (a node asking itself), and where its answer appears.
    pub fn local(
        from: PeerId,
        class: Class,
        kind: u8,
        body: Bytes,
        deadline: Option<Instant>,
    ) -> (Self, LocalAnswer) {
        let (tx, rx) = oneshot::channel();
        let responder = Responder {
            to: Some(AnswerTo::Local(tx)),
            correlation: 0,
            kind,
        };
        (
            Self {
                from,
                class,
                kind,
                body,
                deadline,
                trace: None,
                responder,
            },
            LocalAnswer(rx),
        )
    }
}

/// The answer to an [`Inbound::local`] request.
#[derive(Debug)]
pub struct LocalAnswer(oneshot::Receiver<Result<Bytes, Refusal>>);

impl LocalAnswer {
    /// Waits for the answer. Cancel-safe: dropping forgets it.
    ///
    /// # Errors
    /// The handler's refusal.
    pub async fn wait(self) -> Result<Bytes, Refusal> {
        self.0.await.unwrap_or_else(|_| Err(dropped()))
    }
}

fn dropped() -> Refusal {
    Refusal::new(RefusalCode::Dropped, "the request was let go without an answer")
}

#[derive(Debug)]
enum AnswerTo {
    Wire(Arc<ServeLane>),
    Local(oneshot::Sender<Result<Bytes, Refusal>>),
}

/// Where the answer to one request goes. Dropped unused, it refuses the request with [`RefusalCode::Dropped`].
#[derive(Debug)]
pub struct Responder {
    /// `None` once answered.
    to: Option<AnswerTo>,
    correlation: u64,
    kind: u8,
}

impl Responder {
    pub(crate) fn wire(lane: Arc<ServeLane>, correlation: u64, kind: u8) -> Self {
        Self {
            to: Some(AnswerTo::Wire(lane)),
            correlation,
            kind,
        }
    }

    /// Answers. Never blocks; may be called from any task.
    pub fn respond(mut self, body: Bytes) {
        self.answer(Ok(body));
    }

    /// Answers "no". Never blocks; may be called from any task.
    pub fn refuse(mut self, refusal: Refusal) {
        self.answer(Err(refusal));
    }

    fn answer(&mut self, answer: Result<Bytes, Refusal>) {
        match self.to.take() {
            Some(AnswerTo::Wire(lane)) => lane.answer(self.correlation, self.kind, answer),
            // The local caller may be gone; the work stands.
            Some(AnswerTo::Local(tx)) => drop(tx.send(answer)),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.answer(Err(dropped()));
    }
}

/// A stream a peer opened.
#[derive(Debug)]
pub struct InboundStream {
    /// Who sends.
    pub from: PeerId,
    /// Which service is meant.
    pub kind: u8,
    /// What the sender says about the stream.
    pub header: Bytes,
    /// The bytes. Dropped before its end, it stops the sender.
    pub stream: InStream,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinch_types::NodeId;

    fn local() -> (Inbound, LocalAnswer) {
        Inbound::local(
            PeerId::Node(NodeId(1)),
            Class::Action,
            3,
            Bytes::from_static(b"q"),
            None,
        )
    }

    #[tokio::test]
    async fn a_local_request_gets_its_answer() {
        let (inbound, answer) = local();
        inbound.respond(Bytes::from_static(b"a"));
        assert_eq!(answer.wait().await, Ok(Bytes::from_static(b"a")));
    }

    #[tokio::test]
    async fn a_request_dropped_by_its_handler_is_refused() {
        let (inbound, answer) = local();
        drop(inbound);
        assert_eq!(answer.wait().await.unwrap_err().code, RefusalCode::Dropped);
        let (inbound, answer) = local();
        RefuseAll.request(inbound);
        assert_eq!(answer.wait().await.unwrap_err().code, RefusalCode::UnknownKind);
    }
}
