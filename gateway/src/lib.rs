//! The HTTP door of a Clinch node, speaking the Rivet Actors client protocol.
//!
//! Invariant: a gateway owns no actor state and knows nothing of shards. It checks who asks, bounds what comes in,
//! turns one protocol's values into another's, and hands every call to a [`Backend`]; what the backend answers
//! leaves in the caller's own encoding.
//!
//! Not here: finding the owner of an actor and retrying while it moves (the backend), running actions (`node`).

mod action;
mod address;
mod backend;
mod bare;
mod body;
mod cbor;
mod config;
mod cors;
mod error;
mod flow;
mod frames;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inspector;
mod look;
mod manager;
mod metric_names;
mod namespaces;
mod openapi;
mod otlp;
mod pages;
mod patience;
mod percent;
mod plain;
mod queue;
mod raw;
mod server;
mod service;
mod shares;
mod socket;
mod tls;
mod visitors;

pub use axum::Router;
pub use backend::{Backend, BoxFuture, GatewayCall, ListQuery, Listing, Scope, StreamBody};
pub use config::{ConfigError, GatewayConfig};
pub use server::{serve, serve_one};
pub use service::{embedded, router};
pub use tls::{Tls, TlsError};
