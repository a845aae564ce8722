//! The durable bytes of one Clinch node: raft log, state machine store, snapshots.
//!
//! The log is the truth; the state store is a checkpoint of it. [`Storage`] holds both for all groups of a node and
//! gives, per group, what openraft needs ([`GroupLog`], [`GroupMachine`]) and what reads the state
//! ([`GroupReader`]).
//!
//! Invariant: what was answered survives `kill -9` and power loss, or its loss is reported at the next start; it is
//! never wrong in silence. Not here: who is a member, how bytes travel, what the keys mean.

mod batch;
mod disk;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod log;
mod machine;
mod metric_names;
mod node_meta;
mod options;
pub mod raft;
mod snapshot;
mod storage;
mod store;
pub mod wire;

pub use batch::{Batch, BatchBuilder, BatchError, Mutation, Mutations, Write};
pub use disk::{Disk, DiskFile, FileDisk};
#[cfg(any(test, feature = "test-util"))]
pub use disk::{SimCounts, SimDisk, SimFaults};
pub use error::{OpenError, Poisoned};
pub use group::GroupId;
pub use log::GroupLog;
pub use machine::{GroupMachine, GroupReader, GroupSnapshotBuilder, GroupStats};
pub use options::{Driver, StorageOptions};
pub use raft::TypeConfig;
pub use snapshot::{ReceivedSnapshot, SnapshotData, SnapshotSink, SnapshotSource};
pub use storage::Storage;
#[cfg(any(test, feature = "test-util"))]
pub use store::DiskStore;
pub use store::{KeyWrite, MemStore, SledStore, StateStore};
