//! A small cluster of transports on loopback.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_transport::{
    CertBundle, ClusterCa, Handler, Inbound, InboundStream, PeerId, Refusal, RefusalCode, Side, Transport,
    TransportConfig, UdpSockets,
};
use clinch_types::{NodeId, WallMs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longer than any test may take: a call that ends by it has hung.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Kinds the [`Echo`] handler knows.
pub(crate) const ECHO: u8 = 1;
pub(crate) const SILENT: u8 = 2;
pub(crate) const DROP: u8 = 3;

pub(crate) fn ca(cluster: &str) -> ClusterCa {
    #[expect(
        clippy::disallowed_methods,
        reason = "TLS judges the test's certificates by the system clock"
    )]
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    ClusterCa::generate(cluster, WallMs(now.as_millis() as u64)).unwrap()
}

pub(crate) fn node(ca: &ClusterCa, id: u64) -> CertBundle {
    ca.issue_node(NodeId(id), &[]).unwrap()
}

/// What a test handler saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Request(Inbound),
    Stream(InboundStream),
    Up(PeerId, Side),
    Down(PeerId, Side),
}

/// Answers [`ECHO`], drops [`DROP`], hands [`SILENT`], streams and connections to the test, refuses the rest.
pub(crate) struct Echo(mpsc::UnboundedSender<Seen>);

impl Echo {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Seen>) {
        let (tx, rx) = mpsc::unbounded_channel();
        (Arc::new(Self(tx)), rx)
    }
}

impl Handler for Echo {
    fn request(&self, inbound: Inbound) {
        match inbound.kind {
            ECHO => {
                let body = inbound.body.clone();
                inbound.respond(body);
            }
            SILENT => drop(self.0.send(Seen::Request(inbound))),
            DROP => drop(inbound),
            kind => inbound.refuse(Refusal::new(RefusalCode::UnknownKind, format!("no kind {kind}"))),
        }
    }

    fn stream(&self, inbound: InboundStream) {
        drop(self.0.send(Seen::Stream(inbound)));
    }

    fn peer_up(&self, peer: &PeerId, side: Side) {
        drop(self.0.send(Seen::Up(peer.clone(), side)));
    }

    fn peer_down(&self, peer: &PeerId, side: Side) {
        drop(self.0.send(Seen::Down(peer.clone(), side)));
    }
}

/// One started transport.
pub(crate) struct Running {
    pub(crate) transport: Transport,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Running {
    pub(crate) fn address(&self) -> String {
        self.transport.local_addr().unwrap().to_string()
    }

    /// The next request or stream the handler saw.
    pub(crate) async fn next(&mut self) -> Seen {
        loop {
            match tokio::time::timeout(LONG, self.seen.recv())
                .await
                .unwrap()
                .unwrap()
            {
                Seen::Up(..) | Seen::Down(..) => {}
                seen => return seen,
            }
        }
    }

    pub(crate) async fn next_request(&mut self) -> Inbound {
        match self.next().await {
            Seen::Request(inbound) => inbound,
            other => panic!("not a request: {other:?}"),
        }
    }

    /// Waits for a connection to come or go.
    pub(crate) async fn next_connection(&mut self) -> Seen {
        loop {
            let seen = tokio::time::timeout(LONG, self.seen.recv())
                .await
                .unwrap()
                .unwrap();
            if matches!(seen, Seen::Up(..) | Seen::Down(..)) {
                return seen;
            }
        }
    }

    pub(crate) async fn shut_down(self) {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(LONG, self.tracker.wait())
            .await
            .expect("every task ends");
    }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn start_with(
    config: TransportConfig,
    identity: CertBundle,
    bind: Option<SocketAddr>,
    handler: Arc<dyn Handler>,
) -> std::io::Result<(Transport, CancellationToken, TaskTracker)> {
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let sockets = Arc::new(UdpSockets::default());
    let transport = Transport::start(
        config,
        identity,
        sockets,
        bind,
        handler,
        tracker.clone(),
        stop.clone(),
    )?;
    Ok((transport, stop, tracker))
}

pub(crate) fn start(config: TransportConfig, identity: CertBundle, bind: Option<SocketAddr>) -> Running {
    let (handler, seen) = Echo::new();
    let (transport, stop, tracker) = start_with(config, identity, bind, handler).unwrap();
    Running {
        transport,
        seen,
        stop,
        tracker,
    }
}

/// Nodes 1 and 2 of one cluster; 1 knows where 2 is.
pub(crate) fn pair(config: TransportConfig) -> (Running, Running) {
    let ca = ca("test");
    let one = start(config.clone(), node(&ca, 1), Some(loopback()));
    let two = start(config, node(&ca, 2), Some(loopback()));
    one.transport.set_route(PeerId::Node(NodeId(2)), two.address());
    (one, two)
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
