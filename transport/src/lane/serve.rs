//! The acceptor's end of a class: requests in, answers out.
//!
//! Invariant: what a peer can make us hold is bounded: at most `inbound_max` requests without an answer, and no
//! further reading while [`REPLY_BYTES`] of answers wait to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clinch_types::limits::FRAME_MAX;
use metrics::Counter;
use std::future::poll_fn;
use tokio::time::Instant;

use super::outbox::Outbox;
use super::{Class, write_all};
use crate::frame::{self, Decoder, Frame, FrameType};
use crate::inbound::{Handler, Inbound, Responder};
use crate::{PeerId, Refusal, RefusalCode};

/// Answers that may wait before no more requests are read. Callers of a slow reader feel it as a full queue.
const REPLY_BYTES: usize = 1 << 20;
/// Chunks (about a packet each) read at once.
const READ_CHUNKS: usize = 32;

/// The acceptor's end of one stream.
pub(crate) struct ServeLane {
    peer: PeerId,
    class: Class,
    outbox: Outbox,
    /// Requests at the handler.
    open: AtomicUsize,
    open_max: usize,
    received: Counter,
}

impl std::fmt::Debug for ServeLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeLane")
            .field("peer", &self.peer)
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

impl ServeLane {
    pub(crate) fn new(peer: PeerId, class: Class, open_max: usize, received: Counter) -> Self {
        Self {
            peer,
            class,
            outbox: Outbox::default(),
            open: AtomicUsize::new(0),
            open_max,
            received,
        }
    }

    /// Queues the answer of one request at the handler.
    pub(crate) fn answer(&self, correlation: u64, service: u8, answer: Result<Bytes, Refusal>) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.push_answer(correlation, service, answer);
    }

    fn push_answer(&self, correlation: u64, service: u8, answer: Result<Bytes, Refusal>) {
        let answer = answer.and_then(|body| match body.len() {
            0..=FRAME_MAX => Ok(body),
            len => {
                let message = format!("the reply has {len} bytes, at most {FRAME_MAX} are allowed");
                Err(Refusal::new(RefusalCode::ReplyTooLarge, message))
            }
        });
        let (kind, body) = match answer {
            Ok(body) => (FrameType::Reply, body),
            Err(refusal) => (FrameType::Refusal, frame::encode_refusal(&refusal)),
        };
        // A closed outbox: the connection is gone, and the caller knows.
        let _ = self.outbox.push(Frame {
            kind,
            service,
            correlation,
            deadline_ms: 0,
            trace: None,
            body,
        });
    }

    /// Ends the writer and frees what waits.
    pub(crate) fn close(&self) {
        self.outbox.close();
    }

    /// Writes answers until the lane is closed.
    ///
    /// # Errors
    /// When the stream broke; the caller closes the connection.
    pub(crate) async fn run_writer(&self, mut stream: quinn::SendStream) -> Result<(), quinn::WriteError> {
        // A stream that was closed under us fails at the first write.
        let _ = stream.set_priority(self.class.priority());
        write_all(&self.outbox, &mut stream, |_| {}).await
    }

    /// Hands requests to the handler until the stream ends. `Ok` is a proper end by the peer.
    ///
    /// # Errors
    /// Why the stream cannot go on; the caller closes the connection with it.
    pub(crate) async fn run_reader(
        self: &Arc<Self>,
        mut stream: quinn::RecvStream,
        handler: &dyn Handler,
    ) -> Result<(), ReadEnd> {
        let mut chunks = vec![Bytes::new(); READ_CHUNKS];
        let mut decoder = Decoder::default();
        loop {
            let Some(count) = stream.read_chunks(&mut chunks).await.map_err(|_| ReadEnd::Lost)? else {
                return Ok(());
            };
            let now = Instant::now();
            for chunk in &mut chunks[..count] {
                decoder.push(std::mem::take(chunk));
                while let Some(frame) = decoder.next().map_err(|e| ReadEnd::Malformed(e.to_string()))? {
                    self.take(frame, now, handler)?;
                }
            }
            poll_fn(|cx| self.outbox.poll_room(cx, REPLY_BYTES)).await;
            // QUIC streams do not count against tokio's budget, so a busy one would starve its worker thread.
            tokio::task::consume_budget().await;
        }
    }

    fn take(self: &Arc<Self>, frame: Frame, now: Instant, handler: &dyn Handler) -> Result<(), ReadEnd> {
        match frame.kind {
            FrameType::Request => {}
            FrameType::Reply | FrameType::Refusal => {
                return Err(ReadEnd::Malformed(
                    "an answer came where only requests may".to_owned(),
                ));
            }
            FrameType::Unknown(kind) => {
                let refusal = Refusal::new(
                    RefusalCode::UnknownKind,
                    format!("no frame type {kind} in this release"),
                );
                self.push_answer(frame.correlation, frame.service, Err(refusal));
                return Ok(());
            }
        }
        self.received.increment(1);
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.open_max {
            let message = format!("{} requests wait for an answer", self.open_max);
            self.answer(
                frame.correlation,
                frame.service,
                Err(Refusal::new(RefusalCode::Overloaded, message)),
            );
            return Ok(());
        }
        let deadline =
            (frame.deadline_ms > 0).then(|| now + Duration::from_millis(u64::from(frame.deadline_ms)));
        handler.request(Inbound {
            from: self.peer.clone(),
            class: self.class,
            kind: frame.service,
            body: frame.body,
            deadline,
            trace: frame.trace,
            responder: Responder::wire(self.clone(), frame.correlation, frame.service),
        });
        Ok(())
    }
}

/// Why a stream of requests cannot go on.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The stream or its connection was lost.
    Lost,
    /// The peer broke the protocol.
    Malformed(String),
}
