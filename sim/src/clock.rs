//! The clock of one machine: its monotonic time is its runtime's, its wall time the world's, at its own rate and offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use clinch_types::{Clock, WallMs};

/// Wall time at which every world begins, in ms since 1970 (2026-01-01).
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;

/// One machine's clock. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct MachineClock {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Time that passed on this machine since the world began, at its own rate, in ns.
    local_ns: AtomicU64,
    /// How far its wall clock is off, in ms.
    skew_ms: AtomicI64,
}

impl MachineClock {
    pub(crate) fn set_local_ns(&self, ns: u64) {
        self.inner.local_ns.store(ns, Ordering::Relaxed);
    }

    /// Moves the wall clock; negative is backwards.
    pub fn jump_ms(&self, by: i64) {
        self.inner.skew_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// How far it was moved, in ms.
    pub fn skew_ms(&self) -> i64 {
        self.inner.skew_ms.load(Ordering::Relaxed)
    }
}

impl Clock for MachineClock {
    fn mono(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> WallMs {
        let passed = EPOCH_MS + self.inner.local_ns.load(Ordering::Relaxed) / 1_000_000;
        WallMs(passed.saturating_add_signed(self.skew_ms()))
    }
}
