//! A shard while this node owns it: admits calls, finds or makes their actors, and lets answers go when they may.
//!
//! Invariant: one `Owner` lives for one epoch. Everything in it is either on disk or not promised to anybody, so losing
//! ownership means dropping it (DESIGN §5 rule 2).
//! Not here: the turns themselves (`activation`), winning and losing the ownership (`task`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActorMeta, ActorType, Error, ReadState, Turn, UpdateState};
use clinch_types::{
    ActorError, ActorId, CallError, CallMeta, CallOp, CallReply, CallRequest, CreateSpec, Epoch, Key,
    ListReply, ListRequest, RequestId, Target, Version, WallMs, code, codec, fp, group, planted,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dedup::{Dedup, Known};
use super::keys::{self, ActorRecord, DedupRecord, KeyHash};
use super::pipeline::Pipeline;
use super::{Provisional, Release, ReplyTo, ShardContext, Write};
use crate::activation::{Beside, Open, ShardHost, Slot, Timers, Work};

/// Records looked at by one listing before it hands back a place to go on from: bounds the pause of the shard.
const LIST_LOOK_MAX: usize = 4096;

/// What an interleaved action asks of its actor's state.
pub(crate) enum Internal {
    Read {
        actor: ActorId,
        turn: Arc<Turn>,
        work: ReadState,
        done: oneshot::Sender<Result<Box<dyn std::any::Any + Send>, Error>>,
    },
    Update {
        actor: ActorId,
        turn: Arc<Turn>,
        work: UpdateState,
        done: oneshot::Sender<Result<Box<dyn std::any::Any + Send>, Error>>,
    },
}

/// The shard of one epoch.
pub(crate) struct Owner {
    pub(crate) context: Arc<ShardContext>,
    pub(crate) epoch: Epoch,
    pub(crate) host: Arc<ShardHost>,
    pub(crate) provisional: Arc<Provisional>,
    pub(crate) pipeline: Pipeline,
    pub(crate) dedup: Dedup,
    pub(crate) slots: HashMap<ActorId, Slot>,
    pub(crate) by_key: HashMap<KeyHash, ActorId>,
    /// Calls admitted and not answered, with further callers of the same request.
    pub(crate) open: HashMap<RequestId, Vec<ReplyTo>>,
    /// Actors whose next turn waits for room in the pipeline.
    pub(crate) stalled: VecDeque<ActorId>,
    /// Actors that go to sleep once their last turn is committed.
    pub(crate) drowsy: Vec<ActorId>,
    pub(crate) timers: Timers,
    /// Second of the shard's clock → actors that may be idle then.
    pub(crate) idle_at: BTreeMap<u32, Vec<ActorId>>,
    /// Destroyed actors whose KV entries are not all deleted yet.
    pub(crate) purges: VecDeque<ActorId>,
    /// Shared and interleaved turns in progress: who waits, and the turn of an interleaved one.
    pub(crate) reading: HashMap<u64, (Open, Option<Arc<Turn>>)>,
    pub(crate) beside: Beside,
    pub(crate) born: Instant,
    /// Wall time then.
    born_wall: WallMs,
    /// Ends with the epoch: running turns see it.
    pub(crate) cancelled: CancellationToken,
    names: HashMap<String, Arc<str>>,
    /// Why the last actor that could not be made or woken could not.
    pub(crate) start_error: Option<(ActorId, CallError)>,
    /// A fault of the store: the shard must not go on.
    pub(crate) fault: Option<String>,
}

impl Owner {
    /// Takes the shard over: loads what earlier owners left.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn take_over(context: Arc<ShardContext>, epoch: Epoch) -> Result<Self, String> {
        let provisional = Arc::new(Provisional::new(context.reader.clone()));
        let cancelled = context.tasks.stop().child_token();
        let host = Arc::new(ShardHost::new(context.clone(), provisional.clone(), epoch));
        let mut owner = Self {
            pipeline: Pipeline::new(context.config.proposer.clone()),
            epoch,
            host,
            provisional,
            dedup: Dedup::default(),
            slots: HashMap::new(),
            by_key: HashMap::new(),
            open: HashMap::new(),
            stalled: VecDeque::new(),
            drowsy: Vec::new(),
            timers: Timers::default(),
            idle_at: BTreeMap::new(),
            purges: VecDeque::new(),
            reading: HashMap::new(),
            beside: Beside::default(),
            born: Instant::now(),
            born_wall: context.clock.wall(),
            cancelled,
            names: HashMap::new(),
            start_error: None,
            fault: None,
            context,
        };
        owner
            .load()
            .map_err(|error| format!("the store cannot be read: {error}"))?;
        Ok(owner)
    }

    fn load(&mut self) -> std::io::Result<()> {
        let bad = |what: &str, error: &dyn std::fmt::Display| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{what}: {error}"))
        };
        let (mut records, now) = (0usize, self.dedup_now());
        for (key, value) in self.provisional.scan_all(b"D")? {
            if planted!("dedup-not-durable") {
                break;
            }
            let request = keys::parse_dedup(&key).ok_or_else(|| bad("dedup record", &"malformed key"))?;
            if request.seq == 0 {
                let (floor, _): (u64, WallMs) =
                    codec::decode(&value).map_err(|e| bad("session floor", &e))?;
                self.dedup.load_floor(request.session, floor, now);
            } else {
                let record: DedupRecord = codec::decode(&value).map_err(|e| bad("dedup record", &e))?;
                let now = match planted!("dedup-by-wall-clock") {
                    true => record.at,
                    false => now,
                };
                self.dedup.load(request, record, now);
            }
            records += 1;
        }
        self.dedup.loaded();
        for (key, _) in self.provisional.scan_all(b"X")? {
            let id: [u8; 16] = key[1..].try_into().map_err(|e| bad("purge mark", &e))?;
            self.purges
                .push_back(ActorId::from_bytes(id).map_err(|e| bad("purge mark", &e))?);
        }
        self.load_beside()?;
        tracing::info!(shard = %self.context.id, epoch = %self.epoch, dedup_records = records, "shard taken over");
        Ok(())
    }

    /// The clock that the ages of dedup records are counted by: it looks like wall time, and never jumps.
    pub(crate) fn dedup_now(&self) -> WallMs {
        if planted!("dedup-by-wall-clock") {
            return self.context.clock.wall();
        }
        self.born_wall.after(self.born.elapsed())
    }

    /// The store or the shard's own records cannot be trusted: the ownership ends with the next look at it. The first
    /// reason counts.
    pub(crate) fn fail(&mut self, reason: String) {
        self.fault.get_or_insert(reason);
    }

    /// Admits one call.
    pub(crate) fn admit(&mut self, request: CallRequest, deadline: Instant, reply: ReplyTo) {
        if deadline <= Instant::now() {
            let reason = "the call's time was up before it reached its actor".into();
            return reply.send(Err(CallError::Unavailable {
                shard: self.context.id,
                reason,
            }));
        }
        if let Err(error) = request.check() {
            return reply.send(Err(error.into()));
        }
        let id = request.request;
        if id.seq > 0 {
            self.dedup.acknowledge(id.session, request.acked_below);
            if let Some(waiting) = self.open.get_mut(&id)
                && !planted!("no-dedup")
            {
                return waiting.push(reply);
            }
            match self.dedup.look(id) {
                Known::New => {}
                Known::Answered { seq, reply: answer } => {
                    let result = Ok((*answer).clone());
                    return self.pipeline.read(
                        seq,
                        Release::Call {
                            request: id,
                            reply,
                            result,
                        },
                    );
                }
                Known::Settled => {
                    let message = format!("request {id} was answered and acknowledged before");
                    return reply.send(Err(
                        ActorError::new(group::GUARD, "request_settled", message).into()
                    ));
                }
            }
            self.open.insert(id, Vec::new());
        }
        fp!("owner.admitted");
        if let Err(error) = self.dispatch(request, deadline, reply) {
            self.fail(format!("the store cannot be read: {error}"));
        }
    }

    /// Finds the call's actor, wakes or makes it, and queues the work.
    fn dispatch(&mut self, request: CallRequest, deadline: Instant, reply: ReplyTo) -> std::io::Result<()> {
        let open = Open::new(&request, deadline, reply);
        let CallRequest {
            target,
            op,
            if_active,
            ..
        } = request;
        match target {
            Target::Id(id) => {
                if !self.slots.contains_key(&id) && !self.wake_by_id(id, if_active)? {
                    let error = self.missing(if_active, format!("there is no actor {id}"));
                    self.answer_after(self.horizon(), open, Err(error.into()));
                    return Ok(());
                }
                self.give(id, op, open);
            }
            Target::Key {
                namespace,
                name,
                key,
                create,
            } => {
                let hash = KeyHash::of(&namespace, &name, &key);
                if let Some(id) = self.find(hash, if_active)? {
                    if matches!(op, CallOp::Create) {
                        self.refuse_duplicate(id, &key, open);
                    } else {
                        self.give(id, op, open);
                    }
                    return Ok(());
                }
                let create = match op {
                    CallOp::Create => Some(create.unwrap_or_default()),
                    CallOp::Destroy => None,
                    CallOp::Action { .. } | CallOp::Resolve | CallOp::Push { .. } => create,
                };
                let Some(create) = create.filter(|_| !if_active) else {
                    let error = self.missing(if_active, format!("there is no actor {name} with key {key}"));
                    self.answer_after(self.horizon(), open, Err(error.into()));
                    return Ok(());
                };
                self.create(namespace, name, key, hash, create, op, open);
            }
        }
        Ok(())
    }

    fn missing(&self, if_active: bool, message: String) -> ActorError {
        let code = if if_active {
            code::NOT_ACTIVE
        } else {
            code::NOT_FOUND
        };
        ActorError::new(group::ACTOR, code, message)
    }

    fn refuse_duplicate(&mut self, id: ActorId, key: &Key, open: Open) {
        let message = format!("the key {key} is taken by actor {id}");
        let error = Error::new(group::ACTOR, code::DUPLICATE_KEY, message)
            .with("existing_actor_id", id.to_string())
            .with("key", key.to_string());
        let seq = self.slots.get(&id).map_or(0, |s| s.last_seq);
        self.answer_after(seq, open, Err(error.into_call_error("")));
    }

    /// The awake actor with this key, woken if it sleeps.
    fn find(&mut self, hash: KeyHash, if_active: bool) -> std::io::Result<Option<ActorId>> {
        if let Some(&id) = self.by_key.get(&hash) {
            return Ok(Some(id));
        }
        let Some(bytes) = self.provisional.get(&keys::directory(hash))? else {
            return Ok(None);
        };
        let id = <[u8; 16]>::try_from(&bytes[..])
            .ok()
            .and_then(|b| ActorId::from_bytes(b).ok())
            .ok_or_else(|| {
                std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    "a directory record is no actor id",
                )
            })?;
        Ok(self.wake_by_id(id, if_active)?.then_some(id))
    }

    /// Brings an actor that exists into memory. `false`: there is none, or it sleeps and may not be woken.
    pub(crate) fn wake_by_id(&mut self, id: ActorId, if_active: bool) -> std::io::Result<bool> {
        let Some(bytes) = self.provisional.get(&keys::record(id))? else {
            return Ok(false);
        };
        if if_active {
            return Ok(false);
        }
        let record: ActorRecord = codec::decode(&bytes).map_err(|e| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("record of actor {id}: {e}"),
            )
        })?;
        self.wake(id, record)?;
        Ok(true)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one call, taken apart by its only caller"
    )]
    fn create(
        &mut self,
        namespace: String,
        name: String,
        key: Key,
        hash: KeyHash,
        spec: CreateSpec,
        op: CallOp,
        mut open: Open,
    ) {
        let Some(actor_type) = self.actor_type(&name) else {
            let error = self.not_registered(&name);
            return self.answer(open, Err(error.into()));
        };
        let slot = clinch_types::slot_of(&namespace, &name, &key);
        let id = ActorId::new(self.context.region, slot, self.context.rng.u128());
        let meta = self.meta(id, &namespace, &name, key, self.context.clock.wall());
        self.by_key.insert(hash, id);
        open.created = true;
        let input = spec.input.map(Bytes::from);
        self.born_actor(id, meta, actor_type, input);
        self.give(id, op, open);
    }

    pub(crate) fn not_registered(&self, name: &str) -> ActorError {
        let message = format!(
            "no actor type {name:?} is registered on node {}",
            self.context.node
        );
        ActorError::new(group::ACTOR, code::NOT_REGISTERED, message)
    }

    pub(crate) fn meta(
        &mut self,
        id: ActorId,
        namespace: &str,
        name: &str,
        key: Key,
        created: clinch_types::WallMs,
    ) -> Arc<ActorMeta> {
        let mut intern = |text: &str| match self.names.get(text) {
            Some(known) => known.clone(),
            None => {
                let shared: Arc<str> = text.into();
                self.names.insert(text.to_owned(), shared.clone());
                shared
            }
        };
        let (namespace, name) = (intern(namespace), intern(name));
        Arc::new(ActorMeta {
            id,
            namespace,
            name,
            key,
            region: id.region(),
            shard: self.context.id,
            created,
        })
    }

    /// Queues what a call asks of an actor that is awake (or waking), and lets it run if it can.
    fn give(&mut self, id: ActorId, op: CallOp, open: Open) {
        let Some(slot) = self.slots.get(&id) else {
            // Making or waking it failed at once, before this call could queue behind that.
            let shard = self.context.id;
            let error = match self.start_error.take() {
                Some((failed, error)) if failed == id => error,
                _ => CallError::Unavailable {
                    shard,
                    reason: format!("actor {id} is not awake"),
                },
            };
            return self.answer(open, Err(error));
        };
        let limit = slot.actor_type.options().queue_max;
        if slot.busy.as_ref().is_some_and(|b| b.queue.len() >= limit) {
            let what = format!("the queue of actor {id}");
            return self.answer(
                open,
                Err(CallError::Overloaded {
                    what,
                    limit: limit as u64,
                }),
            );
        }
        let work = match op {
            CallOp::Action { name, args } => match slot.actor_type.action(&name) {
                Some(index) => Work::Action {
                    open,
                    index,
                    args: Bytes::from(args),
                },
                None => {
                    let message = format!("actor type {} has no action {name:?}", slot.meta.name);
                    let error = ActorError::new(group::ACTOR, code::ACTION_NOT_FOUND, message);
                    return self.answer(open, Err(error.into()));
                }
            },
            CallOp::Resolve | CallOp::Create => Work::Resolve { open },
            CallOp::Destroy => Work::Destroy { open },
            CallOp::Push { queue, body, wait } => {
                // A message waits for no turn, only for the actor to be there.
                if slot.takes_messages() && !self.pipeline.full() {
                    return self.push(id, open, &queue, body, wait);
                }
                Work::Push {
                    open,
                    queue,
                    body,
                    wait,
                }
            }
        };
        self.enqueue(id, work);
    }

    /// Puts work behind what waits already; refuses a call that would wait for itself.
    pub(crate) fn enqueue(&mut self, id: ActorId, work: Work) {
        let used = crate::activation::seconds_of(self);
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.used = used;
        slot.busy().queue.push_back(work);
        self.pump(id);
        self.refuse_deadlocks(id);
    }

    /// A call whose own chain holds the actor can never start while it waits here.
    fn refuse_deadlocks(&mut self, id: ActorId) {
        let Some(busy) = self.slots.get_mut(&id).and_then(|s| s.busy.as_mut()) else {
            return;
        };
        let Some(Work::Action { open, .. } | Work::Destroy { open } | Work::Resolve { open }) =
            busy.queue.back()
        else {
            return;
        };
        if !open.chain.contains(&id) || self.reenter(id) {
            return;
        }
        let Some(busy) = self.slots.get_mut(&id).and_then(|s| s.busy.as_mut()) else {
            return;
        };
        let Some(Work::Action { open, .. } | Work::Destroy { open } | Work::Resolve { open }) =
            busy.queue.pop_back()
        else {
            return;
        };
        let chain = open.chain.iter().copied().chain([id]).collect();
        self.answer(open, Err(CallError::Deadlock { chain }));
    }

    /// Lets a call in that its own actor waits for, if the actor admits such calls and it needs no `&mut self`.
    fn reenter(&mut self, id: ActorId) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            return false;
        };
        let kinds = slot.actor_type.clone();
        let admits = kinds.options().reentrant;
        let Some(queue) = slot.busy.as_mut().map(|busy| &mut busy.queue).filter(|_| admits) else {
            return false;
        };
        let fits = matches!(queue.back(), Some(Work::Action { index, .. })
            if kinds.actions()[*index].kind != clinch_actor::ActionKind::Exclusive);
        match queue.pop_back_if(|_| fits) {
            Some(Work::Action { open, index, args }) => {
                self.start_reentrant(id, open, index, args);
                true
            }
            _ => false,
        }
    }

    /// The last batch anything executed so far travels in.
    pub(crate) fn horizon(&self) -> u64 {
        if self.pipeline.has_pending() {
            self.pipeline.filling()
        } else {
            self.pipeline.filling() - 1
        }
    }

    pub(crate) fn call_meta(&self, id: ActorId, version: Version, created: bool) -> CallMeta {
        CallMeta {
            actor: id,
            shard: self.context.id,
            epoch: self.epoch,
            version,
            created,
        }
    }

    /// Answers at once: for refusals that depend on nothing uncommitted.
    pub(crate) fn answer(&mut self, open: Open, result: Result<CallReply, CallError>) {
        self.release(Release::Call {
            request: open.request,
            reply: open.reply,
            result,
        });
    }

    /// Answers once batch `seq` is committed and the lease is known to hold.
    pub(crate) fn answer_after(&mut self, seq: u64, open: Open, result: Result<CallReply, CallError>) {
        self.pipeline.read(
            seq,
            Release::Call {
                request: open.request,
                reply: open.reply,
                result,
            },
        );
    }

    /// Lets an answer go.
    pub(crate) fn release(&mut self, release: Release) {
        match release {
            Release::Call {
                request,
                reply,
                result,
            } => {
                if request.seq > 0
                    && let Some(others) = self.open.remove(&request)
                {
                    for other in others {
                        other.send(result.clone());
                    }
                }
                reply.send(result);
            }
            // The interleaved action may be gone; the write stands.
            Release::Update { done, value } => drop(done.send(Ok(value))),
            Release::Spawn { turn, spawns } => {
                for spawn in spawns {
                    turn.host.spawn(&turn, spawn);
                }
            }
            Release::Sends { source, numbers } => self.sends_committed(source, numbers),
        }
    }

    /// The oldest batch in flight is committed and applied: everything that waited for it may go.
    ///
    /// Returns how many answers went out with it.
    pub(crate) fn committed(&mut self) -> usize {
        let Some(batch) = self.pipeline.commit() else {
            return 0;
        };
        self.provisional.applied(batch.seq, batch.provisional);
        for events in batch.events {
            self.context.events.publish(events);
        }
        for actor in &batch.actors {
            if let Some(slot) = self.slots.get_mut(actor) {
                slot.settle(batch.seq);
            }
        }
        let released = batch.releases.len();
        fp!("owner.before_answers");
        for release in batch.releases {
            self.release(release);
            fp!("owner.answered");
        }
        self.after_commit(&batch.actors);
        released
    }

    /// Only for a bug put in on purpose: answers before the commit.
    pub(crate) fn answer_early(&mut self) {
        #[cfg(feature = "planted")]
        for release in self.pipeline.take_releases() {
            self.release(release);
        }
    }

    /// Only for a bug put in on purpose: goes on after a refused batch as if nothing had been built on it.
    pub(crate) fn forget_batch(&mut self) {
        #[cfg(feature = "planted")]
        {
            let shard = self.context.id;
            for release in self.pipeline.take_releases() {
                let reason = "the log refused it".into();
                self.turn_away(release, CallError::Unavailable { shard, reason });
            }
            self.committed();
        }
    }

    /// Ownership is lost: tells every caller how its call stands, and drops the rest.
    pub(crate) fn abandon(mut self, owner: Option<clinch_types::NodeId>, map_version: u64) {
        self.cancelled.cancel();
        let (shard, epoch) = (self.context.id, self.epoch);
        let moved = || CallError::Moved {
            shard,
            owner,
            epoch,
            map_version,
        };
        let (perhaps, not_done) = self.pipeline.abandon();
        for release in perhaps {
            let reason = format!("shard {shard} changed its owner while the call was being committed");
            self.turn_away(release, CallError::Perhaps { reason });
        }
        for release in not_done {
            self.turn_away(release, moved());
        }
        let slots = std::mem::take(&mut self.slots);
        for busy in slots.into_values().filter_map(|slot| slot.busy) {
            let running = busy.running.and_then(|(_, running, _)| running.into_open());
            let waiting = busy.queue.into_iter().filter_map(Work::into_open);
            for open in running.into_iter().chain(waiting) {
                self.answer(open, Err(moved()));
            }
        }
        for (_, (open, _)) in std::mem::take(&mut self.reading) {
            self.answer(open, Err(moved()));
        }
        for (_, (_, open)) in std::mem::take(&mut self.beside.waiting) {
            self.answer(open, Err(moved()));
        }
        for (_, others) in std::mem::take(&mut self.open) {
            for other in others {
                other.send(Err(moved()));
            }
        }
    }

    pub(crate) fn turn_away(&mut self, release: Release, error: CallError) {
        match release {
            Release::Call { request, reply, .. } => {
                self.release(Release::Call {
                    request,
                    reply,
                    result: Err(error),
                });
            }
            Release::Update { done, .. } => drop(done.send(Err(Error::from(error)))),
            // The turn did not commit, or the next owner finds its sends.
            Release::Spawn { .. } | Release::Sends { .. } => {}
        }
    }

    /// What an interleaved action asks for.
    pub(crate) fn internal(&mut self, message: Internal) {
        let (actor, life, work) = match message {
            Internal::Read {
                actor,
                turn,
                work,
                done,
            } => (actor, turn.life.clone(), Work::Read { work, done }),
            Internal::Update {
                actor,
                turn,
                work,
                done,
            } => (actor, turn.life.clone(), Work::Update { turn, work, done }),
        };
        // An interleaved action keeps its actor awake, so a missing slot means it was destroyed meanwhile; another life,
        // that the action is one of an ownership that has ended.
        if let Some(slot) = self.slots.get(&actor) {
            if Arc::ptr_eq(&slot.life, &life) {
                return self.enqueue(actor, work);
            }
            let ended = Error::from(CallError::Unavailable {
                shard: self.context.id,
                reason: format!("the activation of actor {actor} that asked has ended"),
            });
            if let Work::Read { done, .. } | Work::Update { done, .. } = work {
                drop(done.send(Err(ended)));
            }
            return;
        }
        let gone = Error::new(
            group::ACTOR,
            code::NOT_FOUND,
            format!("there is no actor {actor} any more"),
        );
        if let Work::Read { done, .. } | Work::Update { done, .. } = work {
            drop(done.send(Err(gone)));
        }
    }

    /// One page of the shard's actors.
    pub(crate) fn list(&self, request: &ListRequest) -> Result<ListReply, CallError> {
        let unreadable = |error: &dyn std::fmt::Display| CallError::Unavailable {
            shard: self.context.id,
            reason: format!("the store cannot be read: {error}"),
        };
        let limit = request.limit.clamp(1, clinch_types::limits::LIST_MAX) as usize;
        let mut reply = ListReply::default();
        let rows = if request.ids.is_empty() {
            let start = match request.after {
                Some(after) => std::ops::Bound::Excluded(keys::record(after)),
                None => std::ops::Bound::Included(b"A".to_vec()),
            };
            let end = keys::end_of(b"A");
            let start = start.as_ref().map(|k| k.as_slice());
            self.provisional
                .scan(start, std::ops::Bound::Excluded(&end), LIST_LOOK_MAX, false)
                .map_err(|e| unreadable(&e))?
        } else {
            let mut rows = Vec::new();
            for &id in request.ids.iter().take(LIST_LOOK_MAX) {
                let key = keys::record(id);
                if let Some(value) = self.provisional.get(&key).map_err(|e| unreadable(&e))? {
                    rows.push((Bytes::from(key), value));
                }
            }
            rows
        };
        let looked_at_all = !request.ids.is_empty() || rows.len() < LIST_LOOK_MAX;
        for (key, value) in rows {
            let id: [u8; 16] = key[1..].try_into().map_err(|e| unreadable(&e))?;
            let id = ActorId::from_bytes(id).map_err(|e| unreadable(&e))?;
            if reply.actors.len() == limit {
                // More than a page: go on behind the last one given.
                reply.next = reply.actors.last().map(|a| a.id);
                return Ok(reply);
            }
            let record: ActorRecord = codec::decode(&value).map_err(|e| unreadable(&e))?;
            let wanted = record.namespace == request.namespace
                && request.name.as_ref().is_none_or(|n| *n == record.name);
            if wanted {
                reply.actors.push(self.info(id, record));
            }
            if !looked_at_all {
                reply.next = Some(id);
            }
        }
        Ok(reply)
    }

    pub(crate) fn info(&self, id: ActorId, record: ActorRecord) -> clinch_types::ActorInfo {
        clinch_types::ActorInfo {
            id,
            namespace: record.namespace,
            name: record.name,
            key: record.key,
            region: id.region(),
            created: record.created,
            awake: self.slots.contains_key(&id),
        }
    }

    /// Adds a write of a turn to the batch being filled; later turns see it at once.
    pub(crate) fn put(&mut self, keys: &mut Vec<Vec<u8>>, key: Vec<u8>, value: Bytes) {
        self.provisional
            .put(key.clone(), self.pipeline.filling(), Some(value.clone()));
        keys.push(key.clone());
        self.pipeline.write(key, Write::Put(value));
    }

    /// As [`Owner::put`], for a deletion.
    pub(crate) fn delete(&mut self, keys: &mut Vec<Vec<u8>>, key: Vec<u8>) {
        self.provisional.put(key.clone(), self.pipeline.filling(), None);
        keys.push(key.clone());
        self.pipeline.write(key, Write::Delete);
    }

    pub(crate) fn actor_type(&self, name: &str) -> Option<Arc<dyn ActorType>> {
        self.context.registry.get(name).cloned()
    }
}
