//! How much of the applied state waits for a checkpoint, over all groups of a node, and what that may be at most.
//!
//! Invariant: applying waits while there is too much, so memory does not depend on how much faster the log is than the
//! state store. Whoever proposes sees it as slowness, and in the end as `Overloaded`.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::Poison;

/// A failed checkpoint tells nobody: how often those who wait look for one.
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Waiting {
    bytes: AtomicU64,
    max: u64,
    less: Notify,
}

impl Waiting {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            max,
            less: Notify::new(),
        }
    }

    /// What one group has waiting was `before` and is `after`.
    pub(crate) fn moved(&self, before: u64, after: u64) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
            self.less.notify_waiters();
        }
    }

    /// Returns when more may be applied.
    ///
    /// # Errors
    /// When there will be no more checkpoints.
    pub(crate) async fn room(&self, poison: &Poison) -> io::Result<()> {
        loop {
            let less = self.less.notified();
            if self.bytes.load(Ordering::Relaxed) < self.max {
                return Ok(());
            }
            poison.check()?;
            // Looks again either way.
            let _elapsed = tokio::time::timeout(LOOK, less).await;
        }
    }
}
