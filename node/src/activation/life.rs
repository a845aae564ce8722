//! The life of an actor in memory: made, woken, fired by schedules, put to sleep, destroyed.

use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActionKind, ActorMeta, ActorType, Error, Hook, Life, Origin, StateArc};
use clinch_types::{ActorId, CallError, CallReply, RequestId, Version, codec, fp, planted};
use tokio::time::Instant;

use super::hooks::start_up;
use super::slot::{Open, Running, Slot, Work};
use super::turns::TurnFor;
use crate::shard::keys::{self, ActorRecord, KeyHash};
use crate::shard::{Owner, Release, TurnEnd, Write};

/// Entries deleted in one batch after their actor was destroyed.
const PURGE_MAX: usize = 1024;
/// Dedup records that may wait for the next entry before they get one of their own.
const GARBAGE_MAX: usize = 4096;

/// The coarse clock of idleness.
pub(crate) fn seconds_of(owner: &Owner) -> u32 {
    u32::try_from((owner.now - owner.born).as_secs()).unwrap_or(u32::MAX)
}

/// Lets actors go on that waited for room in the batch being filled.
pub(crate) fn resume(owner: &mut Owner) {
    while !owner.pipeline.full()
        && let Some(id) = owner.stalled.pop_front()
    {
        owner.pump(id);
    }
}

impl Owner {
    /// Makes an actor: its `create`, then its hooks; calls queue behind that.
    pub(crate) fn born_actor(
        &mut self,
        id: ActorId,
        meta: Arc<ActorMeta>,
        actor_type: Arc<dyn ActorType>,
        input: Option<Bytes>,
    ) {
        self.seat(id, meta, actor_type, None, Version(0));
        self.start_actor(id, true, None, input);
    }

    /// Brings a stored actor back into memory.
    pub(crate) fn wake(&mut self, id: ActorId, record: ActorRecord) -> std::io::Result<()> {
        let bad = |text: String| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        let stored = self.provisional.get(&keys::state(id))?;
        let stored = stored.ok_or_else(|| bad(format!("actor {id} has a record but no state")))?;
        let (version, code, bytes) =
            keys::read_state(&stored).map_err(|e| bad(format!("state of actor {id}: {e}")))?;
        let Some(actor_type) = self.actor_type(&record.name) else {
            tracing::warn!(actor = %id, name = record.name, "an actor of a type that is not registered here was called");
            let error = self.not_registered(&record.name).into();
            self.note_crash(id, &error);
            self.start_error = Some((id, error));
            return Ok(());
        };
        let state = match actor_type.decode(code, &bytes) {
            Ok(state) => state,
            Err(error) => {
                // One actor's trouble (a newer shape, a failing migration) is not the shard's.
                tracing::error!(actor = %id, %error, "the state of an actor cannot be read");
                let error = self.explain(id, RequestId::default(), &error);
                self.note_crash(id, &error);
                self.start_error = Some((id, error));
                return Ok(());
            }
        };
        let hash = KeyHash::of(&record.namespace, &record.name, &record.key);
        self.by_key.insert(hash, id);
        let meta = self.meta(id, &record.namespace, &record.name, record.key, record.created);
        let hooked = actor_type.has_hook(Hook::OnWake) || actor_type.has_vars();
        self.seat(id, meta, actor_type, Some(state.clone()), version);
        if hooked {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.state = None;
            }
            self.start_actor(id, false, Some(state), None);
        } else {
            self.crashes.forget(id);
            self.start_run(id);
        }
        Ok(())
    }

    fn seat(
        &mut self,
        id: ActorId,
        meta: Arc<ActorMeta>,
        actor_type: Arc<dyn ActorType>,
        state: Option<StateArc>,
        version: Version,
    ) {
        let used = seconds_of(self);
        if let Some(after) = actor_type.options().sleep_after {
            self.idle_at.entry(idle_second(used, after)).or_default().push(id);
        }
        let slot = Slot {
            meta,
            life: Life::new(actor_type.clone(), self.cancelled.clone()),
            actor_type,
            stock: None,
            unsaved: false,
            run_failures: 0,
            state,
            version,
            last_seq: 0,
            state_at: 0,
            used,
            busy: None,
        };
        self.slots.insert(id, Box::new(slot));
    }

    fn start_actor(&mut self, id: ActorId, created: bool, state: Option<StateArc>, input: Option<Bytes>) {
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        let options = actor_type.options();
        let (hooks, limit): (&'static [Hook], _) = if created {
            (
                &[Hook::OnCreate, Hook::OnWake],
                options.create_timeout + options.on_create_timeout + options.on_wake_timeout,
            )
        } else {
            (&[Hook::OnWake], options.on_wake_timeout)
        };
        // Each hook has its own limit; this one ends what ignores it.
        let began = Instant::now();
        let deadline = began + limit + options.vars_timeout;
        let origin = if created { Origin::Create } else { Origin::Hook };
        let init = TurnFor {
            what: if created { "create" } else { "on_wake" },
            began,
            request: RequestId::default(),
            chain: &[],
            origin,
            kind: ActionKind::Exclusive,
            deadline,
            input,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        let future = Box::pin(start_up(actor_type, turn.clone(), state, hooks));
        self.launch(id, future, Running::Start { created }, turn, deadline);
    }

    /// Creation or waking failed: the actor is not awake, and everybody who waited for it hears why.
    pub(crate) fn start_failed(&mut self, id: ActorId, created: bool, error: &Error) {
        let before = self.crashes.take(id);
        let Some(slot) = self.unseat(id) else { return };
        let error = self.explain(id, RequestId::default(), error);
        // One that could not be made never was.
        if !created {
            self.crashes.put_back(id, before);
            self.note_crash(id, &error);
        }
        for work in slot.busy.into_iter().flat_map(|b| b.queue) {
            match work {
                Work::Fire { id: schedule, due } => self.put_off(id, schedule, due),
                other => {
                    if let Some(open) = other.into_open() {
                        self.answer(open, Err(error.clone()));
                    }
                }
            }
        }
        self.start_error = Some((id, error));
    }

    /// Takes an actor out of memory.
    fn unseat(&mut self, id: ActorId) -> Option<Box<Slot>> {
        let slot = self.slots.remove(&id)?;
        self.crashes.forget(id);
        slot.life.end();
        let hash = KeyHash::of(&slot.meta.namespace, &slot.meta.name, &slot.meta.key);
        if self.by_key.get(&hash) == Some(&id) {
            self.by_key.remove(&hash);
        }
        Some(slot)
    }

    /// Ends an actor for ever: `on_destroy` first, with the state still there.
    pub(crate) fn start_destroy(&mut self, id: ActorId, open: Option<Open>, output: Vec<u8>) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if !slot.actor_type.has_hook(Hook::OnDestroy) {
            return self.erase(id, open, output);
        }
        let actor_type = slot.actor_type.clone();
        let Some(state) = slot.state.take() else { return };
        let began = Instant::now();
        let deadline = began + actor_type.options().on_destroy_timeout;
        let chain = open.as_ref().map(|o| o.chain.clone()).unwrap_or_default();
        let init = TurnFor {
            what: "on_destroy",
            began,
            request: RequestId::default(),
            chain: &chain,
            origin: Origin::Hook,
            kind: ActionKind::Exclusive,
            deadline,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        let future = Box::pin(start_up(
            actor_type,
            turn.clone(),
            Some(state),
            &[Hook::OnDestroy],
        ));
        self.launch(id, future, Running::Destroy { open, output }, turn, deadline);
    }

    /// Deletes everything an actor has; its id is never used again (G9).
    pub(crate) fn erase(&mut self, id: ActorId, open: Option<Open>, output: Vec<u8>) {
        let Some(slot) = self.unseat(id) else { return };
        let lived = self.context.clock.wall().0.saturating_sub(slot.meta.created.0);
        let second = seconds_of(self);
        self.usage
            .destroyed(&slot.meta, std::time::Duration::from_millis(lived), second);
        let mut written = Vec::new();
        fp!("life.erase");
        if !planted!("undead") {
            self.delete(&mut written, keys::record(id));
        }
        let hash = KeyHash::of(&slot.meta.namespace, &slot.meta.name, &slot.meta.key);
        if !planted!("undead") {
            self.delete(&mut written, keys::directory(hash));
        }
        self.delete(&mut written, keys::state(id));
        self.delete(&mut written, keys::kv_bytes(id));
        // KV entries may be many: a mark makes sure that later batches (or a later owner) delete all of them.
        self.put(
            &mut written,
            keys::purge_mark(id),
            Bytes::from_static(&[codec::FORMAT]),
        );
        self.purges.push_back(id);
        self.drop_schedules(id, &mut written);
        if let Some(told) = self.drop_conns_of(id, &mut written) {
            self.pipeline.turn(TurnEnd {
                actor: id,
                release: Some(Release::Deliver(told)),
                events: None,
                provisional: Vec::new(),
            });
        }
        self.delete(&mut written, crate::shard::records::awake_mark(id));
        let version = Version(slot.version.0 + 1);
        let release = open.map(|open| {
            let reply = CallReply {
                meta: self.call_meta(id, version, open.created),
                output,
            };
            self.record_answer(open.request, open.long_dedup, &reply);
            Release::Call {
                request: open.request,
                reply: open.reply,
                result: Ok(reply),
            }
        });
        self.pipeline.turn(TurnEnd {
            actor: id,
            release,
            events: None,
            provisional: written,
        });
        let seq = self.horizon();
        self.dismiss_senders(id, seq);
        let shard = self.context.id;
        for work in slot.busy.into_iter().flat_map(|b| b.queue) {
            match work {
                Work::Read { done, .. } | Work::Update { done, .. } => {
                    let gone = format!("actor {id} has been destroyed");
                    let gone = Error::new(clinch_types::group::ACTOR, clinch_types::code::NOT_FOUND, gone);
                    // The interleaved action hears that its actor is gone, if it still listens.
                    drop(done.send(Err(gone)));
                }
                other => {
                    if let Some(open) = other.into_open() {
                        // Asked again, a call by key may make a new actor; one by id finds that there is none.
                        let reason = format!("actor {id} was destroyed while the call waited for it");
                        self.answer_after(seq, open, Err(CallError::Unavailable { shard, reason }));
                    }
                }
            }
        }
    }

    /// Begins to sleep: `on_sleep`, then out of memory.
    pub(crate) fn start_sleep(&mut self, id: ActorId) {
        if self.still(id) {
            self.sleep_hook(id);
        }
    }

    /// Nothing runs beside the actor any more: its last hook may.
    pub(crate) fn sleep_hook(&mut self, id: ActorId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if !slot.actor_type.has_hook(Hook::OnSleep) {
            return self.slept(id);
        }
        let actor_type = slot.actor_type.clone();
        let Some(state) = slot.state.take() else { return };
        let began = Instant::now();
        let deadline = began + actor_type.options().on_sleep_timeout;
        let init = TurnFor {
            what: "on_sleep",
            began,
            request: RequestId::default(),
            chain: &[],
            origin: Origin::Hook,
            kind: ActionKind::Exclusive,
            deadline,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        let future = Box::pin(start_up(actor_type, turn.clone(), Some(state), &[Hook::OnSleep]));
        self.launch(id, future, Running::Sleep, turn, deadline);
    }

    /// `on_sleep` is over. The actor leaves memory when its last writes are committed and nothing came in between.
    pub(crate) fn slept(&mut self, id: ActorId) {
        self.save_now(id);
        let committed = self.pipeline.committed();
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.last_seq > committed {
            let busy = slot.busy();
            busy.asleep = true;
            return;
        }
        self.asleep(id);
        let queue = match self.unseat(id) {
            Some(slot) => slot.busy.map(|b| b.queue).unwrap_or_default(),
            None => return,
        };
        if queue.is_empty() {
            return self.rested();
        }
        // Called while it fell asleep: it wakes again at once.
        match self.wake_by_id(id, false) {
            Ok(_) => queue
                .into_iter()
                .for_each(|work| self.enqueue_or_refuse(id, work)),
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    /// As [`Owner::enqueue`], for an actor whose waking may have failed.
    fn enqueue_or_refuse(&mut self, id: ActorId, work: Work) {
        if self.slots.contains_key(&id) {
            return self.enqueue(id, work);
        }
        let error = match &self.start_error {
            Some((failed, error)) if *failed == id => error.clone(),
            _ => CallError::Unavailable {
                shard: self.context.id,
                reason: format!("actor {id} is not awake"),
            },
        };
        match work {
            Work::Fire { id: schedule, due } => {
                let now = self.context.clock.wall();
                let until = self.timers.put_off(due, id, schedule, now);
                self.crashes.tried_again_at(id, until, now);
            }
            other => {
                if let Some(open) = other.into_open() {
                    self.answer(open, Err(error));
                }
            }
        }
    }

    /// Whatever waited for a commit: stalled turns, actors falling asleep.
    pub(crate) fn after_commit(&mut self, actors: &[ActorId]) {
        for &id in actors {
            if let Some(slot) = self.slots.get(&id) {
                slot.life.queue_changed();
            }
            let asleep = self
                .slots
                .get(&id)
                .and_then(|s| s.busy.as_ref())
                .is_some_and(|b| b.asleep);
            let committed = self.pipeline.committed();
            if asleep && self.slots.get(&id).is_some_and(|s| s.last_seq <= committed) {
                self.slept(id);
            }
        }
        resume(self);
        self.rested();
    }

    /// Puts actors to sleep that asked for it and have nothing left to do.
    pub(crate) fn tuck_in(&mut self) {
        self.see_off();
        for id in std::mem::take(&mut self.drowsy) {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            if slot.idle() && slot.busy.as_ref().is_some_and(|b| b.sleep) {
                slot.busy().sleep = false;
                if !self.kept_awake(id) {
                    self.enqueue(id, Work::Sleep);
                }
            }
        }
    }

    /// Everything that time brings: due schedules, idle actors, old dedup records, purges.
    pub(crate) fn tick(&mut self) {
        self.now = Instant::now();
        let now = self.context.clock.wall();
        let due_by = match planted!("schedule-early") {
            true => now.after(std::time::Duration::from_millis(700)),
            false => now,
        };
        self.fire_due(due_by);
        self.tick_beside();
        self.tick_conns();
        self.sleep_idle();
        self.dedup.expire(self.dedup_now());
        self.purge();
        if self.dedup.garbage_len() > GARBAGE_MAX {
            self.clear_dedup();
        }
    }

    fn sleep_idle(&mut self) {
        let now = seconds_of(self);
        while let Some(entry) = self.idle_at.first_entry()
            && *entry.key() <= now
        {
            for id in entry.remove() {
                let Some(slot) = self.slots.get(&id) else { continue };
                let Some(after) = slot.actor_type.options().sleep_after else {
                    continue;
                };
                let due = idle_second(slot.used, after);
                let busy = !slot.idle() || slot.last_seq > self.pipeline.committed();
                if due > now || busy || self.kept_awake(id) {
                    self.idle_at.entry(due.max(now + 1)).or_default().push(id);
                } else {
                    // Should it be called while it falls asleep, it is seated (and listed here) anew.
                    self.enqueue(id, Work::Sleep);
                }
            }
        }
    }

    fn purge(&mut self) {
        let Some(&id) = self.purges.front() else { return };
        if self.pipeline.full() {
            return;
        }
        let mut written = Vec::new();
        match self.rows_of(id, PURGE_MAX) {
            Ok(rows) => {
                let last = rows.len() < PURGE_MAX;
                for key in rows {
                    self.delete(&mut written, key.to_vec());
                }
                if last {
                    self.delete(&mut written, keys::purge_mark(id));
                    self.purges.pop_front();
                }
                self.pipeline.turn(TurnEnd {
                    actor: id,
                    release: None,
                    events: None,
                    provisional: written,
                });
            }
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    /// Writes what the dedup table has let go of; called before each batch is cut, so it usually rides along.
    pub(crate) fn clear_dedup(&mut self) {
        let cleared = self.dedup.clear();
        let now = self.context.clock.wall();
        for request in cleared.records {
            self.pipeline.write(keys::dedup(request), Write::Delete);
        }
        for (session, floor) in cleared.floors {
            match codec::encode(&(floor, now)) {
                Ok(bytes) => {
                    let key = keys::dedup(RequestId { session, seq: 0 });
                    self.pipeline.write(key, Write::Put(bytes.into()));
                }
                Err(error) => self.fail(format!("a floor cannot be encoded: {error}")),
            }
        }
    }
}

/// The second in which an actor last used at `used` has been idle for long enough; rounded up, so never early.
fn idle_second(used: u32, after: std::time::Duration) -> u32 {
    let whole = u32::try_from(after.as_secs()).unwrap_or(u32::MAX / 2);
    used.saturating_add(whole).saturating_add(1)
}
