//! A call on an actor as it travels: from client or gateway to the owner, and the reply back.
//!
//! Argument and reply bytes are CBOR, produced once at the sender and not touched until the receiver decodes them.

use bincode::{Decode, Encode};

use crate::{
    ActorId, ConnId, ConnKind, Door, Epoch, HttpBody, HttpRequest, Key, RegionId, RequestId, ShardId, Slot,
    Version, WallMs, limits, slot_of,
};

/// Which actor is meant.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Target {
    /// By its id.
    Id(ActorId),
    /// By namespace, actor name and key.
    Key {
        /// The namespace (tenant); `default` unless given.
        namespace: String,
        /// The actor type's name.
        name: String,
        /// The key.
        key: Key,
        /// What to do when there is none: `None` fails with `actor.not_found`, `Some` creates it in the same turn.
        create: Option<CreateSpec>,
    },
}

impl Target {
    /// The slot the actor lives in.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Id(id) => id.slot(),
            Self::Key {
                namespace, name, key, ..
            } => slot_of(namespace, name, key),
        }
    }
}

/// How an actor that does not exist yet is made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct CreateSpec {
    /// CBOR of the input; only the call that creates uses it.
    pub input: Option<Vec<u8>>,
    /// The home region; `None` is the region of the node that was asked.
    pub region: Option<RegionId>,
}

/// What is asked of the actor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CallOp {
    /// Run an action. `args` is a CBOR array of the positional arguments.
    Action {
        /// The action's name on the wire.
        name: String,
        /// The arguments.
        args: Vec<u8>,
    },
    /// Find (or, with [`CreateSpec`], create) the actor; the reply's output is [`codec`](crate::codec) of an
    /// [`ActorInfo`](crate::ActorInfo).
    Resolve,
    /// Create the actor; fails with `actor.duplicate_key` when the key is taken (metadata `existing_actor_id` and
    /// `key`). The reply's output is as for [`CallOp::Resolve`].
    Create,
    /// Destroy the actor for ever; the reply's output is empty.
    Destroy,
    /// Add a message to one of the actor's durable queues. The reply's output is CBOR of the message's number, or with
    /// `wait` of the value it was completed with, once it is.
    Push {
        /// The queue's name.
        queue: String,
        /// CBOR of the content.
        body: Vec<u8>,
        /// Whether the reply comes when the message has been dealt with.
        wait: bool,
    },
    /// Open a connection; its parameters are those of the call. The output is empty; items follow from the version of
    /// the reply on.
    Connect {
        /// The connection's name, drawn by the gateway.
        conn: ConnId,
        /// What travels over it.
        kind: ConnKind,
        /// Path and query that were asked for; empty for [`ConnKind::Events`].
        path: String,
    },
    /// Wait for items of a connection; neither wakes the actor nor counts as a use of it. The output is
    /// [`codec`](crate::codec) of a [`Polled`](crate::Polled), without items when nothing came for a while.
    Poll {
        /// The connection.
        conn: ConnId,
        /// The gateway has all items up to this version.
        seen: u64,
        /// The epoch of the last answer; 0 for none.
        epoch: Epoch,
    },
    /// Begin or end to send events of a name to a connection.
    Subscribe {
        /// The connection.
        conn: ConnId,
        /// The event's name.
        event: String,
        /// Whether to begin.
        on: bool,
    },
    /// A message of a raw WebSocket for its actor.
    Message {
        /// The connection.
        conn: ConnId,
        /// Whether the bytes are text.
        text: bool,
        /// The content.
        data: Vec<u8>,
    },
    /// The client has gone, or was sent away.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// A raw HTTP request; the output is [`codec`](crate::codec) of an [`HttpReply`](crate::HttpReply).
    Http(Box<HttpRequest>),
    /// Look at the actor: the output is a CBOR map of `state`, `connections` and `queue`, as they are between turns.
    Inspect,
    /// Put another state in the place of the actor's; it is durable before the reply, whatever the actor's durability. The
    /// output is empty.
    ReplaceState {
        /// CBOR of the state, read as arguments are.
        state: Vec<u8>,
    },
    /// Take all messages out of the actor's queues that nobody works on; the output is CBOR of their number.
    ClearQueues,
    /// See how the actor is, without waking it, making it or keeping it awake; the output is [`codec`](crate::codec) of an
    /// [`ActorLook`](crate::ActorLook).
    Look,
    /// See which turns it ran last, as far as its owner remembers them; neither wakes nor makes it. The output is
    /// [`codec`](crate::codec) of a [`TurnsReply`](crate::TurnsReply).
    Turns {
        /// Only turns that began at this time or later.
        from: WallMs,
        /// Only turns that began at this time or earlier.
        to: WallMs,
        /// At most this many, the newest: 1 to [`limits::TURNS_MAX`].
        limit: u32,
    },
}

impl CallOp {
    /// Whether it only looks at an actor from outside. Owners of an earlier release know no such operation: it travels as
    /// [`kind::LOOK`](crate::kind::LOOK), which they refuse.
    pub fn is_look(&self) -> bool {
        matches!(self, Self::Look | Self::Turns { .. })
    }

    /// Checks what concerns connections, raw requests and operators against the limits.
    fn check_others(&self) -> Result<(), crate::ActorError> {
        use crate::ActorError as E;
        let over = |what: &str, len: usize, max: usize| match len > max {
            true => Err(E::too_long(what, len, max)),
            false => Ok(()),
        };
        match self {
            Self::Connect { path, .. } => over("path", path.len(), limits::URI_MAX),
            Self::Subscribe { event, .. } => over("event name", event.len(), limits::EVENT_NAME_MAX),
            Self::Message { data, .. } => over("message", data.len(), limits::RAW_MESSAGE_MAX),
            Self::Http(request) => {
                over("method", request.method.len(), limits::ACTION_NAME_MAX)?;
                over("path", request.uri.len(), limits::URI_MAX)?;
                match &request.body {
                    HttpBody::Whole(body) => over("body", body.len(), limits::HTTP_WHOLE_MAX),
                    // Its actor says how long it may be.
                    HttpBody::Streamed { .. } => Ok(()),
                }
            }
            Self::ReplaceState { state } => over("state", state.len(), limits::STATE_MAX),
            Self::Action { .. }
            | Self::Resolve
            | Self::Create
            | Self::Destroy
            | Self::Push { .. }
            | Self::Poll { .. }
            | Self::Inspect
            | Self::ClearQueues
            | Self::Look
            | Self::Disconnect { .. } => Ok(()),
            Self::Turns { limit, .. } => match (1..=limits::TURNS_MAX).contains(limit) {
                true => Ok(()),
                false => Err(E::new(
                    crate::group::ACTOR,
                    crate::code::INVALID_REQUEST,
                    format!("limit is {limit}, it must be 1 to {}", limits::TURNS_MAX),
                )),
            },
        }
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Consistency {
    /// As if executed between call and reply, alone.
    #[default]
    Linearizable,
    /// May be answered with the state as it was at some moment since so many milliseconds before the call: without waiting
    /// for turns that are under way, without waking the actor, and by an owner that has been cut off from the others for less
    /// than that. Never with anything that is not committed. It is for reads (`&self`) of actors that keep nothing in
    /// variables and whose state is replicated; everything else is answered as without it.
    Stale {
        /// Greatest age, in milliseconds. 0 is fresh.
        max_age_ms: u32,
    },
}

impl Consistency {
    /// A read that may be this old; 49 days at most.
    pub fn stale(max_age: std::time::Duration) -> Self {
        let max_age_ms = u32::try_from(max_age.as_millis()).unwrap_or(u32::MAX);
        Self::Stale { max_age_ms }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallRequest {
    /// The caller's name for this intention.
    pub request: RequestId,
    /// All requests of this session with a lower number have been answered to the caller: their dedup records may go.
    pub acked_below: u64,
    /// Keep the dedup record for the long window (24 h), not the short one: the user chose the key.
    pub long_dedup: bool,
    /// Which actor.
    pub target: Target,
    /// What to do.
    pub op: CallOp,
    /// Only if the actor is awake; else `actor.not_active`.
    pub if_active: bool,
    /// How fresh a read must be.
    pub consistency: Consistency,
    /// The actors that wait for this call, outermost first.
    pub chain: Vec<ActorId>,
    /// CBOR of the connection parameters, for the connection hooks.
    pub params: Option<Vec<u8>>,
    /// W3C trace context (trace id, parent span id, flags); all zero when absent.
    pub trace: [u8; 25],
    /// How it came in, of a call from outside of the cluster.
    pub door: Option<Box<Door>>,
}

impl CallRequest {
    /// Checks what came from outside against the limits.
    ///
    /// # Errors
    /// `actor.invalid_request`, `actor.key_too_large` and the like, naming value and limit.
    pub fn check(&self) -> Result<(), crate::ActorError> {
        use crate::ActorError as E;
        if let Target::Key {
            namespace,
            name,
            key,
            create,
        } = &self.target
        {
            if namespace.len() > limits::NAMESPACE_MAX {
                return Err(E::too_long("namespace", namespace.len(), limits::NAMESPACE_MAX));
            }
            if name.chars().count() > limits::ACTOR_NAME_MAX {
                return Err(E::too_long(
                    "actor name",
                    name.chars().count(),
                    limits::ACTOR_NAME_MAX,
                ));
            }
            if let Err(error) = key.check() {
                return Err(E::new(
                    crate::group::ACTOR,
                    crate::code::KEY_TOO_LARGE,
                    error.to_string(),
                ));
            }
            if let Some(len) = create.as_ref().and_then(|c| c.input.as_ref()).map(Vec::len)
                && len > limits::INPUT_MAX
            {
                return Err(E::new(
                    crate::group::ACTOR,
                    crate::code::INPUT_TOO_LARGE,
                    format!("input has {len} bytes, at most {} are allowed", limits::INPUT_MAX),
                ));
            }
        }
        if let CallOp::Action { name, args } = &self.op {
            if name.len() > limits::ACTION_NAME_MAX {
                return Err(E::too_long("action name", name.len(), limits::ACTION_NAME_MAX));
            }
            if args.len() > limits::ARGS_MAX {
                return Err(E::new(
                    crate::group::MESSAGE,
                    crate::code::INCOMING_TOO_LONG,
                    format!(
                        "arguments have {} bytes, at most {} are allowed",
                        args.len(),
                        limits::ARGS_MAX
                    ),
                ));
            }
        }
        if let Some(len) = self.params.as_ref().map(Vec::len)
            && len > limits::PARAMS_MAX
        {
            return Err(E::too_long("connection parameters", len, limits::PARAMS_MAX));
        }
        if let Some(door) = &self.door {
            door.check()?;
        }
        self.op.check_others()?;
        if let CallOp::Push { queue, body, .. } = &self.op {
            if queue.is_empty() || queue.len() > limits::QUEUE_NAME_MAX {
                return Err(E::too_long("queue name", queue.len(), limits::QUEUE_NAME_MAX));
            }
            if body.len() > limits::QUEUE_MESSAGE_MAX {
                return Err(E::new(
                    crate::group::QUEUE,
                    crate::code::MESSAGE_TOO_LARGE,
                    format!(
                        "queue message has {} bytes, at most {} are allowed",
                        body.len(),
                        limits::QUEUE_MESSAGE_MAX
                    ),
                ));
            }
        }
        if self.chain.len() > limits::CHAIN_MAX {
            return Err(E::too_long("call chain", self.chain.len(), limits::CHAIN_MAX));
        }
        Ok(())
    }
}

/// Where in the actor's life a reply was produced: what a checker needs to judge a history in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct CallMeta {
    /// The actor, this life of it.
    pub actor: ActorId,
    /// The shard that owns it.
    pub shard: ShardId,
    /// The ownership epoch that answered.
    pub epoch: Epoch,
    /// The actor's version after this call.
    pub version: Version,
    /// Whether this call created the actor.
    pub created: bool,
}

/// The answer to a call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallReply {
    /// Where it was produced.
    pub meta: CallMeta,
    /// CBOR of the action's result.
    pub output: Vec<u8>,
}
