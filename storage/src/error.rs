//! What can go wrong with a node's bytes, and the poison that stops it from going on with a guess.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Why a node's storage cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory open: stop it, or use another directory.
    #[error("{dir} is in use by {owner}: two nodes cannot share a directory")]
    InUse {
        /// The directory.
        dir: String,
        /// Who has it, as far as known: `process 123`.
        owner: String,
    },
    /// Bytes that were once synced are not what was written: this replica must be rebuilt from its peers under a
    /// new identity, because it may have forgotten a vote or an acknowledged entry.
    #[error("{file} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Which file, relative to the data directory.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Options that contradict each other.
    #[error("storage options: {0}")]
    Options(String),
    /// The disk failed; opening again may succeed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    pub(crate) fn damaged(file: impl Into<String>, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.into(),
            offset,
            reason: reason.into(),
        }
    }
}

/// The storage has failed for good; the reason is the first failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("storage is poisoned: {reason}")]
pub struct Poisoned {
    /// The first failure.
    pub reason: Arc<str>,
}

/// Remembers the first failure after which nothing may be trusted. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Poison {
    tx: Arc<watch::Sender<Option<Arc<str>>>>,
    // Makes check-then-set one step; the watch alone would let a second reason win.
    first: Arc<Mutex<Option<Arc<str>>>>,
}

impl Poison {
    pub(crate) fn new() -> Self {
        Self {
            tx: Arc::new(watch::Sender::new(None)),
            first: Arc::default(),
        }
    }

    /// Poisons the storage, unless it is already, and gives the error to return.
    pub(crate) fn set(&self, reason: impl Into<String>) -> io::Error {
        let mut first = self.first.lock();
        if first.is_none() {
            let reason: Arc<str> = reason.into().into();
            tracing::error!(%reason, "storage is poisoned: this node stops serving");
            metrics::counter!(crate::metric_names::POISONED).increment(1);
            *first = Some(Arc::clone(&reason));
            self.tx.send_replace(Some(reason));
        }
        drop(first);
        self.check().expect_err("it was just set")
    }

    /// Errs when poisoned.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &*self.tx.borrow() {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(Poisoned {
                reason: Arc::clone(reason),
            })),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.tx.subscribe()
    }
}
