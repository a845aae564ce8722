//! Words shared by two or more Clinch crates: ids, keys, calls, error codes, limits, the Clock seam.
//!
//! Invariant: nothing here does I/O, reads a clock, draws randomness or needs a runtime. A type moves in
//! only when a second crate needs it.
//! Not here: who is in the cluster (`membership`), how bytes travel (`transport`), what an actor is (`actor`).

mod call;
mod clock;
pub mod codec;
mod conn;
mod error;
mod ids;
mod info;
mod key;
pub mod kind;
pub mod limits;
pub mod probe;
mod route;
mod turns;

pub use call::{CallMeta, CallOp, CallReply, CallRequest, Consistency, CreateSpec, Target};
pub use clock::{Clock, WallMs};
pub use conn::{
    ConnId, ConnIdError, ConnItem, ConnKind, ConnReply, Door, HttpBody, HttpReply, HttpRequest, Polled,
};
pub use error::{ActorError, CallError, Reaction, code, group};
pub use ids::{
    ActorId, ActorIdError, ClusterId, Epoch, Incarnation, NodeId, RegionId, RequestId, SessionId, ShardId,
    Slot, Version,
};
pub use info::{
    ActorInfo, ActorLook, ActorStatus, ActorView, ActorWarning, Crash, ListReply, ListRequest, ViewReply,
};
pub use key::{Key, KeyError, hash_128, slot_of};
pub use route::{NodeRoute, RouteMap, ShardRoute};
pub use turns::{TurnCause, TurnOutcome, TurnTrace, TurnsReply};
