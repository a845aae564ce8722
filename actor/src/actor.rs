//! What makes a Rust type an actor: the trait, and the table of its actions and hooks.
//!
//! `#[clinch::actor]` writes this implementation; `examples/by_hand.rs` shows that it is plain code.
//! Not here: how the table becomes the interface a node runs (`typed`).

use std::any::Any as AnyVars;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    ActionInfo, ActionKind, ActorOptions, Any, Args, Body, BoxFuture, Conn, Ctx, Error, Frame, Hook,
    RawHandle,
};

/// A durable, addressable object. The value is its persisted state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no actor",
    label = "put `#[clinch::actor(name = \"..\")]` on an `impl {Self}` block"
)]
pub trait Actor: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// The name on the wire, unique in a registry.
    const NAME: &'static str;
    /// The version of the state's shape; grows with changes that `#[serde(default)]` cannot bridge.
    const VERSION: u32 = 1;
    /// What callers hold: a type with one method per action, or [`RawHandle`].
    type Handle: From<RawHandle>;
    /// What an activation keeps beside the state, in memory only: connections, caches, channels. `()` for none.
    type Vars: Send + Sync + 'static;
    /// What the actor keeps of each connection, stored with the connection. `()` for nothing.
    type ConnState: Serialize + DeserializeOwned + Send + 'static;

    /// How actors of this type are run.
    fn options() -> ActorOptions {
        ActorOptions::default()
    }

    /// The actions and hooks.
    fn spec() -> Spec<Self>;
}

/// The bytes of a result.
///
/// # Errors
/// When the value refuses to be serialized.
pub fn reply<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    crate::cbor::to_vec(value)
}

/// The input of a new actor, not yet decoded.
#[derive(Debug, Clone, Default)]
pub struct Input(pub Option<Bytes>);

impl Input {
    /// Decodes it; an absent input is `None` where `T` is an `Option`.
    ///
    /// # Errors
    /// `actor.invalid_request` when it is missing or does not fit.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, Error> {
        crate::args::optional("the input", self.0.as_deref())
    }

    /// As [`Input::get`], of what is the parameters of a connection.
    ///
    /// # Errors
    /// `actor.invalid_request` when they are missing or do not fit.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Error> {
        crate::args::optional("the connection parameters", self.0.as_deref())
    }
}

/// Runs a `&mut self` action.
pub type ExclusiveFn<A> = for<'a> fn(&'a mut A, Ctx<A>, Args) -> BoxFuture<'a, Result<Vec<u8>, Error>>;
/// Runs a `&self` action.
pub type SharedFn<A> = for<'a> fn(&'a A, Ctx<A>, Args) -> BoxFuture<'a, Result<Vec<u8>, Error>>;
/// Runs an action without `self`.
pub type InterleavedFn<A> = fn(Ctx<A>, Args) -> BoxFuture<'static, Result<Vec<u8>, Error>>;
/// Runs a hook.
pub type HookFn<A> = for<'a> fn(&'a mut A, Ctx<A>) -> BoxFuture<'a, Result<(), Error>>;
/// Makes the variables of an activation.
pub type VarsFn<A> = for<'a> fn(&'a A, Ctx<A>) -> BoxFuture<'a, Result<<A as Actor>::Vars, Error>>;
/// Runs beside the turns as long as the actor is awake.
pub type RunFn<A> = fn(Ctx<A>) -> BoxFuture<'static, Result<(), Error>>;
/// Looks at the state after a turn that changed it.
pub type StateChangeFn<A> = fn(&A, &Ctx<A>) -> Result<(), Error>;
/// Looks at a result, and perhaps replaces it, before it leaves: state, context, action, result.
pub type ResponseFn<A> = fn(&A, &Ctx<A>, &str, Any) -> Result<Any, Error>;
/// Makes the first state.
pub type CreateFn<A> = fn(Ctx<A>, Input) -> BoxFuture<'static, Result<A, Error>>;
/// Reads a state that an older version wrote.
pub type MigrateFn<A> = fn(u32, &[u8]) -> Result<A, Error>;

/// Looks at a connection that is to be opened: state, context, parameters.
pub type BeforeConnectFn<A> = for<'a> fn(&'a A, Ctx<A>, Input) -> BoxFuture<'a, Result<(), Error>>;
/// Makes the state of a connection: state, context, parameters.
pub type ConnStateFn<A> =
    for<'a> fn(&'a A, Ctx<A>, Input) -> BoxFuture<'a, Result<<A as Actor>::ConnState, Error>>;
/// Is told of a connection.
pub type ConnFn<A> = for<'a> fn(&'a mut A, Ctx<A>, Conn<A>) -> BoxFuture<'a, Result<(), Error>>;
/// Takes a message of a raw WebSocket.
pub type MessageFn<A> = for<'a> fn(&'a mut A, Ctx<A>, Conn<A>, Frame) -> BoxFuture<'a, Result<(), Error>>;
/// Answers a raw HTTP request, or does not.
pub type RequestFn<A> = for<'a> fn(
    &'a mut A,
    Ctx<A>,
    http::Request<Body>,
) -> BoxFuture<'a, Result<Option<http::Response<Body>>, Error>>;
/// Says whether a client may subscribe to an event, or add to a queue: state, context, name.
pub type AccessFn<A> = fn(&A, &Ctx<A>, &str) -> Result<bool, Error>;

/// The hooks of connections and raw requests.
pub(crate) struct ConnTable<A: Actor> {
    pub(crate) before: Option<BeforeConnectFn<A>>,
    pub(crate) state: Option<ConnStateFn<A>>,
    pub(crate) connected: Option<ConnFn<A>>,
    pub(crate) disconnected: Option<ConnFn<A>>,
    pub(crate) websocket: Option<ConnFn<A>>,
    pub(crate) message: Option<MessageFn<A>>,
    pub(crate) request: Option<RequestFn<A>>,
    pub(crate) can_subscribe: Option<AccessFn<A>>,
    pub(crate) can_publish: Option<AccessFn<A>>,
}

impl<A: Actor> Default for ConnTable<A> {
    fn default() -> Self {
        Self {
            before: None,
            state: None,
            connected: None,
            disconnected: None,
            websocket: None,
            message: None,
            request: None,
            can_subscribe: None,
            can_publish: None,
        }
    }
}

pub(crate) enum Run<A> {
    Exclusive(ExclusiveFn<A>),
    Shared(SharedFn<A>),
    Interleaved(InterleavedFn<A>),
}

/// The table of an actor's actions and hooks.
pub struct Spec<A: Actor> {
    pub(crate) infos: Vec<ActionInfo>,
    pub(crate) runs: Vec<Run<A>>,
    pub(crate) hooks: Vec<(Hook, HookFn<A>)>,
    pub(crate) create: CreateFn<A>,
    pub(crate) migrate: Option<MigrateFn<A>>,
    pub(crate) vars: Option<MakeVars<A>>,
    pub(crate) run: Option<RunFn<A>>,
    pub(crate) on_state_change: Option<StateChangeFn<A>>,
    pub(crate) before_response: Option<ResponseFn<A>>,
    pub(crate) conns: ConnTable<A>,
    #[cfg(feature = "typescript")]
    pub(crate) typescript: Option<crate::TellTypes>,
}

/// [`VarsFn`] without the type of the variables.
pub(crate) type MakeVars<A> = Arc<
    dyn for<'a> Fn(&'a A, Ctx<A>) -> BoxFuture<'a, Result<Arc<dyn AnyVars + Send + Sync>, Error>>
        + Send
        + Sync,
>;

/// That an actor type can begin without a `create` hook.
#[diagnostic::on_unimplemented(
    message = "a new `{Self}` has no first state",
    label = "derive `Default`, or write `#[hook] async fn create(c: &Ctx<Self>, input: Input) -> Self`"
)]
pub trait DefaultState {
    /// The first state.
    fn default_state() -> Self;
}

#[diagnostic::do_not_recommend]
impl<A: Default> DefaultState for A {
    fn default_state() -> Self {
        Self::default()
    }
}

impl<A: Actor> Spec<A> {
    /// New actors start as `Default`; their input is ignored.
    pub fn from_default() -> Self
    where
        A: DefaultState,
    {
        Self::with_create(|_, _| Box::pin(async { Ok(A::default_state()) }))
    }

    /// New actors start as `create` makes them.
    pub fn with_create(create: CreateFn<A>) -> Self {
        Self {
            infos: Vec::new(),
            runs: Vec::new(),
            hooks: Vec::new(),
            create,
            migrate: None,
            vars: None,
            run: None,
            on_state_change: None,
            before_response: None,
            conns: ConnTable::default(),
            #[cfg(feature = "typescript")]
            typescript: None,
        }
    }

    /// Adds an action that runs alone and is committed.
    #[must_use]
    pub fn exclusive(self, name: &'static str, run: ExclusiveFn<A>) -> Self {
        self.action(name, ActionKind::Exclusive, Run::Exclusive(run))
    }

    /// Adds an action that only reads.
    #[must_use]
    pub fn shared(self, name: &'static str, run: SharedFn<A>) -> Self {
        self.action(name, ActionKind::Shared, Run::Shared(run))
    }

    /// Adds an action that runs beside everything.
    #[must_use]
    pub fn interleaved(self, name: &'static str, run: InterleavedFn<A>) -> Self {
        self.action(name, ActionKind::Interleaved, Run::Interleaved(run))
    }

    /// Adds a hook; a second one for the same moment replaces the first.
    #[must_use]
    pub fn hook(mut self, hook: Hook, run: HookFn<A>) -> Self {
        self.hooks.retain(|(other, _)| *other != hook);
        self.hooks.push((hook, run));
        self
    }

    /// Sets how states of older versions are read. Without it they are read like current ones.
    #[must_use]
    pub fn migrate(mut self, migrate: MigrateFn<A>) -> Self {
        self.migrate = Some(migrate);
        self
    }

    /// Sets how the variables of an activation are made; with `Vars = ()` it is not needed.
    #[must_use]
    pub fn vars(mut self, make: VarsFn<A>) -> Self {
        self.vars = Some(Arc::new(move |state, c| {
            let vars = make(state, c);
            Box::pin(async move { Ok(Arc::new(vars.await?) as Arc<dyn AnyVars + Send + Sync>) })
        }));
        self
    }

    /// Sets what runs beside the turns while the actor is awake.
    #[must_use]
    pub fn run(mut self, run: RunFn<A>) -> Self {
        self.run = Some(run);
        self
    }

    /// Sets what is told of every change of the state, inside the turn that makes it.
    #[must_use]
    pub fn on_state_change(mut self, tell: StateChangeFn<A>) -> Self {
        self.on_state_change = Some(tell);
        self
    }

    /// Sets what every result passes before it leaves.
    #[must_use]
    pub fn before_action_response(mut self, pass: ResponseFn<A>) -> Self {
        self.before_response = Some(pass);
        self
    }

    /// Sets who may connect: nothing of a connection happens before it says `Ok`.
    #[must_use]
    pub fn before_connect(mut self, hook: BeforeConnectFn<A>) -> Self {
        self.conns.before = Some(hook);
        self
    }

    /// Sets how the state of a connection is made; with `ConnState = ()` it is not needed.
    #[must_use]
    pub fn conn_state(mut self, make: ConnStateFn<A>) -> Self {
        self.conns.state = Some(make);
        self
    }

    /// Sets what is told of a new connection, before anything else of it is answered.
    #[must_use]
    pub fn on_connect(mut self, hook: ConnFn<A>) -> Self {
        self.conns.connected = Some(hook);
        self
    }

    /// Sets what is told of the end of a connection, once for every way of ending.
    #[must_use]
    pub fn on_disconnect(mut self, hook: ConnFn<A>) -> Self {
        self.conns.disconnected = Some(hook);
        self
    }

    /// Sets what is told of a new raw WebSocket, after `on_connect`.
    #[must_use]
    pub fn on_websocket(mut self, hook: ConnFn<A>) -> Self {
        self.conns.websocket = Some(hook);
        self
    }

    /// Sets what takes the messages of raw WebSockets, one turn each.
    #[must_use]
    pub fn on_message(mut self, hook: MessageFn<A>) -> Self {
        self.conns.message = Some(hook);
        self
    }

    /// Sets what answers raw HTTP requests, one turn each.
    #[must_use]
    pub fn on_request(mut self, hook: RequestFn<A>) -> Self {
        self.conns.request = Some(hook);
        self
    }

    /// Sets who may subscribe to an event. Without it everybody connected may.
    #[must_use]
    pub fn can_subscribe(mut self, hook: AccessFn<A>) -> Self {
        self.conns.can_subscribe = Some(hook);
        self
    }

    /// Sets who may add to a queue from outside. Without it everybody may.
    #[must_use]
    pub fn can_publish(mut self, hook: AccessFn<A>) -> Self {
        self.conns.can_publish = Some(hook);
        self
    }

    /// Sets what tells the TypeScript types of actions and events.
    #[cfg(feature = "typescript")]
    #[must_use]
    pub fn typescript(mut self, tell: crate::TellTypes) -> Self {
        self.typescript = Some(tell);
        self
    }

    fn action(mut self, name: &'static str, kind: ActionKind, run: Run<A>) -> Self {
        self.infos.push(ActionInfo { name, kind });
        self.runs.push(run);
        self
    }
}
