//! What the gateway asks of the node behind it: one trait, so that the door can be tested without a cluster.
//!
//! Invariant: every question is answered or refused in bounded time; the gateway never asks twice. Finding the
//! owner, and asking again under the same request id while it moves, is the backend's work.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use clinch_types::{
    ActorError, ActorId, ActorView, ActorWarning, CallError, CallOp, CallReply, Door, RegionId, Target,
};

/// A body that is read as it comes.
pub use axum::body::Body as StreamBody;

/// A boxed future; the trait is used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One call on one actor, its values already CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayCall {
    /// Which actor.
    pub target: Target,
    /// What to do.
    pub op: CallOp,
    /// CBOR of the connection parameters, for the connection hooks; `None` when the caller gave none.
    pub params: Option<Vec<u8>>,
    /// How long the caller waits for the answer.
    pub timeout: Duration,
    /// Only if the actor is awake; else `actor.not_active`.
    pub if_active: bool,
    /// The platform token of a call by id, if one was given. Only the actor's record tells its namespace, so the
    /// gateway could not check the two against each other: a backend with tokens answers `actor.not_found` for an
    /// actor outside the token's namespaces. `None` for targets by key: those were checked.
    pub token: Option<String>,
    /// W3C trace context (trace id, parent span id, flags); all zero when absent.
    pub trace: [u8; 25],
    /// How the call came in, for the actor's hooks.
    pub door: Option<Box<Door>>,
}

impl GatewayCall {
    /// A call with every option at its default.
    pub(crate) fn new(target: Target, op: CallOp, timeout: Duration) -> Self {
        Self {
            target,
            op,
            params: None,
            timeout,
            if_active: false,
            token: None,
            trace: [0; 25],
            door: None,
        }
    }

    /// Asks for the actor itself: finds it, or creates it when the target says how.
    pub(crate) fn resolve(target: Target, token: Option<String>, timeout: Duration) -> Self {
        Self {
            token,
            ..Self::new(target, CallOp::Resolve, timeout)
        }
    }
}

/// Asks for a page of actors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Only this namespace.
    pub namespace: String,
    /// Only actors of this name.
    pub name: Option<String>,
    /// Only these ids (their slots tell the shards to ask); empty means all.
    pub ids: Vec<ActorId>,
    /// Where the previous page ended, as its [`Listing::cursor`] said. Comes from outside: may be anything.
    pub cursor: Option<String>,
    /// At most this many, 1 to [`clinch_types::limits::LIST_MAX`].
    pub limit: u32,
}

/// A page of actors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The actors.
    pub actors: Vec<ActorView>,
    /// Where the next page begins; `None` when there is none. Printable ASCII.
    pub cursor: Option<String>,
    /// What is wrong with how the actor type is used that was asked for by its name.
    pub warnings: Vec<ActorWarning>,
}

impl Listing {
    /// Adds what another shard warns of; of each kind, the first says enough.
    pub fn warn(&mut self, warnings: Vec<ActorWarning>) {
        for warning in warnings {
            if self.warnings.iter().all(|known| known.code != warning.code) {
                self.warnings.push(warning);
            }
        }
    }
}

/// What a token must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Calls on actors, finding and creating them: what applications in browsers do.
    Publishable,
    /// Listing and destroying actors.
    Secret,
    /// The cluster itself.
    Admin,
}

/// The node behind the gateway.
pub trait Backend: Send + Sync + 'static {
    /// Runs one call: routed, and retried under one request id until it is answered or `timeout` ran out.
    ///
    /// Dropping the future means the caller went away; what was sent may still take effect.
    fn call(&self, call: GatewayCall) -> BoxFuture<'_, Result<CallReply, CallError>>;

    /// Carries a raw HTTP request ([`CallOp::Http`]) with its body, if it announces a streamed one, and brings the reply
    /// with the body of the answer, if that is streamed.
    ///
    /// # Errors
    /// As [`Backend::call`].
    fn exchange(
        &self,
        call: GatewayCall,
        body: Option<StreamBody>,
    ) -> BoxFuture<'_, Result<(CallReply, Option<StreamBody>), CallError>>;

    /// Random bits, for names that nobody else may draw.
    fn draw(&self) -> u128;

    /// Lists actors over all shards. Ids that name nothing are left out.
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, CallError>>;

    /// The registered actor types.
    fn actor_names(&self) -> Vec<String>;

    /// The actions of an actor type, by their names on the wire.
    fn actions(&self, actor: &str) -> Vec<String>;

    /// The namespaces there are, in order.
    fn namespaces(&self) -> Vec<String>;

    /// Makes a namespace; `false` when it was there already. Returns when this node knows it.
    ///
    /// # Errors
    /// `validation.invalid_input` for a name that breaks a rule, `guard.service_unavailable` when the cluster cannot decide.
    fn create_namespace(&self, name: String) -> BoxFuture<'_, Result<bool, ActorError>>;

    /// Whether there is such a namespace.
    fn namespace_exists(&self, namespace: &str) -> bool;

    /// Whether this token allows this here. `namespace` is `None` for a call by id (see [`GatewayCall::token`]) and
    /// for questions about the whole cluster.
    ///
    /// # Errors
    /// `api.unauthorized` without a token or with an unknown one, `api.forbidden` for one that allows less.
    fn authorize(&self, token: Option<&str>, scope: Scope, namespace: Option<&str>)
    -> Result<(), ActorError>;

    /// The token that opens the inspector of this actor and nothing else: the same at every gateway for as long as there is
    /// the actor. It need not exist.
    ///
    /// # Errors
    /// `guard.service_unavailable` when the cluster cannot make one now.
    fn inspector_token(&self, actor: ActorId) -> BoxFuture<'_, Result<[u8; 32], ActorError>>;

    /// Whether this is that token. The time this takes tells nothing.
    fn opens_inspector(&self, actor: ActorId, token: &[u8; 32]) -> bool;

    /// Whether this node can serve calls now.
    ///
    /// # Errors
    /// Why not, for people.
    fn ready(&self) -> Result<(), String>;

    /// The cluster as this node sees it, for `/cluster`.
    fn status(&self) -> serde_json::Value;

    /// All metrics of this node in the Prometheus text format.
    fn metrics(&self) -> String;

    /// The region a client means by this name. Regions are their numbers unless the backend knows names.
    fn region(&self, name: &str) -> Option<RegionId> {
        name.parse().ok().map(RegionId)
    }

    /// The name clients see for a region: what [`Backend::region`] reads back.
    fn region_name(&self, region: RegionId) -> String {
        region.to_string()
    }
}
