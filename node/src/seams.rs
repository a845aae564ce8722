//! What a node takes from its surroundings: time, randomness, sockets, disks. Production is the system; a simulation
//! gives its own.
//!
//! Invariant: a node started on a [`Platform`] of a simulation starts no thread and asks the system for nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use clinch_storage::{Disk, StateStore, StorageOptions};
use clinch_transport::{CertBundle, Sockets, UdpSockets};
use clinch_types::{Clock, WallMs};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

/// The surroundings of one start of a node.
pub struct Platform {
    /// Wall and monotonic time. Default: the system's.
    pub clock: Arc<dyn Clock>,
    /// Where UDP sockets and addresses come from. Default: the system's.
    pub sockets: Arc<dyn Sockets>,
    /// Seed of everything the node draws at random; must differ from start to start. Default: drawn from the system.
    pub seed: Option<u64>,
    /// Who the node is. Default: what lies in `cert-dir`.
    pub identity: Option<CertBundle>,
    /// Where its bytes lie. Default: files in `data-dir`, with sled.
    pub store: Option<PlatformStore>,
}

/// A disk and a state store given to a node in place of its data directory.
#[derive(Debug)]
pub struct PlatformStore {
    /// Carries the log and the snapshots.
    pub disk: Arc<dyn Disk>,
    /// Carries the checkpoints.
    pub state: Arc<dyn StateStore>,
    /// With [`clinch_storage::Driver::Task`], the log and the checkpoints run as tasks: no thread is started.
    pub options: StorageOptions,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            sockets: Arc::new(UdpSockets::default()),
            seed: None,
            identity: None,
            store: None,
        }
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

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

    /// A seed for a part of the node that keeps a generator of its own.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.0.lock().random()
    }

    pub(crate) fn u128(&self) -> u128 {
        self.0.lock().random()
    }
}
