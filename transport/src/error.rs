//! What can go wrong between two processes, sorted by what the caller should do next.
//!
//! Invariant: [`TransportError::NotSent`] is said only when no byte of the request was handed to QUIC, so that asking
//! elsewhere is always safe; after that point a loss is [`TransportError::Perhaps`].

use std::fmt;
use std::time::Duration;

use clinch_types::NodeId;

/// Who a request was meant for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dest {
    /// A node, known by its certificate.
    Node(NodeId),
    /// Whoever answers at an address (`host:port`): a seed of which only the address is known yet.
    Address(String),
}

impl fmt::Display for Dest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing was sent: asking elsewhere, or again, is safe.
    #[error("nothing was sent to {peer}: {reason}")]
    NotSent {
        /// Who was meant.
        peer: Dest,
        /// What stood in the way.
        reason: String,
    },
    /// Nothing was sent: a bounded queue towards this peer is full. Back off.
    #[error("{what} towards {peer} is full: {limit}")]
    Overloaded {
        /// Who was meant.
        peer: Dest,
        /// Which queue.
        what: &'static str,
        /// Its bound, in requests.
        limit: usize,
    },
    /// The connection was lost after the request may have left: perhaps it was done.
    #[error("lost {peer} after the request was sent: {reason}")]
    Perhaps {
        /// Who was asked.
        peer: Dest,
        /// What happened.
        reason: String,
    },
    /// The peer answered "no".
    #[error("{peer} refused ({code}): {message}")]
    Refused {
        /// Who was asked.
        peer: Dest,
        /// For programs.
        code: RefusalCode,
        /// For people.
        message: String,
    },
    /// Nothing was sent: the body is over the limit.
    #[error("body has {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// Time ran out. With `sent: false` the request was taken back and will never be sent; else perhaps it was done.
    #[error("no answer from {peer} in {after:?} ({})", if *sent { "sent, perhaps done" } else { "not sent" })]
    Deadline {
        /// Who was asked.
        peer: Dest,
        /// How long the caller was ready to wait.
        after: Duration,
        /// Whether the request may have reached the peer.
        sent: bool,
    },
}

impl TransportError {
    /// Whether the request may have taken effect: then it may be repeated only under the same request id.
    pub fn perhaps_done(&self) -> bool {
        match self {
            Self::Perhaps { .. } => true,
            Self::Deadline { sent, .. } => *sent,
            Self::Refused { code, .. } => code.perhaps_done(),
            Self::NotSent { .. } | Self::Overloaded { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// Why a stream (a snapshot) ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream with {peer} broke off: {reason}")]
pub struct StreamError {
    /// The other end.
    pub peer: String,
    /// What happened.
    pub reason: String,
}

/// The answer "no" of a peer's transport or handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people; cut at [`Refusal::MESSAGE_MAX`] bytes on the wire.
    pub message: String,
}

impl Refusal {
    /// Longest message that travels, in bytes.
    pub const MESSAGE_MAX: usize = 1024;

    /// A refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Kinds of refusal. All but `Dropped`, `ReplyTooLarge` and `Other` say: nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The peer does not know this kind of frame or service (it runs another release, or lacks the service).
    UnknownKind,
    /// A bounded queue of the peer is full.
    Overloaded,
    /// The handler let go of the request without an answer; perhaps it was done.
    Dropped,
    /// The peer is shutting down.
    Stopping,
    /// This peer may not ask that.
    Forbidden,
    /// The body does not decode.
    Invalid,
    /// The request was done, but its reply is over the frame limit.
    ReplyTooLarge,
    /// A code of a later release; nothing is known about it.
    Other(u16),
}

impl RefusalCode {
    /// Whether the refused request may have taken effect.
    pub fn perhaps_done(self) -> bool {
        match self {
            Self::Dropped | Self::ReplyTooLarge | Self::Other(_) => true,
            Self::UnknownKind | Self::Overloaded | Self::Stopping | Self::Forbidden | Self::Invalid => false,
        }
    }

    /// The number on the wire. Numbers are never reused.
    pub(crate) fn to_wire(self) -> u16 {
        match self {
            Self::UnknownKind => 1,
            Self::Overloaded => 2,
            Self::Dropped => 3,
            Self::Stopping => 4,
            Self::Forbidden => 5,
            Self::Invalid => 6,
            Self::ReplyTooLarge => 7,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::UnknownKind,
            2 => Self::Overloaded,
            3 => Self::Dropped,
            4 => Self::Stopping,
            5 => Self::Forbidden,
            6 => Self::Invalid,
            7 => Self::ReplyTooLarge,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind => f.write_str("unknown_kind"),
            Self::Overloaded => f.write_str("overloaded"),
            Self::Dropped => f.write_str("dropped"),
            Self::Stopping => f.write_str("stopping"),
            Self::Forbidden => f.write_str("forbidden"),
            Self::Invalid => f.write_str("invalid"),
            Self::ReplyTooLarge => f.write_str("reply_too_large"),
            Self::Other(code) => write!(f, "code {code}"),
        }
    }
}
