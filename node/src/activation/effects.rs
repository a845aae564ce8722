//! What a turn that ended well leaves behind, as writes of one batch; and the way back for one that did not.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{Effects, Error, QueueOp, RunOutcome, Turn, UpdateState, Visit};
use clinch_types::{ActorId, CallReply, RequestId, Version, code, codec, fp, group, limits, planted};
use tokio::sync::oneshot;

use super::run::panic_text;
use super::slot::{Open, Running};
use crate::shard::keys::{self, ActorRecord, DedupRecord, KeyHash};
use crate::shard::{EventBatch, Owner, Release, TurnEnd, Write};

/// Refuses a result that is too large to be sent.
pub(crate) fn check_output(output: Vec<u8>) -> Result<Vec<u8>, Error> {
    if output.len() <= limits::REPLY_MAX {
        return Ok(output);
    }
    let message = format!(
        "the reply has {} bytes, at most {} are allowed",
        output.len(),
        limits::REPLY_MAX
    );
    Err(Error::new(group::MESSAGE, code::OUTGOING_TOO_LONG, message))
}

/// What a turn that ended well leaves behind, within all limits.
struct Left {
    state: Bytes,
    effects: Effects,
    /// What the KV store holds then, when the turn writes to it.
    kv_total: Option<u64>,
}

impl Owner {
    /// An exclusive turn has ended well: its effects become writes, its answer waits for their commit.
    pub(crate) fn commit(&mut self, id: ActorId, running: Running, turn: &Arc<Turn>, output: Vec<u8>) {
        let tell = !matches!(
            running,
            Running::Start { .. } | Running::Destroy { .. } | Running::Sleep
        );
        let output = match running {
            // Bounded where it was made.
            Running::Request { .. } => Ok(output),
            _ => check_output(output),
        };
        let checked = output.and_then(|output| Ok((output, self.conclude(id, turn, tell)?)));
        let (output, left) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let noted = self.recent.last();
                self.recent.failed(noted, error.group(), error.code());
                return self.roll_back(id, running, error);
            }
        };
        let wrote = self.pipeline.turns();
        match running {
            Running::Action { open } => self.commit_action(id, open, left, output),
            Running::Request { mut open } => {
                open.reply.put_answer(turn.visit().and_then(Visit::take_answer));
                self.commit_action(id, open, left, output);
            }
            Running::Connect { open, seat } => {
                let (destroy, mut keys) = (left.effects.destroy, Vec::new());
                let seat = clinch_actor::ConnSeat {
                    state: output.into(),
                    ..*seat
                };
                self.open_conn(id, seat, &mut keys);
                self.write_turn(id, left, Some((open, Vec::new())), keys);
                if destroy {
                    self.start_destroy(id, None, Vec::new());
                }
            }
            Running::Disconnect { open, conn } => {
                let (destroy, mut keys) = (left.effects.destroy, Vec::new());
                self.drop_conn(conn, &mut keys);
                self.write_turn(id, left, open.map(|open| (open, Vec::new())), keys);
                if destroy {
                    self.start_destroy(id, None, Vec::new());
                }
            }
            Running::Guard { open, then } => {
                if self.must_write(id, &left) {
                    self.write_turn(id, left, None, Vec::new());
                }
                self.pass_guard(id, open, then, turn);
            }
            Running::Start { created } => {
                let mut keys = Vec::new();
                if created {
                    self.write_record(id, &mut keys);
                    let second = super::life::seconds_of(self);
                    if let Some(slot) = self.slots.get(&id) {
                        self.usage.made(&slot.meta, second);
                    }
                }
                if created || self.must_write(id, &left) {
                    self.write_turn(id, left, None, keys);
                }
                self.crashes.forget(id);
                self.start_run(id);
            }
            Running::Fire { entry } => {
                let destroy = left.effects.destroy;
                let mut keys = Vec::new();
                self.advance(id, &entry, RunOutcome::Done, &mut keys);
                self.write_turn(id, left, None, keys);
                if destroy {
                    self.start_destroy(id, None, Vec::new());
                }
            }
            Running::Sleep => {
                if self.must_write(id, &left) {
                    self.write_turn(id, left, None, Vec::new());
                }
                self.slept(id);
            }
            Running::Destroy { open, output } => self.erase(id, open, output),
        }
        let wrote = self.pipeline.turns() > wrote;
        self.begin_spawns(id, turn, wrote);
    }

    /// Takes what a turn that ended well has asked for, and sees whether that may be committed.
    fn conclude(&mut self, id: ActorId, turn: &Arc<Turn>, tell: bool) -> Result<Left, Error> {
        let state = self.encode_state(id)?;
        if tell && self.changed(id, &state) {
            self.tell_change(id, turn)?;
        }
        let effects = turn.take_effects();
        let kv_total = self.check(id, &effects)?;
        Ok(Left {
            state,
            effects,
            kv_total,
        })
    }

    /// Whether it is to be committed: else the turn was a read.
    fn must_write(&mut self, id: ActorId, left: &Left) -> bool {
        !left.effects.is_empty() || self.changed(id, &left.state)
    }

    /// `on_state_change`: what it asks for belongs to the turn.
    fn tell_change(&self, id: ActorId, turn: &Arc<Turn>) -> Result<(), Error> {
        let Some(slot) = self.slots.get(&id) else {
            return Ok(());
        };
        let Some(state) = &slot.state else { return Ok(()) };
        let told = AssertUnwindSafe(|| slot.actor_type.state_changed(state, turn));
        std::panic::catch_unwind(told).unwrap_or_else(|panic| {
            Err(Error::internal(format!(
                "on_state_change panicked: {}",
                panic_text(&*panic)
            )))
        })
    }

    /// Refuses effects over a limit of what the actor keeps; counts what its KV store holds with them.
    fn check(&mut self, id: ActorId, effects: &Effects) -> Result<Option<u64>, Error> {
        let pushes = effects
            .queue
            .iter()
            .filter(|op| matches!(op, QueueOp::Push { .. }))
            .count();
        self.check_room(id, pushes)?;
        self.check_settled(id, &effects.queue)?;
        self.check_schedules(id, effects)?;
        self.check_outbox(id, effects.sends.len())?;
        self.check_kv(id, &effects.kv)
    }

    fn commit_action(&mut self, id: ActorId, open: Open, left: Left, output: Vec<u8>) {
        if left.effects.destroy {
            // Its other effects stand until the end of the actor; the answer goes out with that.
            if self.must_write(id, &left) {
                self.write_turn(id, left, None, Vec::new());
            }
            return self.start_destroy(id, Some(open), output);
        }
        if left.effects.sleep
            && let Some(slot) = self.slots.get_mut(&id)
        {
            slot.busy().sleep = true;
        }
        if !self.must_write(id, &left) {
            // Nothing to commit: a read (DESIGN §5 rule 4).
            let (version, seq) = self
                .slots
                .get(&id)
                .map_or_else(Default::default, |s| (s.version, s.last_seq));
            let reply = CallReply {
                meta: self.call_meta(id, version, open.created),
                output,
            };
            return self.answer_after(seq, open, Ok(reply));
        }
        if self.may_hold(id, &left.effects) {
            return self.hold(id, left.state, left.effects, Some((open, output)));
        }
        self.write_turn(id, left, Some((open, output)), Vec::new());
    }

    /// What an action without `self` asked for at its end: a turn without a change of the state.
    pub(crate) fn settle(&mut self, id: ActorId, open: Open, turn: &Arc<Turn>, output: Vec<u8>, noted: u64) {
        match self.conclude(id, turn, false) {
            Ok(left) => {
                let wrote = self.pipeline.turns();
                self.commit_action(id, open, left, output);
                let wrote = self.pipeline.turns() > wrote;
                if wrote {
                    self.recent.wrote(noted, self.pipeline.filling());
                }
                self.begin_spawns(id, turn, wrote);
            }
            Err(error) => {
                self.recent.failed(noted, error.group(), error.code());
                let seq = self.slots.get(&id).map_or(0, |s| s.last_seq);
                let error = self.explain(id, open.request, &error);
                self.answer_after(seq, open, Err(error));
            }
        }
    }

    /// Whether the encoded state differs from the one the turn began with.
    fn changed(&mut self, id: ActorId, state: &Bytes) -> bool {
        match self.base(id) {
            Ok(Some((_, base))) => base != *state,
            Ok(None) => true,
            Err(error) => {
                self.fail(error);
                true
            }
        }
    }

    /// The encoded state after the last executed turn, and the code version that wrote it.
    pub(crate) fn base(&self, id: ActorId) -> Result<Option<(u32, Bytes)>, String> {
        if let Some(slot) = self.slots.get(&id)
            && let Some(base) = slot.busy.as_ref().and_then(|b| b.base.clone())
        {
            return Ok(Some((slot.actor_type.version(), base)));
        }
        let stored = self
            .provisional
            .get(&keys::state(id))
            .map_err(|e| format!("the store cannot be read: {e}"))?;
        let Some(stored) = stored else { return Ok(None) };
        let (_, code, state) = keys::read_state(&stored).map_err(|e| format!("state of actor {id}: {e}"))?;
        Ok(Some((code, state)))
    }

    pub(super) fn encode_state(&self, id: ActorId) -> Result<Bytes, Error> {
        let slot = self
            .slots
            .get(&id)
            .ok_or_else(|| Error::internal("the actor is gone"))?;
        let state = slot
            .state
            .as_ref()
            .ok_or_else(|| Error::internal("the state is held by another turn"))?;
        let mut out = Vec::with_capacity(64);
        slot.actor_type.encode(state, &mut out)?;
        let max = slot.actor_type.options().state_max;
        if out.len() > max {
            let message = format!("the state has {} bytes, at most {max} are allowed", out.len());
            return Err(Error::new(group::ACTOR, code::STATE_TOO_LARGE, message));
        }
        if out.len() > limits::STATE_WARN {
            tracing::warn!(actor = %id, bytes = out.len(), "large state: it is written whole with every turn");
        }
        Ok(out.into())
    }

    /// Puts a turn's writes into the batch being filled.
    fn write_turn(
        &mut self,
        id: ActorId,
        left: Left,
        answer: Option<(Open, Vec<u8>)>,
        mut keys: Vec<Vec<u8>>,
    ) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.version = Version(slot.version.0 + 1);
        let version = slot.version;
        let Left {
            state,
            effects,
            kv_total,
        } = left;
        self.write_state(id, state);
        fp!("turn.state_written");
        self.write_kv(id, version.0, effects.kv, kv_total, &mut keys);
        for op in effects.schedules {
            self.write_schedule(id, op, &mut keys);
        }
        for op in effects.queue {
            match op {
                QueueOp::Push { queue, body } => {
                    self.push_message(id, &queue, body.into(), None, &mut keys);
                }
                QueueOp::Settle {
                    queue,
                    id: number,
                    how,
                } => {
                    self.settle_message(id, &queue, number, how, &mut keys);
                }
            }
        }
        self.write_sends(id, version, effects.sends, &mut keys);
        let told = self.tell_conns(id, version, &effects.events, effects.conns, Some(&mut keys));
        if let Some(told) = told {
            // Ahead of the answer: what a turn tells is on its way before the turn's caller knows of it.
            self.pipeline.turn(TurnEnd {
                actor: id,
                release: Some(Release::Deliver(told)),
                events: None,
                provisional: Vec::new(),
            });
        }
        let epoch = self.epoch;
        let events = (!effects.events.is_empty()).then(|| EventBatch {
            actor: id,
            epoch,
            version,
            events: effects.events,
        });
        fp!("turn.effects_written");
        let release = answer.map(|(open, output)| {
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
            events,
            provisional: keys,
        });
    }

    /// Puts a state into the batch being filled.
    pub(crate) fn write_state(&mut self, id: ActorId, state: Bytes) {
        let seq = self.pipeline.filling();
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let record = Bytes::from(keys::write_state(slot.version, slot.actor_type.version(), &state));
        if slot.last_seq == seq {
            self.pipeline.rewrite(slot.state_at as usize, record);
        } else {
            let at = self.pipeline.write(keys::state(id), Write::Put(record));
            // A batch is cut far below 2^32 writes (`batch_turns_max`, `EFFECTS_MAX`).
            slot.state_at = at as u32;
            slot.last_seq = seq;
        }
        slot.unsaved = false;
        slot.busy().base = Some(state);
    }

    /// The answer of an interleaved action: remembered, though it wrote nothing itself.
    pub(crate) fn commit_answer(&mut self, id: ActorId, open: Open, reply: CallReply) {
        self.record_answer(open.request, open.long_dedup, &reply);
        let release = Some(Release::Call {
            request: open.request,
            reply: open.reply,
            result: Ok(reply),
        });
        self.pipeline.turn(TurnEnd {
            actor: id,
            release,
            events: None,
            provisional: Vec::new(),
        });
    }

    /// Writes the dedup record of an answer into its own batch (DESIGN §5 rule 7).
    pub(crate) fn record_answer(&mut self, request: RequestId, long: bool, reply: &CallReply) {
        if request.seq == 0 {
            return;
        }
        let now = self.dedup_now();
        let record = DedupRecord {
            at: now,
            long,
            reply: reply.clone(),
        };
        match codec::encode(&record) {
            Ok(bytes) => {
                self.pipeline
                    .write(keys::dedup(request), Write::PutFresh(bytes.into()));
                let seq = self.pipeline.filling();
                self.dedup.record(request, seq, now, long, Arc::new(record.reply));
            }
            // Replies are bounded below the codec's limit.
            Err(error) => self.fail(format!("a dedup record cannot be encoded: {error}")),
        }
    }

    fn write_record(&mut self, id: ActorId, keys: &mut Vec<Vec<u8>>) {
        let Some(meta) = self.slots.get(&id).map(|s| s.meta.clone()) else {
            return;
        };
        let record = ActorRecord {
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            key: meta.key.clone(),
            created: meta.created,
        };
        match codec::encode(&record) {
            Ok(bytes) => self.put(keys, keys::record(id), bytes.into()),
            Err(error) => self.fail(format!("an actor record cannot be encoded: {error}")),
        }
        let hash = KeyHash::of(&meta.namespace, &meta.name, &meta.key);
        self.put(keys, keys::directory(hash), Bytes::copy_from_slice(id.as_bytes()));
    }

    /// An interleaved action writes: an exclusive turn of its own, in place.
    pub(crate) fn run_update(
        &mut self,
        id: ActorId,
        parent: &Arc<Turn>,
        work: UpdateState,
        done: oneshot::Sender<Result<Box<dyn std::any::Any + Send>, Error>>,
    ) {
        let visitor = parent.visit().and_then(clinch_actor::Visit::seat);
        let began = tokio::time::Instant::now();
        let init = super::turns::TurnFor {
            what: parent.what,
            began,
            request: parent.request,
            chain: &parent.chain,
            origin: parent.origin,
            kind: clinch_actor::ActionKind::Exclusive,
            deadline: began,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        if let Some(seat) = visitor {
            // As it is by now.
            let seat = self.host.seats().get(id, seat.id).unwrap_or(seat);
            let door = clinch_types::Door::default();
            turn.set_visit(clinch_actor::Visit::new(door, Some(seat)));
        }
        let Some(mut state) = self.slots.get_mut(&id).and_then(|s| s.state.take()) else {
            return;
        };
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let result = work(&mut state, &turn);
            (state, result)
        }));
        let panicked = worked.is_err();
        let (state, result) = match worked {
            Ok((state, result)) => (Some(state), result),
            Err(_) => (None, Err(Error::internal("an update of the state panicked"))),
        };
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.state = state;
        }
        let checked = result.and_then(|value| Ok((value, self.conclude(id, &turn, true)?)));
        let noted = self.note_update(id, &turn, panicked, checked.as_ref().err());
        match checked {
            Ok((value, left)) => {
                let release = Release::Update { done, value };
                if !self.must_write(id, &left) {
                    let seq = self.slots.get(&id).map_or(0, |s| s.last_seq);
                    self.pipeline.read(seq, release);
                    return self.begin_spawns(id, &turn, false);
                }
                if self.may_hold(id, &left.effects) {
                    self.hold(id, left.state, left.effects, None);
                    let seq = self.slots.get(&id).map_or(0, |s| s.last_seq);
                    self.pipeline.read(seq, release);
                    return self.begin_spawns(id, &turn, false);
                }
                let destroy = left.effects.destroy;
                self.write_turn(id, left, None, Vec::new());
                self.recent.wrote(noted, self.pipeline.filling());
                self.pipeline.turn(TurnEnd {
                    actor: id,
                    release: Some(release),
                    events: None,
                    provisional: Vec::new(),
                });
                self.begin_spawns(id, &turn, true);
                if destroy {
                    self.start_destroy(id, None, Vec::new());
                }
            }
            Err(error) => {
                self.restore(id);
                // As for reads: the action may be gone.
                drop(done.send(Err(error)));
            }
        }
    }

    /// Only for a bug put in on purpose: what a failed turn asked for beside its state is done all the same.
    pub(crate) fn keep_effects(&mut self, id: ActorId, turn: &Turn) {
        if !planted!("failed-turn-sends") {
            return;
        }
        let Some(version) = self.slots.get(&id).map(|slot| slot.version) else {
            return;
        };
        let (effects, mut keys) = (turn.take_effects(), Vec::new());
        for op in effects.queue {
            if let QueueOp::Push { queue, body } = op {
                self.push_message(id, &queue, body.into(), None, &mut keys);
            }
        }
        self.write_sends(id, Version(version.0 + 1), effects.sends, &mut keys);
        self.end_beside(id, keys);
    }

    /// A turn failed: the state goes back to what the last executed turn left, nothing else happened (G4).
    pub(crate) fn roll_back(&mut self, id: ActorId, running: Running, error: Error) {
        match running {
            Running::Start { created } => self.start_failed(id, created, &error),
            // Gone is gone, whatever its last hook says; the error is in the log.
            Running::Destroy { open, output } => {
                tracing::error!(actor = %id, %error, "on_destroy failed");
                self.erase(id, open, output);
            }
            Running::Disconnect { open, conn } => {
                self.restore(id);
                // The connection is gone, whatever the hook says.
                tracing::error!(actor = %id, %conn, cause = ?error.internal_cause(), %error, "on_disconnect failed");
                self.end_conn(id, open, conn);
            }
            Running::Action { open }
            | Running::Request { open }
            | Running::Connect { open, .. }
            | Running::Guard { open, .. } => {
                if !planted!("no-rollback") {
                    self.restore(id);
                }
                let seq = self.slots.get(&id).map_or(0, |s| s.last_seq);
                let error = self.explain(id, open.request, &error);
                // What the error tells may rest on turns that are not committed yet: it waits for them (G6).
                self.answer_after(seq, open, Err(error));
            }
            Running::Fire { entry } => {
                self.restore(id);
                tracing::error!(actor = %id, schedule = %entry.id, %error, "a scheduled action failed; this firing is not repeated");
                let mut keys = Vec::new();
                let outcome = RunOutcome::Failed(format!("{}.{}", error.group(), error.code()));
                self.advance(id, &entry, outcome, &mut keys);
                self.end_beside(id, keys);
            }
            Running::Sleep => {
                self.restore(id);
                tracing::error!(actor = %id, %error, "on_sleep failed");
                self.slept(id);
            }
        }
    }

    /// Brings the state back to the bytes of the last executed turn.
    pub(crate) fn restore(&mut self, id: ActorId) {
        let stored = match self.base(id) {
            Ok(stored) => stored,
            Err(error) => {
                self.fail(error);
                return;
            }
        };
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        match stored.map(|(code, bytes)| slot.actor_type.decode(code, &bytes)) {
            Some(Ok(state)) => slot.state = Some(state),
            Some(Err(error)) => {
                let error = format!("the last good state of actor {id} cannot be read back: {error}");
                self.fail(error);
            }
            None => self.fail(format!("actor {id} has no stored state")),
        }
    }
}
