//! A node of one actor in memory: keeps states, commits effects, carries calls, so that tests drive actors through
//! the same interface as a real node.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clinch_actor::{
    ActionKind, Actor, ActorMeta, ActorType, BoxFuture, Caller, Effects, Error, FireInfo, Hook, Host, Life,
    Origin, OutgoingCall, QueueOp, ReadState, Registry, RunRecord, ScheduleEntry, ScheduleId, ScheduleOp,
    Settle, Spawn, StateArc, Stored, Turn, TurnInit, TypeOf, UpdateState,
};
use clinch_types::{
    ActorId, CallMeta, CallOp, CallReply, Epoch, Key, NodeId, RegionId, RequestId, SessionId, ShardId, Slot,
    Version, WallMs,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is durable.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) kv: BTreeMap<Vec<u8>, Bytes>,
    pub(crate) schedules: BTreeMap<ScheduleId, ScheduleEntry>,
    /// Messages of all queues, in order.
    pub(crate) messages: Vec<Stored>,
    /// What was spawned and has ended.
    pub(crate) spawned: usize,
    /// The effects of every committed turn.
    pub(crate) committed: Vec<Effects>,
    pub(crate) state: Vec<u8>,
    pub(crate) asleep: bool,
    pub(crate) destroyed: bool,
    /// Calls that left for other actors.
    pub(crate) outgoing: Vec<OutgoingCall>,
}

pub(crate) struct Node {
    pub(crate) store: Mutex<Store>,
    pub(crate) now: AtomicU64,
    random: AtomicU64,
    pub(crate) registry: Registry,
    pub(crate) actor: Arc<dyn ActorType>,
    pub(crate) life: Arc<Life>,
    meta: Arc<ActorMeta>,
    /// Which firing the next turns are.
    pub(crate) fire: Mutex<Option<FireInfo>>,
    /// What the next call to another actor is answered with.
    pub(crate) answer: Mutex<Result<Vec<u8>, Error>>,
}

struct NodeHost(Arc<Node>);

pub(crate) fn meta(name: &str) -> Arc<ActorMeta> {
    Arc::new(ActorMeta {
        id: ActorId::new(RegionId(0), Slot(7), 99),
        namespace: "default".into(),
        name: name.into(),
        key: Key::new(["a"]).unwrap(),
        region: RegionId(0),
        shard: ShardId(3),
        created: WallMs(1),
    })
}

impl Node {
    /// Registers and creates one actor.
    pub(crate) async fn create<A: Actor>(
        registry: Registry,
        input: Option<&[u8]>,
    ) -> Result<Arc<Self>, Error> {
        let actor: Arc<dyn ActorType> = Arc::new(TypeOf::<A>::new().unwrap());
        let node = Arc::new(Self {
            life: Life::new(actor.clone(), CancellationToken::new()),
            fire: Mutex::default(),
            store: Mutex::default(),
            now: AtomicU64::new(1_000),
            random: AtomicU64::new(1),
            registry,
            actor,
            meta: meta(A::NAME),
            answer: Mutex::new(Ok(vec![0xf6])),
        });
        let input = input.map(Bytes::copy_from_slice);
        let turn = node.turn(ActionKind::Exclusive, Origin::Create, input.clone());
        let state = node.actor.create(turn.clone(), input).await?;
        let (state, result) = node.actor.hook(Hook::OnCreate, state, turn.clone()).await;
        result?;
        node.commit(&state, &turn)?;
        if let Some(vars) = node
            .actor
            .vars(node.state(), node.turn(ActionKind::Exclusive, Origin::Hook, None))
        {
            node.life.set_vars(vars.await?);
        }
        node.run_hook(Hook::OnWake).await?;
        Ok(node)
    }

    pub(crate) async fn start<A: Actor>() -> Arc<Self> {
        Self::create::<A>(Registry::new(), None).await.unwrap()
    }

    pub(crate) fn turn(
        self: &Arc<Self>,
        kind: ActionKind,
        origin: Origin,
        input: Option<Bytes>,
    ) -> Arc<Turn> {
        Turn::new(TurnInit {
            actor: self.meta.clone(),
            what: "test",
            began: Instant::now(),
            request: RequestId {
                session: SessionId(5),
                seq: 1,
            },
            chain: Vec::new(),
            origin,
            kind,
            deadline: Some(Instant::now() + std::time::Duration::from_secs(60)),
            input,
            host: Arc::new(NodeHost(self.clone())),
            life: self.life.clone(),
            fire: self.fire.lock().clone(),
        })
    }

    fn state(&self) -> StateArc {
        self.actor
            .decode(self.actor.version(), &self.store.lock().state)
            .unwrap()
    }

    fn commit(&self, state: &StateArc, turn: &Arc<Turn>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        self.actor.encode(state, &mut bytes)?;
        if turn.origin == Origin::Call && bytes != self.store.lock().state {
            self.actor.state_changed(state, turn)?;
        }
        let effects = turn.take_effects();
        let mut store = self.store.lock();
        store.state = bytes;
        for (key, value) in effects.kv.clone() {
            match value {
                Some(value) => drop(store.kv.insert(key, value)),
                None => drop(store.kv.remove(&key)),
            }
        }
        for op in effects.schedules.clone() {
            match op {
                ScheduleOp::Put(entry) => drop(store.schedules.insert(entry.id, entry)),
                ScheduleOp::Cancel(id) => drop(store.schedules.remove(&id)),
            }
        }
        for op in effects.queue.clone() {
            match op {
                QueueOp::Push { queue, body } => {
                    let id = clinch_actor::MessageId(self.random.fetch_add(1, Ordering::Relaxed));
                    let now = WallMs(self.now.load(Ordering::Relaxed));
                    store.messages.push(Stored {
                        queue,
                        id,
                        pushed: now,
                        not_before: now,
                        retries: 0,
                        body,
                    });
                }
                QueueOp::Settle { id, how, .. } => match how {
                    Settle::Complete(_) | Settle::Reject(_) => store.messages.retain(|m| m.id != id),
                    Settle::Retry(delay) => {
                        for message in store.messages.iter_mut().filter(|m| m.id == id) {
                            message.retries += 1;
                            message.not_before = message.not_before.after(delay);
                        }
                    }
                },
            }
        }
        store.asleep |= effects.sleep;
        store.destroyed |= effects.destroy;
        store.committed.push(effects);
        drop(store);
        self.life.queue_changed();
        for spawn in turn.take_spawns() {
            turn.host.spawn(turn, spawn);
        }
        Ok(())
    }

    pub(crate) async fn run_hook(self: &Arc<Self>, hook: Hook) -> Result<(), Error> {
        if !self.actor.has_hook(hook) {
            return Ok(());
        }
        let turn = self.turn(ActionKind::Exclusive, Origin::Hook, None);
        let (state, result) = self.actor.hook(hook, self.state(), turn.clone()).await;
        result?;
        self.commit(&state, &turn)
    }

    /// Runs an action as a node would: an error leaves no trace.
    pub(crate) async fn run(self: &Arc<Self>, action: &str, args: &[u8]) -> Result<Vec<u8>, Error> {
        let index = self
            .actor
            .action(action)
            .ok_or_else(|| Error::new("actor", "action_not_found", action))?;
        let kind = self.actor.actions()[index].kind;
        let turn = self.turn(kind, Origin::Call, None);
        let args = Bytes::copy_from_slice(args);
        match kind {
            ActionKind::Exclusive => {
                let (state, result) = self
                    .actor
                    .exclusive(index, self.state(), turn.clone(), args)
                    .await;
                let output = result?;
                self.commit(&state, &turn)?;
                Ok(output)
            }
            ActionKind::Shared => self.actor.shared(index, self.state(), turn, args).await,
            ActionKind::Interleaved => {
                let output = self.actor.interleaved(index, turn.clone(), args).await?;
                self.commit(&self.state(), &turn)?;
                Ok(output)
            }
        }
    }

    /// Runs an action with arguments given as any tuple or array.
    pub(crate) async fn call<R: serde::de::DeserializeOwned>(
        self: &Arc<Self>,
        action: &str,
        args: impl serde::Serialize,
    ) -> Result<R, Error> {
        let output = self.run(action, &clinch_actor::encode(&args)?).await?;
        clinch_actor::decode("the reply", &output)
    }

    /// The effects of the last committed turn.
    pub(crate) fn last(&self) -> Effects {
        self.store.lock().committed.last().cloned().unwrap_or_default()
    }

    /// Somebody who carries calls here, for handles.
    pub(crate) fn caller(self: &Arc<Self>) -> Arc<dyn Caller> {
        Arc::new(NodeCaller(self.clone()))
    }

    fn reply(&self, output: Vec<u8>) -> CallReply {
        let meta = CallMeta {
            actor: self.meta.id,
            shard: self.meta.shard,
            epoch: Epoch(4),
            version: Version(self.store.lock().committed.len() as u64),
            created: false,
        };
        CallReply { meta, output }
    }
}

struct NodeCaller(Arc<Node>);

impl Caller for NodeCaller {
    fn call(&self, call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>> {
        let node = self.0.clone();
        Box::pin(async move {
            let output = match &call.op {
                CallOp::Action { name, args } => node.run(name, args).await?,
                _ => Vec::new(),
            };
            node.store.lock().outgoing.push(call);
            Ok(node.reply(output))
        })
    }
}

/// Carries the calls that actors make: records them and gives the prepared answer.
struct Elsewhere(Arc<Node>);

impl Caller for Elsewhere {
    fn call(&self, call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>> {
        let node = self.0.clone();
        Box::pin(async move {
            node.store.lock().outgoing.push(call);
            let answer = node.answer.lock().clone();
            Ok(node.reply(answer?))
        })
    }
}

impl Host for NodeHost {
    fn now(&self) -> WallMs {
        WallMs(self.0.now.load(Ordering::Relaxed))
    }

    fn random_u128(&self) -> u128 {
        u128::from(self.0.random.fetch_add(1, Ordering::Relaxed)) << 32 | 7
    }

    fn kv_get(&self, _actor: ActorId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.store.lock().kv.get(key).cloned())
    }

    fn kv_scan(
        &self,
        _actor: ActorId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        let store = self.0.store.lock();
        let entries = store
            .kv
            .range::<[u8], _>((start, end))
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(if reverse {
            entries.rev().take(limit).collect()
        } else {
            entries.take(limit).collect()
        })
    }

    fn schedules(&self, _actor: ActorId) -> Result<Vec<ScheduleEntry>, Error> {
        Ok(self.0.store.lock().schedules.values().cloned().collect())
    }

    fn settled(&self, _turn: &Arc<Turn>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn queue(&self, _actor: ActorId, queue: &str, _committed: bool) -> Result<Vec<Stored>, Error> {
        let store = self.0.store.lock();
        Ok(store
            .messages
            .iter()
            .filter(|m| m.queue == queue)
            .cloned()
            .collect())
    }

    fn schedule_history(&self, _actor: ActorId, _schedule: ScheduleId) -> Result<Vec<RunRecord>, Error> {
        Ok(Vec::new())
    }

    fn spawn(&self, _turn: &Turn, spawn: Spawn) {
        let turn = self.0.turn(ActionKind::Interleaved, Origin::Background, None);
        let (node, task) = (self.0.clone(), self.0.life.task(spawn.keep_awake));
        tokio::spawn(async move {
            (spawn.start)(turn).await;
            drop(task);
            node.store.lock().spawned += 1;
        });
    }

    fn node(&self) -> NodeId {
        NodeId(1)
    }

    fn epoch(&self) -> Epoch {
        Epoch(4)
    }

    fn caller(&self) -> Arc<dyn Caller> {
        Arc::new(Elsewhere(self.0.clone()))
    }

    fn data(&self, type_id: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.registry.data_of(type_id)
    }

    fn with_state(
        &self,
        _actor: ActorId,
        _turn: Arc<Turn>,
        f: ReadState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        let state = self.0.state();
        Box::pin(async move { Ok(f(state)) })
    }

    fn update_state(
        &self,
        _actor: ActorId,
        _turn: Arc<Turn>,
        f: UpdateState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        let node = self.0.clone();
        Box::pin(async move {
            let inner = node.turn(ActionKind::Exclusive, Origin::Call, None);
            let mut state = node.state();
            let value = f(&mut state, &inner)?;
            node.commit(&state, &inner)?;
            Ok(value)
        })
    }
}
