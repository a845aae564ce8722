//! Starting and ending turns.

use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActionKind, BoxFuture, Error, Origin, Turn, TurnInit};
use clinch_types::{ActorId, CallError, CallReply, RequestId, codec, planted};
use tokio::time::Instant;

use super::recent::{Begun, Reading};
use super::run::{Ended, Exclusive, Outcome, poll_now, spawn, timed_out};
use super::slot::{Open, Running, Work};
use super::visits::Visited;
use crate::shard::{Owner, ShardContext};

impl Owner {
    /// Starts whatever the actor can do now. Call after anything that may have made room.
    pub(crate) fn pump(&mut self, id: ActorId) {
        loop {
            let Some(slot) = self.slots.get_mut(&id) else {
                return;
            };
            let Some(busy) = slot.busy.as_mut() else { return };
            // `asleep`: what comes now waits until the actor has left memory, and wakes it again.
            if busy.running.is_some() || busy.asleep {
                return;
            }
            // Falling asleep: what work beside the turns still asks for passes the calls, which wake the actor again.
            let next = match busy.stopping {
                false => 0,
                true => match busy.queue.iter().position(Work::is_asked_from_inside) {
                    Some(next) => next,
                    None => return,
                },
            };
            let Some(front) = busy.queue.get(next) else { break };
            let shared = match front {
                Work::Action { open, index, .. } => match slot.actor_type.actions()[*index].kind {
                    // A visitor is let in and out, which changes the state.
                    ActionKind::Shared | ActionKind::Interleaved => {
                        !(open.is_outside() && slot.actor_type.conn_hooks().any)
                    }
                    ActionKind::Exclusive => false,
                },
                Work::Read { .. } | Work::Resolve { .. } | Work::Inspect { .. } => true,
                Work::Destroy { .. }
                | Work::Fire { .. }
                | Work::Update { .. }
                | Work::Settle { .. }
                | Work::Push { .. }
                | Work::Connect { .. }
                | Work::Message { .. }
                | Work::Subscribe { .. }
                | Work::Disconnect { .. }
                | Work::Request { .. }
                | Work::ReplaceState { .. }
                | Work::ClearQueues { .. }
                | Work::Sleep => false,
            };
            if !shared && busy.readers > 0 {
                return;
            }
            if !shared && self.pipeline.full() {
                // Executed work is bounded too: go on when a batch has left.
                if !self.stalled.contains(&id) {
                    self.stalled.push_back(id);
                }
                return;
            }
            let Some(work) = busy.queue.remove(next) else {
                return;
            };
            self.start(id, work);
        }
        let committed = self.pipeline.committed();
        if let Some(slot) = self.slots.get_mut(&id) {
            if slot.busy.as_ref().is_some_and(|b| b.sleep) && slot.idle() {
                self.drowsy.push(id);
                return;
            }
            slot.settle(committed);
        }
    }

    pub(crate) fn start(&mut self, id: ActorId, work: Work) {
        match work {
            Work::Action { open, index, args } => self.start_action(id, open, index, args),
            Work::Resolve { open } => self.resolve(id, open),
            Work::Inspect { open } => self.inspect(id, open),
            Work::ReplaceState { open, state } => self.start_replace(id, open, state),
            Work::ClearQueues { open } => self.clear_queues(id, open),
            Work::Destroy { open } => self.start_destroy(id, Some(open), Vec::new()),
            Work::Fire { id: schedule, due } => self.start_fire(id, schedule, due),
            Work::Push {
                open,
                queue,
                body,
                wait,
            } => match open.caller.is_some() && self.guards_queues(id) {
                true => self.start_publish(id, open, queue, body, wait),
                false => self.push(id, open, &queue, body, wait),
            },
            Work::Connect { open, seat } => self.start_connect(id, open, *seat),
            Work::Message { open, conn, frame } => self.start_message(id, open, conn, frame),
            Work::Subscribe { open, conn, event } => self.start_subscribe(id, open, conn, event),
            Work::Disconnect { open, conn } => self.start_disconnect(id, open, conn),
            Work::Request { open, request } => self.start_request(id, open, *request),
            Work::Settle {
                open,
                turn,
                output,
                noted,
            } => self.settle(id, open, &turn, output, noted),
            Work::Read { work, done } => {
                let Some(state) = self.slots.get(&id).and_then(|s| s.state.clone()) else {
                    return;
                };
                let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(state)))
                    .map_err(|_| Error::internal("a read of the state panicked"));
                // The interleaved action may be gone; it read, nothing else.
                drop(done.send(value));
            }
            Work::Update { turn, work, done } => self.run_update(id, &turn, work, done),
            Work::Sleep => self.start_sleep(id),
        }
    }

    pub(crate) fn turn(&self, id: ActorId, init: TurnFor<'_>) -> Option<Arc<Turn>> {
        let slot = self.slots.get(&id)?;
        Some(Turn::new(TurnInit {
            actor: slot.meta.clone(),
            what: init.what,
            began: init.began,
            request: init.request,
            chain: init.chain.to_vec(),
            origin: init.origin,
            kind: init.kind,
            deadline: Some(init.deadline),
            input: init.input,
            host: self.host.clone(),
            life: slot.life.clone(),
            fire: init.fire,
        }))
    }

    pub(crate) fn start_action(&mut self, id: ActorId, open: Open, index: usize, args: Bytes) {
        let now = Instant::now();
        if open.deadline <= now {
            let reason = "the call's time was up while it waited for its actor".into();
            let shard = self.context.id;
            return self.answer(open, Err(CallError::Unavailable { shard, reason }));
        }
        let Some(Visited {
            open,
            index,
            args,
            visit,
        }) = self.admit_visitor(id, open, index, args)
        else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let actor_type = slot.actor_type.clone();
        let kind = actor_type.actions()[index].kind;
        let deadline = now + actor_type.options().action_timeout;
        let init = TurnFor {
            what: actor_type.actions()[index].name,
            began: now,
            request: open.request,
            chain: &open.chain,
            origin: Origin::Call,
            kind,
            deadline,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        if let Some(visit) = visit {
            turn.set_visit(visit);
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        match kind {
            ActionKind::Exclusive => {
                let Some(state) = slot.state.take() else { return };
                let future = actor_type.exclusive(index, state, turn.clone(), args);
                self.launch(id, future, Running::Action { open }, turn, deadline);
            }
            ActionKind::Shared => {
                let Some(state) = slot.state.clone() else { return };
                let begun = Begun::of(&turn);
                let future = actor_type.shared(index, state, turn, args);
                self.launch_shared(id, future, open, begun, deadline);
            }
            ActionKind::Interleaved => {
                slot.busy().interleaved += 1;
                let future = actor_type.interleaved(index, turn.clone(), args);
                self.launch_interleaved(id, future, open, turn, deadline);
            }
        }
    }

    /// A call came back to an actor that waits for it, and the actor admits that: the action sees the state as it was before
    /// the turn that waits.
    pub(crate) fn start_reentrant(&mut self, id: ActorId, open: Open, index: usize, args: Bytes) {
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        if actor_type.actions()[index].kind == ActionKind::Interleaved {
            return self.start_action(id, open, index, args);
        }
        let before = match self.base(id) {
            Ok(before) => before,
            Err(error) => return self.fail(error),
        };
        let before = before.map(|(code, bytes)| actor_type.decode(code, &bytes));
        let state = match before {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                return self.fail(format!(
                    "the last state of actor {id} cannot be read back: {error}"
                ));
            }
            None => return self.fail(format!("actor {id} has no stored state")),
        };
        let began = Instant::now();
        let deadline = began + actor_type.options().action_timeout;
        let init = TurnFor {
            what: actor_type.actions()[index].name,
            began,
            request: open.request,
            chain: &open.chain,
            origin: Origin::Call,
            kind: ActionKind::Shared,
            deadline,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        let begun = Begun::of(&turn);
        let future = actor_type.shared(index, state, turn, args);
        self.launch_shared(id, future, open, begun, deadline);
    }

    /// Runs an exclusive future: in place if it does not wait.
    pub(crate) fn launch(
        &mut self,
        id: ActorId,
        future: BoxFuture<'static, Exclusive>,
        running: Running,
        turn: Arc<Turn>,
        deadline: Instant,
    ) {
        let number = self.context.next_turn();
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.busy().running = Some((number, running, turn));
        match poll_now(future) {
            Ok(outcome) => self.end_exclusive(id, number, outcome, true),
            Err(future) => {
                let ended = self.context.ended.clone();
                spawn(&self.context.tasks, future, deadline, move |outcome| async move {
                    // The shard's task may be gone: then nobody waits for the outcome.
                    drop(ended.send(Ended::Exclusive { id, number, outcome }).await);
                });
            }
        }
    }

    /// Runs a shared future: in place if it does not wait, and then it was never among the readers.
    fn launch_shared(
        &mut self,
        id: ActorId,
        future: BoxFuture<'static, Result<Vec<u8>, Error>>,
        open: Open,
        begun: Begun,
        deadline: Instant,
    ) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        match poll_now(future) {
            Ok(outcome) => {
                let (seq, limit) = (slot.last_seq, slot.actor_type.options().action_timeout);
                self.note_shared(id, begun, &open, &outcome, true);
                self.answer_shared(id, seq, open, None, outcome, limit);
            }
            Err(future) => {
                slot.busy().readers += 1;
                let reading = Reading {
                    open,
                    turn: None,
                    begun,
                };
                self.go_on_beside(id, future, reading, deadline);
            }
        }
    }

    fn launch_interleaved(
        &mut self,
        id: ActorId,
        future: BoxFuture<'static, Result<Vec<u8>, Error>>,
        open: Open,
        turn: Arc<Turn>,
        deadline: Instant,
    ) {
        let polled = poll_now(future);
        let reading = Reading {
            open,
            begun: Begun::of(&turn),
            turn: Some(turn),
        };
        match polled {
            Ok(outcome) => {
                let number = self.context.next_turn();
                self.reading.insert(number, reading);
                self.end_shared(id, number, outcome, true);
            }
            Err(future) => self.go_on_beside(id, future, reading, deadline),
        }
    }

    /// The rest of a turn that does not hold the state, in a task of its own.
    fn go_on_beside(
        &mut self,
        id: ActorId,
        future: BoxFuture<'static, Result<Vec<u8>, Error>>,
        reading: Reading,
        deadline: Instant,
    ) {
        let number = self.context.next_turn();
        self.reading.insert(number, reading);
        let ended = self.context.ended.clone();
        spawn(&self.context.tasks, future, deadline, move |outcome| async move {
            // The shard's task may be gone: then nobody waits for the outcome.
            drop(ended.send(Ended::Shared { id, number, outcome }).await);
        });
    }

    /// A turn that ran in its own task is over.
    pub(crate) fn ended(&mut self, ended: Ended) {
        self.now = Instant::now();
        let id = match ended {
            Ended::Exclusive { id, number, outcome } => {
                self.end_exclusive(id, number, outcome, false);
                id
            }
            Ended::Shared { id, number, outcome } => {
                self.end_shared(id, number, outcome, false);
                id
            }
            Ended::Run { id, life, outcome } => return self.run_ended(id, &life, outcome),
            Ended::Quiet { id, life } => {
                self.quiet(id, &life);
                id
            }
            Ended::Sent {
                lane,
                number,
                epoch,
                result,
            } => {
                // Of an earlier ownership: this one sends by itself.
                if epoch == self.epoch {
                    self.sent(lane, number, result);
                }
                return;
            }
        };
        self.pump(id);
    }

    /// `here`: the turn ran in place, and took the shard's own time.
    fn end_exclusive(&mut self, id: ActorId, number: u64, outcome: Outcome<Exclusive>, here: bool) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        // Another number: a turn of an earlier epoch.
        let Some((_, running, turn)) = slot
            .busy
            .as_mut()
            .and_then(|b| b.running.take_if(|r| r.0 == number))
        else {
            return;
        };
        let limit = slot.actor_type.options().action_timeout;
        let noted = self.note_exclusive(id, &turn, &running, &outcome, here);
        let wrote = self.pipeline.turns();
        self.conclude_exclusive(id, running, &turn, outcome, limit);
        if self.pipeline.turns() > wrote {
            self.recent.wrote(noted, self.pipeline.filling());
        }
    }

    fn conclude_exclusive(
        &mut self,
        id: ActorId,
        running: Running,
        turn: &Arc<Turn>,
        outcome: Outcome<Exclusive>,
        limit: std::time::Duration,
    ) {
        match outcome {
            Outcome::Done((state, Ok(output))) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.state = Some(state);
                }
                self.commit(id, running, turn, output);
            }
            Outcome::Done((state, Err(error))) => {
                if planted!("no-rollback")
                    && let Some(slot) = self.slots.get_mut(&id)
                {
                    slot.state = Some(state);
                }
                self.keep_effects(id, turn);
                self.roll_back(id, running, error);
            }
            Outcome::Panicked(text) => {
                self.roll_back(id, running, Error::internal(format!("the turn panicked: {text}")));
            }
            Outcome::TimedOut => self.roll_back(id, running, timed_out("the turn", limit)),
        }
    }

    fn end_shared(&mut self, id: ActorId, number: u64, outcome: Outcome<Result<Vec<u8>, Error>>, here: bool) {
        let Some(reading) = self.reading.remove(&number) else {
            return;
        };
        self.note_shared(id, reading.begun, &reading.open, &outcome, here);
        let (open, interleaved) = (reading.open, reading.turn);
        let now = super::life::seconds_of(self);
        let Some(slot) = self.slots.get_mut(&id) else {
            // Destroyed beside a running interleaved action: its own result still stands.
            return self.answer_shared(id, 0, open, interleaved, outcome, std::time::Duration::ZERO);
        };
        slot.used = now;
        let limit = slot.actor_type.options().action_timeout;
        let seq = slot.last_seq;
        let busy = slot.busy();
        match interleaved {
            Some(_) => busy.interleaved = busy.interleaved.saturating_sub(1),
            None => busy.readers = busy.readers.saturating_sub(1),
        }
        self.answer_shared(id, seq, open, interleaved, outcome, limit);
    }

    fn answer_shared(
        &mut self,
        id: ActorId,
        seq: u64,
        open: Open,
        interleaved: Option<Arc<Turn>>,
        outcome: Outcome<Result<Vec<u8>, Error>>,
        limit: std::time::Duration,
    ) {
        let result = answer_of(&self.context, id, open.request, outcome, limit);
        // Whoever ends a turn has just noted it.
        let noted = self.recent.last();
        match result {
            Ok(output) => {
                if let Some(turn) = interleaved {
                    if turn.asks_for_something() && self.slots.contains_key(&id) {
                        let work = Work::Settle {
                            open,
                            turn,
                            output,
                            noted,
                        };
                        return self.enqueue(id, work);
                    }
                    let reply = self.reply_of(id, &open, output);
                    self.recent.wrote(noted, self.pipeline.filling());
                    return self.commit_answer(id, open, reply);
                }
                let reply = self.reply_of(id, &open, output);
                self.answer_after(seq, open, Ok(reply));
            }
            Err(error) => {
                self.recent.refused(noted, &error);
                self.answer_after(seq, open, Err(error));
            }
        }
    }

    pub(crate) fn reply_of(&self, id: ActorId, open: &Open, output: Vec<u8>) -> CallReply {
        let version = self.slots.get(&id).map_or_else(Default::default, |s| s.version);
        CallReply {
            meta: self.call_meta(id, version, open.created),
            output,
        }
    }

    /// The error as the caller may see it; what it may not see goes to the log under a reference.
    pub(crate) fn explain(&self, id: ActorId, request: RequestId, error: &Error) -> CallError {
        explain(&self.context, id, request, error)
    }

    fn resolve(&mut self, id: ActorId, open: Open) {
        let Some(slot) = self.slots.get(&id) else { return };
        let meta = slot.meta.clone();
        let (version, seq) = (slot.version, slot.last_seq);
        let info = clinch_types::ActorInfo {
            id,
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            key: meta.key.clone(),
            region: meta.region,
            created: meta.created,
            awake: true,
        };
        let result = match codec::encode(&info) {
            Ok(output) => Ok(CallReply {
                meta: self.call_meta(id, version, open.created),
                output,
            }),
            Err(error) => Err(self.explain(id, open.request, &Error::internal(error))),
        };
        match result {
            // A copy of this request must hear that it was the one that created, not that the key is taken.
            Ok(reply) if open.created => self.commit_answer(id, open, reply),
            result => self.answer_after(seq, open, result),
        }
    }
}

/// The answer of an action that does not hold the state, or the error as the caller may see it.
pub(crate) fn answer_of(
    context: &ShardContext,
    id: ActorId,
    request: RequestId,
    outcome: Outcome<Result<Vec<u8>, Error>>,
    limit: std::time::Duration,
) -> Result<Vec<u8>, CallError> {
    let result = match outcome {
        Outcome::Done(result) => result.and_then(super::effects::check_output),
        Outcome::Panicked(text) => Err(Error::internal(format!("the action panicked: {text}"))),
        Outcome::TimedOut => Err(timed_out("the action", limit)),
    };
    result.map_err(|error| explain(context, id, request, &error))
}

fn explain(context: &ShardContext, id: ActorId, request: RequestId, error: &Error) -> CallError {
    let reference = format!("{:012x}", context.rng.u128() as u64 & 0xffff_ffff_ffff);
    if let Some(cause) = error.internal_cause() {
        tracing::error!(actor = %id, %request, reference, cause = %cause, "internal error in actor code");
    }
    error.clone().into_definite().into_call_error(&reference)
}

/// What makes one turn different from another.
pub(crate) struct TurnFor<'a> {
    pub(crate) what: &'static str,
    pub(crate) began: Instant,
    pub(crate) request: RequestId,
    pub(crate) chain: &'a [ActorId],
    pub(crate) origin: Origin,
    pub(crate) kind: ActionKind,
    pub(crate) deadline: Instant,
    pub(crate) input: Option<Bytes>,
    pub(crate) fire: Option<clinch_actor::FireInfo>,
}

impl Work {
    /// Whether it comes from work beside the actor's own turns.
    fn is_asked_from_inside(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Update { .. } | Self::Settle { .. } => true,
            Self::Action { .. }
            | Self::Resolve { .. }
            | Self::Inspect { .. }
            | Self::ReplaceState { .. }
            | Self::ClearQueues { .. }
            | Self::Destroy { .. }
            | Self::Fire { .. }
            | Self::Push { .. }
            | Self::Connect { .. }
            | Self::Message { .. }
            | Self::Subscribe { .. }
            | Self::Disconnect { .. }
            | Self::Request { .. }
            | Self::Sleep => false,
        }
    }

    /// The caller who waits for this work, if any.
    pub(crate) fn into_open(self) -> Option<Open> {
        match self {
            Self::Action { open, .. }
            | Self::Resolve { open }
            | Self::Inspect { open }
            | Self::ReplaceState { open, .. }
            | Self::ClearQueues { open }
            | Self::Destroy { open }
            | Self::Push { open, .. }
            | Self::Connect { open, .. }
            | Self::Message { open, .. }
            | Self::Subscribe { open, .. }
            | Self::Request { open, .. }
            | Self::Settle { open, .. } => Some(open),
            Self::Disconnect { open, .. } => open,
            Self::Fire { .. } | Self::Read { .. } | Self::Update { .. } | Self::Sleep => None,
        }
    }
}

impl Running {
    /// The caller who waits for this turn, if any.
    pub(crate) fn into_open(self) -> Option<Open> {
        match self {
            Self::Action { open }
            | Self::Connect { open, .. }
            | Self::Request { open }
            | Self::Guard { open, .. } => Some(open),
            Self::Destroy { open, .. } | Self::Disconnect { open, .. } => open,
            Self::Start { .. } | Self::Fire { .. } | Self::Sleep => None,
        }
    }
}
