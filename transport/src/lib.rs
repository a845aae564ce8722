//! QUIC between Clinch nodes and clients: framed, multiplexed, mutually authenticated.
//!
//! Invariant: every call ends, in time, and says honestly whether the request may have been done; every queue is
//! bounded, and a full one is an answer.
//! Not here: what the bodies mean (`node`, `client`) and who is a member (`membership`).

mod accept;
mod close;
mod config;
mod dial;
mod error;
mod exchange;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod hostile_tests;
mod identity;
mod inbound;
mod lane;
mod link;
mod meters;
mod metric_names;
mod peer;
mod shared;
mod sockets;
mod stream;
mod tls;
mod transport;

pub use config::{ConfigError, TransportConfig};
pub use error::{Dest, Refusal, RefusalCode, StreamError, TransportError};
pub use exchange::{EXCHANGE_HEADER_MAX, Exchange, InboundExchange};
pub use identity::{CertBundle, ClusterCa, IdentityError, PeerId};
pub use inbound::{Handler, Inbound, InboundStream, LocalAnswer, RefuseAll, Responder, Side, Trace};
pub use lane::Class;
pub use sockets::{Resolving, Sockets, UdpSockets};
pub use stream::{InStream, OutStream, STREAM_HEADER_MAX};
pub use transport::{Outgoing, Transport};
