//! Durable, addressable actors: your binary is the cluster.
//!
//! A program that registers actor types and runs a [`Node`] *is* a cluster member: three of them on plain machines are
//! a replicated, sharded cluster with nothing beside them.
//!
//! ```
//! use clinch::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! pub struct Counter { count: i64 }
//!
//! #[clinch::actor(name = "counter")]
//! impl Counter {
//!     #[action]
//!     async fn increment(&mut self, by: i64) -> i64 {
//!         self.count += by;
//!         self.count
//!     }
//! }
//!
//! # async fn demo(config: clinch::NodeConfig) -> anyhow::Result<()> {
//! let node = Registry::new().actor::<Counter>().node(config).start().await?;
//! let count = node.cluster().get::<Counter>("my-counter").increment(3).await?;
//! # let _ = count; Ok(()) }
//! ```
//!
//! Not here: the programming model ([`clinch_actor`]), the rules of the cluster (`clinch-membership`), bytes on disk
//! (`clinch-storage`) and on the wire (`clinch-transport`), the HTTP door (`clinch-gateway`).

mod activation;
mod auth;
mod backend;
mod checkpoint;
pub mod cli;
mod config;
mod control;
mod desk;
mod embed;
mod exchange;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handles;
mod inspector;
mod leave;
mod metric_names;
mod node;
#[cfg(feature = "otlp")]
pub mod otlp;
mod seams;
mod shard;
mod shards;
#[cfg(feature = "simulate")]
pub mod simulate;
mod tasks;

pub use clinch_actor::{
    Actor, ActorKey, ActorOptions, Any, Body, BodySender, Call, Conn, ConnId, ConnKind, ConnStatus,
    Connection, Consistency, Ctx, Durability, Emits, Error, Event, Events, FireInfo, Frame, FromKey, IntoKey,
    Message, MessageId, MissedTick, Origin, Queue, QueueHandle, RawHandle, RawSocket, Registry, Result,
    RunOutcome, RunRecord, ScheduleEntry, ScheduleId, ShardedKey, Timing, actor, decode, encode, http,
    serve_request,
};
#[cfg(feature = "typescript")]
pub use clinch_actor::{TypeScriptError, WideIntegers, ts_rs};
pub use clinch_client::{Client, ClientConfig, Cluster, HttpClient, gateway_url};
pub use config::{
    ClusterConfig, ConfigError, NodeConfig, ProposerConfig, RaftConfig, StorageConfig, TokenConfig,
};
pub use embed::LocalNode;
pub use node::{Node, NodeBuilder, RunNode};
pub use seams::{Platform, PlatformStore, SystemClock};
pub use shard::{EventBatch, EventHub, EventStream};

/// What the code written by the macros refers to.
#[doc(hidden)]
pub use clinch_actor::__private;

/// What an actor's source file needs: `use clinch::prelude::*`.
pub mod prelude {
    pub use clinch_actor::{Actor, Conn, Ctx, Error, Event, Registry, Result};
    pub use clinch_client::Cluster;

    pub use crate::{NodeConfig, RunNode};
}
