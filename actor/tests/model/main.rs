//! Actors as a node runs them, on a node in memory.

// The paths that the macros write for users, who depend on `clinch` only.
extern crate clinch_actor as clinch;

mod actions;
mod beside;
mod calls;
mod connection;
mod counter;
mod errors;
mod events;
mod hooks;
mod keys;
mod kv;
mod queues;
mod registry;
mod repeated;
mod support;
mod wire;
