//! Durable queues: what was pushed is dealt with at least once, in order, whoever pushed it and whatever fails meanwhile.

use std::time::Duration;

use crate::common::{RawClient, TestCluster, eventually, gate, ran, runs};
use clinch::prelude::*;
use clinch::{Client, ClientConfig};
use clinch_transport::{CertBundle, PeerId};
use clinch_types::{ActorId, CallError, CallOp, CallRequest, RequestId, SessionId, Target, limits};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    name: String,
    /// What becomes of it.
    end: String,
}

fn job(name: &str, end: &str) -> Job {
    Job {
        name: name.into(),
        end: end.into(),
    }
}

/// Works off its queue beside its turns.
#[derive(Default, Serialize, Deserialize)]
struct Worker {
    done: Vec<String>,
}

#[clinch::actor(name = "worker", sleep_after = "1s")]
impl Worker {
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        let mut jobs = c.queue::<Job>("jobs").lease(Duration::from_millis(500));
        while let Some(job) = jobs.next().await? {
            ran(&job.name);
            match job.end.as_str() {
                "fail" => return Err(Error::user("broken", "the loop fails")),
                "silent" if runs(&job.name) == 1 => drop(job),
                "retry" if job.retries() < 2 => job.retry(Duration::from_millis(50)).await?,
                "reject" => job.reject(Error::user("rejected", "not this one")).await?,
                "held" => {
                    gate(&job.name)
                        .acquire()
                        .await
                        .expect("gates are never closed")
                        .forget();
                    finish(&c, job).await?;
                }
                _ => finish(&c, job).await?,
            }
        }
        Ok(())
    }

    #[action]
    fn done(&self) -> Vec<String> {
        self.done.clone()
    }

    #[action]
    fn push_own(&mut self, c: &Ctx<Self>, job: Job, fail: bool) -> Result<()> {
        c.queue("jobs").push(&job)?;
        match fail {
            true => Err(Error::user("no", "changed my mind")),
            false => Ok(()),
        }
    }

    #[action]
    fn end(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }

    #[action]
    async fn wait_for_self(&mut self, c: &Ctx<Self>) -> Result<String> {
        c.me().queue("jobs").push_and_wait(job("self", "")).await
    }
}

/// The job's effect and its end are one commit.
async fn finish(c: &Ctx<Worker>, job: clinch::Message<Job>) -> Result<()> {
    c.try_update(move |worker, c| {
        worker.done.push(job.name.clone());
        job.complete_in(c, format!("{} done", job.name))
    })
    .await
}

/// Pushes to workers.
#[derive(Default, Serialize, Deserialize)]
struct Boss;

#[clinch::actor(name = "boss")]
impl Boss {
    #[action]
    async fn order(&mut self, c: &Ctx<Self>, to: String, job: Job) -> Result<String> {
        c.get::<Worker>(to).queue("jobs").push_and_wait(job).await
    }
}

/// Takes messages inside its actions.
#[derive(Default, Serialize, Deserialize)]
struct Shelf;

#[clinch::actor(name = "shelf")]
impl Shelf {
    #[action]
    fn take(&mut self, c: &Ctx<Self>) -> Result<Option<u32>> {
        c.queue("numbers").pop()
    }

    #[action]
    fn left(&self, c: &Ctx<Self>) -> Result<usize> {
        c.queue::<u32>("numbers").len()
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Worker>().actor::<Boss>().actor::<Shelf>()
}

fn worker_target(key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: "worker".into(),
        key: clinch_types::Key::new([key]).expect("a short key"),
        create: Some(Default::default()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_worked_off_in_order_and_wake_their_actor() {
    let cluster = TestCluster::start(1, registry()).await;
    let worker = cluster.node(0).cluster().get::<Worker>("order");
    let jobs = worker.queue::<Job>("jobs");
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(jobs.push(job(name, "")).await.unwrap());
    }
    assert!(ids.is_sorted() && ids[0] < ids[2]);
    worker.push_own(job("never", ""), true).await.unwrap_err();
    worker.push_own(job("d", ""), false).await.unwrap();
    eventually("all are done", || async {
        worker.done().await.unwrap().len() == 4
    })
    .await;
    assert_eq!(worker.done().await.unwrap(), ["a", "b", "c", "d"]);
    let id = worker.resolve().await.unwrap();
    eventually("it sleeps when idle", || async { !cluster.awake(0, id).await }).await;
    jobs.push(job("e", "")).await.unwrap();
    eventually("the message wakes it", || async {
        worker.done().await.unwrap().len() == 5
    })
    .await;
    assert_eq!(runs("never"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_again_after_silence_retry_and_a_loop_that_fails() {
    let cluster = TestCluster::start(1, registry()).await;
    let worker = cluster.node(0).cluster().get::<Worker>("again");
    let jobs = worker.queue::<Job>("jobs");
    jobs.push(job("quiet", "silent")).await.unwrap();
    jobs.push(job("twice", "retry")).await.unwrap();
    eventually("both are done", || async {
        worker.done().await.unwrap().len() == 2
    })
    .await;
    let mut done = worker.done().await.unwrap();
    done.sort();
    assert_eq!(done, ["quiet", "twice"]);
    assert_eq!((runs("quiet"), runs("twice")), (2, 3));
    jobs.push(job("breaks", "fail")).await.unwrap();
    eventually("the loop is begun again, and gets it again", || async {
        runs("breaks") >= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_waits_gets_the_value_or_the_error() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let jobs = handle.get::<Worker>("wait").queue::<Job>("jobs");
    let value: String = jobs.push_and_wait(job("w", "")).await.unwrap();
    assert_eq!(value, "w done");
    let error = jobs
        .push_and_wait::<String>(job("r", "reject"))
        .await
        .unwrap_err();
    assert!(error.is("user", "rejected"), "{error}");
    let value = handle
        .get::<Boss>("b")
        .order("wait".into(), job("x", ""))
        .await
        .unwrap();
    assert_eq!(value, "x done");
    let error = handle.get::<Worker>("self").wait_for_self().await.unwrap_err();
    assert!(error.is("actor", "deadlock"), "{error}");
    // Destroyed while somebody waits.
    let waiting = tokio::spawn({
        let jobs = handle.get::<Worker>("gone").queue::<Job>("jobs");
        async move { jobs.push_and_wait::<String>(job("held-gone", "held")).await }
    });
    eventually("it is worked on", || async { runs("held-gone") == 1 }).await;
    handle.get::<Worker>("gone").end().await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is("actor", "not_found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_a_large_message_and_a_bad_name_are_refused_by_value_and_limit() {
    let cluster = TestCluster::start(1, registry()).await;
    let shelf = cluster.node(0).cluster().get::<Shelf>("full");
    let numbers = shelf.queue::<u32>("numbers");
    for chunk in 0..10 {
        let pushes = (0..100).map(|n| numbers.push(chunk * 100 + n).into_future());
        for pushed in futures_util::future::join_all(pushes).await {
            pushed.unwrap();
        }
    }
    let error = numbers.push(0).await.unwrap_err();
    assert!(
        error.is("queue", "full") && error.message().contains("1000"),
        "{error}"
    );
    assert_eq!(shelf.left().await.unwrap(), limits::QUEUE_MESSAGES_MAX);
    assert!(shelf.take().await.unwrap().is_some());
    numbers.push(0).await.unwrap();

    let client = RawClient::new(&cluster);
    let push = |queue: &str, body: Vec<u8>, seq| CallRequest {
        op: CallOp::Push {
            queue: queue.into(),
            body,
            wait: false,
        },
        target: worker_target("raw"),
        ..crate::common::request_for(
            "raw",
            "",
            (),
            RequestId {
                session: SessionId(1),
                seq,
            },
        )
    };
    let max = limits::QUEUE_MESSAGE_MAX;
    for (request, part) in [
        (push("jobs", vec![0; max + 1], 1), "65537"),
        (push("", vec![0xf6], 2), "length 0"),
        (push(&"x".repeat(129), vec![0xf6], 3), "129"),
    ] {
        match client.call(cluster.node(0).address(), &request).await {
            Err(CallError::Failed(error)) => assert!(error.message.contains(part), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    client
        .call(cluster.node(0).address(), &push("jobs", vec![0xf6; max], 4))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_push_that_is_repeated_is_one_message() {
    let cluster = TestCluster::start(1, registry()).await;
    let client = RawClient::new(&cluster);
    let body = clinch_actor::encode(&5u32).unwrap();
    let request = CallRequest {
        op: CallOp::Push {
            queue: "numbers".into(),
            body,
            wait: false,
        },
        target: Target::Key {
            namespace: "default".into(),
            name: "shelf".into(),
            key: clinch_types::Key::new(["repeated"]).unwrap(),
            create: Some(Default::default()),
        },
        ..crate::common::request_for(
            "",
            "",
            (),
            RequestId {
                session: SessionId(77),
                seq: 1,
            },
        )
    };
    let first = client.call(cluster.node(0).address(), &request).await.unwrap();
    let second = client.call(cluster.node(0).address(), &request).await.unwrap();
    assert_eq!(first, second);
    let shelf = cluster.node(0).cluster().get::<Shelf>("repeated");
    assert_eq!(shelf.left().await.unwrap(), 1);
    assert_eq!(
        (shelf.take().await.unwrap(), shelf.take().await.unwrap()),
        (Some(5), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_messages_survive_a_change_of_owner_and_their_senders_wait_on() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let (_, owner) = cluster.owner(0, &worker_target("moves")).unwrap();
    let other = (owner + 1) % 3;
    // A program outside of the cluster.
    let identity = CertBundle::load(&cluster.certs(), &PeerId::Client("test".into())).unwrap();
    let seeds = vec![cluster.node(other).address().to_string()];
    let client = Client::connect(ClientConfig::new(identity, seeds)).await.unwrap();
    let jobs = client.cluster().get::<Worker>("moves").queue::<Job>("jobs");
    let waiting = tokio::spawn({
        let held = jobs.push_and_wait::<String>(job("held-moves", "held"));
        async move { held.await }
    });
    eventually("it is worked on", || async { runs("held-moves") == 1 }).await;
    for n in 0..5 {
        jobs.push(job(&format!("m{n}"), "")).await.unwrap();
    }
    cluster.stop_node(owner).await;
    // Nobody calls the worker: the next owner wakes it for its messages.
    eventually("it is worked on again", || async { runs("held-moves") >= 2 }).await;
    gate("held-moves").add_permits(10);
    assert_eq!(waiting.await.unwrap().unwrap(), "held-moves done");
    let worker = cluster.node(other).cluster().get::<Worker>("moves");
    eventually("all are done", || async {
        worker.done().await.unwrap().len() == 6
    })
    .await;
    assert_eq!(
        worker.done().await.unwrap(),
        ["held-moves", "m0", "m1", "m2", "m3", "m4"],
        "each once, in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_no_actor_gets_no_message() {
    let cluster = TestCluster::start(1, registry()).await;
    let worker = cluster.node(0).cluster().get_by_id::<Worker>(ActorId::default());
    let error = worker.queue("jobs").push(job("x", "")).await.unwrap_err();
    assert!(error.is("actor", "not_found"), "{error}");
}
