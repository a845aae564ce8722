//! The Clock seam: the only way product code may ask what time it is.

use std::time::{Duration, Instant};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Wall time in milliseconds since 1970-01-01 UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallMs(pub u64);

impl WallMs {
    /// This time plus a duration; stops at the end of time instead of wrapping.
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// Time as one node sees it. Production reads the operating system; the simulator gives each node its own skew
/// and drift; model tests set it by hand.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time: for leases, deadlines and durations.
    fn mono(&self) -> Instant;
    /// Wall time: for schedules and timestamps only. May jump, forwards or backwards.
    fn wall(&self) -> WallMs;
}
