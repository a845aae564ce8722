//! The router: carries one call to the shard's owner, wherever that is now.
//!
//! Invariant: nothing is sent again under a new request id; an error says `Perhaps` if any attempt may have been
//! executed. Routes are hints: a wrong one is corrected by the answer, never by polling.
//! Not here: what is called (`actor`), and who owns what (the shards decide).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_actor::{Answered, Body};
use clinch_transport::{Class, PeerId, RefusalCode, Transport, TransportError};
use clinch_types::{
    ActorError, CallError, CallOp, CallReply, CallRequest, ConnId, Consistency, Door, ListReply, ListRequest,
    NodeId, Reaction, RequestId, RouteMap, SessionId, ShardId, Target, ViewReply, code, codec, group, kind,
    planted,
};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::exchange::{Offer, Wire};
use crate::metric_names::CALL_RETRIES;
use crate::session::{Session, Ticket};

/// A boxed future, as the seams return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The shards of this process, when the router lives in a node: calls on them skip the network.
pub trait LocalShards: Send + Sync + 'static {
    /// The node this is.
    fn node(&self) -> NodeId;
    /// Runs a call on a shard of this node.
    fn call(
        &self,
        request: CallRequest,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<CallReply, CallError>>;
    /// As [`LocalShards::call`], for a raw HTTP request with a streamed body, or an answer that may have one.
    fn exchange(
        &self,
        request: CallRequest,
        body: Option<Body>,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Answered, CallError>>;
    /// Lists actors of a shard of this node.
    fn list(
        &self,
        request: ListRequest,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<ViewReply, CallError>>;
}

/// How the router waits and retries.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Time a call may take in all, unless it says otherwise. Default 70 s: the longest action (60 s) and a failover.
    pub call_timeout: Duration,
    /// First pause before asking again when nobody serves the shard; doubles up to `pause_max`. Default 5 ms.
    pub pause_min: Duration,
    /// Longest such pause. Default 50 ms: an election takes some hundred.
    pub pause_max: Duration,
    /// How long a silent node is avoided while others may serve. Default 1 s.
    pub suspect_for: Duration,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(70),
            pause_min: Duration::from_millis(5),
            pause_max: Duration::from_millis(50),
            suspect_for: Duration::from_secs(1),
        }
    }
}

/// One call to route.
#[derive(Debug, Clone)]
pub struct RoutedCall {
    /// Which actor.
    pub target: Target,
    /// What to do.
    pub op: CallOp,
    /// How long it may take in all; `None` is the router's default.
    pub timeout: Option<Duration>,
    /// A name the user gave this intention; kept for 24 h.
    pub idempotency_key: Option<String>,
    /// How fresh a read must be.
    pub consistency: Consistency,
    /// Only if the actor is awake.
    pub if_active: bool,
    /// The actors that wait for this call.
    pub chain: Vec<clinch_types::ActorId>,
    /// CBOR of the connection parameters.
    pub params: Option<Bytes>,
    /// A request id that the caller keeps itself, with the number below which its session is settled.
    pub request: Option<(RequestId, u64)>,
    /// How the call came in, if from outside of the cluster.
    pub door: Option<Box<Door>>,
    /// W3C trace context (trace id, parent span id, flags); all zero when absent.
    pub trace: [u8; 25],
}

impl RoutedCall {
    /// A call with every option at its default.
    pub fn new(target: Target, op: CallOp) -> Self {
        Self {
            target,
            op,
            timeout: None,
            idempotency_key: None,
            consistency: Consistency::Linearizable,
            if_active: false,
            chain: Vec::new(),
            params: None,
            request: None,
            door: None,
            trace: [0; 25],
        }
    }
}

/// Carries calls. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    config: RouterConfig,
    transport: Transport,
    session: Session,
    local: Option<Arc<dyn LocalShards>>,
    /// Addresses to ask while no node is known.
    seeds: Vec<String>,
    routes: RwLock<Arc<RouteMap>>,
    /// Owners learnt from answers; fresher than the map's hints.
    owners: RwLock<BTreeMap<ShardId, NodeId>>,
    /// Nodes that fell silent, and until when they are avoided.
    suspects: RwLock<BTreeMap<NodeId, Instant>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Router {
    /// A router over a running transport. `seeds` are asked for routes while none are known.
    pub fn new(
        config: RouterConfig,
        transport: Transport,
        session: SessionId,
        local: Option<Arc<dyn LocalShards>>,
        seeds: Vec<String>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                transport,
                session: Session::new(session),
                local,
                seeds,
                routes: RwLock::new(Arc::new(RouteMap::default())),
                owners: RwLock::new(BTreeMap::new()),
                suspects: RwLock::new(BTreeMap::new()),
                refreshing: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// The routes as known now.
    pub fn routes(&self) -> Arc<RouteMap> {
        self.inner.routes.read().clone()
    }

    /// Takes a newer map. Older ones (of the same cluster) are ignored.
    pub fn set_routes(&self, map: RouteMap) {
        for (&id, node) in &map.nodes {
            self.inner
                .transport
                .set_route(PeerId::Node(id), node.address.clone());
        }
        let mut owners = self.inner.owners.write();
        for (&shard, route) in &map.shards {
            if let Some(owner) = route.owner {
                owners.insert(shard, owner);
            }
        }
        let mut routes = self.inner.routes.write();
        if map.version >= routes.version {
            *routes = Arc::new(map);
        }
    }

    /// A name for a new connection: nobody else draws it, or guesses it without knowing the session's id.
    pub fn draw_conn(&self) -> ConnId {
        let drawn = self.inner.session.open().0.request();
        let (session, number) = (drawn.session.0.to_be_bytes(), drawn.seq.to_be_bytes());
        ConnId(clinch_types::hash_128(&[b"connection", &session, &number]))
    }

    /// Carries a call to its owner and brings the reply, within its time limit.
    ///
    /// # Errors
    /// [`CallError::Perhaps`] when time ran out after an attempt that may have been executed; otherwise the last
    /// reason why nobody could serve it, or the definite answer.
    pub async fn call(&self, call: RoutedCall) -> Result<CallReply, CallError> {
        let deadline = Instant::now() + call.timeout.unwrap_or(self.inner.config.call_timeout);
        // Held to the end.
        let (request, _ticket) = self.request_of(call);
        request.check()?;
        let shard = self.shard_of(&request, deadline).await?;
        let kind = match request.op.is_look() {
            true => kind::LOOK,
            false => kind::CALL,
        };
        // Encoded once: every attempt at another node sends the same bytes.
        let mut encoded: Option<Bytes> = None;
        self.route(shard, deadline, |node| {
            let local = self.inner.local.as_ref().filter(|l| l.node() == node).cloned();
            let body = match local {
                Some(_) => Bytes::new(),
                None => encoded.get_or_insert_with(|| encode(&request)).clone(),
            };
            let body = match planted!("retry-under-new-id") {
                true => {
                    let mut anew = request.clone();
                    anew.request = self.inner.session.open().0.request();
                    encode(&anew)
                }
                false => body,
            };
            let request = local.is_some().then(|| request.clone());
            async move {
                if let (Some(local), Some(request)) = (local, request) {
                    return local.call(request, deadline).await.map_err(Failure::from);
                }
                self.remote(node, kind, body, deadline).await
            }
        })
        .await
    }

    /// Carries a raw HTTP request to its actor, with its body if it announces a streamed one, and brings the answer with
    /// its own. The time limit is for the beginning of the answer.
    ///
    /// A request is asked again as any call, under its request id, until somebody has read of its body; then what became of
    /// it is the caller's to judge.
    ///
    /// # Errors
    /// As [`Router::call`]; what cannot be asked again is [`CallError::Failed`] with the error that applications see.
    pub async fn exchange(&self, call: RoutedCall, body: Option<Body>) -> Result<Answered, CallError> {
        let deadline = Instant::now() + call.timeout.unwrap_or(self.inner.config.call_timeout);
        let (request, _ticket) = self.request_of(call);
        request.check()?;
        let shard = self.shard_of(&request, deadline).await?;
        let offer = body.map(Offer::new);
        let encoded = encode(&request);
        self.route(shard, deadline, |node| {
            let local = self.inner.local.as_ref().filter(|l| l.node() == node).cloned();
            let (request, encoded, offer) = (request.clone(), encoded.clone(), offer.clone());
            async move {
                let answered = match local {
                    Some(local) => {
                        let body = offer.as_ref().map(Offer::body);
                        let answered = local.exchange(request, body, deadline).await;
                        answered.map_err(Failure::from)
                    }
                    None => self.remote_exchange(node, encoded, offer.clone(), deadline).await,
                };
                answered.map_err(|failure| match offer {
                    Some(offer) if offer.is_touched() => {
                        Failure::from(CallError::Failed(failure.error.into_actor_error()))
                    }
                    _ => failure,
                })
            }
        })
        .await
    }

    async fn remote_exchange(
        &self,
        node: NodeId,
        request: Bytes,
        offer: Option<Offer>,
        deadline: Instant,
    ) -> Result<Answered, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let transport = &self.inner.transport;
        let exchange = transport.exchange(node, kind::HTTP, request, left).await;
        let exchange = exchange.map_err(|error| self.transport_failure(node, error))?;
        let silence = exchange.silence();
        let (out, input) = exchange.split();
        let perhaps = |reason: String| {
            Failure::from(CallError::Perhaps {
                reason: format!("node {node}: {reason}"),
            })
        };
        let head = tokio::select! {
            biased;
            head = Wire::new(out, input, offer).head() => head,
            () = silence => Err("it has been silent for long".into()),
            () = tokio::time::sleep_until(deadline) => return Err(perhaps("no answer in time".into())),
        };
        match head {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(reason) => {
                self.suspect(node);
                Err(perhaps(reason))
            }
        }
    }

    /// A call as it travels. The ticket is to be held until its answer is there.
    fn request_of(&self, call: RoutedCall) -> (CallRequest, Option<Ticket<'_>>) {
        let long_dedup = call.idempotency_key.is_some() || call.request.is_some();
        // A number that is open keeps the records of all later ones, so calls with a name of their own (some wait for long)
        // take none.
        let is_named = call.idempotency_key.is_some() && !planted!("key-ignored");
        let unnamed = call.request.is_none() && !is_named;
        let ticket = unnamed.then(|| self.inner.session.open());
        let drawn = ticket.as_ref().map(|(ticket, floor)| (ticket.request(), *floor));
        let (request, acked_below) = call.request.or(drawn).unwrap_or_else(|| {
            let key = call.idempotency_key.as_deref().unwrap_or_default();
            (idempotent(&call.target, key), 0)
        });
        let request = CallRequest {
            request,
            acked_below,
            long_dedup,
            target: call.target,
            op: call.op,
            if_active: call.if_active,
            consistency: call.consistency,
            chain: call.chain,
            params: call.params.map(Vec::from),
            trace: call.trace,
            door: call.door,
        };
        (request, ticket.map(|(ticket, _)| ticket))
    }

    async fn shard_of(&self, request: &CallRequest, deadline: Instant) -> Result<ShardId, CallError> {
        let slot = request.target.slot();
        match self.known_shard(slot) {
            Some(shard) => Ok(shard),
            // Apart, as everything that is rare: the future of each call would have room for it.
            None => Box::pin(self.wait_for_shard(slot, deadline)).await,
        }
    }

    /// Lists actors of one shard. An owner of an earlier release tells of each only whether it is awake.
    ///
    /// # Errors
    /// As [`Router::call`].
    pub async fn list(&self, request: ListRequest, timeout: Duration) -> Result<ViewReply, CallError> {
        let deadline = Instant::now() + timeout;
        let body = encode(&request);
        self.route(request.shard, deadline, |node| {
            let local = self.inner.local.as_ref().filter(|l| l.node() == node).cloned();
            let (request, body) = (request.clone(), body.clone());
            async move {
                if let Some(local) = local {
                    return local.list(request, deadline).await.map_err(Failure::from);
                }
                match self.remote(node, kind::VIEWS, body.clone(), deadline).await {
                    Err(failure) if failure.reason == NOT_SUPPORTED => {
                        let listed = self.remote::<ListReply>(node, kind::LIST, body, deadline);
                        listed.await.map(ViewReply::from)
                    }
                    viewed => viewed,
                }
            }
        })
        .await
    }

    /// Asks one node and waits as long as it shows signs of life (the transport watches for them).
    async fn remote<T: codec::Decode<()>>(
        &self,
        node: NodeId,
        kind: u8,
        body: Bytes,
        deadline: Instant,
    ) -> Result<T, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self
            .inner
            .transport
            .call(node, Class::Action, kind, body, left)
            .await;
        let answer = answer.map_err(|error| self.transport_failure(node, error))?;
        match codec::decode::<Result<T, CallError>>(&answer) {
            Ok(result) => result.map_err(Failure::from),
            Err(error) => Err(Failure::from(CallError::Perhaps {
                reason: format!("node {node} sent an answer that cannot be read: {error}"),
            })),
        }
    }

    fn transport_failure(&self, node: NodeId, error: TransportError) -> Failure {
        let text = format!("node {node}: {error}");
        if let TransportError::Refused { code, .. } = &error
            && *code == RefusalCode::UnknownKind
        {
            // Asked again it would say the same.
            return Failure {
                error: ActorError::new(group::GUARD, code::NOT_SUPPORTED, text).into(),
                reason: NOT_SUPPORTED,
            };
        }
        if may_be_gone(&error) {
            self.suspect(node);
        }
        match error.perhaps_done() && !planted!("unsure-is-no") {
            true => Failure {
                error: CallError::Perhaps { reason: text },
                reason: "perhaps",
            },
            // The shard is filled in by the caller, who knows it.
            false => Failure {
                error: CallError::Unavailable {
                    shard: ShardId(0),
                    reason: text,
                },
                reason: "not_sent",
            },
        }
    }

    fn suspect(&self, node: NodeId) {
        tracing::debug!(%node, "avoided for a while: it may be gone");
        self.inner
            .suspects
            .write()
            .insert(node, Instant::now() + self.inner.config.suspect_for);
    }

    fn suspected(&self, node: NodeId) -> bool {
        self.inner
            .suspects
            .read()
            .get(&node)
            .is_some_and(|until| Instant::now() < *until)
    }

    /// The retry loop, shared by everything that goes to one shard.
    async fn route<T, F, Fut>(
        &self,
        shard: ShardId,
        deadline: Instant,
        mut attempt: F,
    ) -> Result<T, CallError>
    where
        F: FnMut(NodeId) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut pause = self.inner.config.pause_min;
        let mut tried = 0usize;
        let mut perhaps: Option<String> = None;
        let mut hint: Option<NodeId> = None;
        loop {
            let node = hint.take().or_else(|| self.pick(shard, tried));
            tried += 1;
            let failure = match node {
                None => Failure::from(CallError::Unavailable {
                    shard,
                    reason: "no node is known that holds a replica".into(),
                }),
                Some(node) => match attempt(node).await {
                    Ok(value) => {
                        self.learn(shard, Some(node));
                        return Ok(value);
                    }
                    Err(failure) => {
                        hint = self.hint(shard, node, &failure.error);
                        failure
                    }
                },
            };
            let error = match failure.error {
                CallError::Unavailable { reason, .. } => CallError::Unavailable { shard, reason },
                other
                    if failure.reason == NOT_SUPPORTED && self.may_be_newer_elsewhere(shard, node, tried) =>
                {
                    let reason = other.to_string();
                    CallError::Unavailable { shard, reason }
                }
                other => other,
            };
            if error.reaction() == Reaction::Final {
                return Err(error);
            }
            metrics::counter!(CALL_RETRIES, "reason" => failure.reason).increment(1);
            tracing::debug!(%shard, asked = ?node, ?error, tried, "asking again");
            if let CallError::Perhaps { reason } = &error {
                perhaps = Some(reason.clone());
            }
            // A hint is followed at once, but not for ever: two nodes may each name the other.
            let pause_now = if hint.is_some() && !tried.is_multiple_of(3) {
                Duration::ZERO
            } else {
                pause
            };
            let mut is_late = Instant::now() + pause_now >= deadline;
            if !is_late && !pause_now.is_zero() {
                Box::pin(tokio::time::sleep(pause_now)).await;
                pause = (pause * 2).min(self.inner.config.pause_max);
                // A pause may be longer than asked for. An attempt without time left could only blur a clear answer.
                is_late = Instant::now() >= deadline;
            }
            if is_late {
                return Err(match perhaps {
                    // What a node said may not tell which part of the cluster is missing.
                    Some(reason) => CallError::Perhaps {
                        reason: format!("shard {shard}: {reason}"),
                    },
                    None => error,
                });
            }
        }
    }

    /// What an error says about where to ask next; also corrects what is remembered about the owner.
    fn hint(&self, shard: ShardId, node: NodeId, error: &CallError) -> Option<NodeId> {
        match error {
            CallError::Moved { owner, .. } => {
                // A replica may still name an owner that has just died: do not run into it again.
                let next = owner.filter(|o| *o != node && !self.suspected(*o));
                self.learn(shard, next);
                next
            }
            CallError::Unavailable { .. } | CallError::Perhaps { .. } => {
                self.learn(shard, None);
                None
            }
            CallError::Overloaded { .. } | CallError::Failed(_) | CallError::Deadlock { .. } => None,
        }
    }

    fn learn(&self, shard: ShardId, owner: Option<NodeId>) {
        // Read first: in the steady state nothing changes, and a write lock would be shared by every caller.
        if self.inner.owners.read().get(&shard).copied() == owner {
            return;
        }
        let mut owners = self.inner.owners.write();
        match owner {
            Some(node) => drop(owners.insert(shard, node)),
            None => drop(owners.remove(&shard)),
        }
    }

    /// The owner if known, else the replicas in turn, those that answer first.
    fn pick(&self, shard: ShardId, tried: usize) -> Option<NodeId> {
        if let Some(&owner) = self.inner.owners.read().get(&shard)
            && !self.suspected(owner)
        {
            return Some(owner);
        }
        let routes = self.inner.routes.read();
        let replicas = &routes.shards.get(&shard)?.replicas;
        // A gateway asks its own replica first: that one knows the owner without a round trip.
        let local = self
            .inner
            .local
            .as_ref()
            .map(|l| l.node())
            .filter(|n| tried == 0 && replicas.contains(n));
        if local.is_some() {
            return local;
        }
        let living: Vec<NodeId> = replicas.iter().copied().filter(|n| !self.suspected(*n)).collect();
        let from = if living.is_empty() { replicas } else { &living };
        (!from.is_empty()).then(|| from[tried % from.len()])
    }

    /// Whether a node that does not know a kind of question was asked for want of the owner, which may be of a later release.
    fn may_be_newer_elsewhere(&self, shard: ShardId, node: Option<NodeId>, tried: usize) -> bool {
        let is_owner = self.inner.owners.read().get(&shard) == node.as_ref();
        let routes = self.inner.routes.read();
        let replicas = routes.shards.get(&shard).map_or(0, |route| route.replicas.len());
        !is_owner && tried < replicas
    }

    fn known_shard(&self, slot: clinch_types::Slot) -> Option<ShardId> {
        self.inner.routes.read().shard_of(slot)
    }

    async fn wait_for_shard(
        &self,
        slot: clinch_types::Slot,
        deadline: Instant,
    ) -> Result<ShardId, CallError> {
        let mut pause = self.inner.config.pause_min;
        loop {
            if let Some(shard) = self.known_shard(slot) {
                return Ok(shard);
            }
            let error = self.refresh(deadline).await.err();
            if let Some(shard) = self.known_shard(slot) {
                return Ok(shard);
            }
            if Instant::now() + pause >= deadline {
                let reason = error.unwrap_or_else(|| "the cluster is not formed yet".into());
                return Err(CallError::Unavailable {
                    shard: ShardId(0),
                    reason,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.inner.config.pause_max);
        }
    }

    /// Asks any node for the routes. A node's own router is fed by the node and has nobody to ask.
    ///
    /// # Errors
    /// Why no node answered.
    pub async fn refresh(&self, deadline: Instant) -> Result<(), String> {
        let _one_at_a_time = self.inner.refreshing.lock().await;
        let left = || {
            deadline
                .saturating_duration_since(Instant::now())
                .min(Duration::from_secs(1))
        };
        let mut problem = String::from("no node of the cluster is known");
        let known: Vec<NodeId> = self.inner.routes.read().nodes.keys().copied().collect();
        for node in known {
            match self
                .inner
                .transport
                .call(node, Class::Control, kind::ROUTES, Bytes::new(), left())
                .await
            {
                Ok(body) => return self.take_routes(&body),
                Err(error) => problem = format!("node {node}: {error}"),
            }
        }
        for seed in &self.inner.seeds {
            match self
                .inner
                .transport
                .call_addr(seed, Class::Control, kind::ROUTES, Bytes::new(), left())
                .await
            {
                Ok((_, body)) => return self.take_routes(&body),
                Err(error) => problem = format!("{seed}: {error}"),
            }
        }
        Err(problem)
    }

    fn take_routes(&self, body: &[u8]) -> Result<(), String> {
        let map: RouteMap = codec::decode(body).map_err(|e| e.to_string())?;
        self.set_routes(map);
        Ok(())
    }
}

/// The reason of a failure whose node runs an earlier release.
const NOT_SUPPORTED: &str = "not_supported";

/// Why one attempt has no reply.
struct Failure {
    error: CallError,
    /// The metric's label.
    reason: &'static str,
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let reason = match error {
            CallError::Moved { .. } => "moved",
            CallError::Unavailable { .. } => "unavailable",
            CallError::Overloaded { .. } => "overloaded",
            CallError::Perhaps { .. } => "perhaps",
            CallError::Failed(_) | CallError::Deadlock { .. } => "final",
        };
        Self { error, reason }
    }
}

fn encode<T: codec::Encode>(value: &T) -> Bytes {
    codec::encode(value)
        .expect("a checked request is below the frame limit")
        .into()
}

/// Whether a failure says something about the node that was asked. The caller's own time does not, nor does a full queue:
/// everybody else would avoid an owner that serves them.
fn may_be_gone(error: &TransportError) -> bool {
    match error {
        TransportError::NotSent { .. } | TransportError::Perhaps { .. } => true,
        TransportError::Refused { code, .. } => {
            !matches!(code, RefusalCode::Overloaded | RefusalCode::ReplyTooLarge)
        }
        TransportError::Deadline { .. }
        | TransportError::Overloaded { .. }
        | TransportError::TooLarge { .. } => false,
    }
}

/// The request id behind a user's idempotency key: the same actor and key give the same id in every process.
fn idempotent(target: &Target, key: &str) -> RequestId {
    let actor = match target {
        Target::Id(id) => id.to_string(),
        Target::Key {
            namespace, name, key, ..
        } => format!("{namespace}\0{name}\0{key}"),
    };
    let digest = clinch_types::hash_128(&[b"idempotency-key", actor.as_bytes(), key.as_bytes()]);
    RequestId {
        session: SessionId(digest),
        seq: 1,
    }
}
