//! One activation as its turns share it: its variables, its end, and the work beside its turns.
//!
//! Invariant: a life ends once and does not begin again; what is told to end with it (`stop`) is told before its last
//! hook runs.
//! Not here: who ends it, and when (node).

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::queue::Leases;
use crate::{ActorType, Error};

/// One activation. Small, because there is one for each actor in memory: what most never need is made when first asked
/// for.
pub struct Life {
    actor_type: Arc<dyn ActorType>,
    /// Ends with the ownership of the shard.
    parent: CancellationToken,
    rest: OnceLock<Box<Rest>>,
}

/// What an actor has that is watched from outside of its turns, has variables, queues or work beside them.
#[derive(Default)]
struct Rest {
    stop: OnceLock<CancellationToken>,
    vars: OnceLock<Arc<dyn Any + Send + Sync>>,
    leases: OnceLock<Box<Leases>>,
    tasks: AtomicUsize,
    holds: AtomicUsize,
    running: AtomicBool,
    quiet: Notify,
}

impl Life {
    /// A new one; it ends with `parent` at the latest.
    pub fn new(actor_type: Arc<dyn ActorType>, parent: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            actor_type,
            parent,
            rest: OnceLock::new(),
        })
    }

    fn rest(&self) -> &Rest {
        self.rest.get_or_init(Box::default)
    }

    /// The type of the actor.
    pub fn actor_type(&self) -> &Arc<dyn ActorType> {
        &self.actor_type
    }

    /// Fires when the activation ends: sleep, move, destruction, stop of the node.
    pub fn stop(&self) -> &CancellationToken {
        // Made when first asked for: most actors never ask, and a child costs its parent an entry.
        self.rest().stop.get_or_init(|| self.parent.child_token())
    }

    /// Fires when its node may not run it any more: the shard has another owner, or the node stops. Sooner than
    /// [`Life::stop`] never, and without time to finish anything.
    pub fn lost(&self) -> &CancellationToken {
        &self.parent
    }

    /// Ends it: everything that watches [`Life::stop`] is told.
    pub fn end(&self) {
        self.stop().cancel();
    }

    /// Sets the variables; the first call counts.
    pub fn set_vars(&self, vars: Arc<dyn Any + Send + Sync>) {
        // A second start of the same life would be the node's mistake; the first variables may be in use.
        drop(self.rest().vars.set(vars));
    }

    /// The variables, once they are made.
    pub(crate) fn vars(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.rest.get()?.vars.get()
    }

    /// The leases on messages of the actor's queues.
    pub fn leases(&self) -> &Leases {
        self.rest().leases.get_or_init(Box::default)
    }

    /// A commit may have brought messages: whoever waits for one looks again.
    pub fn queue_changed(&self) {
        if let Some(leases) = self.rest.get().and_then(|rest| rest.leases.get()) {
            leases.changed();
        }
    }

    /// Counts a task beside the turns. `hold` keeps the actor awake as long as it runs.
    pub fn task(self: &Arc<Self>, hold: bool) -> LifeTask {
        let rest = self.rest();
        rest.tasks.fetch_add(1, Ordering::AcqRel);
        if hold {
            rest.holds.fetch_add(1, Ordering::AcqRel);
        }
        LifeTask {
            life: self.clone(),
            hold,
        }
    }

    /// Whether the `run` hook is running.
    pub fn is_running(&self) -> bool {
        self.rest
            .get()
            .is_some_and(|rest| rest.running.load(Ordering::Acquire))
    }

    /// Notes that the `run` hook has begun or ended.
    pub fn set_running(&self, running: bool) {
        self.rest().running.store(running, Ordering::Release);
    }

    /// Whether something wants the actor to stay awake: work it promised to wait for, or a message being worked on.
    pub fn is_held(&self) -> bool {
        self.rest.get().is_some_and(|rest| {
            rest.holds.load(Ordering::Acquire) > 0 || rest.leases.get().is_some_and(|l| l.any())
        })
    }

    /// Whether tasks run beside the turns.
    pub fn has_tasks(&self) -> bool {
        self.rest
            .get()
            .is_some_and(|rest| rest.tasks.load(Ordering::Acquire) > 0)
    }

    /// Returns when no task runs beside the turns.
    pub async fn quiet(&self) {
        loop {
            let quiet = self.rest().quiet.notified();
            if !self.has_tasks() {
                return;
            }
            quiet.await;
        }
    }

    pub(crate) fn own_action(&self, name: &str) -> Result<(), Error> {
        use clinch_types::group::SCHEDULE;
        let kind = self
            .actor_type
            .action(name)
            .map(|i| self.actor_type.actions()[i].kind);
        match kind {
            Some(crate::ActionKind::Exclusive) => Ok(()),
            Some(crate::ActionKind::Shared | crate::ActionKind::Interleaved) => {
                let message = format!(
                    "schedule actions with `&mut self`: `{name}` has none, and could not take effect exactly once"
                );
                Err(Error::new(SCHEDULE, "not_exclusive", message))
            }
            None => {
                let message = format!(
                    "actor type {} has no action {name:?} to schedule",
                    self.actor_type.name()
                );
                Err(Error::new(SCHEDULE, "unknown_action", message))
            }
        }
    }
}

/// A task beside the turns; ends when dropped.
pub struct LifeTask {
    life: Arc<Life>,
    hold: bool,
}

impl Drop for LifeTask {
    fn drop(&mut self) {
        let rest = self.life.rest();
        if self.hold {
            rest.holds.fetch_sub(1, Ordering::AcqRel);
        }
        if rest.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            rest.quiet.notify_waiters();
        }
    }
}
