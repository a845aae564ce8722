//! Faults on real processes: what is promised holds while nodes are killed and paused under load.
//!
//! `CLINCH_SEED` repeats a run's choices (not its timing), `CLINCH_KILL_ROUNDS` and `CLINCH_FAILOVER_KILLS` make it
//! longer, `TESTED_PROGRAM` tries another program.
//! Not seen here: what a lying disk loses. `kill -9` leaves the page cache, so a write that was never synced survives
//! it; only a power cut (simulated, or of a file system) shows that.

mod failover;
mod in_flight;
mod kill_all;
mod many_sockets;
mod minority;
mod paused_owner;
mod planted;

use tokio::sync::Mutex;

/// One cluster at a time: two would disturb each other's timing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
