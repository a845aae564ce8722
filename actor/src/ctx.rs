//! The context: everything an action may ask for beside its state.
//!
//! Invariant: what a context is asked to do takes effect if and when its turn commits; what it reads is local.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::sync::Arc;

use clinch_types::{ActorId, ConnId, Epoch, Key, NodeId, RegionId, RequestId, WallMs};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::conn::event_out;
use crate::error::IntoActionError;
use crate::turn::Effect;
use crate::typed::{borrowed, unique};
use crate::{
    Actor, Audience, Conn, EmittedBy, Error, FireInfo, FromKey, Input, IntoKey, Kv, Origin, Queue, RawHandle,
    Schedules, Spawn, Turn,
};

/// The context of one turn of an `A`. Cheap to clone.
pub struct Ctx<A> {
    turn: Arc<Turn>,
    actor: PhantomData<fn() -> A>,
}

impl<A> Clone for Ctx<A> {
    fn clone(&self) -> Self {
        Self {
            turn: self.turn.clone(),
            actor: PhantomData,
        }
    }
}

impl<A> Ctx<A> {
    /// The actor's id.
    pub fn id(&self) -> ActorId {
        self.turn.actor.id
    }

    /// The actor type's name.
    pub fn name(&self) -> &str {
        &self.turn.actor.name
    }

    /// The actor's key.
    pub fn key(&self) -> &Key {
        &self.turn.actor.key
    }

    /// The actor's key as the type it was made of: text, a number, or a struct with `#[derive(ActorKey)]`.
    ///
    /// # Errors
    /// An internal error naming key and type, when the actor was addressed by a key of another shape.
    pub fn key_as<K: FromKey>(&self) -> Result<K, Error> {
        K::from_key(self.key()).ok_or_else(|| {
            let type_name = std::any::type_name::<K>();
            Error::internal(format!("the key {} of this actor is no {type_name}", self.key()))
        })
    }

    /// The node it is awake on.
    pub fn node(&self) -> NodeId {
        self.turn.host.node()
    }

    /// The ownership epoch of its shard: grows with each change of owner.
    pub fn epoch(&self) -> Epoch {
        self.turn.host.epoch()
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &str {
        &self.turn.actor.namespace
    }

    /// Its home region.
    pub fn region(&self) -> RegionId {
        self.turn.actor.region
    }

    /// When it was created.
    pub fn created(&self) -> WallMs {
        self.turn.actor.created
    }

    /// The caller's name for this intention: the same on every retry. Give it to the outside world, whose side
    /// effects may happen more than once.
    pub fn request_id(&self) -> RequestId {
        self.turn.request
    }

    /// Why this turn runs.
    pub fn origin(&self) -> Origin {
        self.turn.origin
    }

    /// Which firing this is, in a turn that a schedule began.
    pub fn fire_info(&self) -> Option<&FireInfo> {
        self.turn.fire.as_ref()
    }

    /// Wall time at the start of the turn: the same however often it is asked.
    pub fn now(&self) -> WallMs {
        self.turn.now
    }

    /// Random bits from the node's seeded source.
    pub fn random_u128(&self) -> u128 {
        self.turn.host.random_u128()
    }

    /// Random bits from the node's seeded source.
    pub fn random_u64(&self) -> u64 {
        self.random_u128() as u64
    }

    /// A random number below `end`; 0 when `end` is 0.
    pub fn random_below(&self, end: u64) -> u64 {
        // The bias of one modulo over 128 bits is below 2^-64.
        self.random_u128()
            .checked_rem(u128::from(end))
            .map_or(0, |x| x as u64)
    }

    /// The actor's key-value store.
    pub fn kv(&self) -> Kv<'_> {
        Kv::new(&self.turn)
    }

    /// The actor's schedules.
    pub fn schedules(&self) -> Schedules<'_> {
        Schedules::new(&self.turn)
    }

    /// One of the actor's durable queues: to add to, or to receive from.
    pub fn queue<M>(&self, name: impl Into<String>) -> Queue<M> {
        Queue::new(self.turn.clone(), name.into())
    }

    /// Makes this turn's state durable before its answer leaves, for actors whose durability is less than replicated.
    pub fn save(&self) {
        self.turn.record_or_fail(Ok(Effect::Save));
    }

    /// Destroys the actor for ever when this turn commits; `on_destroy` runs first.
    pub fn destroy(&self) {
        self.turn.record_or_fail(Ok(Effect::Destroy));
    }

    /// Lets the actor sleep after this turn, without waiting until it is idle for long.
    pub fn sleep(&self) {
        self.turn.record_or_fail(Ok(Effect::Sleep));
    }

    /// A handle to another actor, in the same namespace.
    pub fn get<B: Actor>(&self, key: impl IntoKey) -> B::Handle {
        RawHandle::from_turn(self.turn.clone(), B::NAME, key).into()
    }

    /// A handle to the only actor of a type, whose key has no components.
    pub fn singleton<B: Actor>(&self) -> B::Handle {
        self.get::<B>(())
    }

    /// A handle to another actor by its id.
    pub fn by_id<B: Actor>(&self, id: ActorId) -> B::Handle {
        RawHandle::from_turn_to(self.turn.clone(), id).into()
    }

    /// A handle to another actor whose Rust type is not known here.
    pub fn get_named(&self, name: &str, key: impl IntoKey) -> RawHandle {
        RawHandle::from_turn(self.turn.clone(), name, key)
    }

    /// Application data by its type, see [`crate::Registry::data`].
    ///
    /// # Errors
    /// An internal error naming the type, when the program did not register one.
    pub fn data<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, Error> {
        self.turn
            .host
            .data(TypeId::of::<T>())
            .and_then(|data| data.downcast().ok())
            .ok_or_else(|| {
                let type_name = std::any::type_name::<T>();
                Error::internal(format!(
                    "no application data of type {type_name}: add it with `Registry::data`"
                ))
            })
    }

    /// Ends when the actor stops: it goes to sleep, moves or is destroyed, or its node stops.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.cancellation().cancelled()
    }

    /// The token behind [`Ctx::cancelled`], to hand to other code.
    pub fn cancellation(&self) -> &CancellationToken {
        self.turn.life.stop()
    }

    pub(crate) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// A span with the turn's names, for work that runs outside of it.
    pub fn span(&self) -> tracing::Span {
        self.turn.span()
    }

    /// A header of the request that this turn came in with, by its name in any case. Of a call over a connection: none,
    /// the request that opened it had them.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.turn.visit().and_then(|visit| visit.header(name))
    }

    /// All headers of the request that this turn came in with, names in lower case.
    pub fn headers(&self) -> &[(String, String)] {
        self.turn.visit().map_or(&[], |visit| visit.headers())
    }

    /// How many arguments the action was called with, declared or not.
    pub fn argument_count(&self) -> usize {
        self.turn.argument_count()
    }

    /// The input this actor was created with, in `create` and `on_create`.
    pub fn input(&self) -> Input {
        Input(self.turn.input.clone())
    }
}

impl<A: Actor> Ctx<A> {
    /// Around a turn.
    pub fn new(turn: Arc<Turn>) -> Self {
        Self {
            turn,
            actor: PhantomData,
        }
    }

    /// A handle to this actor itself, to schedule or send to.
    pub fn me(&self) -> A::Handle {
        RawHandle::me(self.turn.clone()).into()
    }

    /// What this activation keeps in memory beside the state: [`Actor::Vars`].
    ///
    /// # Panics
    /// In `create`, `on_create` and `migrate`, which run before the variables are made. The turn fails with that.
    pub fn vars(&self) -> &A::Vars {
        let unit: &(dyn Any + Send + Sync) = &();
        let vars = self.turn.life.vars().map_or(unit, |vars| &**vars);
        vars.downcast_ref()
            .expect("variables are used in hooks and actions that run after `vars` made them")
    }

    /// Begins work beside the turns, when this turn has committed; if it fails, the work never begins. The work has a
    /// context of its own: it reads with `c.read`, writes with `c.update` and `c.try_update`, and should end when
    /// [`Ctx::cancelled`] fires. When the actor stops it may go on for `background_timeout` (15 s).
    ///
    /// The actor may fall asleep meanwhile, which ends the work; [`Ctx::keep_awake`] does not allow that.
    pub fn spawn<F, W>(&self, work: F)
    where
        F: FnOnce(Ctx<A>) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.begin(false, work);
    }

    /// As [`Ctx::spawn`], and the actor stays awake until the work is done.
    pub fn keep_awake<F, W>(&self, work: F)
    where
        F: FnOnce(Ctx<A>) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.begin(true, work);
    }

    fn begin<F, W>(&self, keep_awake: bool, work: F)
    where
        F: FnOnce(Ctx<A>) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        self.turn.spawn(Spawn {
            keep_awake,
            start: Box::new(move |turn| Box::pin(work(Ctx::new(turn)))),
        });
    }

    /// Tells every connection that listens, when this turn commits.
    ///
    /// An event that cannot be encoded, or is over the limit, fails the turn.
    pub fn broadcast<E: EmittedBy<A>>(&self, event: E) {
        let event = event_out(&event, Audience::Everyone);
        self.turn.record_or_fail(event.map(Effect::Event));
    }

    /// As [`Ctx::broadcast`], to all but one: usually the connection that caused it.
    pub fn broadcast_except<E: EmittedBy<A>>(&self, but: ConnId, event: E) {
        let event = event_out(&event, Audience::EveryoneBut(but));
        self.turn.record_or_fail(event.map(Effect::Event));
    }

    /// The connection this turn came over. A call over HTTP is a connection as long as it lasts.
    ///
    /// # Errors
    /// `actor.no_connection` in turns that nobody from outside asked for: schedules, hooks, calls of other actors.
    pub fn conn(&self) -> Result<Conn<A>, Error> {
        let seat = self.turn.visit().and_then(crate::Visit::seat);
        let seat = seat.ok_or_else(|| {
            let message = "this turn came over no connection";
            Error::new(clinch_types::group::ACTOR, "no_connection", message)
        })?;
        Ok(Conn::new(seat, self.turn.clone()))
    }

    /// All open connections, in the order of their ids; with the one this turn came over, whatever its kind.
    pub fn conns(&self) -> Vec<Conn<A>> {
        let mut seats = self.turn.host.conns(self.id());
        if let Some(own) = self.turn.visit().and_then(crate::Visit::seat)
            && self.turn.origin == Origin::Call
            && !seats.iter().any(|seat| seat.id == own.id)
        {
            seats.push(own);
        }
        seats
            .into_iter()
            .map(|seat| Conn::new(seat, self.turn.clone()))
            .collect()
    }

    /// Reads the state, in an action without `self`. Inside other actions it would wait for itself: use `self`.
    ///
    /// # Errors
    /// When the actor cannot serve any more, or in an action with `self`.
    pub async fn read<R, F>(&self, read: F) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnOnce(&A) -> R + Send + 'static,
    {
        self.check_interleaved("read")?;
        let boxed = Box::new(move |state: crate::StateArc| {
            Box::new(borrowed::<A>(&state).map(read)) as Box<dyn Any + Send>
        });
        let read = self
            .turn
            .host
            .with_state(self.id(), self.turn.clone(), boxed)
            .await?;
        *downcast::<Result<R, Error>>(read)?
    }

    /// Changes the state in a committed turn of its own, in an action without `self`.
    ///
    /// # Errors
    /// When the turn did not commit, or in an action with `self`.
    pub async fn update<R, F>(&self, update: F) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnOnce(&mut A) -> R + Send + 'static,
    {
        self.try_update(move |state, _| Ok::<R, Error>(update(state)))
            .await
    }

    /// As [`Ctx::update`], with the context of the inner turn, whose effects (events, schedules, KV) commit with
    /// the change. An error rolls the inner turn back.
    ///
    /// # Errors
    /// What `update` returned; when the turn did not commit, or in an action with `self`.
    pub async fn try_update<R, E, F>(&self, update: F) -> Result<R, Error>
    where
        R: Send + 'static,
        E: IntoActionError,
        F: FnOnce(&mut A, &Ctx<A>) -> Result<R, E> + Send + 'static,
    {
        self.check_interleaved("update")?;
        let boxed = Box::new(move |state: &mut crate::StateArc, turn: &Arc<Turn>| {
            let value = update(unique::<A>(state)?, &Ctx::new(turn.clone())).map_err(E::into_action_error)?;
            turn.verdict("the update")?;
            Ok(Box::new(value) as Box<dyn Any + Send>)
        });
        let value = self
            .turn
            .host
            .update_state(self.id(), self.turn.clone(), boxed)
            .await?;
        Ok(*downcast::<R>(value)?)
    }

    fn check_interleaved(&self, what: &str) -> Result<(), Error> {
        match self.turn.kind {
            crate::ActionKind::Interleaved => Ok(()),
            crate::ActionKind::Exclusive | crate::ActionKind::Shared => Err(Error::internal(format!(
                "`c.{what}` is for actions without `self`; this one has the state at hand"
            ))),
        }
    }
}

fn downcast<T: 'static>(value: Box<dyn Any + Send>) -> Result<Box<T>, Error> {
    value
        .downcast()
        .map_err(|_| Error::internal("the node answered with a value of another type"))
}
