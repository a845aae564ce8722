//! Names of the metrics of this crate, and every value of their labels.

/// Attempts to connect. By `result`: ok | failed.
pub(crate) const DIAL_ATTEMPTS: &str = "transport.dial.attempts.count";
/// Connections that arrived. By `result`: ok | refused | busy.
pub(crate) const ACCEPTS: &str = "transport.accept.connections.count";
/// Connections that are up now. By `side`: dialled | accepted.
pub(crate) const CONNECTIONS: &str = "transport.connection.up.gauge";
/// Connections closed because the peer broke the protocol.
pub(crate) const MALFORMED: &str = "transport.connection.malformed.count";
/// Calls that ended. By `result`: ok | not_sent | overloaded | perhaps | refused | too_large | deadline.
pub(crate) const CALLS: &str = "transport.call.ended.count";
/// Requests received. By `class`: vote | append | action | control.
pub(crate) const REQUESTS: &str = "transport.request.received.count";
