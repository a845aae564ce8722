//! The typed client: handles over a router, and the way to get one from outside the cluster.

use std::sync::Arc;
use std::time::Duration;

use clinch_actor::{Actor, Answered, Body, BoxFuture, Caller, Error, IntoKey, OutgoingCall, RawHandle};
use clinch_transport::{
    CertBundle, IdentityError, PeerId, RefuseAll, Sockets, Transport, TransportConfig, UdpSockets,
};
use clinch_types::{ActorId, CallOp, CallReply, ConnId, RegionId, RequestId, SessionId, Target};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::router::{RoutedCall, Router, RouterConfig};

/// A cluster as an application sees it: handles to actors. Cheap to clone.
///
/// Inside a node it is the node's own; outside, [`Client::cluster`] gives one.
#[derive(Clone)]
pub struct Cluster {
    router: Router,
    namespace: Arc<str>,
}

impl Cluster {
    /// A view of the cluster in one namespace.
    pub fn new(router: Router, namespace: &str) -> Self {
        Self {
            router,
            namespace: namespace.into(),
        }
    }

    /// A handle to the actor with this key; the first call creates it if it does not exist.
    pub fn get<A: Actor>(&self, key: impl IntoKey) -> A::Handle {
        A::Handle::from(self.raw(A::NAME, key))
    }

    /// A handle to the only actor of a type, whose key has no components.
    pub fn singleton<A: Actor>(&self) -> A::Handle {
        self.get::<A>(())
    }

    /// A handle to an actor by its id.
    pub fn get_by_id<A: Actor>(&self, id: ActorId) -> A::Handle {
        A::Handle::from(RawHandle::new(Arc::new(self.clone()), Target::Id(id)))
    }

    /// As [`Cluster::get`], for a type known only by its name.
    pub fn raw(&self, name: &str, key: impl IntoKey) -> RawHandle {
        RawHandle::by_key(Arc::new(self.clone()), &self.namespace, name, key)
    }

    /// The same cluster in another namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self {
            router: self.router.clone(),
            namespace: namespace.into(),
        }
    }

    /// What carries the calls.
    pub fn router(&self) -> &Router {
        &self.router
    }
}

impl Caller for Cluster {
    fn call(&self, call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>> {
        // A question for events has no effect to be remembered, and may wait for long.
        let poll = matches!(call.op, CallOp::Poll { .. }).then(|| (RequestId::default(), 0));
        let mut call = routed(call);
        call.request = call.request.or(poll);
        let router = self.router.clone();
        Box::pin(async move { router.call(call).await.map_err(Error::from) })
    }

    fn exchange(
        &self,
        call: OutgoingCall,
        body: Option<Body>,
    ) -> BoxFuture<'static, Result<Answered, Error>> {
        let router = self.router.clone();
        Box::pin(async move { router.exchange(routed(call), body).await.map_err(Error::from) })
    }

    fn draw_conn(&self) -> Option<ConnId> {
        Some(self.router.draw_conn())
    }
}

fn routed(call: OutgoingCall) -> RoutedCall {
    RoutedCall {
        target: call.target,
        op: call.op,
        timeout: call.timeout,
        idempotency_key: call.idempotency_key,
        consistency: call.consistency,
        if_active: call.if_active,
        chain: call.chain,
        params: call.params,
        request: call.request.map(|own| (own.id, own.acked_below)),
        door: call.door,
        trace: [0; 25],
    }
}

/// How a client reaches its cluster.
pub struct ClientConfig {
    /// Who it is: a client certificate of the cluster's CA.
    pub identity: CertBundle,
    /// Nodes to ask first, `host:port`; one that answers is enough.
    pub seeds: Vec<String>,
    /// The namespace of its actors. Default: `default`.
    pub namespace: String,
    /// How calls wait and retry.
    pub router: RouterConfig,
    /// QUIC settings.
    pub transport: TransportConfig,
    /// Where sockets come from.
    pub sockets: Arc<dyn Sockets>,
    /// The name of this run of the client in the clusters' dedup tables; `None` draws one.
    pub session: Option<SessionId>,
    /// The region of new actors; `None` is the region of the node that is asked.
    pub region: Option<RegionId>,
}

impl ClientConfig {
    /// Defaults for a client with this identity.
    pub fn new(identity: CertBundle, seeds: Vec<String>) -> Self {
        Self {
            identity,
            seeds,
            namespace: "default".into(),
            router: RouterConfig::default(),
            transport: TransportConfig::default(),
            sockets: Arc::new(UdpSockets::default()),
            session: None,
            region: None,
        }
    }
}

impl ClientConfig {
    /// Settings from the environment: `CLINCH_CLIENT_SEEDS` (`host:port`, several with commas), `CLINCH_CLIENT_CERT_DIR` and `CLINCH_CLIENT_NAME`
    /// (the folder of the certificate and its name, as `clinch cert issue --client NAME` makes them), `CLINCH_CLIENT_NAMESPACE`
    /// (default `default`).
    ///
    /// # Errors
    /// Names the variable that is missing, or why the certificate cannot be read.
    pub fn from_env() -> Result<Self, ClientError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, ClientError> {
        let given = |name| variable(name).filter(|text| !text.is_empty());
        let needed = |name| given(name).ok_or(ClientError::Variable(name));
        let seeds = needed("CLINCH_CLIENT_SEEDS")?;
        let seeds = seeds.split(',').map(|seed| seed.trim().to_owned());
        let peer = PeerId::Client(needed("CLINCH_CLIENT_NAME")?);
        let identity = CertBundle::load(needed("CLINCH_CLIENT_CERT_DIR")?.as_ref(), &peer)?;
        let config = Self::new(identity, seeds.filter(|seed| !seed.is_empty()).collect());
        Ok(match given("CLINCH_CLIENT_NAMESPACE") {
            Some(namespace) => Self { namespace, ..config },
            None => config,
        })
    }
}

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nobody to ask.
    #[error("a client needs at least one seed, host:port")]
    NoSeeds,
    /// A setting that is not there.
    #[error("the environment variable {0} is not set")]
    Variable(&'static str),
    /// The certificate or its key cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket or the identity.
    #[error("the client cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// No seed answered in time.
    #[error("no node of the cluster answered within {waited:?}: {reason}")]
    Unreachable {
        /// How long the client tried.
        waited: Duration,
        /// What the last one said.
        reason: String,
    },
}

/// A client of a cluster over QUIC. Dropping it (and every [`Cluster`] made from it) closes its connections.
pub struct Client {
    cluster: Cluster,
    stop: CancellationToken,
}

impl Client {
    /// Connects: returns when a node has told the routes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        const PATIENCE: Duration = Duration::from_secs(10);
        if config.seeds.is_empty() {
            return Err(ClientError::NoSeeds);
        }
        let stop = CancellationToken::new();
        let transport = Transport::start(
            config.transport,
            config.identity,
            config.sockets,
            None,
            Arc::new(RefuseAll),
            TaskTracker::new(),
            stop.clone(),
        )?;
        let session = config.session.unwrap_or_else(draw_session);
        let router = Router::new(config.router, transport, session, None, config.seeds);
        let begun = Instant::now();
        let deadline = begun + PATIENCE;
        loop {
            match router.refresh(deadline).await {
                Ok(()) => break,
                Err(reason) if Instant::now() >= deadline => {
                    stop.cancel();
                    return Err(ClientError::Unreachable {
                        waited: begun.elapsed(),
                        reason,
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Ok(Self {
            cluster: Cluster::new(router, &config.namespace),
            stop,
        })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the seam's production side: a session id must be unique, not repeatable"
)]
fn draw_session() -> SessionId {
    use rand::Rng;
    SessionId(rand::rng().random())
}

#[cfg(test)]
mod tests {
    use clinch_transport::ClusterCa;
    use clinch_types::WallMs;

    use super::*;

    #[test]
    fn a_setting_that_is_missing_in_the_environment_is_named() {
        let seeds = |name: &'static str| (name == "CLINCH_CLIENT_SEEDS").then(|| "a:1, b:2,".to_owned());
        let error = ClientConfig::from_variables(|_| None).err().expect("no seeds");
        assert_eq!(
            error.to_string(),
            "the environment variable CLINCH_CLIENT_SEEDS is not set"
        );
        let error = ClientConfig::from_variables(seeds).err().expect("no client");
        assert_eq!(
            error.to_string(),
            "the environment variable CLINCH_CLIENT_NAME is not set"
        );
    }

    #[test]
    fn a_client_is_configured_by_its_environment() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = ClusterCa::generate("shop", WallMs(1_700_000_000_000)).expect("an authority");
        let identity = authority.issue_client("web").expect("a certificate");
        identity.save(dir.path()).expect("saved");
        let config = ClientConfig::from_variables(|name| {
            Some(match name {
                "CLINCH_CLIENT_SEEDS" => "a:1, b:2,".into(),
                "CLINCH_CLIENT_NAME" => "web".into(),
                "CLINCH_CLIENT_CERT_DIR" => dir.path().to_str()?.to_owned(),
                _ => "orders".into(),
            })
        });
        let config = config.expect("all is there");
        assert_eq!(config.seeds, ["a:1", "b:2"]);
        assert_eq!(config.namespace, "orders");
        assert_eq!(*config.identity.peer(), PeerId::Client("web".into()));
    }
}
