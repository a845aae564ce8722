//! The production side of the seams for time and randomness.

use std::time::Instant;

use clinch_types::{Clock, WallMs};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

/// Monotonic time from tokio (which a test can pause), wall time from the system.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn mono(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam's production side")]
    fn wall(&self) -> WallMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 counts as 1970: schedules then wait, and none fires early.
        WallMs(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The node's source of random numbers, seeded once.
#[derive(Debug)]
pub(crate) struct NodeRng(Mutex<StdRng>);

impl NodeRng {
    /// From the operating system, or from a seed.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(match seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_os_rng(),
        }))
    }

    pub(crate) fn u128(&self) -> u128 {
        self.0.lock().random()
    }
}
