//! A queue, and ways to deal with its messages.

use std::time::Duration;

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Failure, Told};

/// The queue.
const JOBS: &str = "jobs";
/// How long a received message is kept from others.
const LEASE: Duration = Duration::from_millis(400);

/// Works off its queue when it is told to.
#[derive(Default, Serialize, Deserialize)]
pub struct Worker {
    /// Dealt with in the commit that removed the message: exactly once.
    done: Vec<i64>,
    /// Dealt with before the message was removed: at least once.
    worked: Vec<i64>,
}

#[clinch::actor(name = "worker", sleep_after = "2s", action_timeout = "900ms")]
impl Worker {
    /// Pushes from the inside.
    #[action]
    fn add(&mut self, c: &Ctx<Self>, job: i64) -> Result<Told> {
        c.queue(JOBS).push(&job)?;
        Ok((job, Vec::new()))
    }

    /// The next message, taken out with this turn; nothing: the queue is empty.
    #[action]
    fn pop(&mut self, c: &Ctx<Self>) -> Result<Told> {
        let job = c.queue::<i64>(JOBS).pop()?;
        self.done.extend(job);
        Ok((0, Vec::from_iter(job)))
    }

    /// The next message under a lease, dealt with in one of five ways.
    #[action]
    async fn work(c: Ctx<Self>, how: i64) -> Result<Told> {
        let mut jobs = c.queue::<i64>(JOBS).lease(LEASE);
        let Some(message) = jobs.try_next().await? else {
            return Ok((how, Vec::new()));
        };
        let job = *message;
        if how == 4 {
            // Somebody else may have it by now: then this must fail.
            tokio::time::sleep(LEASE + Duration::from_millis(job.unsigned_abs() % 200)).await;
        }
        match how {
            // Effect and end are one commit.
            0 | 4 => {
                let settle = move |worker: &mut Self, c: &Ctx<Self>| {
                    worker.done.push(job);
                    message.ack_in(c)
                };
                c.try_update(settle).await?;
            }
            // The effect, then the end.
            1 => {
                c.update(move |worker| worker.worked.push(job)).await?;
                message.ack().await?;
            }
            2 => message.retry(Duration::from_millis(100)).await?,
            // Dropped without a word: it comes again when the lease ends.
            _ => drop(message),
        }
        Ok((how, vec![job]))
    }

    /// How much was done; how many numbers tell that, those, and what was worked on.
    #[action]
    fn works(&self) -> Told {
        let mut list = vec![self.done.len() as i64];
        list.extend(&self.done);
        list.extend(&self.worked);
        (self.done.len() as i64, list)
    }

    /// Pushes and takes, and then fails.
    #[action]
    async fn spoil(&mut self, c: &Ctx<Self>, job: i64) -> Result<Told> {
        self.done.push(job);
        c.queue(JOBS).push(&job)?;
        let taken = c.queue::<i64>(JOBS).pop()?;
        self.done.extend(taken);
        Failure::of(job).strike().await
    }
}
