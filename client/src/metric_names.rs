//! Every metric of this crate.

/// Calls sent again, by `reason`: moved | unavailable | overloaded | perhaps | not_sent | silent.
pub(crate) const CALL_RETRIES: &str = "client.call.retries";
