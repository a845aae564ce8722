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
    ActorId, CallMeta, CallOp, CallReply, ConnId, Consistency, CreateSpec, Door, RegionId, Target, WallMs,
    code, group, limits,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::no_connections;
use crate::turn::Effect;
use crate::{
    Answered, Body, BoxFuture, Caller, Error, IntoKey, MissedTick, OutgoingCall, QueueHandle, ScheduleEntry,
    ScheduleId, ScheduleOp, Schedules, SendOut, Timing, Turn,
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

    /// One of the actor's durable queues, to push messages to.
    pub fn queue<M: Serialize>(&self, name: impl Into<String>) -> QueueHandle<M> {
        QueueHandle::new(self.clone(), name.into())
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

    /// CBOR of what the connection hooks get.
    pub(crate) fn params(&self) -> Option<&Bytes> {
        self.params.as_ref()
    }

    /// Who carries the calls of a connection, and its name.
    pub(crate) fn line(&self) -> Result<(Arc<dyn Caller>, ConnId), Error> {
        let caller = match &self.route {
            Route::Outside(caller) => caller.clone(),
            Route::Turn(turn) | Route::Me(turn) => turn.host.caller(),
        };
        let conn = caller.draw_conn().ok_or_else(no_connections)?;
        Ok((caller, conn))
    }

    /// The call that opens a connection.
    pub(crate) fn connect_call(&self, op: CallOp) -> BoxFuture<'static, Result<CallReply, Error>> {
        self.call::<()>(Ok(op)).through(Door::default()).perform()
    }

    pub(crate) fn call<R>(&self, op: Result<CallOp, Error>) -> Call<R> {
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
                request: None,
                door: None,
            })
        });
        Call {
            route: self.route.clone(),
            call: call.map(Box::new),
            missed: MissedTick::default(),
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

impl IntoWallMs for jiff::Timestamp {
    fn into_wall_ms(self) -> WallMs {
        WallMs(u64::try_from(self.as_millisecond()).unwrap_or(0))
    }
}

/// One call. Await it, or make it something else: [`Call::send`], [`Call::after`], [`Call::at`], [`Call::every`],
/// [`Call::cron`].
#[must_use = "a call does nothing until it is awaited, sent or scheduled"]
pub struct Call<R> {
    route: Route,
    call: Result<Box<OutgoingCall>, Error>,
    missed: MissedTick,
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

    /// As one that opens a connection, or is one as long as it lasts.
    pub(crate) fn through(self, door: Door) -> Self {
        self.with(|call| call.door = Some(Box::new(door)))
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
        let OutgoingCall { target, op, .. } = *self.call?;
        match &op {
            CallOp::Action { .. } => {}
            CallOp::Push { wait: false, .. } => {}
            _ => {
                return Err(Error::invalid_request(
                    "only actions and `push` can be sent: nobody waits for an answer",
                ));
            }
        }
        turn.record(Effect::Send(SendOut { target, op }))
    }

    /// Runs the action on this same actor once `delay` has passed, exactly once, whatever happens until then.
    ///
    /// # Errors
    /// When the handle is not the turn's own (`c.me()`), the action does not take `&mut self`, or the turn's effects are
    /// over their limit.
    pub fn after(self, delay: Duration) -> Result<ScheduleId, Error> {
        self.once("after", |now| now.after(delay))
    }

    /// Runs the action on this same actor at a time; see [`Call::after`]. A time in the past is now.
    ///
    /// # Errors
    /// As [`Call::after`].
    pub fn at(self, time: impl IntoWallMs) -> Result<ScheduleId, Error> {
        self.once("at", |_| time.into_wall_ms())
    }

    /// What a repeated schedule does about ticks that nobody could fire in time. Default: one late firing for all.
    pub fn missed(self, missed: MissedTick) -> Self {
        Self { missed, ..self }
    }

    /// Runs the action on this same actor after each `interval` (100 ms at least), each time exactly once. Intervals are
    /// counted from the first due time and do not drift.
    ///
    /// `name` is unique in the actor: setting it again replaces the schedule, and with the same interval keeps its beat.
    ///
    /// # Errors
    /// As [`Call::after`]; `schedule.invalid_timing` when the interval is too short.
    pub fn every(self, name: &str, interval: Duration) -> Result<ScheduleId, Error> {
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.repeat("every", name, Timing::Every { ms })
    }

    /// Runs the action on this same actor by a cron expression in UTC: `"0 9 * * MON-FRI"`. See [`Call::cron_in`].
    ///
    /// # Errors
    /// As [`Call::cron_in`].
    pub fn cron(self, name: &str, expression: &str) -> Result<ScheduleId, Error> {
        self.cron_in(name, expression, "UTC")
    }

    /// Runs the action on this same actor by a cron expression in a time zone: five fields (minute, hour, day of month,
    /// month, day of week), or six with seconds first; the zone by its IANA name, as `"Europe/Berlin"`.
    ///
    /// `name` is unique in the actor: setting it again replaces the schedule.
    ///
    /// # Errors
    /// As [`Call::after`]; `schedule.invalid_timing` naming what is wrong with expression or zone.
    pub fn cron_in(self, name: &str, expression: &str, zone: &str) -> Result<ScheduleId, Error> {
        let (expression, zone) = (expression.to_owned(), zone.to_owned());
        self.repeat("cron", name, Timing::Cron { expression, zone })
    }

    fn once(self, how: &str, due: impl FnOnce(WallMs) -> WallMs) -> Result<ScheduleId, Error> {
        let (turn, action, args, _) = self.own(how)?;
        let id = ScheduleId(turn.host.random_u128());
        let entry = ScheduleEntry::once(id, due(turn.host.now()), action, args);
        turn.record(Effect::Schedule(ScheduleOp::Put(entry)))?;
        Ok(id)
    }

    fn repeat(self, how: &str, name: &str, timing: Timing) -> Result<ScheduleId, Error> {
        let (turn, action, args, missed) = self.own(how)?;
        if name.is_empty() || name.len() > limits::ACTION_NAME_MAX {
            let len = name.len();
            let message = format!(
                "schedule name has {len} bytes, it must have 1 to {}",
                limits::ACTION_NAME_MAX
            );
            return Err(Error::new(group::SCHEDULE, "invalid_name", message));
        }
        timing.check()?;
        let id = ScheduleId::of_name(name);
        let known = Schedules::new(&turn).get(id)?;
        // Set again at each wake, an interval must not begin anew each time: it might never end.
        let kept = known
            .as_ref()
            .filter(|known| known.timing == timing)
            .map(|known| known.due);
        // The firing that this turn is has taken its time already.
        let fired = turn.fire.as_ref().filter(|fire| fire.id == id);
        let due = match (kept, fired) {
            (Some(due), Some(fire)) => timing.next(due, fire.fired, missed)?.ok_or_else(|| {
                Error::new(
                    group::SCHEDULE,
                    "invalid_timing",
                    format!("schedule {name:?} has no next time"),
                )
            })?,
            (Some(due), None) => due,
            (None, _) => timing.first(turn.host.now())?.ok_or_else(|| {
                Error::new(
                    group::SCHEDULE,
                    "invalid_timing",
                    format!("schedule {name:?} has no next time"),
                )
            })?,
        };
        let entry = ScheduleEntry {
            name: Some(name.to_owned()),
            timing,
            missed,
            runs: fired.map_or_else(|| known.map_or(0, |known| known.runs), |fire| fire.run),
            ..ScheduleEntry::once(id, due, action, args)
        };
        turn.record(Effect::Schedule(ScheduleOp::Put(entry)))?;
        Ok(id)
    }

    /// The turn, if the handle is its own, and what is to be run.
    fn own(self, how: &str) -> Result<(Arc<Turn>, String, Bytes, MissedTick), Error> {
        let turn = match self.route {
            Route::Me(turn) => turn,
            Route::Turn(_) => {
                let message = format!("`{how}` schedules actions of the actor itself only: use `c.me()`");
                return Err(Error::new(group::SCHEDULE, "not_own_actor", message));
            }
            Route::Outside(_) => return Err(outside(how)),
        };
        let CallOp::Action { name, args } = self.call?.op else {
            return Err(Error::invalid_request("only actions can be scheduled"));
        };
        turn.life.own_action(&name)?;
        Ok((turn, name, args.into(), self.missed))
    }

    fn perform(self) -> BoxFuture<'static, Result<CallReply, Error>> {
        match self.outgoing() {
            Ok((caller, call)) => caller.call(call),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    /// Performs a raw request, with its body if that is streamed.
    pub(crate) fn exchange(self, body: Option<Body>) -> BoxFuture<'static, Result<Answered, Error>> {
        match self.outgoing() {
            Ok((caller, call)) => caller.exchange(call, body),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    /// The call as it leaves, and who carries it.
    fn outgoing(self) -> Result<(Arc<dyn Caller>, OutgoingCall), Error> {
        let mut call = *self.call?;
        let len = call.chain.len();
        if len > limits::CHAIN_MAX {
            let max = limits::CHAIN_MAX;
            let message = format!("call chain has length {len}, at most {max} is allowed");
            return Err(Error::invalid_request(message));
        }
        let turn = match self.route {
            Route::Outside(caller) => return Ok((caller, call)),
            Route::Turn(turn) | Route::Me(turn) => turn,
        };
        if let Some(deadline) = turn.deadline {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            call.timeout = Some(call.timeout.map_or(left, |timeout| timeout.min(left)));
        }
        Ok((turn.host.caller(), call))
    }
}

fn outside(what: &str) -> Error {
    let message =
        format!("`{what}` needs a handle from the context of a turn: it takes effect when the turn commits");
    Error::new(group::ACTOR, "no_turn", message)
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
