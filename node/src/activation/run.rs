//! Runs the futures of turns: first in place, and only if one has to wait, in a task of its own.
//!
//! Most turns never wait; those cost no task, no channel and no timer. A panic of user code ends its turn, nothing else.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use clinch_actor::{BoxFuture, Error, Life, StateArc};
use clinch_types::{ActorId, Epoch, code, group};
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::tasks::Tasks;

/// How long a turn may go on after its node was told to stop.
const STOP_GRACE: Duration = Duration::from_millis(250);

/// How a turn ended.
pub(crate) enum Outcome<T> {
    Done(T),
    /// User code panicked; whatever it held is gone.
    Panicked(String),
    /// Its time was up; whatever it held is gone.
    TimedOut,
}

/// What an exclusive future gives back.
pub(crate) type Exclusive = (StateArc, Result<Vec<u8>, Error>);

/// The end of a turn that ran in its own task.
pub(crate) enum Ended {
    Exclusive {
        id: ActorId,
        number: u64,
        outcome: Outcome<Exclusive>,
    },
    Shared {
        id: ActorId,
        number: u64,
        outcome: Outcome<Result<Vec<u8>, Error>>,
    },
    /// A `run` hook is over.
    Run {
        id: ActorId,
        life: Arc<Life>,
        outcome: Result<(), Error>,
    },
    /// The work beside the turns of an actor that falls asleep is over.
    Quiet { id: ActorId, life: Arc<Life> },
    /// A try to send is over.
    Sent {
        lane: (ActorId, u128),
        number: u64,
        epoch: Epoch,
        result: Result<(), Error>,
    },
}

/// Polls once. `Err` gives the future back for [`spawn`].
pub(crate) fn poll_now<T>(mut future: BoxFuture<'static, T>) -> Result<Outcome<T>, BoxFuture<'static, T>> {
    let mut context = Context::from_waker(Waker::noop());
    // The state is dropped with the future when it panics: nothing half-changed is seen again.
    let polled = std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(&mut future).poll(&mut context)));
    match polled {
        Ok(Poll::Ready(value)) => Ok(Outcome::Done(value)),
        Ok(Poll::Pending) => Err(future),
        Err(panic) => Ok(Outcome::Panicked(panic_text(&*panic))),
    }
}

/// Runs the future to its end in a task, at most until `deadline`, and hands the outcome to `end`.
pub(crate) fn spawn<T, F, E>(tasks: &Tasks, future: BoxFuture<'static, T>, deadline: Instant, end: E)
where
    T: Send + 'static,
    E: FnOnce(Outcome<T>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let stop = tasks.stop().clone();
    tasks.spawn(async move {
        let future = tokio::time::timeout_at(deadline, AssertUnwindSafe(future).catch_unwind());
        let outcome = tokio::select! {
            biased;
            outcome = future => outcome,
            // The node stops and nobody is left to commit the turn: it would only hold up the disk.
            () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => return,
        };
        let outcome = match outcome {
            Ok(Ok(value)) => Outcome::Done(value),
            Ok(Err(panic)) => Outcome::Panicked(panic_text(&*panic)),
            Err(_) => Outcome::TimedOut,
        };
        end(outcome).await;
    });
}

/// The text of a panic, for the log.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text".into())
}

/// The error a caller gets for an action that ran out of time.
pub(crate) fn timed_out(what: &str, limit: std::time::Duration) -> Error {
    Error::new(
        group::ACTOR,
        code::ACTION_TIMED_OUT,
        format!("{what} ran longer than its limit of {} ms", limit.as_millis()),
    )
}
