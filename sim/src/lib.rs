//! A world of virtual machines in one thread: their time, their network, their crashes, all from one seed.
//!
//! Each [`Machine`](World::add) runs a runtime of its own whose clock stands still until the world moves it on, so a
//! crash is what it is in life: everything in memory is gone at once. The network carries UDP packets and delays,
//! loses, repeats, reorders or refuses them. Nothing here knows what runs on the machines.
//!
//! Invariant: with [`entropy::seed`] called first, in a process that runs one world, the same seed gives the same
//! [`World::trace`]: the packets, their bytes and their times are equal.
//! Not here: disks (`clinch-storage`'s `SimDisk`), clusters and faults by plan (`clinch`, `jepsen-like-tests`).

mod clock;
pub mod entropy;
mod net;
mod socket;
mod trace;
mod world;

pub use clock::MachineClock;
pub use net::{LinkRule, NetCounts};
pub use socket::MachineSockets;
pub use trace::Trace;
pub use world::{Machine, World};
