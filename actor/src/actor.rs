//! What makes a Rust type an actor: the trait, and the table of its actions and hooks.
//!
//! `#[clinch::actor]` writes this implementation; `examples/by_hand.rs` shows that it is plain code.
//! Not here: how the table becomes the interface a node runs (`typed`).

use std::any::Any as AnyVars;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ActionInfo, ActionKind, ActorOptions, Any, Args, BoxFuture, Ctx, Error, Hook, RawHandle};

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

pub(crate) enum Run<A> {
    Exclusive(ExclusiveFn<A>),
    Shared(SharedFn<A>),
    Interleaved(InterleavedFn<A>),
}

/// The table of an actor's actions and hooks.
pub struct Spec<A> {
    pub(crate) infos: Vec<ActionInfo>,
    pub(crate) runs: Vec<Run<A>>,
    pub(crate) hooks: Vec<(Hook, HookFn<A>)>,
    pub(crate) create: CreateFn<A>,
    pub(crate) migrate: Option<MigrateFn<A>>,
    pub(crate) vars: Option<MakeVars<A>>,
    pub(crate) run: Option<RunFn<A>>,
    pub(crate) on_state_change: Option<StateChangeFn<A>>,
    pub(crate) before_response: Option<ResponseFn<A>>,
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

    fn action(mut self, name: &'static str, kind: ActionKind, run: Run<A>) -> Self {
        self.infos.push(ActionInfo { name, kind });
        self.runs.push(run);
        self
    }
}
