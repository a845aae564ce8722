//! The interface a node runs actors through: no generics, states as [`StateArc`], arguments and results as bytes.
//!
//! Not here: how a typed actor becomes one (`typed`), what turns run with (`turn`).

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

use clinch_types::HttpRequest;

use crate::{Access, ActorOptions, Body, BoxFuture, ConnHooks, ConnSeat, Error, Frame, Turn};

/// Holds an actor's state. The only reference while an exclusive turn or a hook runs.
pub type StateArc = Arc<dyn Any + Send + Sync>;

/// How an action runs, known from its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// `&mut self`: alone, committed.
    Exclusive,
    /// `&self`: a read, beside other reads.
    Shared,
    /// No `self`: beside everything; touches the state in turns of its own.
    Interleaved,
}

/// One action of an actor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionInfo {
    /// Its name on the wire.
    pub name: &'static str,
    /// How it runs.
    pub kind: ActionKind,
}

/// A moment in the life of an actor at which its code may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Once, after `create`.
    OnCreate,
    /// At each start: after creation, sleep, move or crash.
    OnWake,
    /// Before sleep; not after a crash.
    OnSleep,
    /// Before the state is gone for ever.
    OnDestroy,
}

impl Hook {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OnCreate => "on_create",
            Self::OnWake => "on_wake",
            Self::OnSleep => "on_sleep",
            Self::OnDestroy => "on_destroy",
        }
    }
}

/// An actor type without its Rust type. Implemented by [`crate::TypeOf`].
pub trait ActorType: Send + Sync + 'static {
    /// Its name on the wire.
    fn name(&self) -> &'static str;
    /// The version of its state's shape.
    fn version(&self) -> u32;
    /// How its actors are run.
    fn options(&self) -> &ActorOptions;
    /// Its actions; indexes of other methods point in here.
    fn actions(&self) -> &[ActionInfo];
    /// Finds an action.
    fn action(&self, name: &str) -> Option<usize>;
    /// What tells its TypeScript types, if it does.
    #[cfg(feature = "typescript")]
    fn typescript(&self) -> Option<crate::TellTypes> {
        None
    }
    /// Whether [`ActorType::hook`] would do anything.
    fn has_hook(&self, hook: Hook) -> bool;
    /// Makes the first state.
    fn create(&self, turn: Arc<Turn>, input: Option<Bytes>) -> BoxFuture<'static, Result<StateArc, Error>>;
    /// Appends the state as CBOR with field names.
    ///
    /// # Errors
    /// When the state refuses to be serialized; `out` may then end in part of it.
    fn encode(&self, state: &StateArc, out: &mut Vec<u8>) -> Result<(), Error>;
    /// Reads a state back; runs `migrate` when it is of an older version.
    ///
    /// # Errors
    /// Names both versions when the state is newer than the code, or the field that does not fit.
    fn decode(&self, version: u32, bytes: &[u8]) -> Result<StateArc, Error>;
    /// Whether there is anything in the state: an empty struct is none.
    fn has_state(&self) -> bool;
    /// Reads a state that somebody wrote by hand, as arguments are read, in place of this one; it is to be durable before
    /// the turn is answered. When the result is an error the state returned is the old one.
    fn replace(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        bytes: Bytes,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)>;
    /// Runs a `&mut self` action. When the result is an error the state returned is dirty: drop it.
    fn exclusive(
        &self,
        action: usize,
        state: StateArc,
        turn: Arc<Turn>,
        args: Bytes,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)>;
    /// Runs a `&self` action.
    fn shared(
        &self,
        action: usize,
        state: StateArc,
        turn: Arc<Turn>,
        args: Bytes,
    ) -> BoxFuture<'static, Result<Vec<u8>, Error>>;
    /// Runs an action without `self`.
    fn interleaved(
        &self,
        action: usize,
        turn: Arc<Turn>,
        args: Bytes,
    ) -> BoxFuture<'static, Result<Vec<u8>, Error>>;
    /// Makes the variables of an activation; `None` when the type has none.
    fn vars(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
    ) -> Option<BoxFuture<'static, Result<Arc<dyn Any + Send + Sync>, Error>>>;
    /// The work beside the turns while the actor is awake; `None` when the type has none.
    fn run(&self, turn: Arc<Turn>) -> Option<BoxFuture<'static, Result<(), Error>>>;
    /// Whether [`ActorType::vars`] gives anything.
    fn has_vars(&self) -> bool;
    /// Whether [`ActorType::run`] gives anything.
    fn has_run(&self) -> bool;
    /// Tells the actor that a turn has changed its state; what it asks for then belongs to the turn.
    ///
    /// # Errors
    /// What the hook returned, or what it could not be told of: the turn fails.
    fn state_changed(&self, state: &StateArc, turn: &Arc<Turn>) -> Result<(), Error>;
    /// Which hooks of connections there are.
    fn conn_hooks(&self) -> ConnHooks;
    /// Opens a connection: `before_connect`, `conn_state`, `on_connect`, and `on_websocket` for a raw one. Gives CBOR of the
    /// connection's state; the turn's visit has the whole connection then. When the result is an error the state returned
    /// is dirty, as in all of the following.
    fn connect(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        seat: ConnSeat,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)>;
    /// Runs `on_disconnect` for the connection of the turn's visit.
    fn disconnect(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)>;
    /// Runs `on_message` for the connection of the turn's visit.
    fn message(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        frame: Frame,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)>;
    /// Runs `on_request`; `body` is that of a request which announces a streamed one. The output is
    /// [`clinch_types::codec`] of a [`clinch_types::HttpReply`]; a streamed answer is with the turn's visit.
    fn request(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        request: HttpRequest,
        body: Option<Body>,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)>;
    /// Whether the client of the turn's visit may.
    ///
    /// # Errors
    /// `auth.forbidden`, or what the hook returned.
    fn allows(&self, state: &StateArc, turn: &Arc<Turn>, access: Access<'_>) -> Result<(), Error>;
    /// Runs a hook; `Ok` at once when there is none. When the result is an error the state returned is dirty.
    fn hook(
        &self,
        hook: Hook,
        state: StateArc,
        turn: Arc<Turn>,
    ) -> BoxFuture<'static, (StateArc, Result<(), Error>)>;
}
