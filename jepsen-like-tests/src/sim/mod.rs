//! Whole clusters from one seed: faults by plan, clients with histories, a verdict, and the command that repeats it.
//!
//! A run has a safety phase, in which everything may go wrong, and a liveness phase: all faults end, and the cluster must
//! answer everybody again. The nodes are the product (`clinch::simulate`).
//!
//! Invariant: everything a run does follows from its seed and its options, in a process of its own.
//! Not here: the laws ([`crate::checkers`]).

pub mod check;
pub mod cli;
mod clients;
mod ending;
mod faults;
mod fired;
mod listeners;
mod lookers;
mod nemesis;
mod places;
pub mod planted;
mod prefix;
mod programs;
mod rates;
pub mod report;
mod roles;
mod run;
mod summary;
mod visitors;

pub use faults::Fault;
pub use run::{Options, run};
pub use summary::{Broken, Summary};
