//! The handle everybody uses: start, routes, calls, streams.
//!
//! Not here: what happens between a call and the wire (`peer` connects, `lane` sends).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_types::NodeId;
use clinch_types::limits::FRAME_MAX;
use parking_lot::{Mutex, RwLock};
use quinn::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inbound::Trace;
use crate::lane::Request;
use crate::link::Link;
use crate::meters::Meters;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::{
    CertBundle, Class, Dest, EXCHANGE_HEADER_MAX, Exchange, Handler, InStream, OutStream, PeerId,
    STREAM_HEADER_MAX, Sockets, TransportConfig, TransportError, accept, exchange, tls,
};

/// Peers known by address only; the one not used for longest makes way.
const SEEDS_MAX: usize = 64;
/// A deadline beyond this is no deadline; keeps arithmetic on time from overflowing.
const DEADLINE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// One request.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The stream it goes by.
    pub class: Class,
    /// Which service is meant; the caller and the handler agree on it.
    pub kind: u8,
    /// At most `limits::FRAME_MAX` bytes.
    pub body: Bytes,
    /// How long to wait for the answer, connecting included.
    pub deadline: Duration,
    /// Trace context, if the body does not carry one.
    pub trace: Option<Trace>,
}

/// QUIC to and from other processes of the cluster. A cheap handle; clones share everything.
#[derive(Clone)]
pub struct Transport {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("identity", &self.shared.identity)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Binds a socket and, with `bind`, accepts peers; `None` only dials. Must be called inside a tokio runtime. Runs
    /// on `tracker` until `stop` fires, then tells every peer and ends. Install the metrics recorder before.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration or identity that cannot work; else what binding said.
    pub fn start(
        config: TransportConfig,
        identity: CertBundle,
        sockets: Arc<dyn Sockets>,
        bind: Option<SocketAddr>,
        handler: Arc<dyn Handler>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let config = config
            .validate()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let quic = tls::configs(&config, &identity)?;
        let socket = match bind {
            Some(address) => sockets.bind(address)?,
            None => sockets.bind_ephemeral()?,
        };
        let server = bind.map(|_| quic.server);
        let mut endpoint =
            quinn::Endpoint::new_with_abstract_socket(quic.endpoint, server, socket, Arc::new(TokioRuntime))?;
        endpoint.set_default_client_config(quic.client);
        let rng = config
            .rng_seed
            .map_or_else(StdRng::from_os_rng, StdRng::from_seed);
        let shared = Arc::new(Shared {
            config,
            endpoint,
            cluster: identity.cluster().to_owned(),
            identity: identity.peer().clone(),
            sockets,
            handler,
            tracker,
            stop,
            rng: Mutex::new(rng),
            meters: Meters::new(),
            nodes: RwLock::default(),
            links: RwLock::default(),
            seeds: Mutex::default(),
        });
        shared.tracker.spawn(accept::run(shared.clone()));
        Ok(Self { shared })
    }

    /// The socket's address.
    ///
    /// # Errors
    /// When the socket has failed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Who this process is.
    pub fn identity(&self) -> &PeerId {
        &self.shared.identity
    }

    /// Sets where to dial a node (`host:port`, resolved at each dial). A connection that is up stays. Clients cannot
    /// be dialled: a route to one is ignored.
    pub fn set_route(&self, peer: PeerId, address: String) {
        let PeerId::Node(id) = peer else {
            tracing::debug!(%peer, "route to a client ignored");
            return;
        };
        let known = self.shared.nodes.read().get(&id).cloned();
        match known {
            Some(peer) => peer.set_address(address),
            None => {
                let mut nodes = self.shared.nodes.write();
                // Another caller may have been faster.
                nodes
                    .entry(id)
                    .or_insert_with(|| Arc::new(Peer::new(Dest::Node(id), None)))
                    .set_address(address);
            }
        }
    }

    /// Forgets a node: closes the connection dialled to it and dials no more until a route is set again.
    pub fn forget(&self, node: NodeId) {
        let peer = self.shared.nodes.write().remove(&node);
        if let Some(peer) = peer {
            peer.forget();
            self.shared.links.write().remove(&node);
        }
    }

    /// Whether a connection dialled to this node is up now.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|peer| peer.up().is_some())
    }

    /// The round-trip time of the connection dialled to this node, if one is up.
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        Some(self.node(node)?.up()?.connection().rtt())
    }

    /// Asks a node, connecting to it first if need be. Cancel-safe: dropping the future forgets the answer, and takes
    /// the request back if it has not left.
    ///
    /// # Errors
    /// See [`TransportError`]: each variant says whether the request may have been done.
    pub async fn call(
        &self,
        to: NodeId,
        class: Class,
        kind: u8,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        self.call_with(
            to,
            Outgoing {
                class,
                kind,
                body,
                deadline,
                trace: None,
            },
        )
        .await
    }

    /// As [`Transport::call`], with all settings.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn call_with(&self, to: NodeId, request: Outgoing) -> Result<Bytes, TransportError> {
        let link = self.shared.links.read().get(&to).cloned();
        let result = match link {
            Some(link) => self.ask(&Dest::Node(to), &link, request, Instant::now()).await,
            None => match self.node(to) {
                // Apart: the future of every call would have room for it.
                Some(peer) => Box::pin(self.connect_and_ask(&peer, request))
                    .await
                    .map(|(_, body)| body),
                None => Err(no_route(to)),
            },
        };
        self.shared.meters.call_ended(&result);
        result
    }

    /// Asks whoever answers at an address (a seed of which the id is not known yet); says who that was. Cancel-safe.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn call_addr(
        &self,
        address: &str,
        class: Class,
        kind: u8,
        body: Bytes,
        deadline: Duration,
    ) -> Result<(PeerId, Bytes), TransportError> {
        let request = Outgoing {
            class,
            kind,
            body,
            deadline,
            trace: None,
        };
        let result = self
            .connect_and_ask(&self.seed(address), request)
            .await
            .map(|(link, body)| (link.peer().clone(), body));
        self.shared.meters.call_ended(&result);
        result
    }

    /// Opens a one-way stream to a node, for bodies larger than a frame. Its handler sees `kind` and `header` (at most
    /// [`STREAM_HEADER_MAX`] bytes) first. Waits for a connection, and while the peer has too many streams open, no
    /// longer than `deadline`.
    ///
    /// # Errors
    /// `NotSent` or `TooLarge`; a stream that was opened reports its own end.
    pub async fn send_stream(
        &self,
        to: NodeId,
        kind: u8,
        header: Bytes,
        deadline: Duration,
    ) -> Result<OutStream, TransportError> {
        check_len(header.len(), STREAM_HEADER_MAX)?;
        let peer = self.node(to).ok_or_else(|| no_route(to))?;
        let until = until(Instant::now(), deadline);
        let link = peer.link(&self.shared, until).await?;
        // A stream of which the header did not arrive whole never reaches the handler.
        let not_sent = |reason: String| TransportError::NotSent {
            peer: Dest::Node(to),
            reason,
        };
        let open = async {
            let stream = link
                .connection()
                .open_uni()
                .await
                .map_err(|e| not_sent(e.to_string()))?;
            OutStream::start(stream, link.peer().clone(), kind, &header)
                .await
                .map_err(|e| not_sent(e.reason))
        };
        match timeout_at(until, open).await {
            Ok(result) => result,
            Err(_) => Err(not_sent(format!(
                "no stream within {deadline:?}: too many are open"
            ))),
        }
    }

    /// Begins an exchange with a node: what is asked is `header` (at most [`EXCHANGE_HEADER_MAX`] bytes). Waits for a
    /// connection, and while the peer has too many exchanges open, no longer than `deadline`, which the peer is told.
    ///
    /// # Errors
    /// `NotSent` or `TooLarge`; later, each half reports its own end.
    pub async fn exchange(
        &self,
        to: NodeId,
        kind: u8,
        header: Bytes,
        deadline: Duration,
    ) -> Result<Exchange, TransportError> {
        check_len(header.len(), EXCHANGE_HEADER_MAX)?;
        let peer = self.node(to).ok_or_else(|| no_route(to))?;
        let until = until(Instant::now(), deadline);
        let link = peer.link(&self.shared, until).await?;
        let not_sent = |reason: String| TransportError::NotSent {
            peer: Dest::Node(to),
            reason,
        };
        let opened = timeout_at(until, link.connection().open_bi()).await;
        let (send, receive) = opened
            .map_err(|_| not_sent(format!("no exchange within {deadline:?}: too many are open")))?
            .map_err(|error| not_sent(error.to_string()))?;
        let mut out = OutStream::over(send, link.peer().clone());
        let input = InStream::over(receive, link.peer().clone());
        let preamble = exchange::preamble(kind, until.saturating_duration_since(Instant::now()), &header);
        // One whose header did not leave whole never reaches the handler.
        match timeout_at(until, out.write(preamble)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(not_sent(error.reason)),
            Err(_) => return Err(not_sent(format!("its header did not leave within {deadline:?}"))),
        }
        let silence_max = self.shared.config.silence_max;
        Ok(Exchange::new(out, input, link, silence_max))
    }

    async fn connect_and_ask(
        &self,
        peer: &Arc<Peer>,
        request: Outgoing,
    ) -> Result<(Arc<Link>, Bytes), TransportError> {
        let begun = Instant::now();
        check_len(request.body.len(), FRAME_MAX)?;
        let link = peer.link(&self.shared, until(begun, request.deadline)).await?;
        let body = self.ask(peer.dest(), &link, request, begun).await?;
        Ok((link, body))
    }

    async fn ask(
        &self,
        dest: &Dest,
        link: &Arc<Link>,
        request: Outgoing,
        begun: Instant,
    ) -> Result<Bytes, TransportError> {
        let Outgoing {
            class,
            kind,
            body,
            deadline,
            trace,
        } = request;
        check_len(body.len(), FRAME_MAX)?;
        let lane = link
            .lane(class, &self.shared.config, &self.shared.tracker)
            .map_err(|reason| TransportError::NotSent {
                peer: dest.clone(),
                reason: reason.to_string(),
            })?;
        let until = until(begun, deadline);
        lane.call(
            dest,
            Request {
                service: kind,
                body,
                trace,
                begun,
                until,
                after: deadline,
            },
        )
        .await
    }

    fn node(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.shared.nodes.read().get(&id).cloned()
    }

    fn seed(&self, address: &str) -> Arc<Peer> {
        let mut seeds = self.shared.seeds.lock();
        if let Some(peer) = seeds.get(address) {
            peer.touch();
            return peer.clone();
        }
        if seeds.len() >= SEEDS_MAX
            && let Some(oldest) = seeds
                .iter()
                .min_by_key(|(_, peer)| peer.used_at())
                .map(|(key, _)| key.clone())
            && let Some(peer) = seeds.remove(&oldest)
        {
            peer.forget();
        }
        let dest = Dest::Address(address.to_owned());
        let peer = Arc::new(Peer::new(dest, Some(address.to_owned())));
        seeds.insert(address.to_owned(), peer.clone());
        peer
    }
}

fn until(begun: Instant, deadline: Duration) -> Instant {
    begun + deadline.min(DEADLINE_MAX)
}

fn no_route(to: NodeId) -> TransportError {
    TransportError::NotSent {
        peer: Dest::Node(to),
        reason: "no address is known".to_owned(),
    }
}

fn check_len(len: usize, max: usize) -> Result<(), TransportError> {
    if len > max {
        Err(TransportError::TooLarge { len, max })
    } else {
        Ok(())
    }
}
