//! Where everything from other nodes and clients arrives, and is passed to the part that serves it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use clinch_actor::Body;
use clinch_client::{Answered, BoxFuture, LocalShards, Router};
use clinch_storage::GroupId;
use clinch_transport::{Handler, Inbound, InboundExchange, InboundStream, Refusal, RefusalCode};
use clinch_types::{
    CallError, CallReply, CallRequest, Epoch, Incarnation, ListRequest, NodeId, ShardId, ViewReply, codec,
    kind,
};
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::control::Control;
use crate::exchange;
use crate::leave::Leaving;
use crate::shard::{HttpSeat, ListTo, RaftDesk, ReplyTo, ShardHandle, kinds, respond};
use crate::tasks::Tasks;

/// Time a call from the network may take when its caller names no deadline.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(70);

/// The reception of a node. Parts are put in as they come up; what is not there yet is refused politely.
pub(crate) struct Desk {
    me: Weak<Self>,
    tasks: Tasks,
    node: NodeId,
    incarnation: Incarnation,
    leaving: Arc<Leaving>,
    parts: RwLock<Parts>,
    shards: RwLock<BTreeMap<ShardId, ShardHandle>>,
}

/// What the desk passes things on to.
#[derive(Default)]
struct Parts {
    raft: Option<RaftDesk>,
    control: Option<Control>,
    router: Option<Router>,
}

impl Desk {
    /// A reception; `tasks` serve the exchanges.
    pub(crate) fn new(node: NodeId, incarnation: Incarnation, tasks: Tasks) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            tasks,
            node,
            incarnation,
            leaving: Arc::default(),
            parts: RwLock::default(),
            shards: RwLock::new(BTreeMap::new()),
        })
    }

    /// Which nodes are about to stop.
    pub(crate) fn leaving(&self) -> &Arc<Leaving> {
        &self.leaving
    }

    pub(crate) fn put_raft(&self, raft: RaftDesk) {
        self.parts.write().raft = Some(raft);
    }

    pub(crate) fn put_control(&self, control: Control) {
        self.parts.write().control = Some(control);
    }

    pub(crate) fn put_router(&self, router: Router) {
        self.parts.write().router = Some(router);
    }

    /// Lets go of every part: a stopped node is refused to its callers, and its store is free.
    pub(crate) fn close(&self) {
        *self.parts.write() = Parts::default();
        self.shards.write().clear();
    }

    pub(crate) fn put_shard(&self, shard: ShardHandle) {
        self.shards.write().insert(shard.id, shard);
    }

    /// Puts actors of this node to sleep that have something to do before it stops.
    pub(crate) async fn rest(&self) {
        let shards: Vec<ShardHandle> = self.shards.read().values().cloned().collect();
        futures_util::future::join_all(shards.iter().map(ShardHandle::rest)).await;
    }

    pub(crate) fn shard(&self, id: ShardId) -> Option<ShardHandle> {
        self.shards.read().get(&id).cloned()
    }

    /// Hands a call to its shard, if that has a replica here.
    pub(crate) fn route(&self, request: Box<CallRequest>, deadline: Instant, reply: ReplyTo) {
        let slot = request.target.slot();
        let map = self.parts.read().router.as_ref().map(Router::routes);
        let Some((map, shard)) = map.and_then(|m| m.shard_of(slot).map(|s| (m, s))) else {
            let reason = "this node is not part of a formed cluster yet".into();
            return reply.send(Err(CallError::Unavailable {
                shard: ShardId(0),
                reason,
            }));
        };
        match self.shard(shard) {
            Some(handle) => handle.call(request, deadline, reply),
            None => {
                let known = map.shards.get(&shard);
                let owner = known.and_then(|s| s.owner).filter(|o| *o != self.node);
                let epoch = known.map_or(Epoch(0), |s| s.epoch);
                reply.send(Err(CallError::Moved {
                    shard,
                    owner,
                    epoch,
                    map_version: map.version,
                }));
            }
        }
    }

    fn call_from_network(&self, inbound: Inbound) {
        match codec::decode::<CallRequest>(&inbound.body) {
            Ok(request) => {
                let deadline = inbound
                    .deadline
                    .unwrap_or_else(|| Instant::now() + DEADLINE_DEFAULT);
                self.route(Box::new(request), deadline, ReplyTo::Remote(inbound));
            }
            Err(error) => inbound.refuse(Refusal::new(
                RefusalCode::Invalid,
                format!("a call that cannot be read: {error}"),
            )),
        }
    }

    fn list_from_network(&self, inbound: Inbound, to: impl FnOnce(Inbound) -> ListTo) {
        match codec::decode::<ListRequest>(&inbound.body) {
            Ok(request) => match self.shard(request.shard) {
                Some(handle) => handle.list(request, to(inbound)),
                None => to(inbound).send(Err(self.moved(request.shard))),
            },
            Err(error) => inbound.refuse(Refusal::new(
                RefusalCode::Invalid,
                format!("a listing that cannot be read: {error}"),
            )),
        }
    }

    fn moved(&self, shard: ShardId) -> CallError {
        CallError::Moved {
            shard,
            owner: None,
            epoch: Epoch(0),
            map_version: 0,
        }
    }
}

impl Handler for Desk {
    fn request(&self, inbound: Inbound) {
        match inbound.kind {
            // Looks have a kind of their own so that an earlier release can say that it does not know them.
            kind::CALL | kind::LOOK => self.call_from_network(inbound),
            kind::LIST => self.list_from_network(inbound, ListTo::Plain),
            kind::VIEWS => self.list_from_network(inbound, ListTo::Remote),
            kind::ROUTES => match self.parts.read().router.as_ref().map(Router::routes) {
                Some(routes) => respond(inbound, &*routes),
                None => inbound.refuse(Refusal::new(RefusalCode::Stopping, "this node is starting")),
            },
            kinds::STATUS => respond(inbound, &self.incarnation),
            kinds::LEAVING => self.leaving.request(inbound),
            kinds::JOIN | kinds::COMMAND => match self.parts.read().control.as_ref() {
                Some(control) => control.request(inbound),
                None => inbound.refuse(Refusal::new(RefusalCode::Stopping, "this node is starting")),
            },
            other if RaftDesk::handles(other) => match self.parts.read().raft.as_ref() {
                Some(raft) => raft.request(inbound),
                None => inbound.refuse(Refusal::new(RefusalCode::Stopping, "this node is starting")),
            },
            other => {
                let text = format!("no service for kind {other}");
                inbound.refuse(Refusal::new(RefusalCode::UnknownKind, text));
            }
        }
    }

    fn exchange(&self, inbound: InboundExchange) {
        match (inbound.kind, self.me.upgrade()) {
            (kind::HTTP, Some(desk)) => self.tasks.spawn_until_stop(exchange::serve(desk, inbound)),
            (kind, _) => tracing::warn!(kind, from = %inbound.from, "an exchange nobody serves"),
        }
    }

    fn stream(&self, inbound: InboundStream) {
        match (inbound.kind, self.parts.read().raft.as_ref(), &inbound.from) {
            (kinds::SNAPSHOT, Some(raft), clinch_transport::PeerId::Node(_)) => raft.stream(inbound),
            // Dropping the stream stops its sender.
            (kind, _, from) => tracing::warn!(kind, %from, "a stream nobody serves"),
        }
    }
}

/// The local side of the router: calls on shards of this node, without the network.
///
/// Weak, because the desk holds the router: the two must not keep each other (and the node's store) alive.
pub(crate) struct LocalDesk {
    node: NodeId,
    desk: Weak<Desk>,
}

impl LocalDesk {
    pub(crate) fn new(desk: &Arc<Desk>) -> Self {
        Self {
            node: desk.node,
            desk: Arc::downgrade(desk),
        }
    }
}

fn stopped(shard: ShardId) -> CallError {
    CallError::Unavailable {
        shard,
        reason: "this node has stopped".into(),
    }
}

impl LocalShards for LocalDesk {
    fn node(&self) -> NodeId {
        self.node
    }

    fn call(
        &self,
        request: CallRequest,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<CallReply, CallError>> {
        let Some(desk) = self.desk.upgrade() else {
            return Box::pin(async { Err(stopped(ShardId(0))) });
        };
        let (tx, rx) = oneshot::channel();
        desk.route(Box::new(request), deadline, ReplyTo::Local(tx));
        Box::pin(async move { wait(rx, deadline).await })
    }

    fn exchange(
        &self,
        request: CallRequest,
        body: Option<Body>,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Answered, CallError>> {
        let Some(desk) = self.desk.upgrade() else {
            return Box::pin(async { Err(stopped(ShardId(0))) });
        };
        let (seat, outcome) = HttpSeat::new(body);
        desk.route(Box::new(request), deadline, ReplyTo::Exchange(Box::new(seat)));
        Box::pin(async move { wait(outcome, deadline).await })
    }

    fn list(
        &self,
        request: ListRequest,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<ViewReply, CallError>> {
        let shard = request.shard;
        let Some(desk) = self.desk.upgrade() else {
            return Box::pin(async move { Err(stopped(shard)) });
        };
        let (tx, rx) = oneshot::channel();
        match desk.shard(shard) {
            Some(handle) => handle.list(request, ListTo::Local(tx)),
            None => drop(tx.send(Err(desk.moved(shard)))),
        }
        Box::pin(async move { wait(rx, deadline).await })
    }
}

/// Waits for a shard's answer, at most until the deadline.
async fn wait<T>(rx: oneshot::Receiver<Result<T, CallError>>, deadline: Instant) -> Result<T, CallError> {
    match tokio::time::timeout_at(deadline, rx).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(CallError::Perhaps {
            reason: "the shard let the call go without an answer".into(),
        }),
        Err(_) => Err(CallError::Perhaps {
            reason: "time ran out at the owner".into(),
        }),
    }
}

/// Which group a shard's replica uses.
pub(crate) fn group_of(shard: ShardId) -> GroupId {
    GroupId::shard(shard)
}
