//! A durable job queue: jobs are kept until a worker has dealt with them, tried again when they fail, and their senders
//! may wait for the result.

use std::time::Duration;

use clinch::Message;
use clinch::prelude::*;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    text: String,
    fail_times: u32,
}

/// One queue with its workers.
#[derive(Default, Serialize, Deserialize)]
struct Shouter {
    done: u64,
}

/// Jobs worked on at the same time.
const WORKERS: usize = 3;

#[clinch::actor(name = "shouter")]
impl Shouter {
    /// Runs beside the actions as long as the actor is awake; a message wakes it.
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        try_join_all((0..WORKERS).map(|_| work(c.clone())))
            .await
            .map(drop)
    }

    #[action]
    fn done(&self) -> u64 {
        self.done
    }
}

async fn work(c: Ctx<Shouter>) -> Result<()> {
    let mut jobs = c.queue::<Job>("jobs").lease(Duration::from_secs(30));
    // `None` when the actor is about to stop.
    while let Some(job) = jobs.next().await? {
        let pause = Duration::from_millis(20 << job.retries());
        match shout(&job).await {
            // The count and the end of the job are one commit: never one without the other.
            Some(loud) => {
                c.try_update(move |shouter, c| {
                    shouter.done += 1;
                    job.complete_in(c, loud)
                })
                .await?;
            }
            None if job.retries() < 5 => job.retry(pause).await?,
            None => {
                job.reject(Error::user("gave_up", "the job failed six times"))
                    .await?
            }
        }
    }
    Ok(())
}

/// The work itself. It may be done more than once, so it should not mind: give the outside world `job.id()`.
async fn shout(job: &Message<Job>) -> Option<String> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    (job.retries() >= job.fail_times).then(|| job.text.to_uppercase())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new().actor::<Shouter>().start_local().await?;
    let shouter = node.cluster().get::<Shouter>("main");
    let jobs = shouter.queue::<Job>("jobs");
    let job = |text: &str, fail_times| Job {
        text: text.into(),
        fail_times,
    };
    for n in 0..10 {
        jobs.push(job(&format!("job {n}"), 0)).await?;
    }
    let loud: String = jobs.push_and_wait(job("hello", 2)).await?;
    println!("{loud}");
    let error = jobs.push_and_wait::<String>(job("never", 100)).await;
    println!("{}", error.err().map_or_else(|| "?".into(), |e| e.to_string()));
    while shouter.done().await? < 11 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("done: {}", shouter.done().await?);
    node.stop().await;
    Ok(())
}
