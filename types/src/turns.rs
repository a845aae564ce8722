//! What owners remember of the turns they ran last.

use bincode::{Decode, Encode};

use crate::{Epoch, RequestId, WallMs};

/// Why a turn ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum TurnCause {
    /// Somebody called, from outside or with a client.
    Call,
    /// Another actor called, or this one itself.
    Actor,
    /// A schedule was due.
    Schedule,
    /// The actor was made.
    Create,
    /// A hook of its life or of a connection.
    Hook,
    /// Its `run` hook, or work beside the turns.
    Background,
}

impl TurnCause {
    /// The cause as one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Actor => "actor",
            Self::Schedule => "schedule",
            Self::Create => "create",
            Self::Hook => "hook",
            Self::Background => "background",
        }
    }
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum TurnOutcome {
    /// Well.
    Ok,
    /// With an error.
    Error {
        /// Its group.
        group: String,
        /// Its code.
        code: String,
    },
    /// User code panicked.
    Panicked,
    /// Its time was up.
    TimedOut,
}

/// One turn that is over.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TurnTrace {
    /// Number of the turn in its shard and epoch; later ones are higher.
    pub number: u64,
    /// The ownership that ran it.
    pub epoch: Epoch,
    /// What ran: the name of an action or a hook.
    pub what: String,
    /// Why.
    pub cause: TurnCause,
    /// Whether it held the state alone: if it failed, nothing of it was left.
    pub exclusive: bool,
    /// The request it answered; the default when there was none.
    pub request: RequestId,
    /// W3C trace context of the caller (trace id, parent span id, flags); all zero when absent.
    pub trace: [u8; 25],
    /// When it began, by the clock of its node.
    pub began: WallMs,
    /// Microseconds from its arrival at the shard (for a schedule: from when it was due) to its begin.
    pub waited_us: u32,
    /// Microseconds that it ran.
    pub ran_us: u32,
    /// Microseconds from its end until its effects were committed; `None` when there was nothing to commit, or it is on
    /// its way.
    pub commit_us: Option<u32>,
    /// How it ended.
    pub outcome: TurnOutcome,
}

/// The output of [`CallOp::Turns`](crate::CallOp::Turns).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct TurnsReply {
    /// The turns in the order of their ends, the newest last.
    pub turns: Vec<TurnTrace>,
    /// Whether older ones of the asked time are remembered, and left out for the limit.
    pub clamped: bool,
}
