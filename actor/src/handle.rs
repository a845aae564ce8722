//! Handles and calls: an actor's address with somebody who carries calls there, and one call as a value.
//!
//! A handle costs nothing and knows nothing: whether its key is sound, its actor exists and its arguments fit is
//! told by the call.
//! Not here: carrying calls (whoever implements [`Caller`]), the methods of typed handles (generated).

use std::future::{IntoFuture, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clinch_types::{
    ActorId, CallMeta, CallOp, CallReply, Consistency, CreateSpec, RegionId, Target, WallMs, code, group,
    limits,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::turn::Effect;
use crate::{
    BoxFuture, Caller, Error, IntoKey, OutgoingCall, ScheduleEntry, ScheduleId, ScheduleOp, SendOut, Turn,
};
use crate::{args, cbor};

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 256;

/// Who carries the calls.
#[derive(Clone)]
enum Route {
    /// A program outside, or a node on behalf of one.
    Outside(Arc<dyn Caller>),
    /// A turn, to another actor.
    Turn(Arc<Turn>),
    /// A turn, to its own actor.
    Me(Arc<Turn>),
}

/// A handle without the actor's type. Typed handles dereference to it.
#[derive(Clone)]
pub struct RawHandle {
    route: Route,
    target: Result<Target, Error>,
    params: Option<Bytes>,
}

impl RawHandle {
    /// To `target`, by way of `caller`.
    pub fn new(caller: Arc<dyn Caller>, target: Target) -> Self {
        Self {
            route: Route::Outside(caller),
            target: Ok(target),
            params: None,
        }
    }

    /// To the actor with this name and key, created by its first call.
    pub fn by_key(caller: Arc<dyn Caller>, namespace: &str, name: &str, key: impl IntoKey) -> Self {
        Self {
            route: Route::Outside(caller),
            target: key_target(namespace, name, key),
            params: None,
        }
    }

    pub(crate) fn from_turn(turn: Arc<Turn>, name: &str, key: impl IntoKey) -> Self {
        let target = key_target(&turn.actor.namespace, name, key);
        Self {
            route: Route::Turn(turn),
            target,
            params: None,
        }
    }

    pub(crate) fn from_turn_to(turn: Arc<Turn>, id: ActorId) -> Self {
        Self {
            route: Route::Turn(turn),
            target: Ok(Target::Id(id)),
            params: None,
        }
    }

    pub(crate) fn me(turn: Arc<Turn>) -> Self {
        let target = Ok(Target::Id(turn.actor.id));
        Self {
            route: Route::Me(turn),
            target,
            params: None,
        }
    }

    /// Only to an actor that exists: calls to one that does not fail with `actor.not_found`.
    #[must_use]
    pub fn existing(mut self) -> Self {
        if let Ok(Target::Key { create, .. }) = &mut self.target {
            *create = None;
        }
        self
    }

    /// What `create` gets, should this handle's call be the one that creates the actor.
    #[must_use]
    pub fn with_input<I: Serialize + ?Sized>(self, input: &I) -> Self {
        let input = cbor::to_vec(input).and_then(|bytes| match bytes.len() {
            len if len <= limits::INPUT_MAX => Ok(bytes),
            len => {
                let message = format!("input has {len} bytes, at most {} are allowed", limits::INPUT_MAX);
                Err(Error::new(group::ACTOR, code::INPUT_TOO_LARGE, message))
            }
        });
        match input {
            Ok(input) => self.with_create(|create| create.input = Some(input)),
            Err(error) => Self {
                target: Err(error),
                ..self
            },
        }
    }

    /// The home region, should this handle's call be the one that creates the actor.
    #[must_use]
    pub fn in_region(self, region: RegionId) -> Self {
        self.with_create(|create| create.region = Some(region))
    }

    /// What the connection hooks get.
    #[must_use]
    pub fn with_params<P: Serialize + ?Sized>(mut self, params: &P) -> Self {
        match cbor::to_vec(params) {
            Ok(bytes) => self.params = Some(bytes.into()),
            Err(error) => self.target = Err(error),
        }
        self
    }

    fn with_create(mut self, change: impl FnOnce(&mut CreateSpec)) -> Self {
        if let Ok(Target::Key { create, .. }) = &mut self.target {
            change(create.get_or_insert_default());
        }
        self
    }

    /// The actor's address.
    ///
    /// # Errors
    /// When the key or the input is over its limit.
    pub fn target(&self) -> Result<&Target, Error> {
        self.target.as_ref().map_err(Clone::clone)
    }

    /// A call by the action's name on the wire. `args` is a tuple, array or vector; `()` is none.
    pub fn action<R>(&self, name: impl Into<String>, args: impl Serialize) -> Call<R> {
        self.action_encoded(name.into(), args::encode(&args))
    }

    /// A call with arguments that are encoded already; generated methods end here.
    pub fn action_encoded<R>(&self, name: String, args: Result<Vec<u8>, Error>) -> Call<R> {
        let op = args.and_then(|args| match name.len() {
            len if len <= limits::ACTION_NAME_MAX => Ok(CallOp::Action { name, args }),
            len => {
                let message = format!(
                    "action name has length {len}, at most {} is allowed",
                    limits::ACTION_NAME_MAX
                );
                Err(Error::invalid_request(message))
            }
        });
        self.call(op)
    }

    /// The id of the actor, which is created if need be (see [`RawHandle::existing`]).
    ///
    /// # Errors
    /// As every call.
    pub async fn resolve(&self) -> Result<ActorId, Error> {
        Ok(self.call::<()>(Ok(CallOp::Resolve)).perform().await?.meta.actor)
    }

    /// Creates the actor.
    ///
    /// # Errors
    /// `actor.duplicate_key` when the key is taken; as every call.
    pub async fn create(&self) -> Result<ActorId, Error> {
        Ok(self.call::<()>(Ok(CallOp::Create)).perform().await?.meta.actor)
    }

    /// Destroys the actor for ever.
    ///
    /// # Errors
    /// As every call.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.call::<()>(Ok(CallOp::Destroy)).perform().await.map(drop)
    }

    fn call<R>(&self, op: Result<CallOp, Error>) -> Call<R> {
        let chain = match &self.route {
            Route::Outside(_) => Vec::new(),
            Route::Turn(turn) | Route::Me(turn) => turn.outgoing_chain(),
        };
        let call = self.target.clone().and_then(|target| {
            let params = self.params.clone();
            let consistency = Consistency::default();
            Ok(OutgoingCall {
                target,
                op: op?,
                timeout: None,
                idempotency_key: None,
                consistency,
                if_active: false,
                chain,
                params,
            })
        });
        Call {
            route: self.route.clone(),
            call: call.map(Box::new),
            result: PhantomData,
        }
    }
}

fn key_target(namespace: &str, name: &str, key: impl IntoKey) -> Result<Target, Error> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    Ok(Target::Key {
        namespace,
        name,
        key: key.into_key()?,
        create: Some(CreateSpec::default()),
    })
}

/// A moment of wall time.
pub trait IntoWallMs {
    /// In milliseconds since 1970; moments before are 1970.
    fn into_wall_ms(self) -> WallMs;
}

impl IntoWallMs for WallMs {
    fn into_wall_ms(self) -> WallMs {
        self
    }
}

impl IntoWallMs for SystemTime {
    fn into_wall_ms(self) -> WallMs {
        WallMs(0).after(self.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

/// One call. Await it, or make it something else: [`Call::send`], [`Call::after`], [`Call::at`].
#[must_use = "a call does nothing until it is awaited, sent or scheduled"]
pub struct Call<R> {
    route: Route,
    call: Result<Box<OutgoingCall>, Error>,
    result: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// Waits at most so long for the result. Inside a turn, the turn's own deadline holds too.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|call| call.timeout = Some(timeout))
    }

    /// Names this intention: a second call with the same key, from anywhere, gets the first one's answer.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        let key = key.into();
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX {
            let len = key.len();
            let message = format!("idempotency key has {len} bytes, it must have 1 to {IDEMPOTENCY_KEY_MAX}");
            self.call = Err(Error::invalid_request(message));
        }
        self.with(|call| call.idempotency_key = Some(key))
    }

    /// How fresh a read must be.
    pub fn consistency(self, consistency: Consistency) -> Self {
        self.with(|call| call.consistency = consistency)
    }

    /// Only if the actor is awake; else `actor.not_active`.
    pub fn if_active(self) -> Self {
        self.with(|call| call.if_active = true)
    }

    /// The result together with where in the actor's life it was produced.
    pub fn meta(self) -> CallWithMeta<R> {
        CallWithMeta(self)
    }

    fn with(mut self, change: impl FnOnce(&mut OutgoingCall)) -> Self {
        if let Ok(call) = &mut self.call {
            change(call);
        }
        self
    }

    /// Sends the call one way: it leaves if and when this turn commits, and arrives exactly once.
    ///
    /// # Errors
    /// Outside of a turn, or when the turn's effects are over their limit.
    pub fn send(self) -> Result<(), Error> {
        let turn = match self.route {
            Route::Turn(turn) | Route::Me(turn) => turn,
            Route::Outside(_) => return Err(outside("send")),
        };
        let (target, action, args) = action_of(self.call)?;
        turn.record(Effect::Send(SendOut { target, action, args }))
    }

    /// Runs the action on this same actor once `delay` has passed, exactly once, whatever happens until then.
    ///
    /// # Errors
    /// When the handle is not the turn's own (`c.me()`), or the turn's effects are over their limit.
    pub fn after(self, delay: Duration) -> Result<ScheduleId, Error> {
        self.schedule("after", |now| now.after(delay))
    }

    /// Runs the action on this same actor at a time; see [`Call::after`]. A time in the past is now.
    ///
    /// # Errors
    /// As [`Call::after`].
    pub fn at(self, time: impl IntoWallMs) -> Result<ScheduleId, Error> {
        self.schedule("at", |_| time.into_wall_ms())
    }

    fn schedule(self, how: &str, due: impl FnOnce(WallMs) -> WallMs) -> Result<ScheduleId, Error> {
        let turn = match self.route {
            Route::Me(turn) => turn,
            Route::Turn(_) => {
                let message = format!("`{how}` schedules actions of the actor itself only: use `c.me()`");
                return Err(Error::new(group::SCHEDULE, "not_own_actor", message));
            }
            Route::Outside(_) => return Err(outside(how)),
        };
        let (_, action, args) = action_of(self.call)?;
        let id = ScheduleId(turn.host.random_u128());
        let entry = ScheduleEntry {
            id,
            due: due(turn.host.now()),
            action,
            args,
        };
        turn.record(Effect::Schedule(ScheduleOp::Put(entry)))?;
        Ok(id)
    }

    fn perform(self) -> BoxFuture<'static, Result<CallReply, Error>> {
        let mut call = match self.call {
            Ok(call) if call.chain.len() <= limits::CHAIN_MAX => call,
            Ok(call) => {
                let len = call.chain.len();
                let message = format!(
                    "call chain has length {len}, at most {} is allowed",
                    limits::CHAIN_MAX
                );
                return Box::pin(ready(Err(Error::invalid_request(message))));
            }
            Err(error) => return Box::pin(ready(Err(error))),
        };
        match self.route {
            Route::Outside(caller) => caller.call(*call),
            Route::Turn(turn) | Route::Me(turn) => {
                if let Some(deadline) = turn.deadline {
                    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                    call.timeout = Some(call.timeout.map_or(left, |timeout| timeout.min(left)));
                }
                turn.host.caller().call(*call)
            }
        }
    }
}

fn outside(what: &str) -> Error {
    let message =
        format!("`{what}` needs a handle from the context of a turn: it takes effect when the turn commits");
    Error::new(group::ACTOR, "no_turn", message)
}

fn action_of(call: Result<Box<OutgoingCall>, Error>) -> Result<(Target, String, Bytes), Error> {
    let call = call?;
    match call.op {
        CallOp::Action { name, args } => Ok((call.target, name, args.into())),
        CallOp::Resolve | CallOp::Create | CallOp::Destroy => {
            Err(Error::invalid_request("only actions can be sent or scheduled"))
        }
    }
}

fn decode_reply<R: DeserializeOwned>(reply: &CallReply) -> Result<R, Error> {
    cbor::decode("the reply", &reply.output)
}

impl<R: DeserializeOwned + 'static> IntoFuture for Call<R> {
    type Output = Result<R, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let reply = self.perform();
        Box::pin(async move { decode_reply(&reply.await?) })
    }
}

/// A call whose result comes with its [`CallMeta`].
#[must_use = "a call does nothing until it is awaited"]
pub struct CallWithMeta<R>(Call<R>);

impl<R: DeserializeOwned + 'static> IntoFuture for CallWithMeta<R> {
    type Output = Result<(R, CallMeta), Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let reply = self.0.perform();
        Box::pin(async move {
            let reply = reply.await?;
            Ok((decode_reply(&reply)?, reply.meta))
        })
    }
}
