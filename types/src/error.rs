//! Errors, sorted by what the caller should do next.

use std::fmt;

use bincode::{Decode, Encode};

use crate::{ActorId, Epoch, NodeId, ShardId};

/// Error groups used on the wire.
pub mod group {
    /// Addressing, life cycle and actions of actors.
    pub const ACTOR: &str = "actor";
    /// Raised by the application with `UserError`.
    pub const USER: &str = "user";
    /// Size of a message.
    pub const MESSAGE: &str = "message";
    /// The cluster in front of the actor: no route, no quorum, no time.
    pub const GUARD: &str = "guard";
    /// Anything the client must not see in detail.
    pub const INTERNAL: &str = "rivetkit";
    /// KV storage of an actor.
    pub const KV: &str = "kv";
    /// Schedules of an actor.
    pub const SCHEDULE: &str = "schedule";
    /// Durable queues of an actor.
    pub const QUEUE: &str = "queue";
    /// What a client may do.
    pub const AUTH: &str = "auth";
    /// Namespaces.
    pub const NAMESPACE: &str = "namespace";
}

/// Error codes used on the wire by more than one crate.
pub mod code {
    /// No such actor.
    pub const NOT_FOUND: &str = "not_found";
    /// No actor type of that name is registered in the cluster.
    pub const NOT_REGISTERED: &str = "not_registered";
    /// The actor has no action of that name.
    pub const ACTION_NOT_FOUND: &str = "action_not_found";
    /// The action ran longer than its time limit.
    pub const ACTION_TIMED_OUT: &str = "action_timed_out";
    /// The key is taken.
    pub const DUPLICATE_KEY: &str = "duplicate_key";
    /// A call chain came back to an actor that waits for it.
    pub const DEADLOCK: &str = "deadlock";
    /// A bounded queue is full.
    pub const OVERLOADED: &str = "overloaded";
    /// Only awake actors were wanted.
    pub const NOT_ACTIVE: &str = "not_active";
    /// Arguments, input or frame do not decode.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// Anything not meant for clients.
    pub const INTERNAL_ERROR: &str = "internal_error";
    /// The shard cannot serve now.
    pub const SERVICE_UNAVAILABLE: &str = "service_unavailable";
    /// The node that would have to answer runs an earlier release.
    pub const NOT_SUPPORTED: &str = "not_supported";
    /// Time ran out; perhaps the call took effect.
    pub const REQUEST_TIMEOUT: &str = "request_timeout";
    /// A key over its limit.
    pub const KEY_TOO_LARGE: &str = "key_too_large";
    /// An input over its limit.
    pub const INPUT_TOO_LARGE: &str = "input_too_large";
    /// A request over its limit.
    pub const INCOMING_TOO_LONG: &str = "incoming_too_long";
    /// A reply over its limit.
    pub const OUTGOING_TOO_LONG: &str = "outgoing_too_long";
    /// The body of a raw request over its limit.
    pub const REQUEST_BODY_TOO_LARGE: &str = "request_body_too_large";
    /// A body whose other side went away before its end.
    pub const BROKEN_OFF: &str = "broken_off";
    /// The call took effect; its answer was streamed, and is lost.
    pub const ANSWER_LOST: &str = "answer_lost";
    /// The encoded state is over its limit.
    pub const STATE_TOO_LARGE: &str = "state_too_large";
    /// A message of a durable queue over its limit.
    pub const MESSAGE_TOO_LARGE: &str = "message_too_large";
    /// An actor's durable queues hold as many messages as they may, or its KV store as many bytes.
    pub const FULL: &str = "full";
    /// A hook ran longer than its time limit.
    pub const HOOK_TIMED_OUT: &str = "hook_timed_out";
    /// The client may not.
    pub const FORBIDDEN: &str = "forbidden";
    /// The default code of a `UserError`.
    pub const USER_ERROR: &str = "user_error";
}

/// The definite answer "no" to a call: from the application, or from a check in front of it. The call had no effect.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ActorError {
    /// Which part of the system says so; see [`group`].
    pub group: String,
    /// What is wrong, for programs; see [`code`].
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// CBOR of further facts.
    pub metadata: Option<Vec<u8>>,
}

impl ActorError {
    /// An error without metadata.
    pub fn new(group: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            code: code.into(),
            message: message.into(),
            metadata: None,
        }
    }

    /// The fixed error that hides an internal one; `reference` finds the full text in the node's log.
    pub fn internal(reference: &str) -> Self {
        Self::new(
            group::INTERNAL,
            code::INTERNAL_ERROR,
            format!("Internal error. Read the server logs for more details. (reference {reference})"),
        )
    }

    /// A name that is too long.
    pub fn too_long(what: &str, len: usize, max: usize) -> Self {
        Self::new(
            group::ACTOR,
            code::INVALID_REQUEST,
            format!("{what} has length {len}, at most {max} is allowed"),
        )
    }

    /// Whether this is the error `group.code`.
    pub fn is(&self, group: &str, code: &str) -> bool {
        self.group == group && self.code == code
    }
}

impl fmt::Display for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}: {}", self.group, self.code, self.message)
    }
}

impl fmt::Debug for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorError({self})")
    }
}

impl std::error::Error for ActorError {}

/// Why a call has no reply. Travels between nodes; a gateway turns it into a body of its own protocol.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum CallError {
    /// Nothing was done: this node does not own the shard. Ask `owner`, if known.
    #[error("shard {shard} is not owned here (epoch {epoch}, owner {})", owner.map_or("unknown".to_owned(), |o| o.to_string()))]
    Moved {
        /// The shard.
        shard: ShardId,
        /// Its owner as far as this node knows.
        owner: Option<NodeId>,
        /// The epoch this node has seen.
        epoch: Epoch,
        /// The version of the route map this node has.
        map_version: u64,
    },
    /// Nothing was done: the shard cannot serve now (electing, recovering, no quorum); soon it may.
    #[error("shard {shard} cannot serve: {reason}")]
    Unavailable {
        /// The shard.
        shard: ShardId,
        /// Which part is missing.
        reason: String,
    },
    /// Nothing was done: a bounded queue is full. Back off.
    #[error("{what} is full: {limit} calls wait")]
    Overloaded {
        /// Which queue.
        what: String,
        /// Its bound.
        limit: u64,
    },
    /// Perhaps done: retry only under the same request id.
    #[error("perhaps done: {reason}")]
    Perhaps {
        /// What happened.
        reason: String,
    },
    /// Definite: no effect, and a retry will not help.
    #[error("{0}")]
    Failed(ActorError),
    /// Definite: the call waits for itself.
    #[error("deadlock: {}", chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> "))]
    Deadlock {
        /// The actors of the circle, ending with the one called.
        chain: Vec<ActorId>,
    },
}

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Ask elsewhere (or again, shortly): nothing was done.
    Elsewhere,
    /// Wait, then ask again: nothing was done.
    BackOff,
    /// Ask again under the same request id only.
    SameRequest,
    /// Give up.
    Final,
}

impl CallError {
    /// The reaction this error asks for.
    pub fn reaction(&self) -> Reaction {
        match self {
            Self::Moved { .. } | Self::Unavailable { .. } => Reaction::Elsewhere,
            Self::Overloaded { .. } => Reaction::BackOff,
            Self::Perhaps { .. } => Reaction::SameRequest,
            Self::Failed(_) | Self::Deadlock { .. } => Reaction::Final,
        }
    }

    /// The error as applications see it.
    pub fn into_actor_error(self) -> ActorError {
        let message = self.to_string();
        match self {
            Self::Failed(error) => error,
            Self::Moved { .. } | Self::Unavailable { .. } => {
                ActorError::new(group::GUARD, code::SERVICE_UNAVAILABLE, message)
            }
            Self::Overloaded { .. } => ActorError::new(group::ACTOR, code::OVERLOADED, message),
            Self::Perhaps { .. } => ActorError::new(group::GUARD, code::REQUEST_TIMEOUT, message),
            Self::Deadlock { .. } => ActorError::new(group::ACTOR, code::DEADLOCK, message),
        }
    }
}

impl From<ActorError> for CallError {
    fn from(error: ActorError) -> Self {
        Self::Failed(error)
    }
}
