//! Sockets: accepts connections, speaks HTTP/1.1 and HTTP/2 (prior knowledge) on them, and ends them in order.
//!
//! Invariant: a client holds a connection only while it makes progress. No first request in time, headers too slow
//! or too long, nobody who reads the answers, or too many connections: it is closed. Every task runs on the caller's tracker.
//! Not here: what is answered (`service`), how TLS begins (`tls`) and how much one address may have (`visitors`).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::GatewayConfig;
use crate::metric_names::ConnectionMetrics;
use crate::patience::Patient;
use crate::socket::SocketTasks;
use crate::tls::{Accepted, Tls};
use crate::visitors::Visitors;

/// Streams a client may have open on one HTTP/2 connection: browsers use about a hundred.
const H2_STREAMS_MAX: u32 = 256;
/// How often an HTTP/2 peer is pinged, and how long it may take to answer.
const H2_PING: Duration = Duration::from_secs(20);
/// Pause after a failed accept. Out of file handles is the usual reason, and an immediate retry would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection over the limit gets: clients show the body, load balancers see the status.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
connection: close\r\nretry-after: 1\r\ncontent-length: 110\r\n\r\n\
{\"group\":\"guard\",\"code\":\"overloaded\",\"message\":\"Too many connections are open on this node (max-connections)\"}";

/// The same for an address that has as many as it may have.
const TOO_MANY_OF_ADDRESS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
connection: close\r\nretry-after: 1\r\ncontent-length: 125\r\n\r\n\
{\"group\":\"guard\",\"code\":\"overloaded\",\"message\":\"Too many connections of this address are open (max-connections-per-address)\"}";

/// Runs hyper's own tasks (HTTP/2 streams) on the tracker, so that a stop waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Serves all listeners until `stop` fires, then takes no new connection and returns. With `tls` they speak TLS.
///
/// Connections run on `tracker`: once `stop` fired each ends after its requests in flight, or when
/// `drain_timeout_ms` ran out. The caller closes the tracker and waits for it.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    config: GatewayConfig,
    tls: Option<Tls>,
    stop: CancellationToken,
    tracker: TaskTracker,
) {
    let server = Server {
        router,
        tls,
        visitors: Visitors::new(&config),
        builder: builder(&config, tracker.clone()),
        slots: Arc::new(Semaphore::new(config.max_connections)),
        metrics: ConnectionMetrics::new(),
        first_request_timeout: config.header_read_timeout(),
        drain_timeout: config.drain_timeout(),
        stop,
        tracker,
        config,
    };
    futures_util::future::join_all(listeners.into_iter().map(|listener| server.accept(listener))).await;
}

/// Serves one connection that was accepted elsewhere, until its client or `stop` ends it. Its sockets run on `tracker`.
pub async fn serve_one<S>(
    stream: S,
    router: Router,
    config: &GatewayConfig,
    stop: CancellationToken,
    tracker: TaskTracker,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(visitor) = Visitors::new(config).enter(IpAddr::from([127, 0, 0, 1])) else {
        return;
    };
    let connection = Connection {
        builder: builder(config, tracker.clone()),
        router,
        tls: None,
        tasks: SocketTasks::new(config, stop.clone(), tracker, visitor),
        first_request_timeout: config.header_read_timeout(),
        drain_timeout: config.drain_timeout(),
        stop,
    };
    connection.run(stream).await;
}

fn builder(config: &GatewayConfig, tracker: TaskTracker) -> Builder<Tracked> {
    let mut builder = Builder::new(Tracked(tracker));
    builder
        .http1()
        .timer(TokioTimer::new())
        .keep_alive(true)
        .header_read_timeout(config.header_read_timeout())
        .max_buf_size(config.max_header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(H2_PING))
        .keep_alive_timeout(H2_PING);
    builder
}

struct Server {
    config: GatewayConfig,
    router: Router,
    tls: Option<Tls>,
    visitors: Arc<Visitors>,
    builder: Builder<Tracked>,
    slots: Arc<Semaphore>,
    metrics: ConnectionMetrics,
    first_request_timeout: Duration,
    drain_timeout: Duration,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    /// Ends when `stop` fires.
    async fn accept(&self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.admit(stream, from.ip()),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, from: IpAddr) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.metrics.refused.increment(1);
            // Best effort, without waiting: a client that sees nothing but a closed socket is also told enough.
            let _ = stream.try_write(TOO_MANY);
            return;
        };
        let Some(visitor) = self.visitors.enter(from) else {
            self.metrics.refused.increment(1);
            let _ = stream.try_write(TOO_MANY_OF_ADDRESS);
            return;
        };
        // Answers are written whole; waiting for more to send only adds delay.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            builder: self.builder.clone(),
            router: self.router.clone(),
            tls: self.tls.clone(),
            tasks: SocketTasks::new(&self.config, self.stop.clone(), self.tracker.clone(), visitor),
            first_request_timeout: self.first_request_timeout,
            drain_timeout: self.drain_timeout,
            stop: self.stop.clone(),
        };
        let open = self.metrics.open.clone();
        self.tracker.spawn(async move {
            open.increment(1.0);
            connection.accept(stream).await;
            open.decrement(1.0);
            drop(slot);
        });
    }
}

struct Connection {
    builder: Builder<Tracked>,
    router: Router,
    tls: Option<Tls>,
    tasks: SocketTasks,
    first_request_timeout: Duration,
    drain_timeout: Duration,
    stop: CancellationToken,
}

impl Connection {
    async fn accept(self, stream: TcpStream) {
        let Some(tls) = self.tls.clone() else {
            return self.run(stream).await;
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.first_request_timeout, tls.accept(stream)) => accepted,
            () = self.stop.cancelled() => return,
        };
        match accepted {
            Ok(Ok(Accepted::Plain(stream))) => self.run(stream).await,
            Ok(Ok(Accepted::Tls(stream))) => self.run(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS connection"),
            Err(_) => {}
        }
    }

    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let seen = Arc::new(AtomicBool::new(false));
        let router = TowerToHyperService::new(self.router);
        let mark = seen.clone();
        let tasks = self.tasks;
        let limited = tasks.visitor.is_limited();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            mark.store(true, Ordering::Relaxed);
            if SocketTasks::are_needed_by(&request) {
                request.extensions_mut().insert(tasks.clone());
            }
            if limited {
                request.extensions_mut().insert(tasks.visitor.clone());
            }
            hyper::service::Service::call(&router, request)
        });
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(Patient::new(stream)), service);
        tokio::pin!(connection);
        // hyper limits neither the detection of the version nor the HTTP/2 handshake: this does, for both.
        let first = tokio::time::sleep(self.first_request_timeout);
        tokio::pin!(first);
        let mut waiting = true;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return log_end(ended),
                () = first.as_mut(), if waiting => {
                    if !seen.load(Ordering::Relaxed) {
                        return;
                    }
                    waiting = false;
                }
                () = self.stop.cancelled() => break,
            }
        }
        connection.as_mut().graceful_shutdown();
        match tokio::time::timeout(self.drain_timeout, connection).await {
            Ok(ended) => log_end(ended),
            Err(_) => tracing::info!("connection cut: requests did not end in time"),
        }
    }
}

/// A client that goes away in the middle is everyday life, not our error.
fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
