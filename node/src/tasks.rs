//! The one place where a node spawns tasks: they are counted, and all of them end when the node stops.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with a common end. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A set that also ends when `parent` does.
    pub(crate) fn under(parent: &CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: parent.child_token(),
        }
    }

    /// Fires when the tasks should end.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// For libraries that spawn through a tracker.
    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Runs a task that watches [`Tasks::stop`] itself.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(future);
    }

    /// Runs a task that may be dropped at any await when the set ends.
    pub(crate) fn spawn_until_stop<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Asks all tasks to end and waits for them.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
