//! Faults on clusters, real ones of processes and simulated ones ([`sim`]), with histories and checkers.
//!
//! Clients call counters and write down what they asked and what they were told ([`history`]); meanwhile nodes are
//! killed and paused; afterwards [`checkers`] say whether any sane counter could have given those answers.
//!
//! Invariant: a checker never trusts the cluster. Versions in replies only make checking linear: values, amounts and
//! real time are verified against them.
//! Not here: the product's own tests, and starting processes (`clinch::cli::local`).

pub mod actors;
pub mod bed;
pub mod checkers;
pub mod doors;
pub mod history;
pub mod sim;
pub mod stats;
pub mod workload;
