//! Durable queues as actors use them.

use std::time::Duration;

use clinch_actor::{ActionKind, Ctx, Error, Event, MessageId, Origin, Queue, Result, Settle};
use clinch_types::{CallOp, limits};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Default, Serialize, Deserialize)]
struct Worker {
    done: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
struct Job {
    name: String,
}

#[clinch::actor(name = "worker")]
impl Worker {
    #[action]
    fn add(&mut self, c: &Ctx<Self>, queue: String, name: String) -> Result<()> {
        c.queue(queue).push(&Job { name })
    }

    #[action]
    fn take_two(&mut self, c: &Ctx<Self>, fail: bool) -> Result<usize> {
        let jobs = c.queue::<Job>("jobs");
        while self.done.len() < 2
            && let Some(job) = jobs.pop()?
        {
            self.done.push(job.name);
        }
        match fail {
            true => Err(Error::user("no", "changed my mind")),
            false => jobs.len(),
        }
    }

    #[action]
    async fn wait_inside(&mut self, c: &Ctx<Self>) -> Result<bool> {
        Ok(c.queue::<Job>("jobs").next().await?.is_some())
    }
}

async fn with_jobs(names: &[&str]) -> std::sync::Arc<Node> {
    let node = Node::start::<Worker>().await;
    for name in names {
        node.call::<()>("add", ("jobs", *name)).await.unwrap();
    }
    node
}

/// Work beside the turns.
fn beside(node: &std::sync::Arc<Node>) -> Ctx<Worker> {
    Ctx::new(node.turn(ActionKind::Interleaved, Origin::Background, None))
}

fn jobs(node: &std::sync::Arc<Node>) -> Queue<Job> {
    beside(node).queue("jobs")
}

fn waiting(node: &Node) -> usize {
    node.store.lock().messages.len()
}

#[tokio::test]
async fn pop_takes_messages_with_the_turn_in_order_and_gives_them_back_when_it_fails() {
    let node = with_jobs(&["a", "b", "c"]).await;
    node.call::<usize>("takeTwo", (true,)).await.unwrap_err();
    assert_eq!(waiting(&node), 3);
    node.call::<usize>("takeTwo", (false,)).await.unwrap();
    assert_eq!(waiting(&node), 1);
    assert_eq!(
        node.store.lock().messages[0].body,
        clinch_actor::encode(&Job { name: "c".into() }).unwrap()
    );
    let error = node.call::<bool>("waitInside", ()).await.unwrap_err();
    assert!(
        error.internal_cause().unwrap().to_string().contains("`pop`"),
        "{error}"
    );
    let error = jobs(&node).pop().unwrap_err();
    assert!(
        error.internal_cause().unwrap().to_string().contains("`next`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_is_worked_on_by_one_and_comes_again_when_its_lease_ends() {
    let node = with_jobs(&["a", "b"]).await;
    let mut queue = jobs(&node).lease(Duration::from_secs(5));
    let first = queue.next().await.unwrap().unwrap();
    let second = jobs(&node).next().await.unwrap().unwrap();
    assert_eq!((first.name.as_str(), second.name.as_str()), ("a", "b"));
    assert!(node.life.is_held(), "messages are worked on");
    assert!(queue.try_next().await.unwrap().is_none(), "both are taken");
    second.ack().await.unwrap();
    assert_eq!(waiting(&node), 1);
    // The worker of the first one is silent for too long.
    let again = queue.next().await.unwrap().unwrap();
    assert_eq!((again.id(), again.name.as_str()), (first.id(), "a"));
    let error = first.ack().await.unwrap_err();
    assert!(error.is("queue", "lease_lost"), "{error}");
    again.ack().await.unwrap();
    assert!(
        queue
            .next_within(Duration::from_secs(60))
            .await
            .unwrap()
            .is_none()
    );
    assert!(!node.life.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_message_given_back_comes_later_and_counts_its_tries() {
    let node = with_jobs(&["a"]).await;
    let mut queue = jobs(&node);
    queue
        .next()
        .await
        .unwrap()
        .unwrap()
        .retry(Duration::from_secs(30))
        .await
        .unwrap();
    assert!(queue.try_next().await.unwrap().is_none());
    node.now.fetch_add(30_000, std::sync::atomic::Ordering::Relaxed);
    let again = queue.next().await.unwrap().unwrap();
    assert_eq!(again.retries(), 1);
    again.reject(Error::user("bad", "no good")).await.unwrap();
    assert_eq!(waiting(&node), 0);
    let last = node.last().queue;
    assert!(
        matches!(&last[..], [clinch_actor::QueueOp::Settle { how: Settle::Reject(e), .. }] if e.code == "bad")
    );
}

#[tokio::test]
async fn settled_in_a_turn_a_message_and_its_effect_are_one() {
    let node = with_jobs(&["a"]).await;
    let c = beside(&node);
    let job = c.queue::<Job>("jobs").next().await.unwrap().unwrap();
    let twin = job.clone();
    let failed = c.try_update(move |worker, c| {
        worker.done.push(twin.name.clone());
        twin.ack_in(c)?;
        Err::<(), _>(Error::user("no", "changed my mind"))
    });
    failed.await.unwrap_err();
    assert_eq!(waiting(&node), 1);
    c.try_update(move |worker, c| {
        worker.done.push(job.name.clone());
        job.complete_in(c, 7)
    })
    .await
    .unwrap();
    assert_eq!(waiting(&node), 0);
    assert_eq!(c.read(|worker| worker.done.clone()).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_receiver_waits_for_messages_prefers_the_first_queue_and_ends_with_the_actor() {
    let node = with_jobs(&[]).await;
    let waiter = tokio::spawn({
        let mut queue = beside(&node).queue::<Job>("urgent").or("jobs");
        async move {
            let mut names = Vec::new();
            while let Some(job) = queue.next().await.unwrap() {
                names.push(job.name.clone());
                job.ack().await.unwrap();
            }
            names
        }
    });
    tokio::task::yield_now().await;
    node.call::<()>("add", ("jobs", "late")).await.unwrap();
    while waiting(&node) > 0 {
        tokio::task::yield_now().await;
    }
    node.life.end();
    assert_eq!(waiter.await.unwrap(), ["late"]);

    let node = with_jobs(&["later"]).await;
    node.call::<()>("add", ("urgent", "now")).await.unwrap();
    let mut queue = beside(&node).queue::<Job>("urgent").or("jobs");
    let batch = queue.next_batch(5).await.unwrap();
    let names: Vec<_> = batch.iter().map(|job| (job.queue(), job.name.as_str())).collect();
    assert_eq!(names, [("urgent", "now"), ("jobs", "later")]);
}

#[tokio::test]
async fn a_message_of_another_shape_is_rejected_not_received_for_ever() {
    let node = with_jobs(&["a"]).await;
    let mut numbers = beside(&node).queue::<u32>("jobs");
    assert!(numbers.try_next().await.unwrap().is_none());
    assert_eq!(waiting(&node), 0);
}

#[tokio::test]
async fn pushing_from_elsewhere_is_a_call_that_can_be_sent() {
    let node = Node::start::<Worker>().await;
    let c = Ctx::<Worker>::new(node.turn(ActionKind::Exclusive, Origin::Call, None));
    *node.answer.lock() = Ok(clinch_actor::encode(&MessageId(9)).unwrap());
    let jobs = c.get::<Worker>("other").queue::<Job>("jobs");
    assert_eq!(jobs.push(Job { name: "a".into() }).await.unwrap(), MessageId(9));
    let sent = node.store.lock().outgoing[0].op.clone();
    assert!(matches!(sent, CallOp::Push { queue, wait: false, .. } if queue == "jobs"));
    let _id: u64 = jobs.push_and_wait(Job { name: "b".into() }).await.unwrap();
    assert!(matches!(
        node.store.lock().outgoing[1].op,
        CallOp::Push { wait: true, .. }
    ));
    jobs.push(Job { name: "c".into() }).send().unwrap();
    let error = jobs
        .push_and_wait::<()>(Job { name: "d".into() })
        .send()
        .unwrap_err();
    assert!(error.is("actor", "invalid_request"), "{error}");
    for (name, len, code) in [
        ("", 1, "invalid_name"),
        ("jobs", limits::QUEUE_MESSAGE_MAX + 1, "message_too_large"),
    ] {
        let job = Job {
            name: "x".repeat(len),
        };
        let error = c
            .get::<Worker>("b")
            .queue::<Job>(name)
            .push(job)
            .await
            .unwrap_err();
        assert!(error.is("queue", code), "{error}");
    }
}
