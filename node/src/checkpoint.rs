//! The checkpoints of a node: what is applied goes to the state store, then the log below it may go.
//!
//! A checkpoint writes and syncs, so it has a thread of its own (in simulation, a task); what follows from it (snapshot
//! marks, purges) is asked of the groups by a task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clinch_storage::{Driver, GroupId, Storage};
use clinch_types::{ShardId, planted};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::control::Control;
use crate::shard::Group;
use crate::tasks::Tasks;

/// How often the amount that waits is looked at; a checkpoint is due when it is large, or the interval is over.
const LOOK: Duration = Duration::from_millis(500);

/// The checkpoints of a running node.
pub(crate) struct Checkpoints {
    gone: oneshot::Receiver<()>,
}

impl Checkpoints {
    /// Waits until the thread has let go of the store; it ends with the node's tasks.
    pub(crate) async fn ended(self) {
        // An error means that the thread is gone already.
        let _ended = self.gone.await;
    }
}

/// Starts the checkpoints of a node; they end with its tasks.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn start(
    storage: Storage,
    driver: Driver,
    every: Duration,
    tasks: &Tasks,
    control: Control,
    groups: Arc<Mutex<BTreeMap<ShardId, Group>>>,
) -> std::io::Result<Checkpoints> {
    let (gone_tx, gone) = oneshot::channel();
    let (done_tx, done_rx) = mpsc::channel(1);
    match driver {
        Driver::Thread => {
            let (stop_tx, stop_rx) = std::sync::mpsc::channel::<()>();
            let worker = storage.clone();
            std::thread::Builder::new()
                .name("clinch-checkpoint".into())
                .spawn(move || {
                    // Ends when the other end is dropped, with the task below.
                    let mut rhythm = Rhythm::new(every);
                    while stop_rx.recv_timeout(rhythm.look) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                    {
                        if rhythm.due(&worker) && !take(&worker, &done_tx) {
                            break;
                        }
                    }
                    drop(worker);
                    // Nobody waits for the end unless the node stops in order.
                    let _unheard = gone_tx.send(());
                })?;
            tasks.spawn_until_stop(async move {
                let _stop = stop_tx;
                follow(storage, done_rx, control, groups).await;
            });
        }
        Driver::Task => {
            let worker = storage.clone();
            tasks.spawn_until_stop(async move {
                // Dropped at the end of the task, whatever ends it.
                let _gone = gone_tx;
                let mut rhythm = Rhythm::new(every);
                loop {
                    tokio::time::sleep(rhythm.look).await;
                    if planted!("purge-early") {
                        let _full = done_tx.try_send(());
                    }
                    if rhythm.due(&worker) && !take(&worker, &done_tx) {
                        return;
                    }
                }
            });
            tasks.spawn_until_stop(follow(storage, done_rx, control, groups));
        }
    }
    Ok(Checkpoints { gone })
}

/// When the next checkpoint is due, counted in looks.
struct Rhythm {
    look: Duration,
    looks: u32,
    seen: u32,
}

impl Rhythm {
    fn new(every: Duration) -> Self {
        let looks = every.as_millis().div_ceil(LOOK.as_millis()).max(1) as u32;
        Self {
            look: every / looks,
            looks,
            seen: 0,
        }
    }

    fn due(&mut self, storage: &Storage) -> bool {
        self.seen += 1;
        let due = self.seen >= self.looks || storage.checkpoint_presses();
        if due {
            self.seen = 0;
        }
        due
    }
}

/// Takes one checkpoint; `false` when there can be no more.
fn take(storage: &Storage, done: &mpsc::Sender<()>) -> bool {
    if let Err(error) = storage.checkpoint_blocking() {
        tracing::error!(%error, "the checkpoint failed");
        return false;
    }
    // Full: the task is still busy with the last one, and will look at the newest numbers anyway.
    let _full = done.try_send(());
    true
}

/// Lets go of log that is no longer needed, after each checkpoint.
async fn follow(
    storage: Storage,
    mut done: mpsc::Receiver<()>,
    control: Control,
    groups: Arc<Mutex<BTreeMap<ShardId, Group>>>,
) {
    let mut purged: BTreeMap<GroupId, u64> = BTreeMap::new();
    while done.recv().await.is_some() {
        let mut all: Vec<Group> = groups.lock().values().cloned().collect();
        all.push(control.group().clone());
        for group in all {
            let Some(target) = storage.purge_target(group.id) else {
                continue;
            };
            let last = purged.entry(group.id).or_insert(0);
            if target <= *last {
                continue;
            }
            // openraft purges only below a snapshot; ours is the checkpoint just taken.
            let asked = async {
                group.raft.trigger().snapshot().await?;
                group.raft.trigger().purge_log(target).await
            };
            match asked.await {
                Ok(()) => *last = target,
                Err(error) => tracing::warn!(group = %group.id, %error, "the log could not be purged"),
            }
        }
    }
}
