//! The storage from outside: openraft's suite, contracts, damage, crashes, snapshots.

mod contract;
mod damage;
mod failures;
mod log;
mod machine;
#[cfg(target_os = "linux")]
mod memory;
mod openraft_suite;
mod simulated_crash;
mod snapshot;
mod util;
