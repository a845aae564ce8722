//! Clients that increment and read counters until they are told to stop.
//!
//! Invariant: every call is in the history before it is sent. The amounts of one run are distinct, so that an effect
//! in a counter tells whose it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::doors::Door;
use crate::history::{Answer, Op, Outcome, Recorder};

/// Pause after a call without a value: a client must not spin while a node is down.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Distinct amounts: the number of the call times this, plus something random below.
const AMOUNT_STEP: i64 = 1 << 12;

/// Calls counters and writes down what happens. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    /// The history.
    pub recorder: Recorder,
    amounts: Arc<AtomicU64>,
    seed: u64,
}

impl Calls {
    /// A new history; everything random comes from the seed.
    pub fn new(seed: u64) -> Self {
        Self::on(seed, Recorder::default())
    }

    /// As [`Calls::new`], into this history.
    pub fn on(seed: u64, recorder: Recorder) -> Self {
        Self {
            recorder,
            amounts: Arc::default(),
            seed,
        }
    }

    /// An increment by an amount that no other has.
    pub fn increment(&self) -> Op {
        Op::Increment(self.number())
    }

    /// A number that no other call has.
    pub fn number(&self) -> i64 {
        let number = self.amounts.fetch_add(1, Ordering::Relaxed) + 1;
        let mut rng = StdRng::seed_from_u64(self.seed ^ number.rotate_left(32));
        // Distinct, and sums of few are distinct too, almost always. A run has far less than 2^31 calls.
        i64::try_from(number).unwrap_or(i64::MAX >> 16) * AMOUNT_STEP + rng.random_range(0..AMOUNT_STEP)
    }

    /// Makes one call.
    pub async fn call(&self, door: &Door, client: &str, key: &str, op: Op, timeout: Duration) -> Answer {
        let id = self.recorder.invoke(client, key, op);
        let answer = door.call(key, op, timeout).await;
        self.recorder.complete(id, answer.clone());
        answer
    }

    /// Reads every key until it answers, each through the next of the doors. The reads are in the history.
    pub async fn read_all(&self, doors: &[Door], keys: &[String], timeout: Duration) {
        let mut reads = JoinSet::new();
        for (key, door) in keys.iter().zip(doors.iter().cycle()) {
            let (calls, door, key) = (self.clone(), door.clone(), key.clone());
            reads.spawn(async move {
                let client = format!("final-{}", door.name());
                let read =
                    async { while !calls.call(&door, &client, &key, Op::Read, timeout).await.is_ok() {} };
                // When the time is up, the history shows that the key was not read.
                drop(tokio::time::timeout(timeout, read).await);
            });
        }
        reads.join_all().await;
    }
}

/// One client of a load.
#[derive(Clone)]
pub struct ClientPlan {
    /// Its way into the cluster.
    pub door: Door,
    /// What it calls.
    pub keys: Vec<String>,
    /// How long it waits for one answer.
    pub timeout: Duration,
    /// Pause after each answer.
    pub pause: Duration,
    /// Share of reads, in percent.
    pub reads: u32,
}

impl ClientPlan {
    /// An eager client: 40 % reads.
    pub fn new(door: Door, keys: &[String]) -> Self {
        let (timeout, pause) = (Duration::from_secs(15), Duration::from_millis(2));
        Self {
            door,
            keys: keys.to_vec(),
            timeout,
            pause,
            reads: 40,
        }
    }
}

/// Clients at work.
pub struct Load {
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts the clients.
    pub fn start(calls: &Calls, plans: Vec<ClientPlan>) -> Self {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for (index, plan) in (0u64..).zip(plans) {
            let name = format!("{index}-{}", plan.door.name());
            let rng = StdRng::seed_from_u64(calls.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index);
            clients.spawn(client(calls.clone(), plan, name, rng, stop.clone()));
        }
        Self { stop, clients }
    }

    /// Stops them, each after the answer to its last call.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
    }
}

async fn client(calls: Calls, plan: ClientPlan, name: String, mut rng: StdRng, stop: CancellationToken) {
    // A direct client has only the keys that its node owns; it finds out which.
    let mut refused: BTreeSet<usize> = BTreeSet::new();
    while !stop.is_cancelled() {
        if refused.len() == plan.keys.len() {
            refused.clear();
        }
        let free: Vec<usize> = (0..plan.keys.len()).filter(|i| !refused.contains(i)).collect();
        let index = free[rng.random_range(0..free.len())];
        let op = if rng.random_range(0..100) < plan.reads {
            Op::Read
        } else {
            calls.increment()
        };
        let answer = calls
            .call(&plan.door, &name, &plan.keys[index], op, plan.timeout)
            .await;
        let pause = match answer.outcome {
            Outcome::Ok(_) => plan.pause,
            Outcome::Fail if matches!(plan.door, Door::Direct(_)) => {
                refused.insert(index);
                PAUSE_AFTER_ERROR
            }
            Outcome::Fail | Outcome::Unknown => PAUSE_AFTER_ERROR,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_amount_is_used_twice() {
        let calls = Calls::new(7);
        let mut seen = BTreeSet::new();
        for _ in 0..10_000 {
            let Op::Increment(by) = calls.increment() else {
                unreachable!("an increment")
            };
            assert!(by > 0 && seen.insert(by));
        }
    }
}
