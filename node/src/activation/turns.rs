//! Starting and ending turns.

use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActionKind, BoxFuture, Error, Hook, Origin, StateArc, Turn, TurnInit};
use clinch_types::{ActorId, CallReply, RequestId, codec};
use tokio::time::Instant;

use super::run::{Ended, Exclusive, Outcome, poll_now, spawn, timed_out};
use super::slot::{Open, Running, Work};
use crate::shard::Owner;

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
            let Some(front) = busy.queue.front() else { break };
            let shared = match front {
                Work::Action { index, .. } => match slot.actor_type.actions()[*index].kind {
                    ActionKind::Shared | ActionKind::Interleaved => true,
                    ActionKind::Exclusive => false,
                },
                Work::Read { .. } | Work::Resolve { .. } => true,
                Work::Destroy { .. } | Work::Fire { .. } | Work::Update { .. } | Work::Sleep => false,
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
            let Some(work) = busy.queue.pop_front() else {
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

    fn start(&mut self, id: ActorId, work: Work) {
        match work {
            Work::Action { open, index, args } => self.start_action(id, open, index, args),
            Work::Resolve { open } => self.resolve(id, open),
            Work::Destroy { open } => self.start_destroy(id, Some(open), Vec::new()),
            Work::Fire {
                id: schedule,
                due,
                action,
                args,
            } => self.start_fire(id, schedule, due, &action, args),
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
            request: init.request,
            chain: init.chain.to_vec(),
            origin: init.origin,
            kind: init.kind,
            deadline: Some(init.deadline),
            input: init.input,
            host: self.host.clone(),
            cancelled: self.cancelled.clone(),
        }))
    }

    fn start_action(&mut self, id: ActorId, open: Open, index: usize, args: Bytes) {
        if open.deadline <= Instant::now() {
            let reason = "the call's time was up while it waited for its actor".into();
            let shard = self.context.id;
            return self.answer(open, Err(clinch_types::CallError::Unavailable { shard, reason }));
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let actor_type = slot.actor_type.clone();
        let kind = actor_type.actions()[index].kind;
        let deadline = Instant::now() + actor_type.options().action_timeout;
        let init = TurnFor {
            request: open.request,
            chain: &open.chain,
            origin: Origin::Call,
            kind,
            deadline,
            input: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
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
                slot.busy().readers += 1;
                self.launch_shared(
                    id,
                    actor_type.shared(index, state, turn, args),
                    open,
                    false,
                    deadline,
                );
            }
            ActionKind::Interleaved => {
                slot.busy().interleaved += 1;
                self.launch_shared(
                    id,
                    actor_type.interleaved(index, turn, args),
                    open,
                    true,
                    deadline,
                );
            }
        }
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
            Ok(outcome) => self.end_exclusive(id, number, outcome),
            Err(future) => {
                let ended = self.context.ended.clone();
                spawn(&self.context.tasks, future, deadline, move |outcome| async move {
                    // The shard's task may be gone: then nobody waits for the outcome.
                    drop(ended.send(Ended::Exclusive { id, number, outcome }).await);
                });
            }
        }
    }

    fn launch_shared(
        &mut self,
        id: ActorId,
        future: BoxFuture<'static, Result<Vec<u8>, Error>>,
        open: Open,
        interleaved: bool,
        deadline: Instant,
    ) {
        let number = self.context.next_turn();
        self.reading.insert(number, (open, interleaved));
        match poll_now(future) {
            Ok(outcome) => self.end_shared(id, number, outcome),
            Err(future) => {
                let ended = self.context.ended.clone();
                spawn(&self.context.tasks, future, deadline, move |outcome| async move {
                    // As above.
                    drop(ended.send(Ended::Shared { id, number, outcome }).await);
                });
            }
        }
    }

    /// A turn that ran in its own task is over.
    pub(crate) fn ended(&mut self, ended: Ended) {
        let id = match ended {
            Ended::Exclusive { id, number, outcome } => {
                self.end_exclusive(id, number, outcome);
                id
            }
            Ended::Shared { id, number, outcome } => {
                self.end_shared(id, number, outcome);
                id
            }
        };
        self.pump(id);
    }

    fn end_exclusive(&mut self, id: ActorId, number: u64, outcome: Outcome<Exclusive>) {
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
        match outcome {
            Outcome::Done((state, Ok(output))) => {
                slot.state = Some(state);
                self.commit(id, running, &turn, output);
            }
            Outcome::Done((_, Err(error))) => self.roll_back(id, running, error),
            Outcome::Panicked(text) => {
                self.roll_back(id, running, Error::internal(format!("the turn panicked: {text}")));
            }
            Outcome::TimedOut => self.roll_back(id, running, timed_out("the turn", limit)),
        }
    }

    fn end_shared(&mut self, id: ActorId, number: u64, outcome: Outcome<Result<Vec<u8>, Error>>) {
        let Some((open, interleaved)) = self.reading.remove(&number) else {
            return;
        };
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
            true => busy.interleaved = busy.interleaved.saturating_sub(1),
            false => busy.readers = busy.readers.saturating_sub(1),
        }
        self.answer_shared(id, seq, open, interleaved, outcome, limit);
    }

    fn answer_shared(
        &mut self,
        id: ActorId,
        seq: u64,
        open: Open,
        interleaved: bool,
        outcome: Outcome<Result<Vec<u8>, Error>>,
        limit: std::time::Duration,
    ) {
        let result = match outcome {
            Outcome::Done(result) => result.and_then(super::effects::check_output),
            Outcome::Panicked(text) => Err(Error::internal(format!("the action panicked: {text}"))),
            Outcome::TimedOut => Err(timed_out("the action", limit)),
        };
        match result {
            Ok(output) => {
                let version = self.slots.get(&id).map_or_else(Default::default, |s| s.version);
                let reply = CallReply {
                    meta: self.call_meta(id, version, open.created),
                    output,
                };
                if interleaved {
                    return self.commit_answer(id, open, reply);
                }
                self.answer_after(seq, open, Ok(reply));
            }
            Err(error) => {
                let error = self.explain(id, open.request, &error);
                self.answer_after(seq, open, Err(error));
            }
        }
    }

    /// The error as the caller may see it; what it may not see goes to the log under a reference.
    pub(crate) fn explain(&self, id: ActorId, request: RequestId, error: &Error) -> clinch_types::CallError {
        let reference = format!("{:012x}", self.context.rng.u128() as u64 & 0xffff_ffff_ffff);
        if let Some(cause) = error.internal_cause() {
            tracing::error!(actor = %id, %request, reference, cause = %cause, "internal error in actor code");
        }
        error.clone().into_definite().into_call_error(&reference)
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
        self.answer_after(seq, open, result);
    }
}

/// What makes one turn different from another.
pub(crate) struct TurnFor<'a> {
    pub(crate) request: RequestId,
    pub(crate) chain: &'a [ActorId],
    pub(crate) origin: Origin,
    pub(crate) kind: ActionKind,
    pub(crate) deadline: Instant,
    pub(crate) input: Option<Bytes>,
}

/// Runs hooks one after the other, after `create` if there is no state yet.
pub(crate) async fn start_up(
    actor_type: Arc<dyn clinch_actor::ActorType>,
    turn: Arc<Turn>,
    state: Option<StateArc>,
    hooks: &'static [Hook],
) -> Exclusive {
    let mut state = match state {
        Some(state) => state,
        None => match actor_type.create(turn.clone(), turn.input.clone()).await {
            Ok(state) => state,
            // There is no state to give back; a failed start drops it anyway.
            Err(error) => return (Arc::new(()) as StateArc, Err(error)),
        },
    };
    for &hook in hooks {
        if !actor_type.has_hook(hook) {
            continue;
        }
        let (next, result) = actor_type.hook(hook, state, turn.clone()).await;
        state = next;
        if let Err(error) = result {
            return (state, Err(error));
        }
    }
    (state, Ok(Vec::new()))
}

impl Work {
    /// The caller who waits for this work, if any.
    pub(crate) fn into_open(self) -> Option<Open> {
        match self {
            Self::Action { open, .. } | Self::Resolve { open } | Self::Destroy { open } => Some(open),
            Self::Fire { .. } | Self::Read { .. } | Self::Update { .. } | Self::Sleep => None,
        }
    }
}

impl Running {
    /// The caller who waits for this turn, if any.
    pub(crate) fn into_open(self) -> Option<Open> {
        match self {
            Self::Action { open } => Some(open),
            Self::Destroy { open, .. } => open,
            Self::Start { .. } | Self::Fire { .. } | Self::Sleep => None,
        }
    }
}
