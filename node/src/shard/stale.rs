//! Reads that may be answered from an older state: `Consistency::Stale`.
//!
//! They are answered from what this replica has applied, without a turn of the actor, without waking it, and without a word
//! with the other replicas. What they see is committed, and of one moment: the actor's version is the same before and after.
//!
//! How old it may be: this node has been the owner in this term, so everything that any owner had answered by the moment
//! `T` at which it last heard that a majority still follows it is applied here. If `T` is less than `max_age` ago when the
//! read arrives, the state is at most that old, whoever may have become the owner since.
//! Not here: everything that must be fresh (`owner`). What cannot be answered here is asked there.

use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{ActionKind, ActorMeta, ActorType, Durability, Life, Origin, Turn, TurnInit};
use clinch_types::{
    ActorId, CallError, CallMeta, CallOp, CallReply, CallRequest, Consistency, Epoch, Target, Version, codec,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keys::{self, ActorRecord, KeyHash};
use super::{Provisional, ReplyTo, ShardContext, ShardHandle};
use crate::activation::{ShardHost, answer_of, poll_now, spawn};

/// How often a read is begun again because a turn was committed meanwhile; then it is asked of the owner.
const TRIES: usize = 3;

/// A read that may be answered from what is applied here.
pub(crate) struct StaleRead {
    context: Arc<ShardContext>,
    /// Where it is asked for when it cannot be answered so.
    shard: ShardHandle,
    request: Box<CallRequest>,
    deadline: Instant,
    reply: ReplyTo,
    epoch: Epoch,
    found: Found,
}

/// What a read is made of.
pub(crate) struct Found {
    actor_type: Arc<dyn ActorType>,
    action: usize,
    meta: Arc<ActorMeta>,
    version: Version,
    code: u32,
    state: Bytes,
}

/// The age that a call may be answered with; `None` for one that wants to be fresh.
pub(crate) fn max_age(request: &CallRequest) -> Option<std::time::Duration> {
    match request.consistency {
        Consistency::Stale { max_age_ms } => Some(std::time::Duration::from_millis(max_age_ms.into())),
        Consistency::Linearizable => None,
    }
}

impl StaleRead {
    /// A read of what was found, for a call of an owner of this epoch.
    pub(crate) fn new(
        context: Arc<ShardContext>,
        shard: ShardHandle,
        epoch: Epoch,
        found: Found,
        (request, deadline, reply): (Box<CallRequest>, Instant, ReplyTo),
    ) -> Self {
        Self {
            context,
            shard,
            request,
            deadline,
            reply,
            epoch,
            found,
        }
    }

    /// Runs the action: in place if it does not wait.
    pub(crate) fn run(self) {
        self.attempt(TRIES);
    }

    fn attempt(self, left: usize) {
        let limit = self.found.actor_type.options().action_timeout;
        let turn = self.turn();
        let id = turn.actor.id;
        let CallOp::Action { args, .. } = &self.request.op else {
            return self.ask_owner();
        };
        let state = match self.found.actor_type.decode(self.found.code, &self.found.state) {
            Ok(state) => state,
            // The owner says what is wrong with it.
            Err(_) => return self.ask_owner(),
        };
        let args = Bytes::from(args.clone());
        let future = self.found.actor_type.shared(self.found.action, state, turn, args);
        match poll_now(future) {
            Ok(outcome) => {
                let outcome = answer_of(&self.context, id, self.request.request, outcome, limit);
                self.end(outcome, left);
            }
            Err(future) => {
                let tasks = self.context.tasks.clone();
                spawn(
                    &tasks,
                    future,
                    Instant::now() + limit,
                    move |outcome| async move {
                        let outcome = answer_of(&self.context, id, self.request.request, outcome, limit);
                        self.end(outcome, left);
                    },
                );
            }
        }
    }

    /// Answers, if the actor is still what it was.
    fn end(mut self, outcome: Result<Vec<u8>, CallError>, left: usize) {
        let Some(found) = Found::of(&self.context, &self.request) else {
            return self.ask_owner();
        };
        let meta = CallMeta {
            actor: self.found.meta.id,
            shard: self.context.id,
            epoch: self.epoch,
            version: self.found.version,
            created: false,
        };
        if (found.meta.id, found.version) == (meta.actor, meta.version) {
            return self.reply.send(outcome.map(|output| CallReply { meta, output }));
        }
        self.found = found;
        match left {
            0 => self.ask_owner(),
            left => self.attempt(left - 1),
        }
    }

    /// Lets the call go the way of all others.
    fn ask_owner(mut self) {
        self.request.consistency = Consistency::Linearizable;
        self.shard.call(self.request, self.deadline, self.reply);
    }

    fn turn(&self) -> Arc<Turn> {
        let stop = CancellationToken::clone(self.context.tasks.stop());
        // It sees what is applied, and nothing of the turns that are being executed.
        let applied = Arc::new(Provisional::new(self.context.reader.clone()));
        let (actor_type, began) = (&self.found.actor_type, Instant::now());
        Turn::new(TurnInit {
            actor: self.found.meta.clone(),
            what: actor_type.actions()[self.found.action].name,
            began,
            request: self.request.request,
            chain: self.request.chain.clone(),
            origin: Origin::Call,
            kind: ActionKind::Shared,
            deadline: Some(began + actor_type.options().action_timeout),
            input: None,
            host: Arc::new(ShardHost::new(self.context.clone(), applied, self.epoch)),
            life: Life::new(self.found.actor_type.clone(), stop),
            fire: None,
        })
    }
}

impl Found {
    /// What a call asks for, if it can be answered so: by an action with `&self` of an actor that exists, whose state is
    /// always stored, and that needs nothing but what is stored.
    pub(crate) fn of(context: &ShardContext, request: &CallRequest) -> Option<Self> {
        // Visitors pass hooks, which write.
        if request.if_active || request.door.is_some() || request.params.is_some() || request.check().is_err()
        {
            return None;
        }
        let CallOp::Action { name, .. } = &request.op else {
            return None;
        };
        let id = find(context, &request.target)?;
        let record: ActorRecord = codec::decode(&read(context, &keys::record(id))?).ok()?;
        let actor_type = context.registry.get(&record.name)?.clone();
        let action = actor_type.action(name)?;
        let fits = actor_type.actions()[action].kind == ActionKind::Shared
            && actor_type.options().durability == Durability::Replicated
            && !actor_type.has_vars();
        if !fits {
            return None;
        }
        let (version, code, state) = keys::read_state(&read(context, &keys::state(id))?).ok()?;
        let meta = Arc::new(ActorMeta {
            id,
            namespace: record.namespace.into(),
            name: record.name.into(),
            key: record.key,
            region: id.region(),
            shard: context.id,
            created: record.created,
        });
        Some(Self {
            actor_type,
            action,
            meta,
            version,
            code,
            state,
        })
    }
}

fn find(context: &ShardContext, target: &Target) -> Option<ActorId> {
    match target {
        Target::Id(id) => Some(*id),
        Target::Key {
            namespace, name, key, ..
        } => {
            let bytes = read(context, &keys::directory(KeyHash::of(namespace, name, key)))?;
            ActorId::from_bytes(<[u8; 16]>::try_from(&bytes[..]).ok()?).ok()
        }
    }
}

/// What is applied; a store that cannot be read is the owner's to complain about.
fn read(context: &ShardContext, key: &[u8]) -> Option<Bytes> {
    context.reader.get(key).ok().flatten()
}
