//! The seam between a typed handle and whoever carries its calls: the node's router, the Rust client, a test.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use clinch_types::{ActorId, CallOp, CallReply, ConnId, Consistency, Door, RequestId, Target};

use crate::{Body, Error};

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a raw HTTP request brings: the reply, and the body of the answer if that is streamed.
pub type Answered = (CallReply, Option<Body>);

/// Carries calls to their actors.
pub trait Caller: Send + Sync + 'static {
    /// Ends with the reply or an error; never waits without bound. Retries, if any, happen inside and under one
    /// request id.
    fn call(&self, call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>>;

    /// As [`Caller::call`] for a raw HTTP request, with its body if that is streamed; brings the answer with its own, if that
    /// is. Where calls are carried without bodies beside them, `actor.not_supported`.
    fn exchange(
        &self,
        call: OutgoingCall,
        body: Option<Body>,
    ) -> BoxFuture<'static, Result<Answered, Error>> {
        drop((call, body));
        Box::pin(std::future::ready(Err(crate::fetch::no_exchanges())))
    }

    /// A name for a new connection that nobody else draws or guesses; `None` where there are no connections.
    fn draw_conn(&self) -> Option<ConnId> {
        None
    }
}

/// One call as a handle hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingCall {
    /// To whom.
    pub target: Target,
    /// What to do.
    pub op: CallOp,
    /// How long the caller waits at most; `None` is the carrier's default.
    pub timeout: Option<Duration>,
    /// The user's name for this intention: remembered for the long window.
    pub idempotency_key: Option<String>,
    /// How fresh a read must be.
    pub consistency: Consistency,
    /// Only if the actor is awake.
    pub if_active: bool,
    /// The actors that wait for this call, outermost first.
    pub chain: Vec<ActorId>,
    /// CBOR of the connection parameters.
    pub params: Option<Bytes>,
    /// The request id, where the caller remembers it itself: a call that is repeated after a restart. `None` draws one.
    pub request: Option<OwnRequest>,
    /// How the call comes to the actor, when it opens a connection or travels over one.
    pub door: Option<Box<Door>>,
}

/// A request id that its caller keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnRequest {
    /// The id.
    pub id: RequestId,
    /// Its session's requests with lower numbers are settled.
    pub acked_below: u64,
}
