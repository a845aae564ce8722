//! The load: callers that increment random counters, one call after the other, and now and then read one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};
use tokio::task::JoinSet;

use super::door::{Door, Fault};
use super::ledger::Ledger;

/// One call of so many is a read.
const READ_EVERY: u32 = 16;
/// How long a caller waits after a call that was refused: what refused it will not be gone sooner.
const PAUSE: Duration = Duration::from_millis(5);

/// What all callers share.
pub(super) struct Run {
    pub(super) ledger: Ledger,
    pub(super) keys: Vec<String>,
    pub(super) door: Door,
    stop: AtomicBool,
}

impl Run {
    /// For counters that no other run has used.
    pub(super) fn new(actors: usize, door: Door) -> Self {
        let run: u64 = StdRng::from_os_rng().random();
        let keys = (0..actors).map(|i| format!("demo-{run:016x}-{i}")).collect();
        Self {
            ledger: Ledger::new(actors),
            keys,
            door,
            stop: AtomicBool::new(false),
        }
    }

    /// Starts the callers.
    pub(super) fn start(self: &Arc<Self>, callers: usize) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for index in 0..callers {
            all.spawn(self.clone().call_on(index));
        }
        all
    }

    /// Lets every caller end after its call.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    async fn call_on(self: Arc<Self>, index: usize) {
        let door = self.door.for_caller(index);
        let mut rng = StdRng::from_os_rng();
        while !self.stop.load(Ordering::Relaxed) {
            let actor = rng.random_range(0..self.ledger.len());
            let fine = if rng.random_ratio(1, READ_EVERY) {
                self.read(&door, actor).await
            } else {
                self.increment(&door, actor).await
            };
            if !fine {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Increments one counter and books what became of it.
    pub(super) async fn increment(&self, door: &Door, actor: usize) -> bool {
        let floor = self.ledger.begin_increment(actor);
        match door.increment(&self.keys[actor]).await {
            Ok((value, place)) => self.ledger.acknowledge(actor, floor, value, &place),
            Err(Fault::Refused) => {
                self.ledger.refuse(actor);
                return false;
            }
            Err(Fault::Open) => {
                self.ledger.leave_open(actor);
                return false;
            }
        }
        true
    }

    async fn read(&self, door: &Door, actor: usize) -> bool {
        let floor = self.ledger.begin_read(actor);
        match door.get_count(&self.keys[actor]).await {
            Ok((value, place)) => self.ledger.read(actor, floor, value, &place),
            Err(Fault::Refused | Fault::Open) => {
                self.ledger.fail_read();
                return false;
            }
        }
        true
    }
}
