//! The dialler's end of a class: requests out, answers in.
//!
//! Invariant: every request that was accepted ends in exactly one answer, at the latest when the connection is lost
//! or its deadline passes; and what is reported as not sent never leaves afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::outbox::Outbox;
use super::pending::{Answer, Next, NoSlot, Pending};
use super::{Class, STREAM_VERSION, write_all};
use crate::config::TransportConfig;
use crate::frame::{self, Decoder, Frame, FrameType};
use crate::inbound::Trace;
use crate::{Dest, TransportError};

/// Chunks (about a packet each) read at once.
const READ_CHUNKS: usize = 32;

/// One request, before it has a correlation.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) service: u8,
    pub(crate) body: Bytes,
    pub(crate) trace: Option<Trace>,
    /// When the caller asked.
    pub(crate) begun: Instant,
    /// When the caller stops waiting.
    pub(crate) until: Instant,
    /// The time the caller gave in all, for its error.
    pub(crate) after: Duration,
}

/// The dialler's end of one stream.
#[derive(Debug)]
pub(crate) struct CallLane {
    class: Class,
    outbox: Outbox,
    pending: Pending,
    /// Bytes that still fit into the outbox.
    room: Semaphore,
    waiting: AtomicUsize,
    queue_bytes: usize,
    waiting_max: usize,
    pending_max: usize,
    /// Silence of the peer that ends requests. Only actions: Raft has deadlines of its own, and shorter ones.
    silence_max: Option<Duration>,
    /// Why the connection is gone.
    lost: Mutex<Option<Arc<str>>>,
}

impl CallLane {
    pub(crate) fn new(class: Class, config: &TransportConfig) -> Self {
        Self {
            class,
            outbox: Outbox::default(),
            pending: Pending::new(config.pending_max),
            room: Semaphore::new(config.queue_bytes),
            waiting: AtomicUsize::new(0),
            queue_bytes: config.queue_bytes,
            waiting_max: config.waiting_max,
            pending_max: config.pending_max,
            silence_max: (class == Class::Action).then_some(config.silence_max),
            lost: Mutex::new(None),
        }
    }

    /// Sends a request and waits for its answer. Cancel-safe: dropping forgets the answer, and takes the request
    /// back if it has not left.
    pub(crate) async fn call(&self, peer: &Dest, request: Request) -> Result<Bytes, TransportError> {
        let Request {
            service,
            body,
            trace,
            begun,
            until,
            after,
        } = request;
        let kind = FrameType::Request;
        let mut frame = Frame {
            kind,
            service,
            correlation: 0,
            deadline_ms: 0,
            trace,
            body,
        };
        let cost = self.cost(frame.wire_len());
        let now = match self.take_room(cost) {
            true => begun,
            false => Box::pin(self.wait_for_room(peer, cost, until, after)).await?,
        };
        let mut permit = RoomGuard { lane: self, cost };
        let (correlation, answer) = self.pending.insert(now, until).map_err(|e| match e {
            NoSlot::Full => overloaded(peer, "requests without an answer", self.pending_max),
            NoSlot::Closed => self.not_sent(peer),
        })?;
        frame.correlation = correlation;
        let left_ms = until.saturating_duration_since(now).as_millis();
        // 0 would mean no limit.
        frame.deadline_ms = u32::try_from(left_ms).unwrap_or(u32::MAX).max(1);
        let Ok(number) = self.outbox.push(frame) else {
            self.pending.forget(correlation);
            return Err(self.not_sent(peer));
        };
        // From here on the writer, or taking the frame back, returns the room.
        permit.cost = 0;
        let mut ticket = Ticket {
            lane: self,
            correlation,
            number,
            armed: true,
        };
        match answer.await {
            Ok(Answer::TimeUp) => Err(TransportError::Deadline {
                peer: peer.clone(),
                after,
                sent: !ticket.take_back(),
            }),
            Ok(answer) => {
                ticket.armed = false;
                finish(peer, answer)
            }
            // Every slot is answered before it is dropped, so this is a bug of ours: say the careful thing.
            Err(_) => Err(TransportError::Perhaps {
                peer: peer.clone(),
                reason: "the answer was lost".to_owned(),
            }),
        }
    }

    /// Ends every request: the connection is gone.
    pub(crate) fn fail(&self, reason: &Arc<str>) {
        self.lost.lock().get_or_insert_with(|| reason.clone());
        self.room.close();
        let mut unsent: Vec<u64> = self
            .outbox
            .close()
            .iter()
            .map(|frame| frame.correlation)
            .collect();
        unsent.sort_unstable();
        for (correlation, waiter) in self.pending.close() {
            let answer = match unsent.binary_search(&correlation) {
                Ok(_) => Answer::NotSent(reason.clone()),
                Err(_) => Answer::Lost(reason.clone()),
            };
            // The caller may be gone.
            let _ = waiter.send(answer);
        }
    }

    /// Writes requests until the lane has failed.
    ///
    /// # Errors
    /// When the stream broke; the caller closes the connection.
    pub(crate) async fn run_writer(&self, mut stream: quinn::SendStream) -> Result<(), quinn::WriteError> {
        // A stream that was closed under us fails at the write below.
        let _ = stream.set_priority(self.class.priority());
        stream
            .write_all(&[STREAM_VERSION, self.class.index() as u8])
            .await?;
        let taken = |frames: &[Frame]| {
            self.room
                .add_permits(frames.iter().map(|frame| self.cost(frame.wire_len())).sum());
        };
        write_all(&self.outbox, &mut stream, taken).await
    }

    /// Ends requests whose time is up, and those at a peer that has fallen silent (`silent_for` says for how long), until
    /// the lane has failed. One timer for all: a timer per request costs more than its frame.
    pub(crate) async fn run_deadlines(&self, silent_for: impl Fn() -> Duration) {
        let mut ended = Vec::new();
        loop {
            let now = Instant::now();
            let next = self.pending.expire(now, &mut ended);
            for waiter in ended.drain(..) {
                // The caller may be gone.
                let _ = waiter.send(Answer::TimeUp);
            }
            let next = match (next, self.silence_max) {
                (Next::At(instant), Some(max)) => {
                    let silent = silent_for();
                    if silent >= max {
                        self.pending.begun_before(now - max, &mut ended);
                        let reason: Arc<str> =
                            format!("it has been silent for {} ms", silent.as_millis()).into();
                        for waiter in ended.drain(..) {
                            let _ = waiter.send(Answer::Lost(reason.clone()));
                        }
                    }
                    Next::At(instant.min(now + max / 2))
                }
                (next, _) => next,
            };
            match next {
                Next::Closed => return,
                Next::Nothing => self.pending.earlier().await,
                Next::At(instant) => tokio::select! {
                    () = sleep_until(instant) => {}
                    () = self.pending.earlier() => {}
                },
            }
        }
    }

    /// Gives answers to those who wait, until the stream ends.
    ///
    /// # Errors
    /// Why the stream cannot go on; the caller closes the connection with it.
    pub(crate) async fn run_reader(&self, mut stream: quinn::RecvStream) -> Result<(), String> {
        let mut chunks = vec![Bytes::new(); READ_CHUNKS];
        let (mut decoder, mut answers, mut ready) = (Decoder::default(), Vec::new(), Vec::new());
        loop {
            let read = stream.read_chunks(&mut chunks).await.map_err(|e| e.to_string())?;
            let Some(count) = read else {
                return Err("the peer ended the stream".to_owned());
            };
            for chunk in &mut chunks[..count] {
                decoder.push(std::mem::take(chunk));
                while let Some(frame) = decoder.next().map_err(|e| e.to_string())? {
                    match frame.kind {
                        FrameType::Reply => answers.push((frame.correlation, Answer::Reply(frame.body))),
                        FrameType::Refusal => {
                            let refusal = frame::decode_refusal(frame.body);
                            answers.push((frame.correlation, Answer::Refused(refusal)));
                        }
                        FrameType::Request => return Err("a request came where only answers may".to_owned()),
                        // A later release may say more than we understand.
                        FrameType::Unknown(kind) => tracing::debug!(kind, "frame of unknown type ignored"),
                    }
                }
            }
            self.pending.remove_all(&mut answers, &mut ready);
            for (waiter, answer) in ready.drain(..) {
                // The caller may be gone.
                let _ = waiter.send(answer);
            }
            // QUIC streams do not count against tokio's budget, so a busy one would starve its worker thread.
            tokio::task::consume_budget().await;
        }
    }

    /// What a frame takes of the queue: a frame larger than the queue takes all of it.
    fn cost(&self, wire_len: usize) -> usize {
        wire_len.min(self.queue_bytes)
    }

    /// Takes `cost` of the room, if it is there at once. It must be returned.
    fn take_room(&self, cost: usize) -> bool {
        self.room
            .try_acquire_many(permits(cost))
            .map(|permit| permit.forget())
            .is_ok()
    }

    /// As [`Self::take_room`], waiting for it. Returns what time it is then.
    async fn wait_for_room(
        &self,
        peer: &Dest,
        cost: usize,
        until: Instant,
        after: Duration,
    ) -> Result<Instant, TransportError> {
        if self.room.is_closed() {
            return Err(self.not_sent(peer));
        }
        let _counted = WaitGuard::enter(&self.waiting, self.waiting_max)
            .ok_or_else(|| overloaded(peer, "callers waiting for room", self.waiting_max))?;
        match timeout_at(until, self.room.acquire_many(permits(cost))).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Instant::now())
            }
            Ok(Err(_)) => Err(self.not_sent(peer)),
            Err(_) => Err(TransportError::Deadline {
                peer: peer.clone(),
                after,
                sent: false,
            }),
        }
    }

    fn not_sent(&self, peer: &Dest) -> TransportError {
        let reason = self
            .lost
            .lock()
            .as_deref()
            .unwrap_or("connection lost")
            .to_owned();
        TransportError::NotSent {
            peer: peer.clone(),
            reason,
        }
    }
}

/// The configuration limits a queue to 2^30 bytes.
fn permits(cost: usize) -> u32 {
    cost as u32
}

fn overloaded(peer: &Dest, what: &'static str, limit: usize) -> TransportError {
    TransportError::Overloaded {
        peer: peer.clone(),
        what,
        limit,
    }
}

fn finish(peer: &Dest, answer: Answer) -> Result<Bytes, TransportError> {
    let peer = || peer.clone();
    match answer {
        Answer::Reply(body) => Ok(body),
        Answer::Refused(refusal) => Err(TransportError::Refused {
            peer: peer(),
            code: refusal.code,
            message: refusal.message,
        }),
        Answer::NotSent(reason) => Err(TransportError::NotSent {
            peer: peer(),
            reason: reason.to_string(),
        }),
        // Handled by the caller, who knows the deadline; here it would mean the same as a loss.
        Answer::TimeUp => Err(TransportError::Perhaps {
            peer: peer(),
            reason: "time is up".to_owned(),
        }),
        Answer::Lost(reason) => Err(TransportError::Perhaps {
            peer: peer(),
            reason: reason.to_string(),
        }),
    }
}

/// Returns room that was taken but not used.
struct RoomGuard<'a> {
    lane: &'a CallLane,
    cost: usize,
}

impl Drop for RoomGuard<'_> {
    fn drop(&mut self) {
        self.lane.room.add_permits(self.cost);
    }
}

/// Counts a waiting caller.
struct WaitGuard<'a>(&'a AtomicUsize);

impl<'a> WaitGuard<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(count))
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request under way; dropped unanswered, it is forgotten.
struct Ticket<'a> {
    lane: &'a CallLane,
    correlation: u64,
    number: u64,
    armed: bool,
}

impl Ticket<'_> {
    /// Forgets the request; says whether it was caught before it left.
    fn take_back(&mut self) -> bool {
        self.armed = false;
        let frame = self.lane.outbox.take_back(self.number);
        if let Some(frame) = &frame {
            self.lane.room.add_permits(self.lane.cost(frame.wire_len()));
        }
        self.lane.pending.forget(self.correlation);
        frame.is_some()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.take_back();
        }
    }
}
