//! The Rust client of a Clinch cluster: finds owners, retries by error class, carries typed calls.
//!
//! Invariant: one intention keeps one request id through every retry, so it takes effect at most once.
//! Not here: the programming model (`actor`), how bytes travel (`transport`), the HTTP protocol's server side
//! (`gateway`).

mod client;
mod exchange;
mod http;
mod metric_names;
mod router;
mod session;

pub use client::{Client, ClientConfig, ClientError, Cluster};
pub use clinch_actor::Answered;
pub use exchange::Frame as ExchangeFrame;
pub use http::{HttpClient, encode as percent_encode, gateway_url};
pub use router::{BoxFuture, LocalShards, RoutedCall, Router, RouterConfig};
pub use session::Session;
