//! The node as its gateway sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clinch_actor::{Body, Registry};
use clinch_client::{RoutedCall, Router};
use clinch_gateway::{Backend, BoxFuture, GatewayCall, ListQuery, Listing, Scope, StreamBody};
use clinch_membership::Command;
use clinch_types::{
    ActorError, ActorId, ActorInfo, ActorLook, CallError, CallOp, CallReply, Clock, ListRequest, NodeId,
    RequestId, ShardId, Target, code, codec, group, planted,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::auth::Tokens;
use crate::control::{Control, ControlError};
use crate::leave::Leaving;
use crate::seams::NodeRng;
use crate::shard::Owners;

/// Time a listing may take per shard.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that other nodes have to answer the calls of a node whose store has failed: longer than an election, and shorter
/// than its gateway waits for requests in flight when it stops.
const OTHERS_MAX: Duration = Duration::from_secs(3);

/// Time for the cluster to decide about a namespace.
const NAMESPACE_MAX: Duration = Duration::from_secs(10);

/// Serves a gateway from this node.
pub(crate) struct NodeBackend {
    pub(crate) node: NodeId,
    pub(crate) router: Router,
    pub(crate) registry: Registry,
    pub(crate) control: Control,
    pub(crate) owners: Owners,
    pub(crate) tokens: Tokens,
    pub(crate) rng: Arc<NodeRng>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) leaving: Arc<Leaving>,
    /// Why the store has failed, once it has.
    pub(crate) store_failed: watch::Receiver<Option<Arc<str>>>,
}

/// What a node says that ends because its store has failed.
fn gives_up(reason: &str) -> String {
    format!("this node gives up: {reason}")
}

impl NodeBackend {
    /// With what is wrong here, when a call had no answer because of that.
    fn explained(&self, error: CallError) -> CallError {
        let failed = self.store_failed.borrow();
        let Some(why) = failed.as_deref().map(gives_up) else {
            return error;
        };
        match error {
            CallError::Unavailable { shard, reason } => CallError::Unavailable {
                shard,
                reason: format!("{reason}; {why}"),
            },
            CallError::Perhaps { reason } => CallError::Perhaps {
                reason: format!("{reason}; {why}"),
            },
            definite => definite,
        }
    }

    /// Ends when the store has failed and the others have had their time, with what callers are told.
    async fn given_up(&self) -> String {
        let mut failed = self.store_failed.clone();
        let reason = failed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|r| r.clone());
        let Some(reason) = reason else {
            // The node is stopping in order.
            return std::future::pending().await;
        };
        tokio::time::sleep(OTHERS_MAX).await;
        gives_up(&reason)
    }

    /// Folds the samples of histograms together now and then; without it they would pile up until somebody asks.
    pub(crate) async fn keep_metrics(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.metrics.run_upkeep();
        }
    }

    async fn make_namespace(&self, name: String) -> Result<bool, ActorError> {
        if self.namespace_exists(&name) {
            return Ok(false);
        }
        let command = Command::CreateNamespace {
            name: name.clone(),
            created: self.clock.wall(),
        };
        let refused = |error: ControlError| {
            let (group, code) = match &error {
                ControlError::Rejected(_) => ("validation", "invalid_input"),
                ControlError::Unavailable(_) => (group::GUARD, code::SERVICE_UNAVAILABLE),
            };
            ActorError::new(group, code, error.to_string())
        };
        self.control
            .propose(command, NAMESPACE_MAX)
            .await
            .map_err(refused)?;
        let mut state = self.control.watch();
        let known = state.wait_for(|s| s.as_ref().is_some_and(|s| s.namespaces.contains_key(&name)));
        match tokio::time::timeout(NAMESPACE_MAX, known).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) | Err(_) => Err(ActorError::new(
                group::GUARD,
                code::SERVICE_UNAVAILABLE,
                format!("the namespace {name:?} is made, and this node has not heard of it yet"),
            )),
        }
    }

    /// A call by id with a token for one namespace only reaches actors of that namespace.
    async fn check_namespace(&self, call: &GatewayCall) -> Result<(), CallError> {
        let (Target::Id(id), Some(allowed)) = (&call.target, self.tokens.namespace_of(call.token.as_deref()))
        else {
            return Ok(());
        };
        // To look is not to wake.
        let op = match call.op.is_look() {
            true => CallOp::Look,
            false => CallOp::Resolve,
        };
        let reply = self.router.call(RoutedCall::new(Target::Id(*id), op)).await?;
        let info: Result<ActorInfo, _> = match call.op.is_look() {
            true => codec::decode(&reply.output).map(|look: ActorLook| look.view.info),
            false => codec::decode(&reply.output),
        };
        match info {
            Ok(info) if info.namespace == allowed => Ok(()),
            _ => {
                Err(ActorError::new(group::ACTOR, code::NOT_FOUND, format!("there is no actor {id}")).into())
            }
        }
    }

    async fn list_all(&self, query: ListQuery) -> Result<Listing, CallError> {
        let map = self.router.routes();
        let limit = query.limit.clamp(1, clinch_types::limits::LIST_MAX) as usize;
        let mut by_shard: BTreeMap<ShardId, Vec<ActorId>> = BTreeMap::new();
        for id in &query.ids {
            if let Some(shard) = map.shard_of(id.slot()) {
                by_shard.entry(shard).or_default().push(*id);
            }
        }
        let (first, mut after) = match &query.cursor {
            Some(cursor) => parse_cursor(cursor)?,
            None => (ShardId(0), None),
        };
        let shards: Vec<ShardId> = match query.ids.is_empty() {
            true => map.shards.keys().copied().filter(|s| *s >= first).collect(),
            false => by_shard.keys().copied().collect(),
        };
        let mut listing = Listing::default();
        for shard in shards {
            loop {
                let left = limit - listing.actors.len();
                let request = ListRequest {
                    shard,
                    namespace: query.namespace.clone(),
                    name: query.name.clone(),
                    ids: by_shard.get(&shard).cloned().unwrap_or_default(),
                    after: after.take(),
                    limit: u32::try_from(left).unwrap_or(u32::MAX),
                };
                let page = self.router.list(request, LIST_TIMEOUT).await?;
                listing.actors.extend(page.actors);
                listing.warn(page.warnings);
                if listing.actors.len() >= limit {
                    listing.cursor = Some(match page.next {
                        Some(next) => format!("{}-{next}", shard.0),
                        None => format!("{}-", shard.0 + 1),
                    });
                    return Ok(listing);
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(listing)
    }
}

fn routed(call: GatewayCall) -> RoutedCall {
    RoutedCall {
        door: call.door,
        timeout: Some(call.timeout),
        if_active: call.if_active,
        params: call.params.map(Into::into),
        trace: call.trace,
        ..RoutedCall::new(call.target, call.op)
    }
}

fn parse_cursor(cursor: &str) -> Result<(ShardId, Option<ActorId>), CallError> {
    let bad = || {
        ActorError::new(
            "validation",
            "invalid_input",
            format!("{cursor:?} is not a cursor of this listing"),
        )
    };
    let (shard, after) = cursor.split_once('-').ok_or_else(bad)?;
    let shard = ShardId(shard.parse().map_err(|_| bad())?);
    let after = match after {
        "" => None,
        id => Some(id.parse().map_err(|_| bad())?),
    };
    Ok((shard, after))
}

impl Backend for NodeBackend {
    fn call(&self, call: GatewayCall) -> BoxFuture<'_, Result<CallReply, CallError>> {
        Box::pin(async move {
            self.check_namespace(&call).await?;
            // A question for items has no effect to be remembered, and may wait for long.
            let request = matches!(call.op, CallOp::Poll { .. }).then(|| (RequestId::default(), 0));
            let routed = RoutedCall {
                request,
                ..routed(call)
            };
            tokio::select! {
                biased;
                answer = self.router.call(routed) => answer.map_err(|error| self.explained(error)),
                reason = self.given_up() => Err(CallError::Perhaps { reason }),
            }
        })
    }

    fn exchange(
        &self,
        call: GatewayCall,
        body: Option<StreamBody>,
    ) -> BoxFuture<'_, Result<(CallReply, Option<StreamBody>), CallError>> {
        Box::pin(async move {
            self.check_namespace(&call).await?;
            let exchange = self.router.exchange(routed(call), body.map(Body::new));
            let (reply, answer) = tokio::select! {
                biased;
                answered = exchange => answered.map_err(|error| self.explained(error))?,
                reason = self.given_up() => return Err(CallError::Perhaps { reason }),
            };
            Ok((reply, answer.map(StreamBody::new)))
        })
    }

    fn draw(&self) -> u128 {
        self.rng.u128()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, CallError>> {
        Box::pin(self.list_all(query))
    }

    fn actor_names(&self) -> Vec<String> {
        self.registry.types().map(|t| t.name().to_owned()).collect()
    }

    fn actions(&self, actor: &str) -> Vec<String> {
        let kind = self.registry.get(actor);
        let actions = kind.map(|kind| {
            kind.actions()
                .iter()
                .map(|action| action.name.to_owned())
                .collect()
        });
        actions.unwrap_or_default()
    }

    fn namespace_exists(&self, namespace: &str) -> bool {
        self.control
            .state()
            .is_some_and(|s| s.namespaces.contains_key(namespace))
    }

    fn namespaces(&self) -> Vec<String> {
        self.control
            .state()
            .map_or_else(Vec::new, |s| s.namespaces.keys().cloned().collect())
    }

    fn create_namespace(&self, name: String) -> BoxFuture<'_, Result<bool, ActorError>> {
        Box::pin(self.make_namespace(name))
    }

    fn authorize(
        &self,
        token: Option<&str>,
        scope: Scope,
        namespace: Option<&str>,
    ) -> Result<(), ActorError> {
        self.tokens.authorize(token, scope, namespace)
    }

    fn inspector_token(&self, actor: ActorId) -> BoxFuture<'_, Result<[u8; 32], ActorError>> {
        Box::pin(self.token_of(actor))
    }

    fn opens_inspector(&self, actor: ActorId, token: &[u8; 32]) -> bool {
        self.opens(actor, token)
    }

    fn ready(&self) -> Result<(), String> {
        if let Some(reason) = &*self.store_failed.borrow() {
            return Err(gives_up(reason));
        }
        if self.leaving.is_me() {
            return Err("this node is about to stop".into());
        }
        let Some(state) = self.control.state() else {
            return Err("this node is not part of a cluster yet".into());
        };
        if !state.is_placed() {
            let (have, want) = (state.placeable().count(), state.settings.expect_nodes);
            return Err(format!(
                "the shards are not placed yet: {have} of {want} nodes are up"
            ));
        }
        let owners = self.owners.all();
        // Of shards without a replica here this node knows no owner before it is asked for one.
        let orphans: Vec<String> = state
            .shards
            .iter()
            .filter(|(_, p)| {
                planted!("ready-wants-all") || p.desired.contains(&self.node) || p.actual.contains(&self.node)
            })
            .map(|(shard, _)| shard)
            .filter(|shard| !owners.contains_key(shard))
            .map(ToString::to_string)
            .collect();
        match orphans.is_empty() {
            true => Ok(()),
            false => Err(format!("no owner is known for shards {}", orphans.join(", "))),
        }
    }

    fn status(&self) -> Value {
        status(self.node, &self.control, &self.owners)
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}

/// The cluster as this node sees it.
pub(crate) fn status(node: NodeId, control: &Control, owners: &Owners) -> Value {
    let Some(state) = control.state() else {
        return json!({ "node": node, "formed": false });
    };
    let owners = owners.all();
    let nodes: Vec<Value> = state
        .nodes
        .values()
        .map(|n| {
            json!({
                "id": n.id, "state": n.state.to_string(), "incarnation": n.incarnation, "address": n.address,
                "gateway": n.gateway, "zone": n.zone, "region": n.region, "codeVersion": n.code_version,
                "replicas": state.shards_on(n.id).count(),
                "owned": owners.values().filter(|(owner, _)| *owner == n.id).count(),
            })
        })
        .collect();
    let shards: Vec<Value> = state
        .shards
        .iter()
        .map(|(id, placement)| {
            let owner = owners.get(id);
            json!({
                "id": id, "replicas": placement.desired, "voters": placement.actual, "preferred": placement.leader,
                "owner": owner.map(|(node, _)| node), "epoch": owner.map(|(_, epoch)| epoch),
            })
        })
        .collect();
    json!({
        "node": node, "formed": state.is_placed(), "cluster": state.cluster.to_string(), "name": state.name,
        "version": state.version, "nodes": nodes, "shards": shards,
    })
}
