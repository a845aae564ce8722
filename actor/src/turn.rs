//! One turn: what user code runs with, and the ledger of what it asked for.
//!
//! Invariant: after [`Turn::take_effects`] nothing more is recorded; a context that outlives its turn (kept by a
//! task of the user's) gets an error, its effects are not lost in silence.
//! Not here: running turns, committing them (node).

use std::any::{Any, TypeId};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use clinch_types::{ActorId, CallOp, Epoch, NodeId, RequestId, WallMs, group};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::effects::EFFECTS_MAX;
use crate::{
    ActionKind, ActorMeta, BoxFuture, Caller, ConnOp, ConnSeat, Effects, Error, EventOut, FireInfo, Life,
    QueueOp, Visit,
};
use crate::{RunRecord, ScheduleEntry, ScheduleId, ScheduleOp, SendOut, StateArc, Stored};

/// Why a turn runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Somebody called.
    Call,
    /// A schedule was due.
    Schedule(ScheduleId),
    /// A hook of the actor's life.
    Hook,
    /// The actor is being created.
    Create,
    /// The `run` hook, or work beside the turns.
    Background,
}

/// Work on the state for [`Host::with_state`].
pub type ReadState = Box<dyn FnOnce(StateArc) -> Box<dyn Any + Send> + Send>;

/// Work on the state for [`Host::update_state`]; runs in the turn it is given.
pub type UpdateState =
    Box<dyn FnOnce(&mut StateArc, &Arc<Turn>) -> Result<Box<dyn Any + Send>, Error> + Send>;

/// Work beside the turns, begun when its turn has committed.
pub struct Spawn {
    /// Whether the actor stays awake for it.
    pub keep_awake: bool,
    /// Makes the work, with a turn of its own that has no end and no effects.
    pub start: Box<dyn FnOnce(Arc<Turn>) -> BoxFuture<'static, ()> + Send>,
}

/// What a node offers to running turns.
pub trait Host: Send + Sync + 'static {
    /// Wall time.
    fn now(&self) -> WallMs;
    /// Random bits from the node's seeded source.
    fn random_u128(&self) -> u128;
    /// One KV value as of the last executed turn; contexts lay their turn's own writes over it.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn kv_get(&self, actor: ActorId, key: &[u8]) -> Result<Option<Bytes>, Error>;
    /// At most `limit` KV entries with keys in the range, in key order or against it, as of the last executed turn.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn kv_scan(
        &self,
        actor: ActorId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, Error>;
    /// The actor's schedules as of the last executed turn.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn schedules(&self, actor: ActorId) -> Result<Vec<ScheduleEntry>, Error>;
    /// The messages of one of the actor's queues in order: committed ones, or as of the last executed turn.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn queue(&self, actor: ActorId, queue: &str, committed: bool) -> Result<Vec<Stored>, Error>;
    /// The latest firings of a repeated schedule, the last first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn schedule_history(&self, actor: ActorId, schedule: ScheduleId) -> Result<Vec<RunRecord>, Error>;
    /// Begins work beside the turns; `turn` is the one that asked for it.
    fn spawn(&self, turn: &Turn, spawn: Spawn);
    /// This node.
    fn node(&self) -> NodeId;
    /// The ownership epoch of the actor's shard.
    fn epoch(&self) -> Epoch;
    /// Who carries calls to other actors.
    fn caller(&self) -> Arc<dyn Caller>;
    /// The actor's open connections in the order of their ids, as of the last executed turn.
    fn conns(&self, actor: ActorId) -> Vec<Arc<ConnSeat>> {
        let _none_unless_the_host_has_a_door = actor;
        Vec::new()
    }
    /// Makes a span part of the trace that the headers of a request tell of, if they do.
    fn continue_trace(&self, span: &tracing::Span, headers: &[(String, String)]) {
        let _nobody_collects_traces = (span, headers);
    }
    /// Application data by its type.
    fn data(&self, type_id: TypeId) -> Option<Arc<dyn Any + Send + Sync>>;
    /// For work beside the turns that sends something out: returns when everything that the turn's actor has executed so far
    /// is committed, and its node may speak for it.
    ///
    /// # Errors
    /// When it may not any more.
    fn settled(&self, turn: &Arc<Turn>) -> BoxFuture<'static, Result<(), Error>>;
    /// For interleaved actions: runs `f` as a shared read.
    fn with_state(
        &self,
        actor: ActorId,
        turn: Arc<Turn>,
        f: ReadState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>>;
    /// For interleaved actions: runs `f` as an exclusive turn of its own, committed when the future resolves.
    fn update_state(
        &self,
        actor: ActorId,
        turn: Arc<Turn>,
        f: UpdateState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>>;
}

/// The target of the spans of actors' code.
pub const SPANS: &str = "clinch::turn";

/// What [`Turn::new`] needs.
pub struct TurnInit {
    /// Whose turn.
    pub actor: Arc<ActorMeta>,
    /// What it runs: the name of an action or a hook.
    pub what: &'static str,
    /// When it begins.
    pub began: Instant,
    /// The caller's name for this intention.
    pub request: RequestId,
    /// The actors that wait for this turn, outermost first; without this one.
    pub chain: Vec<ActorId>,
    /// Why it runs.
    pub origin: Origin,
    /// How it runs; hooks and creation are [`ActionKind::Exclusive`].
    pub kind: ActionKind,
    /// When its time is up.
    pub deadline: Option<Instant>,
    /// CBOR of the input, for the turn that creates the actor: `on_create` reads it.
    pub input: Option<Bytes>,
    /// The node.
    pub host: Arc<dyn Host>,
    /// The activation.
    pub life: Arc<Life>,
    /// Which firing this is, of a turn that a schedule began.
    pub fire: Option<FireInfo>,
}

/// What one turn runs with. Made by the node, handed to user code inside a context.
pub struct Turn {
    /// Whose turn.
    pub actor: Arc<ActorMeta>,
    /// What it runs: the name of an action or a hook.
    pub what: &'static str,
    /// When it began.
    pub began: Instant,
    /// The caller's name for this intention.
    pub request: RequestId,
    /// The actors that wait for this turn, outermost first; without this one.
    pub chain: Vec<ActorId>,
    /// Why it runs.
    pub origin: Origin,
    /// How it runs.
    pub kind: ActionKind,
    /// When its time is up.
    pub deadline: Option<Instant>,
    /// CBOR of the input, in the turn that creates the actor.
    pub input: Option<Bytes>,
    /// The node.
    pub host: Arc<dyn Host>,
    /// The activation.
    pub life: Arc<Life>,
    /// Which firing this is, of a turn that a schedule began.
    pub fire: Option<FireInfo>,
    /// Wall time at the start of the turn.
    pub now: WallMs,
    visit: OnceLock<Box<Visit>>,
    arguments: AtomicUsize,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    effects: Effects,
    /// Bytes recorded so far; a replaced KV value counts again.
    bytes: usize,
    /// The first thing that went wrong where user code could not be told; fails the turn.
    failure: Option<Error>,
    spawns: Vec<Spawn>,
    closed: bool,
}

/// One thing a turn asks for.
pub(crate) enum Effect {
    Kv(Vec<u8>, Option<Bytes>),
    Schedule(ScheduleOp),
    Event(EventOut),
    Send(SendOut),
    Queue(QueueOp),
    Conn(ConnOp),
    Save,
    Destroy,
    Sleep,
}

impl Effect {
    fn bytes(&self) -> usize {
        match self {
            Self::Kv(key, value) => key.len() + value.as_ref().map_or(0, Bytes::len),
            Self::Schedule(ScheduleOp::Put(entry)) => entry.action.len() + entry.args.len() + 64,
            Self::Schedule(ScheduleOp::Cancel(_)) => 16,
            Self::Event(event) => event.name.len() + event.args.len(),
            Self::Send(send) => match &send.op {
                CallOp::Action { name, args } => name.len() + args.len() + 64,
                CallOp::Push { queue, body, .. } => queue.len() + body.len() + 64,
                // Nothing else is sent one way.
                _ => 64,
            },
            Self::Queue(op) => op.bytes(),
            Self::Conn(op) => match op {
                ConnOp::State { state: bytes, .. } | ConnOp::Message { data: bytes, .. } => bytes.len() + 16,
                ConnOp::Close { reason, .. } => reason.len() + 16,
            },
            Self::Destroy | Self::Sleep | Self::Save => 0,
        }
    }
}

impl Turn {
    /// Starts a turn now.
    pub fn new(init: TurnInit) -> Arc<Self> {
        let TurnInit {
            actor,
            what,
            began,
            request,
            chain,
            origin,
            kind,
            deadline,
            input,
            host,
            life,
            fire,
        } = init;
        let now = host.now();
        let ledger = Mutex::default();
        Arc::new(Self {
            actor,
            what,
            began,
            request,
            chain,
            origin,
            kind,
            deadline,
            input,
            host,
            life,
            fire,
            now,
            visit: OnceLock::new(),
            arguments: AtomicUsize::new(0),
            ledger,
        })
    }

    /// Says who came in with this turn, before it runs; the first call counts.
    pub fn set_visit(&self, visit: Visit) {
        // A turn has one visitor: a second one would be the node's mistake.
        drop(self.visit.set(Box::new(visit)));
    }

    /// Who came in with it, if anybody did.
    pub fn visit(&self) -> Option<&Visit> {
        self.visit.get().map(|visit| &**visit)
    }

    pub(crate) fn set_argument_count(&self, count: usize) {
        self.arguments.store(count, Ordering::Relaxed);
    }

    pub(crate) fn argument_count(&self) -> usize {
        self.arguments.load(Ordering::Relaxed)
    }

    /// Ends the turn and takes what it asked for.
    pub fn take_effects(&self) -> Effects {
        let mut ledger = self.ledger.lock();
        ledger.closed = true;
        std::mem::take(&mut ledger.effects)
    }

    /// Whether anything was recorded so far that a node has to see to.
    pub fn asks_for_something(&self) -> bool {
        let ledger = self.ledger.lock();
        !ledger.effects.is_empty() || ledger.effects.sleep || !ledger.spawns.is_empty()
    }

    /// Takes the work that is to begin beside the turns. Call after [`Turn::take_effects`].
    pub fn take_spawns(&self) -> Vec<Spawn> {
        std::mem::take(&mut self.ledger.lock().spawns)
    }

    /// Work beside the turns: at once if this turn has no end, else when it has committed.
    pub(crate) fn spawn(&self, spawn: Spawn) {
        if self.kind == ActionKind::Interleaved {
            return self.host.spawn(self, spawn);
        }
        let mut ledger = self.ledger.lock();
        if ledger.closed {
            tracing::warn!(actor = %self.actor.id, "work spawned after the end of its turn is not begun");
            return;
        }
        ledger.spawns.push(spawn);
    }

    /// The chain of calls made by this turn: whoever waits for it, and this actor unless it does not wait.
    ///
    /// An interleaved action holds nothing, so calling its own actor is no deadlock.
    pub fn outgoing_chain(&self) -> Vec<ActorId> {
        let mut chain = self.chain.clone();
        match self.kind {
            ActionKind::Exclusive | ActionKind::Shared => chain.push(self.actor.id),
            ActionKind::Interleaved => {}
        }
        chain
    }

    /// A span with the turn's names, for everything logged while it runs.
    pub fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "turn",
            actor = %self.actor.id,
            name = %self.actor.name,
            key = %self.actor.key,
            request = %self.request,
            shard = %self.actor.shard,
        )
    }

    /// The span of a piece of the actor's code in this turn, for tools that show where time goes. No span is made unless
    /// somebody listens to its target.
    pub(crate) fn code_span(&self, code: &str) -> tracing::Span {
        use tracing::field::Empty;
        let visit = self.visit();
        let span = tracing::debug_span!(
            target: SPANS,
            "turn",
            otel.name = %format_args!("{}.{code}", self.actor.name),
            otel.kind = if visit.is_some() { "server" } else { "internal" },
            otel.status_code = Empty,
            error.type = Empty,
            actor.id = %self.actor.id,
            actor.name = %self.actor.name,
            actor.key = %self.actor.key,
            code,
            request = %self.request,
            shard = %self.actor.shard,
            epoch = %self.host.epoch(),
            node = %self.host.node(),
        );
        if !span.is_disabled()
            && let Some(visit) = visit
        {
            self.host.continue_trace(&span, visit.headers());
        }
        span
    }

    /// Whether this is work beside the turns itself, not an update that it makes.
    fn is_beside(&self) -> bool {
        self.origin == Origin::Background && self.kind == ActionKind::Interleaved
    }

    pub(crate) fn record(&self, effect: Effect) -> Result<(), Error> {
        self.record_all(vec![effect])
    }

    /// Records all of them or none.
    pub(crate) fn record_all(&self, all: Vec<Effect>) -> Result<(), Error> {
        if self.is_beside() {
            let message = "work beside the turns takes effect inside `c.update` or `c.try_update`, which are turns of their own";
            return Err(Error::new(group::ACTOR, "no_turn", message));
        }
        let mut ledger = self.ledger.lock();
        if ledger.closed {
            return Err(Error::new(
                group::ACTOR,
                "turn_ended",
                "the turn of this context has ended",
            ));
        }
        let bytes = all
            .iter()
            .map(Effect::bytes)
            .fold(ledger.bytes, usize::saturating_add);
        if bytes > EFFECTS_MAX {
            let message =
                format!("the effects of one turn have {bytes} bytes, at most {EFFECTS_MAX} are allowed");
            return Err(Error::new(group::ACTOR, "turn_too_large", message));
        }
        ledger.bytes = bytes;
        for effect in all {
            match effect {
                Effect::Kv(key, value) => drop(ledger.effects.kv.insert(key, value)),
                Effect::Schedule(op) => ledger.effects.schedules.push(op),
                Effect::Event(event) => ledger.effects.events.push(event),
                Effect::Send(send) => ledger.effects.sends.push(send),
                Effect::Queue(op) => ledger.effects.queue.push(op),
                Effect::Conn(op) => ledger.effects.conns.push(op),
                Effect::Save => ledger.effects.save = true,
                Effect::Destroy => ledger.effects.destroy = true,
                Effect::Sleep => ledger.effects.sleep = true,
            }
        }
        Ok(())
    }

    /// For effects whose method returns nothing: a failure fails the turn.
    pub(crate) fn record_or_fail(&self, effect: Result<Effect, Error>) {
        if let Err(error) = effect.and_then(|effect| self.record(effect)) {
            let mut ledger = self.ledger.lock();
            if ledger.closed || self.is_beside() {
                tracing::warn!(actor = %self.actor.id, %error, "an effect outside of a turn is dropped");
            }
            ledger.failure.get_or_insert(error);
        }
    }

    /// Looks at what was recorded so far.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&Effects) -> T) -> T {
        look(&self.ledger.lock().effects)
    }

    /// The verdict on a turn whose user code ended well: something it could not be told of, or effects of a read.
    pub(crate) fn verdict(&self, what: &str) -> Result<(), Error> {
        let mut ledger = self.ledger.lock();
        if let Some(error) = ledger.failure.take() {
            return Err(error);
        }
        if self.kind == ActionKind::Shared && !(ledger.effects.is_empty() && ledger.spawns.is_empty()) {
            ledger.effects = Effects::default();
            ledger.spawns.clear();
            let message = format!(
                "{what} takes `&self`, so it only reads: take `&mut self` to write, schedule or broadcast"
            );
            return Err(Error::new(group::ACTOR, "read_only", message));
        }
        Ok(())
    }
}
