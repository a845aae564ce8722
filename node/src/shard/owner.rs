//! A shard while this node owns it: what it knows, and how answers are let go when they may.
//!
//! Invariant: one `Owner` lives for one epoch. Everything in it is either on disk or not promised to anybody, so losing
//! ownership means dropping it (DESIGN §5 rule 2).
//! Not here: how calls come in (`admission`), the turns themselves (`activation`), winning and losing the ownership (`task`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActorType, Error, ReadState, Turn, UpdateState};
use clinch_types::{
    ActorId, CallError, CallMeta, CallReply, Epoch, RequestId, Version, WallMs, code, codec, fp, group,
    planted,
};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dedup::Dedup;
use super::keys::{self, DedupRecord, KeyHash};
use super::pipeline::Pipeline;
use super::{Provisional, Release, ReplyTo, ShardContext, Write};
use crate::activation::{
    Beside, Conns, Crashes, Open, Reading, RecentTurns, ShardHost, Slot, Timers, Usage, Work,
};

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
    /// Work beside the turns waits until what its actor has executed is committed.
    Settled {
        turn: Arc<Turn>,
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
    /// Ids are drawn by nodes, so nobody outside can choose keys that collide: a fast hash will do.
    /// In boxes, because a map that has just grown is half empty.
    pub(crate) slots: FxHashMap<ActorId, Box<Slot>>,
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
    /// Shared and interleaved turns in progress.
    pub(crate) reading: FxHashMap<u64, Reading>,
    pub(crate) recent: RecentTurns,
    pub(crate) usage: Usage,
    pub(crate) beside: Beside,
    pub(crate) conns: Conns,
    pub(crate) born: Instant,
    /// When the message being handled was taken: asking the clock once for each is enough.
    pub(crate) now: Instant,
    /// Wall time then.
    born_wall: WallMs,
    /// Ends with the epoch: running turns see it.
    pub(crate) cancelled: CancellationToken,
    pub(super) names: HashMap<String, Arc<str>>,
    /// Why the last actor that could not be made or woken could not.
    pub(crate) start_error: Option<(ActorId, CallError)>,
    pub(crate) crashes: Crashes,
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
        let born = Instant::now();
        let mut owner = Self {
            pipeline: Pipeline::new(context.config.proposer.clone()),
            epoch,
            host,
            provisional,
            dedup: Dedup::default(),
            slots: FxHashMap::default(),
            by_key: HashMap::new(),
            open: HashMap::new(),
            stalled: VecDeque::new(),
            drowsy: Vec::new(),
            timers: Timers::default(),
            idle_at: BTreeMap::new(),
            purges: VecDeque::new(),
            reading: FxHashMap::default(),
            beside: Beside::default(),
            conns: Conns::default(),
            recent: RecentTurns::new(born),
            usage: Usage::new(born),
            born,
            now: born,
            born_wall: context.clock.wall(),
            cancelled,
            names: HashMap::new(),
            start_error: None,
            crashes: Crashes::default(),
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
                        self.hand_out(other, result.clone());
                    }
                }
                self.hand_out(reply, result);
            }
            // The interleaved action may be gone; the write stands.
            Release::Update { done, value } => drop(done.send(Ok(value))),
            Release::Spawn { turn, spawns } => {
                for spawn in spawns {
                    turn.host.spawn(&turn, spawn);
                }
            }
            Release::Deliver(told) => self.deliver(told),
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
        self.recent.committed(batch.seq, Instant::now());
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

    /// Only for a bug put in on purpose: tells of turns that are not committed yet.
    pub(crate) fn publish_early(&mut self) {
        #[cfg(feature = "planted")]
        for events in self.pipeline.take_events() {
            self.context.events.publish(events);
        }
    }

    /// Only for a bug put in on purpose: tells connections of turns that are not committed yet.
    pub(crate) fn tell_early(&mut self) {
        #[cfg(feature = "planted")]
        for release in self.pipeline.take_deliveries() {
            self.release(release);
        }
    }

    /// Only for a bug put in on purpose: whether a call by key changes nothing.
    pub(crate) fn is_look(&self, request: &clinch_types::CallRequest) -> bool {
        let (clinch_types::Target::Key { name, .. }, clinch_types::CallOp::Action { name: action, .. }) =
            (&request.target, &request.op)
        else {
            return false;
        };
        let kind = self.actor_type(name);
        kind.is_some_and(|kind| {
            let mut actions = kind.actions().iter();
            actions.any(|a| a.name == *action && a.kind == clinch_actor::ActionKind::Shared)
        })
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
        for (_, reading) in std::mem::take(&mut self.reading) {
            self.answer(reading.open, Err(moved()));
        }
        for (_, (_, open)) in std::mem::take(&mut self.beside.waiting) {
            self.answer(open, Err(moved()));
        }
        self.take_polls()
            .into_iter()
            .for_each(|open| self.answer(open, Err(moved())));
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
            Release::Spawn { .. } | Release::Deliver(_) | Release::Sends { .. } => {}
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
            Internal::Settled { turn, done } => {
                // Of another life: the answer's sender is dropped, which tells the work.
                let slot = self.slots.get(&turn.actor.id);
                if let Some(slot) = slot.filter(|slot| Arc::ptr_eq(&slot.life, &turn.life)) {
                    let value = Box::new(());
                    self.pipeline.read(slot.last_seq, Release::Update { done, value });
                }
                return;
            }
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
