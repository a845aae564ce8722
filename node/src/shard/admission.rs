//! From a call that arrives to work that waits for its actor: repeats are recognised, actors found, woken or made.
//!
//! Invariant: a call is in `open` from here until its answer leaves, so a repeat of it joins it and is not executed.
//! Not here: the turns themselves (`activation`).

use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActorMeta, Error};
use clinch_types::{
    ActorError, ActorId, CallError, CallOp, CallRequest, CreateSpec, Key, Target, code, codec, fp, group,
    planted,
};
use tokio::time::Instant;

use super::dedup::Known;
use super::keys::{self, ActorRecord, KeyHash};
use super::{Owner, Release, ReplyTo};
use crate::activation::{Open, Work};

impl Owner {
    /// Admits one call.
    pub(crate) fn admit(&mut self, request: CallRequest, deadline: Instant, reply: ReplyTo) {
        self.now = Instant::now();
        if deadline <= self.now {
            let reason = "the call's time was up before it reached its actor".into();
            return reply.send(Err(CallError::Unavailable {
                shard: self.context.id,
                reason,
            }));
        }
        if let Err(error) = request.check() {
            return reply.send(Err(error.into()));
        }
        let reply = reply.over(&request);
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
        let (request, open) = Open::of(request, self.now, deadline, reply);
        let CallRequest {
            target,
            op,
            if_active,
            ..
        } = request;
        let Some((op, open)) = self.give_conns(op, open)? else {
            return Ok(());
        };
        if op.is_look() {
            return self.look_at(&target, &op, open);
        }
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
                    _ => create,
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

    pub(crate) fn missing(&self, if_active: bool, message: String) -> ActorError {
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
        match self.id_of(hash)? {
            Some(id) => Ok(self.wake_by_id(id, if_active)?.then_some(id)),
            None => Ok(None),
        }
    }

    /// The actor with this key, awake or not.
    pub(crate) fn id_of(&self, hash: KeyHash) -> std::io::Result<Option<ActorId>> {
        let Some(bytes) = self.provisional.get(&keys::directory(hash))? else {
            return Ok(None);
        };
        let id = <[u8; 16]>::try_from(&bytes[..]).ok();
        match id.and_then(|bytes| ActorId::from_bytes(bytes).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "a directory record is no actor id",
            )),
        }
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
            other => match self.visit_of(id, other, open) {
                Some(work) => work,
                None => return,
            },
        };
        self.enqueue(id, work);
    }

    /// Starts the work, or puts it behind what waits already; refuses a call that would wait for itself.
    pub(crate) fn enqueue(&mut self, id: ActorId, work: Work) {
        let used = crate::activation::seconds_of(self);
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.used = used;
        if slot.is_free_for(&work) && !self.pipeline.full() {
            self.start(id, work);
            return self.pump(id);
        }
        slot.busy().queue.push_back(work);
        self.pump(id);
        self.refuse_deadlocks(id);
    }

    /// A call whose own chain holds the actor can never start while it waits here.
    fn refuse_deadlocks(&mut self, id: ActorId) {
        let Some(busy) = self.slots.get_mut(&id).and_then(|s| s.busy.as_mut()) else {
            return;
        };
        let Some(open) = busy.queue.back().and_then(Work::caller) else {
            return;
        };
        if !open.chain.contains(&id) || self.reenter(id) {
            return;
        }
        let Some(busy) = self.slots.get_mut(&id).and_then(|s| s.busy.as_mut()) else {
            return;
        };
        let Some(open) = busy.queue.pop_back().and_then(Work::into_caller) else {
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
}
