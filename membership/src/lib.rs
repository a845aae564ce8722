//! Who is in a Clinch cluster, who is alive, and which shard is where: pure data and transitions.
//!
//! Invariant: everything here is a function of its arguments. The same input gives the same output in every
//! process, whatever order the input came in; time is an argument, nothing is drawn at random.
//! Not here: replicating the state (the control group in `node`), sending heartbeats, carrying moves out.

mod apply;
mod augment;
mod command;
pub mod detector;
mod invariants;
mod leaders;
pub mod limits;
pub mod moves;
mod node;
pub mod placement;
mod quota;
mod ring;
pub mod slots;
mod state;

pub use command::{Command, Desired, Rejected, Setting};
pub use detector::{Detector, DetectorConfig};
pub use node::{NodeRecord, NodeState};
pub use placement::{Placement, PlacementInput, PlacementNode, place};
pub use state::{
    ClusterState, DEFAULT_NAMESPACE, NamespaceRecord, Settings, ShardPlacement, TokenKind, TokenRecord,
};
