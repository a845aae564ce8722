//! One long-lived stream per class: requests one way, answers back.
//!
//! One writer task per direction drains everything waiting into one write, one reader cuts all frames of a read:
//! packets, encryption and system calls are shared by tens of requests. A task or a stream per request costs 8 times
//! more, several streams per class 4 times.
//! Invariant: classes share nothing but the connection: a full queue of one never delays another, and QUIC sends
//! the more urgent class first.

mod call;
mod outbox;
mod pending;
mod serve;

use bytes::{Bytes, BytesMut};
use std::future::poll_fn;

pub(crate) use call::{CallLane, Request};
use outbox::Outbox;
pub(crate) use serve::{ReadEnd, ServeLane};

use crate::frame::Frame;

/// What a request is for; each class has its own stream. Ordered from urgent to patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Votes and heartbeats: small, must not wait.
    Vote,
    /// Log replication.
    Append,
    /// Calls on actors.
    Action,
    /// Membership, routes, administration.
    Control,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vote, Self::Append, Self::Action, Self::Control];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Vote => 0,
            Self::Append => 1,
            Self::Action => 2,
            Self::Control => 3,
        }
    }

    /// As metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Append => "append",
            Self::Action => "action",
            Self::Control => "control",
        }
    }

    /// QUIC sends streams of higher priority first; snapshots have [`STREAM_PRIORITY`].
    fn priority(self) -> i32 {
        match self {
            Self::Vote => 3,
            Self::Append => 2,
            Self::Action => 1,
            Self::Control => 1,
        }
    }
}

/// Priority of snapshot streams: behind every class.
pub(crate) const STREAM_PRIORITY: i32 = -1;

/// First byte of every stream: the version of what follows.
pub(crate) const STREAM_VERSION: u8 = 1;

/// Most bytes handed to QUIC at once: a frame handed over counts as sent, so not too many.
const BATCH_BYTES: usize = 64 << 10;
/// Bodies up to this size are copied behind their header, to fill packets with few pieces.
const COPY_MAX: usize = 8 << 10;

/// Writes what the outbox has, until it is closed. `taken` hears of each batch before it is written.
async fn write_all(
    outbox: &Outbox,
    stream: &mut quinn::SendStream,
    taken: impl Fn(&[Frame]),
) -> Result<(), quinn::WriteError> {
    let (mut frames, mut pieces, mut buffer) = (Vec::new(), Vec::<Bytes>::new(), BytesMut::new());
    while poll_fn(|cx| outbox.poll_any(cx)).await {
        // The first frame wakes this task before the tasks that were about to send too: let them.
        tokio::task::yield_now().await;
        outbox.take(&mut frames, BATCH_BYTES);
        taken(&frames);
        let small = |frame: &Frame| {
            if frame.body.len() <= COPY_MAX {
                frame.wire_len()
            } else {
                0
            }
        };
        buffer.reserve(frames.iter().map(small).sum());
        for frame in frames.drain(..) {
            frame.encode_head(&mut buffer);
            if frame.body.len() <= COPY_MAX {
                buffer.extend_from_slice(&frame.body);
            } else {
                pieces.push(buffer.split().freeze());
                pieces.push(frame.body);
            }
        }
        if !buffer.is_empty() {
            pieces.push(buffer.split().freeze());
        }
        stream.write_all_chunks(&mut pieces).await?;
        pieces.clear();
    }
    Ok(())
}
