//! Names of the metrics of this crate, and the handles to them, looked up once.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Requests answered, by `class`: 2xx | 4xx | 5xx.
const REQUESTS: &str = "gateway.requests.count";
/// Time from the end of an action's body to its answer.
const ACTION_SECONDS: &str = "gateway.action.seconds";
/// Connections open now.
const CONNECTIONS: &str = "gateway.connections.count";
/// Connections refused because too many were open.
const CONNECTIONS_REFUSED: &str = "gateway.connections.refused.count";
/// WebSockets open now.
const SOCKETS: &str = "gateway.sockets.count";
/// Requests refused because too many were in flight.
const REQUESTS_SHED: &str = "gateway.requests.shed.count";

/// Handles of the request path. Made when the router is, so the recorder has to be installed before.
pub(crate) struct RequestMetrics {
    pub(crate) ok: Counter,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    pub(crate) shed: Counter,
    pub(crate) action_seconds: Histogram,
    pub(crate) sockets: Gauge,
}

impl RequestMetrics {
    pub(crate) fn new() -> Self {
        Self {
            ok: counter!(REQUESTS, "class" => "2xx"),
            refused: counter!(REQUESTS, "class" => "4xx"),
            failed: counter!(REQUESTS, "class" => "5xx"),
            shed: counter!(REQUESTS_SHED),
            action_seconds: histogram!(ACTION_SECONDS),
            sockets: gauge!(SOCKETS),
        }
    }

    /// Counts an answer by its status.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        match status.as_u16() {
            500.. => self.failed.increment(1),
            400.. => self.refused.increment(1),
            _ => self.ok.increment(1),
        }
    }
}

/// Handles of the accept loop.
#[derive(Clone)]
pub(crate) struct ConnectionMetrics {
    pub(crate) open: Gauge,
    pub(crate) refused: Counter,
}

impl ConnectionMetrics {
    pub(crate) fn new() -> Self {
        Self {
            open: gauge!(CONNECTIONS),
            refused: counter!(CONNECTIONS_REFUSED),
        }
    }
}
