//! The programming model of Clinch: actors, contexts, calls, effects. No network, no Raft.
//!
//! Users see [`Actor`] (written by `#[clinch::actor]`), [`Ctx`], handles and [`Call`]s, [`Event`]s and [`Error`].
//! A node sees [`ActorType`], [`Turn`], [`Effects`] and implements [`Host`] and [`Caller`].
//!
//! Invariant: user code has no effect by itself. It changes its own state value and a list of [`Effects`]; both
//! count only if whoever runs the turn commits them.
//! Not here: running and committing turns (`node`), carrying calls (`node`, `client`), protocols (`gateway`).

mod actor;
mod args;
mod body;
mod caller;
mod cbor;
mod conn;
mod connect;
mod connection;
mod ctx;
mod effects;
mod erased;
mod error;
mod event;
mod fetch;
mod handle;
mod key;
mod kv;
mod life;
mod meta;
mod options;
mod outcome;
mod queue;
mod registry;
mod request;
mod schedules;
mod socket;
mod timing;
mod turn;
mod typed;
#[cfg(feature = "typescript")]
mod typescript;

pub use actor::{
    AccessFn, Actor, BeforeConnectFn, ConnFn, ConnStateFn, CreateFn, DefaultState, ExclusiveFn, HookFn,
    Input, InterleavedFn, MessageFn, MigrateFn, RequestFn, ResponseFn, RunFn, SharedFn, Spec, StateChangeFn,
    VarsFn, reply,
};
pub use args::{Args, ArgsWriter};
pub use body::{Body, BodySender};
pub use caller::{Answered, BoxFuture, Caller, OutgoingCall, OwnRequest};
pub use cbor::{Any, DEPTH_MAX as CBOR_DEPTH_MAX, Rest, decode, to_vec as encode};
pub use conn::{Access, CLOSE_REASON_MAX, Conn, ConnHooks, ConnSeat, Frame, Visit};
pub use connection::{ConnStatus, Connection, Events};
pub use ctx::Ctx;
pub use effects::{
    Audience, ConnOp, EFFECTS_MAX, Effects, EventOut, FireInfo, RunOutcome, RunRecord, ScheduleEntry,
    ScheduleId, ScheduleIdError, ScheduleOp, SendOut,
};
pub use erased::{ActionInfo, ActionKind, ActorType, Hook, StateArc};
pub use error::{ActionResult, BoxError, Error, IntoActionError, Result};
pub use event::{Emits, EmittedBy, Event};
pub use handle::{Call, CallWithMeta, IDEMPOTENCY_KEY_MAX, IntoWallMs, RawHandle};
pub use key::{FromKey, FromKeyPart, IntoKey, KeyPart, ShardedKey};
pub use kv::{KV_LIST_MAX, Kv, KvEntry};
pub use life::{Life, LifeTask};
pub use meta::ActorMeta;
pub use options::{ActorOptions, Durability, OptionsError};
pub use queue::{LEASE_DEFAULT, Leases, Message, MessageId, Queue, QueueHandle, QueueOp, Settle, Stored};
pub use registry::{Registry, RegistryError};
pub use request::{HttpAnswer, HttpAsked, serve_request};
pub use schedules::Schedules;
pub use socket::RawSocket;
pub use timing::{CRON_MAX, EVERY_MIN, MissedTick, Timing};
/// The crate whose derive gives a type its TypeScript.
#[cfg(feature = "typescript")]
pub use ts_rs;
pub use turn::{Host, Origin, ReadState, SPANS, Spawn, Turn, TurnInit, UpdateState};
pub use typed::TypeOf;
#[cfg(feature = "typescript")]
pub use typescript::{ActorTypes, InTypeScript, Signature, TellTypes, TypeScriptError, WideIntegers};

pub use clinch_macros::{ActorKey, Event, actor};
pub use clinch_types::{ConnId, ConnKind, Consistency};
/// Requests and responses of `on_request`.
pub use http;

/// What `#[actor(typescript)]` writes, where the feature is on.
#[cfg(feature = "typescript")]
#[doc(hidden)]
#[macro_export]
macro_rules! __typescript {
    ($($code:tt)*) => { $($code)* };
}

/// What `#[actor(typescript)]` writes, where the feature is off.
#[cfg(not(feature = "typescript"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __typescript {
    ($($code:tt)*) => {
        compile_error!("`#[actor(typescript)]` needs the feature `typescript` of the crate `clinch`");
    };
}

/// What the code written by the macros refers to. No part of the interface: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::__typescript as typescript;
    pub use clinch_types::{Key, KeyError, RegionId};
    pub use serde::Serialize;

    pub use crate::outcome::{CallYourResultTypeResult, Fallible};
    pub use crate::request::{HttpAnswer, HttpAsked};
    pub use crate::{
        Actor, ActorOptions, Any, Args, ArgsWriter, BoxFuture, Call, Conn, Connection, Durability, Emits,
        Error, Event, Frame, FromKey, FromKeyPart, Hook, IntoKey, KeyPart, RawHandle, Spec, reply,
    };
}
