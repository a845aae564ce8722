//! The storage from outside: openraft's suite, contracts, damage, crashes, snapshots.

mod contract;
mod damage;
mod failures;
mod log;
mod machine;
mod openraft_suite;
mod simulated_crash;
mod snapshot;
mod util;
