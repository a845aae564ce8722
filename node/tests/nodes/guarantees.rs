//! The guarantees of DESIGN §2 on running clusters. Kills of whole processes, lost packets and paused clocks are tested
//! elsewhere; here nodes are stopped and started, and clients behave badly.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::common::*;
use clinch::prelude::*;
use clinch_types::{CallError, CallOp, CallRequest, RequestId, SessionId};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

fn registry() -> Registry {
    Registry::new().actor::<Probe>()
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_what_was_acknowledged_survives_a_stop_of_all_nodes_at_once() {
    const ACTORS: usize = 24;
    let mut cluster = TestCluster::start(3, registry()).await;
    // Writers go on until the nodes are gone: what each of them was told last must be there afterwards.
    let told: Arc<Vec<AtomicI64>> = Arc::new((0..ACTORS).map(|_| AtomicI64::new(0)).collect());
    let stopping = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..ACTORS)
        .map(|n| {
            let (told, stopping) = (told.clone(), stopping.clone());
            let probe = cluster.node(n % 3).cluster().get::<Probe>(format!("g1-{n}"));
            tokio::spawn(async move {
                let mut doubts = 0;
                loop {
                    match probe.add(1).timeout(Duration::from_secs(3)).await {
                        Ok(value) => told[n].store(value, Ordering::SeqCst),
                        Err(_) => doubts += 1,
                    }
                    if doubts > 0 && stopping.load(Ordering::SeqCst) {
                        return doubts;
                    }
                }
            })
        })
        .collect();
    let enough = || async { told.iter().all(|a| a.load(Ordering::SeqCst) >= 5) };
    eventually("every writer was acknowledged", enough).await;
    stopping.store(true, Ordering::SeqCst);
    cluster.stop_all().await;
    let mut doubts = Vec::new();
    for writer in writers {
        doubts.push(writer.await.unwrap());
    }
    cluster.start_all(registry()).await;
    for (n, told) in told.iter().enumerate() {
        let value = cluster
            .node((n + 1) % 3)
            .cluster()
            .get::<Probe>(format!("g1-{n}"))
            .get()
            .await
            .unwrap();
        let (told, doubts) = (told.load(Ordering::SeqCst), doubts[n]);
        // Calls that ended in doubt may have come to pass, nothing else.
        assert!(
            (told..=told + doubts).contains(&value),
            "actor {n}: told {told}, {doubts} in doubt, found {value}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g6_g10_without_a_majority_nothing_is_answered_or_told_and_the_reason_is_given() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let target = probe_target("lonely");
    let probe = cluster.node(0).cluster().get::<Probe>("lonely");
    assert_eq!(probe.add(1).await.unwrap(), 1);
    let id = probe.resolve().await.unwrap();
    drop(probe);
    let (shard, owner) = cluster.owner(0, &target).expect("an owner");
    let mut events = cluster.node(owner).events().subscribe(id);
    for index in (0..3).filter(|index| *index != owner) {
        cluster.stop_node(index).await;
    }
    let alone = cluster.node(owner).cluster().clone();
    let probe = alone.get::<Probe>("lonely");
    // Turns run one after the other on what is not committed (rule 2), but nobody hears of them.
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let probe = probe.clone();
            tokio::spawn(async move { probe.add(1).await })
        })
        .collect();
    let read = {
        let probe = probe.clone();
        tokio::spawn(async move { probe.get().await })
    };
    let begun = Instant::now();
    let error = probe.add(100).timeout(Duration::from_secs(2)).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "the call ended after {:?}",
        begun.elapsed()
    );
    let unavailable = error.is("guard", "service_unavailable") || error.is("guard", "request_timeout");
    assert!(unavailable, "{error}");
    assert!(
        error.message().contains(&format!("shard {shard}")),
        "the shard is named: {error}"
    );
    assert_eq!(
        runs("lonely"),
        5,
        "the turns themselves did run, each on what the one before left"
    );
    assert!(calls.iter().all(|c| !c.is_finished()), "no turn was answered");
    assert!(!read.is_finished(), "no read was answered");
    assert!(events.try_recv().is_err(), "no event got out");

    drop((alone, probe));
    cluster.start_all(registry()).await;
    let mut values = BTreeSet::new();
    for call in calls {
        values.insert(call.await.unwrap().unwrap());
    }
    let total = cluster
        .node(0)
        .cluster()
        .get::<Probe>("lonely")
        .get()
        .await
        .unwrap();
    // The call that ended in doubt may have come to pass; the other three did, once each.
    assert!(total == 4 || total == 104, "{total}");
    assert_eq!(values.len(), 3, "each turn has its own answer: {values:?}");
    let seen = read.await.unwrap().unwrap();
    assert!((1..=total).contains(&seen), "the read saw {seen} of {total}");
}

/// Reads and writes through all nodes while the owner is stopped, comes back and takes its shards over again.
#[tokio::test(flavor = "multi_thread")]
async fn g3_g5_g11_calls_stay_linearizable_and_exactly_once_while_owners_change() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let key = "moving";
    let target = probe_target(key);
    assert_eq!(
        cluster.node(0).cluster().get::<Probe>(key).add(0).await.unwrap(),
        0
    );
    let (_, owner) = cluster.owner(0, &target).expect("an owner");
    let done = Arc::new(AtomicBool::new(false));
    let (started, ended) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let others: Vec<usize> = (0..3).filter(|n| *n != owner).collect();
    let mut writers = Vec::new();
    for n in 0..6 {
        let probe = cluster.node(others[n % 2]).cluster().get::<Probe>(key);
        let (done, started, ended) = (done.clone(), started.clone(), ended.clone());
        writers.push(tokio::spawn(async move {
            let (mut answers, mut longest) = (Vec::new(), Duration::ZERO);
            while !done.load(Ordering::SeqCst) {
                started.fetch_add(1, Ordering::SeqCst);
                let begun = Instant::now();
                answers.push(probe.add(1).await.unwrap());
                longest = longest.max(begun.elapsed());
                ended.fetch_add(1, Ordering::SeqCst);
            }
            (answers, longest)
        }));
    }
    let mut readers = Vec::new();
    for &node in &others {
        let probe = cluster.node(node).cluster().get::<Probe>(key);
        let (done, started, ended) = (done.clone(), started.clone(), ended.clone());
        readers.push(tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let least = ended.load(Ordering::SeqCst);
                let value = probe.get().await.unwrap();
                let most = started.load(Ordering::SeqCst);
                assert!(
                    (least..=most).contains(&value),
                    "read {value}: {least} had ended, {most} had started"
                );
            }
        }));
    }
    let wait_for = |more: i64| {
        let ended = ended.clone();
        async move {
            let from = ended.load(Ordering::SeqCst);
            eventually("calls go on", || async {
                ended.load(Ordering::SeqCst) >= from + more
            })
            .await;
        }
    };
    wait_for(30).await;
    cluster.stop_node(owner).await;
    wait_for(30).await;
    let successor = cluster.owner(others[0], &target).expect("an owner").1;
    assert_ne!(successor, owner);
    cluster.start_node(owner).await;
    // The balancer hands the shard back to where it belongs, under load.
    let asked = others[0];
    eventually("the shard is handed back", || async {
        cluster.owner(asked, &target).is_some_and(|o| o.1 == owner)
    })
    .await;
    wait_for(30).await;
    done.store(true, Ordering::SeqCst);
    let mut all = Vec::new();
    for writer in writers {
        let (answers, longest) = writer.await.expect("no call failed");
        assert!(longest < Duration::from_secs(15), "a call took {longest:?}");
        all.extend(answers);
    }
    for reader in readers {
        reader.await.expect("reads are linearizable");
    }
    all.sort_unstable();
    let total = cluster
        .node(owner)
        .cluster()
        .get::<Probe>(key)
        .get()
        .await
        .unwrap();
    assert_eq!(
        all,
        (1..=total).collect::<Vec<_>>(),
        "every call counted once, and every answer its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_new_owner_gives_the_first_answer_and_refuses_late_copies() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let client = RawClient::new(&cluster);
    let id = |seq| RequestId {
        session: SessionId(5),
        seq,
    };
    let first = request_for("g5", "add", (1,), id(1));
    let second = request_for("g5", "add", (1,), id(2));
    cluster.call_owner(&client, &first).await.unwrap();
    let answer = cluster.call_owner(&client, &second).await.unwrap();
    let mut third = request_for("g5", "add", (1,), id(3));
    third.acked_below = 2;
    cluster.call_owner(&client, &third).await.unwrap();
    assert_eq!(runs("g5"), 3);

    let (_, owner) = cluster.owner(0, &probe_target("g5")).expect("an owner");
    cluster.stop_node(owner).await;
    assert_eq!(
        cluster.call_owner(&client, &second).await.unwrap(),
        answer,
        "epoch and version of the first answer"
    );
    let late = cluster
        .call_owner(&client, &first)
        .await
        .unwrap_err()
        .into_actor_error();
    assert!(late.is("guard", "request_settled"), "{late}");
    assert_eq!(runs("g5"), 3);
    // The new owner is no replay of the old one: it does execute what is new.
    let fresh = cluster
        .call_owner(&client, &request_for("g5", "add", (1,), id(4)))
        .await
        .unwrap();
    assert!(
        fresh.meta.epoch > answer.meta.epoch,
        "{:?} after {:?}",
        fresh.meta,
        answer.meta
    );
    assert_eq!(
        (
            runs("g5"),
            clinch_actor::decode::<i64>("reply", &fresh.output).unwrap()
        ),
        (4, 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_who_created_an_actor_hears_so_again_from_a_new_owner() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let client = RawClient::new(&cluster);
    let asked = |op, seq| {
        let session = SessionId(6);
        CallRequest {
            op,
            ..request_for("g5-create", "add", (1,), RequestId { session, seq })
        }
    };
    let create = asked(CallOp::Create, 1);
    let made = cluster.call_owner(&client, &create).await.unwrap();
    assert!(made.meta.created);
    assert_eq!(
        cluster.call_owner(&client, &create).await.unwrap(),
        made,
        "at the same owner"
    );

    let (_, owner) = cluster.owner(0, &probe_target("g5-create")).expect("an owner");
    cluster.stop_node(owner).await;
    assert_eq!(cluster.call_owner(&client, &create).await.unwrap(), made);
    let other = cluster.call_owner(&client, &asked(CallOp::Create, 2)).await;
    let other = other.unwrap_err().into_actor_error();
    assert!(other.is("actor", "duplicate_key"), "{other}");
    let found = cluster
        .call_owner(&client, &asked(CallOp::Resolve, 3))
        .await
        .unwrap();
    assert!(!found.meta.created);
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_g8_events_come_in_commit_order_and_only_of_turns_that_happened() {
    let cluster = TestCluster::start(1, registry()).await;
    let node = cluster.node(0);
    let probe = node.cluster().get::<Probe>("g8");
    let id = probe.resolve().await.unwrap();
    let mut events = node.events().subscribe(id);
    let acknowledged = Arc::new(AtomicI64::new(0));
    let calls = (0..150).map(|n| {
        let (probe, acknowledged) = (probe.clone(), acknowledged.clone());
        async move {
            match n % 5 {
                0 => drop(probe.everything("panic".into()).await.unwrap_err()),
                _ => drop(acknowledged.fetch_max(probe.add(1).await.unwrap(), Ordering::SeqCst)),
            }
        }
    });
    join_all(calls).await;
    let mut versions = Vec::new();
    for expected in 1..=120 {
        let batch = timeout(PATIENCE, events.recv())
            .await
            .expect("an event")
            .expect("the stream");
        let (value,): (i64,) = clinch_actor::decode("event", &batch.events[0].args).unwrap();
        assert_eq!((value, batch.events.len()), (expected, 1));
        versions.push(batch.version.0);
    }
    assert!(
        versions.windows(2).all(|w| w[0] + 1 == w[1]),
        "versions without gap: {versions:?}"
    );
    assert_eq!(acknowledged.load(Ordering::SeqCst), 120);
    assert!(events.try_recv().is_err(), "and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn g9_a_destroyed_actor_stays_gone_and_its_key_starts_anew() {
    let mut cluster = TestCluster::start(1, registry()).await;
    let old = {
        let handle = cluster.node(0).cluster().clone();
        let probe = handle.get::<Probe>("g9");
        assert_eq!(probe.everything("ok".into()).await.unwrap(), 100);
        let old = probe.resolve().await.unwrap();
        probe.end().await.unwrap();
        let gone = handle.get_by_id::<Probe>(old).get().await.unwrap_err();
        assert!(gone.is("actor", "not_found"), "{gone}");
        let gone = probe.existing().resolve().await.unwrap_err();
        assert!(gone.is("actor", "not_found"), "{gone}");
        old
    };
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let handle = cluster.node(0).cluster();
    let (contents, meta) = handle.get::<Probe>("g9").contents().meta().await.unwrap();
    assert_eq!(
        contents,
        (0, vec![], vec![], 0),
        "state, KV and schedules are gone"
    );
    assert!(meta.created);
    assert_ne!(meta.actor, old);
    let gone = handle.get_by_id::<Probe>(old).get().await.unwrap_err();
    assert!(gone.is("actor", "not_found"), "{gone}");
    // Destroyed by its callers, while others keep calling: by key each call finds an actor, old or new.
    let probe = handle.get::<Probe>("g9-busy");
    let calls = (0..60).map(|n| {
        let probe = probe.clone();
        async move {
            match n % 6 {
                0 => probe.destroy().await.or_else(|e| {
                    if e.is("actor", "not_found") {
                        Ok(())
                    } else {
                        Err(e)
                    }
                }),
                _ => probe.add(1).await.map(drop),
            }
        }
    });
    for (n, result) in join_all(calls).await.into_iter().enumerate() {
        assert!(result.is_ok(), "call {n}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_a_circle_of_calls_is_refused_at_once_and_named() {
    let cluster = TestCluster::start(3, registry()).await;
    let handle = cluster.node(1).cluster();
    let begun = Instant::now();
    let circle = vec![
        "circle-b".to_owned(),
        "circle-c".to_owned(),
        "circle-a".to_owned(),
    ];
    let error = handle.get::<Probe>("circle-a").around(circle).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "told after {:?}",
        begun.elapsed()
    );
    assert!(error.is("actor", "deadlock"), "{error}");
    let mut position = 0;
    for key in ["circle-a", "circle-b", "circle-c"] {
        let id = handle.get::<Probe>(key).resolve().await.unwrap().to_string();
        let at = error
            .message()
            .find(&id)
            .unwrap_or_else(|| panic!("{key} is not named in {error}"));
        assert!(at >= position, "the path is named in order: {error}");
        position = at;
    }
    // No circle, no error; and the actors of the refused one serve on.
    handle
        .get::<Probe>("circle-a")
        .around(vec!["circle-b".into(), "circle-c".into()])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_a_call_through_a_node_without_owner_ends_in_time_and_names_the_shard() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let client = RawClient::new(&cluster);
    let target = probe_target("orphan");
    cluster
        .node(0)
        .cluster()
        .get::<Probe>("orphan")
        .add(1)
        .await
        .unwrap();
    let (shard, owner) = cluster.owner(0, &target).expect("an owner");
    // The owner and one more replica go: the last one, to which they hand the shard, has no majority any more.
    let last = (owner + 1) % 3;
    for index in (0..3).filter(|n| *n != last) {
        cluster.stop_node(index).await;
    }
    eventually("its lease is over", || async {
        let orphan = cluster.node(last).cluster().get::<Probe>("orphan");
        orphan.get().timeout(Duration::from_millis(50)).await.is_err()
    })
    .await;
    let begun = Instant::now();
    let error = cluster
        .node(last)
        .cluster()
        .get::<Probe>("orphan")
        .get()
        .timeout(Duration::from_secs(2))
        .await
        .unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "ended after {:?}",
        begun.elapsed()
    );
    assert!(
        error.is("guard", "service_unavailable") || error.is("guard", "request_timeout"),
        "{error}"
    );
    assert!(
        error.message().contains(&format!("shard {shard}")),
        "the shard is named: {error}"
    );
    let raw = client
        .call(
            cluster.node(last).address(),
            &request_for("orphan", "get", (), RequestId::default()),
        )
        .await;
    let refused = raw.unwrap_err();
    assert!(
        matches!(refused, CallError::Moved { .. } | CallError::Unavailable { .. }),
        "nothing was done: {refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_kv_schedules_events_and_state_of_one_turn_appear_together() {
    let mut cluster = TestCluster::start(1, registry()).await;
    let probe = cluster.node(0).cluster().get::<Probe>("g4");
    probe.seed().await.unwrap();
    // Each observer sees all of a turn's effects or none.
    let writer = {
        let probe = probe.clone();
        tokio::spawn(async move {
            for n in 1..=20 {
                let end = if n % 2 == 0 { "ok" } else { "err" };
                let result = probe.everything(end.into()).await;
                assert_eq!(result.is_ok(), end == "ok");
            }
        })
    };
    while !writer.is_finished() {
        let (count, notes, keys, schedules) = probe.contents().await.unwrap();
        assert_eq!(count, 100 * notes.len() as i64);
        assert_eq!(schedules, notes.len());
        assert_eq!(keys, [if notes.is_empty() { "old" } else { "note" }]);
    }
    writer.await.unwrap();
    let before = probe.contents().await.unwrap();
    assert_eq!((before.0, before.3), (1000, 10));
    drop(probe);
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    assert_eq!(
        cluster
            .node(0)
            .cluster()
            .get::<Probe>("g4")
            .contents()
            .await
            .unwrap(),
        before,
        "and after a restart"
    );
}
