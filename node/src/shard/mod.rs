//! One shard on one node: its Raft group, the task that owns its actors while this node leads it, and the handle
//! through which the rest of the node reaches it.
//!
//! Invariant (G2): actors run only on the replica that is leader, has applied an entry of its own term, and fences
//! every proposal with that term.
//! Not here: what an actor does when awake (`activation`), which shards exist (`control`).

mod admission;
pub(crate) mod conn_records;
pub(crate) mod dedup;
mod events;
mod group;
pub(crate) mod keys;
mod linger;
mod listing;
mod network;
mod owner;
mod owners;
mod pipeline;
mod provisional;
pub(crate) mod records;
mod rpc;
mod stale;
mod task;
pub(crate) mod vigil;

use std::sync::Arc;

use clinch_actor::{Body, Error, Spawn, Turn};
use clinch_client::Answered;
use clinch_transport::Inbound;
use clinch_types::{
    CallError, CallReply, CallRequest, ConnId, ListReply, ListRequest, NodeId, RequestId, ShardId, ViewReply,
    codec,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use events::{EventBatch, EventHub, EventStream};
pub(crate) use group::{Group, GroupParts, Raft, open_group};
pub(crate) use owner::{Internal, Owner};
pub(crate) use owners::Owners;
pub(crate) use pipeline::{TurnEnd, Write};
pub(crate) use provisional::Provisional;
pub(crate) use rpc::{RaftDesk, kinds};
pub(crate) use task::{ShardContext, ShardEnds, ShardTask};

/// Where a call's answer goes.
pub(crate) enum ReplyTo {
    /// Over the network.
    Remote(Inbound),
    /// To a caller in this process.
    Local(oneshot::Sender<Result<CallReply, CallError>>),
    /// To a gateway, that tells it over a connection.
    Conn(ConnId, Box<ReplyTo>),
    /// To whoever sent a raw HTTP request, with bodies beside it.
    Exchange(Box<HttpSeat>),
}

/// The other end of a raw HTTP request: gives its body, and takes the answer with its own.
pub(crate) struct HttpSeat {
    body: Option<Body>,
    answer: Option<Body>,
    reply: oneshot::Sender<Result<Answered, CallError>>,
}

impl HttpSeat {
    /// A seat for a request with this streamed body, and where its answer appears.
    pub(crate) fn new(body: Option<Body>) -> (Self, oneshot::Receiver<Result<Answered, CallError>>) {
        let (reply, outcome) = oneshot::channel();
        let seat = Self {
            body,
            answer: None,
            reply,
        };
        (seat, outcome)
    }
}

impl ReplyTo {
    /// Notes which connection the call came over, if it did.
    pub(crate) fn over(self, request: &CallRequest) -> Self {
        match request.door.as_ref().and_then(|door| door.conn) {
            Some(conn) => Self::Conn(conn, Box::new(self)),
            None => self,
        }
    }

    pub(crate) fn send(self, result: Result<CallReply, CallError>) {
        match self {
            Self::Remote(inbound) => respond(inbound, &result),
            // The caller may be gone; what was committed stands.
            Self::Local(sender) => drop(sender.send(result)),
            Self::Conn(_, inner) => inner.send(result),
            Self::Exchange(seat) => {
                let HttpSeat { answer, reply, .. } = *seat;
                drop(reply.send(result.map(|result| (result, answer))));
            }
        }
    }

    /// The streamed body of a raw request, once.
    pub(crate) fn take_body(&mut self) -> Option<Body> {
        match self {
            Self::Exchange(seat) => seat.body.take(),
            Self::Remote(_) | Self::Local(_) | Self::Conn(..) => None,
        }
    }

    /// The body that goes with the answer, if that is streamed. Elsewhere than on an exchange it is let go.
    pub(crate) fn put_answer(&mut self, body: Option<Body>) {
        if let Self::Exchange(seat) = self {
            seat.answer = body;
        }
    }
}

/// Answers a request from the network with an encoded value.
pub(crate) fn respond<T: codec::Encode>(inbound: Inbound, value: &T) {
    match codec::encode(value) {
        Ok(bytes) => inbound.respond(bytes.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be encoded");
            // Dropped unanswered: the caller is told so, and counts it as perhaps done.
            drop(inbound);
        }
    }
}

/// An answer that waits for a commit.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are calls: a box for each would cost more than it saves"
)]
pub(crate) enum Release {
    /// To a caller.
    Call {
        request: RequestId,
        reply: ReplyTo,
        result: Result<CallReply, CallError>,
    },
    /// To an interleaved action that wrote.
    Update {
        done: oneshot::Sender<Result<Box<dyn std::any::Any + Send>, Error>>,
        value: Box<dyn std::any::Any + Send>,
    },
    /// Work that begins beside the turns.
    Spawn { turn: Arc<Turn>, spawns: Vec<Spawn> },
    /// What a turn tells connections of its actor.
    Deliver(crate::activation::Deliveries),
    /// One-way sends of an actor that may leave.
    Sends {
        source: clinch_types::ActorId,
        numbers: Vec<u64>,
    },
}

/// What the rest of the node asks of a shard.
pub(crate) enum ShardMsg {
    /// A call on one of its actors.
    Call {
        request: Box<CallRequest>,
        deadline: Instant,
        reply: ReplyTo,
    },
    /// Which actors there are.
    List { request: ListRequest, reply: ListTo },
    /// Move the leadership to that node, without failing a call. This node is about to stop, if it is `leaving`: actors are
    /// put to sleep before, as with `Rest`.
    HandOff { to: NodeId, leaving: bool },
    /// The node is about to stop: put actors to sleep that have something to do before.
    Rest { done: oneshot::Sender<()> },
}

/// Where a listing goes.
pub(crate) enum ListTo {
    Remote(Inbound),
    /// To a node or client of an earlier release, which knows no status.
    Plain(Inbound),
    Local(oneshot::Sender<Result<ViewReply, CallError>>),
}

impl ListTo {
    pub(crate) fn send(self, result: Result<ViewReply, CallError>) {
        match self {
            Self::Remote(inbound) => respond(inbound, &result),
            Self::Plain(inbound) => respond(inbound, &result.map(ListReply::from)),
            Self::Local(sender) => drop(sender.send(result)),
        }
    }
}

/// Reaches a shard of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) id: ShardId,
    pub(crate) tx: mpsc::Sender<ShardMsg>,
}

impl ShardHandle {
    /// Hands a call over; answers `Overloaded` at once when the shard's queue is full.
    pub(crate) fn call(&self, request: Box<CallRequest>, deadline: Instant, reply: ReplyTo) {
        if let Err(error) = self.tx.try_send(ShardMsg::Call {
            request,
            deadline,
            reply,
        }) {
            let (error, message) = match error {
                mpsc::error::TrySendError::Full(message) => (self.overloaded(), message),
                mpsc::error::TrySendError::Closed(message) => (self.stopping(), message),
            };
            if let ShardMsg::Call { reply, .. } = message {
                reply.send(Err(error));
            }
        }
    }

    /// Hands a listing over.
    pub(crate) fn list(&self, request: ListRequest, reply: ListTo) {
        if let Err(error) = self.tx.try_send(ShardMsg::List { request, reply }) {
            let (error, message) = match error {
                mpsc::error::TrySendError::Full(message) => (self.overloaded(), message),
                mpsc::error::TrySendError::Closed(message) => (self.stopping(), message),
            };
            if let ShardMsg::List { reply, .. } = message {
                reply.send(Err(error));
            }
        }
    }

    /// Puts actors to sleep that have something to do before the node stops; returns when that is durable, or at once when
    /// this node does not own the shard.
    pub(crate) async fn rest(&self) {
        let (done, rested) = oneshot::channel();
        if self.tx.send(ShardMsg::Rest { done }).await.is_ok() {
            // Dropped unanswered: there is nothing to put to sleep here any more.
            let _rested = rested.await;
        }
    }

    fn overloaded(&self) -> CallError {
        CallError::Overloaded {
            what: format!("the queue of shard {}", self.id),
            limit: self.tx.max_capacity() as u64,
        }
    }

    fn stopping(&self) -> CallError {
        CallError::Unavailable {
            shard: self.id,
            reason: "this node is stopping".into(),
        }
    }
}
