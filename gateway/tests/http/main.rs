//! The gateway over real sockets, in front of actors in memory.

#[path = "../support/mod.rs"]
mod support;

mod actions;
mod addressing;
mod client;
mod hostile;
mod inspector_token;
mod manager;
mod pages;
mod plain;
mod shares;
mod sockets;
mod stalled;
mod tls;
mod web_sockets;
