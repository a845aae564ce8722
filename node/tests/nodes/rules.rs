//! The rules of an action's life (DESIGN §5), each on a running cluster.

use std::time::Duration;

use crate::common::*;
use clinch::prelude::*;
use clinch_types::{Reaction, RequestId, SessionId};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

/// Tests that count entries must be alone with the process's metrics.
static METRICS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

fn registry() -> Registry {
    Registry::new().actor::<Probe>()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule1_entries_carry_effects_so_replay_needs_no_user_code() {
    let _shared = METRICS.read().await;
    let mut cluster = TestCluster::start(3, registry()).await;
    let probe = cluster.node(0).cluster().get::<Probe>("rule1");
    assert_eq!(probe.add(5).await.unwrap(), 5);
    assert_eq!(probe.add(6).await.unwrap(), 11);
    drop(probe);
    assert_eq!(runs("rule1"), 2, "user code ran at the owner alone");

    // Every replica replays its log without knowing the type: nothing to run, and nothing runs.
    cluster.stop_all().await;
    cluster.start_all(Registry::new().actor::<Counter>()).await;
    let target = probe_target("rule1");
    let slot = target.slot();
    let listed = cluster
        .call_owner(
            &RawClient::new(&cluster),
            &request_for("rule1", "get", (), RequestId::default()),
        )
        .await;
    let error = listed.unwrap_err().into_actor_error();
    assert!(error.is("actor", "not_registered"), "{error}");

    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let (value, meta) = cluster
        .node(2)
        .cluster()
        .get::<Probe>("rule1")
        .get()
        .meta()
        .await
        .unwrap();
    assert_eq!(value, 11);
    assert!(!meta.created);
    assert_eq!(meta.actor.slot(), slot);
    assert_eq!(
        runs("rule1"),
        2,
        "two restarts of three replicas ran no user code"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rule2_turns_start_before_the_previous_commits_and_answers_come_in_order() {
    let _shared = METRICS.read().await;
    let cluster = TestCluster::start(1, registry()).await;
    let probe = cluster.node(0).cluster().get::<Probe>("rule2");
    let calls = (0..200).map(|_| {
        let probe = probe.clone();
        async move {
            let (value, meta) = probe.add(1).meta().await.unwrap();
            (value, meta, runs("rule2"))
        }
    });
    let mut answers = join_all(calls).await;
    answers.sort_unstable_by_key(|(value, ..)| *value);
    let values: Vec<i64> = answers.iter().map(|(value, ..)| *value).collect();
    assert_eq!(
        values,
        (1..=200).collect::<Vec<_>>(),
        "each turn saw the one before"
    );
    // Turns that waited for the commit before them could be ahead of the answers by one.
    let ahead = answers
        .iter()
        .map(|(value, _, runs)| *runs as i64 - value)
        .max()
        .unwrap();
    assert!(
        ahead >= 20,
        "user code was ahead of the answers by {ahead} turns at most"
    );
    assert!(
        answers
            .windows(2)
            .all(|w| w[0].1.version.0 + 1 == w[1].1.version.0),
        "versions are without gap"
    );
    assert_eq!(runs("rule2"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule2_a_turn_lost_with_its_owner_is_told_so_and_may_be_sent_again() {
    let _shared = METRICS.read().await;
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let client = RawClient::new(&cluster);
    let id = |seq| RequestId {
        session: SessionId(2),
        seq,
    };
    cluster
        .call_owner(&client, &request_for("lost", "add", (1,), id(1)))
        .await
        .unwrap();
    let (_, owner) = cluster.owner(0, &probe_target("lost")).expect("an owner");
    let held = request_for("lost", "addHeld", (10, "lost"), id(2));
    let behind = request_for("lost", "add", (100,), id(3));
    let to = cluster.node(owner).address();
    let gone = async {
        eventually("the held turn runs", || async { runs("lost") == 2 }).await;
        cluster.stop_node(owner).await;
    };
    let answers = async {
        let answers = tokio::join!(client.call(to, &held), client.call(to, &behind));
        // The turn goes on for a moment without its owner; its end must count for nothing.
        gate("lost").add_permits(10);
        answers
    };
    let ((held_answer, behind_answer), ()) = tokio::join!(answers, gone);
    for answer in [held_answer, behind_answer] {
        let error = answer.unwrap_err();
        assert!(
            matches!(error.reaction(), Reaction::Elsewhere | Reaction::SameRequest),
            "{error}"
        );
    }
    // Neither had happened: the new owner starts from what was committed, and each now counts once.
    cluster.call_owner(&client, &held).await.unwrap();
    for _ in 0..2 {
        cluster.call_owner(&client, &behind).await.unwrap();
    }
    let asked = (owner + 1) % 3;
    assert_eq!(
        cluster
            .node(asked)
            .cluster()
            .get::<Probe>("lost")
            .get()
            .await
            .unwrap(),
        111
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rule3_turns_that_wait_share_entries() {
    let _alone = METRICS.write().await;
    let cluster = TestCluster::start(1, registry()).await;
    let probe = cluster.node(0).cluster().get::<Probe>("rule3");
    probe.add(0).await.unwrap();
    let before = proposed(&cluster).await;
    // Held back behind one turn, then let go together: far more turns than entries, whatever the disk does.
    let held = tokio::spawn(async move { probe.add_held(0, "rule3".into()).await });
    eventually("the held turn runs", || async { runs("rule3") == 2 }).await;
    let probe = cluster.node(0).cluster().get::<Probe>("rule3");
    let waiting = (0..500).map(|_| {
        let probe = probe.clone();
        tokio::spawn(async move { probe.add(1).await })
    });
    let waiting: Vec<_> = waiting.collect();
    gate("rule3").add_permits(1);
    held.await.unwrap().unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    let after = proposed(&cluster).await;
    let (entries, turns) = (after.0 - before.0, after.1 - before.1);
    assert_eq!(probe.get().await.unwrap(), 500);
    assert!(turns >= 500.0, "{turns} turns");
    assert!(entries * 4.0 < turns, "{turns} turns needed {entries} entries");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule4_an_exclusive_turn_that_changes_nothing_makes_no_entry() {
    let _alone = METRICS.write().await;
    let cluster = TestCluster::start(1, registry()).await;
    let probe = cluster.node(0).cluster().get::<Probe>("rule4");
    let (_, first) = probe.add(3).meta().await.unwrap();
    let before = proposed(&cluster).await;
    for _ in 0..20 {
        let (value, meta) = probe.look().meta().await.unwrap();
        assert_eq!((value, meta.version), (3, first.version));
    }
    assert_eq!(proposed(&cluster).await, before, "looking costs no entry");
    assert_eq!(runs("rule4"), 21);
    probe.add(1).await.unwrap();
    let after = proposed(&cluster).await;
    assert!(
        after.0 > before.0,
        "the measure itself works: a change is an entry"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rule6_a_turn_that_fails_leaves_no_trace() {
    let _shared = METRICS.read().await;
    let cluster = TestCluster::start(1, registry().actor::<Hasty>()).await;
    let node = cluster.node(0);
    let probe = node.cluster().get::<Probe>("rule6");
    probe.add(1).await.unwrap();
    probe.seed().await.unwrap();
    let id = probe.resolve().await.unwrap();
    let mut events = node.events().subscribe(id);
    let (_, before) = probe.get().meta().await.unwrap();
    let expected = (1, vec![], vec!["old".to_owned()], 0);
    for (end, code) in [("err", "no_deal"), ("panic", "internal_error")] {
        let error = probe.everything(end.into()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            !error.message().contains("a bug in"),
            "internal text leaked: {error}"
        );
        let (contents, meta) = probe.contents().meta().await.unwrap();
        assert_eq!(contents, expected, "after {end}");
        assert_eq!(meta.version, before.version, "after {end}");
    }
    // The same on provisional state: what stays is the executed turn before, not the stored one.
    let burst = (0..30).map(|n| {
        let probe = probe.clone();
        async move {
            match n % 3 {
                0 => drop(probe.everything("err".into()).await.unwrap_err()),
                _ => drop(probe.add(1).await.unwrap()),
            }
        }
    });
    join_all(burst).await;
    assert_eq!(
        probe.contents().await.unwrap(),
        (21, vec![], vec!["old".to_owned()], 0)
    );
    assert_eq!(probe.everything("ok".into()).await.unwrap(), 121);
    let contents = probe.contents().await.unwrap();
    assert_eq!(
        contents,
        (121, vec!["ok".to_owned()], vec!["note".to_owned()], 1),
        "the same effects, committed"
    );
    let mut told = Vec::new();
    while told.len() < 21 {
        let batch = tokio::time::timeout(PATIENCE, events.recv())
            .await
            .expect("an event")
            .expect("the stream");
        told.extend(
            batch
                .events
                .iter()
                .map(|e| clinch_actor::decode::<(i64,)>("event", &e.args).unwrap().0),
        );
    }
    let expected: Vec<i64> = (2..=21).chain([121]).collect();
    assert_eq!(told, expected, "events of failed turns are never seen");

    let hasty = node.cluster().get::<Hasty>("rule6-time");
    hasty.add(1).await.unwrap();
    let error = hasty.add_and_hang(5).await.unwrap_err();
    assert!(error.is("actor", "action_timed_out"), "{error}");
    assert!(error.message().contains("100 ms"), "the limit is named: {error}");
    assert_eq!(hasty.add(0).await.unwrap(), 1);
}

#[derive(Default, Serialize, Deserialize)]
struct Hasty {
    count: i64,
}

#[clinch::actor(name = "hasty", action_timeout = "100ms")]
impl Hasty {
    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    #[action]
    async fn add_and_hang(&mut self, by: i64) {
        self.count += by;
        std::future::pending::<()>().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule7_a_request_takes_effect_once_whoever_sends_it_again() {
    let _shared = METRICS.read().await;
    let cluster = TestCluster::start(1, registry()).await;
    let node = cluster.node(0);
    let client = RawClient::new(&cluster);
    let session = SessionId(77);
    let id = |seq| RequestId { session, seq };

    let first = request_for("rule7", "add", (5,), id(1));
    let answer = client.call(node.address(), &first).await.unwrap();
    assert_eq!(
        client.call(node.address(), &first).await.unwrap(),
        answer,
        "the first answer, version and all"
    );
    // Another connection, another intention inside: the id alone counts.
    let other = RawClient::new(&cluster);
    let changed = request_for("rule7", "add", (50,), id(1));
    assert_eq!(other.call(node.address(), &changed).await.unwrap(), answer);
    assert_eq!(runs("rule7"), 1);

    // Copies that arrive while the first one runs share its answer.
    let held = request_for("rule7", "addHeld", (1, "rule7"), id(2));
    let copies = join_all((0..5).map(|_| client.call(node.address(), &held)));
    let open = async {
        eventually("the held turn runs", || async { runs("rule7") == 2 }).await;
        gate("rule7").add_permits(5);
    };
    let (copies, ()) = tokio::join!(copies, open);
    let copies: Vec<_> = copies.into_iter().map(|c| c.unwrap()).collect();
    assert!(copies.windows(2).all(|w| w[0] == w[1]), "{copies:?}");
    assert_eq!(runs("rule7"), 2);

    // The session says it has those answers: a copy still under way must not run again.
    let mut next = request_for("rule7", "add", (1,), id(3));
    next.acked_below = 3;
    client.call(node.address(), &next).await.unwrap();
    let late = client
        .call(node.address(), &first)
        .await
        .unwrap_err()
        .into_actor_error();
    assert!(late.is("guard", "request_settled"), "{late}");
    assert_eq!(runs("rule7"), 3);
    assert_eq!(node.cluster().get::<Probe>("rule7").get().await.unwrap(), 7);

    // A failed turn is no answer: it left nothing, so it may be tried again.
    let failing = request_for("rule7", "everything", ("err",), id(4));
    for _ in 0..2 {
        let error = client
            .call(node.address(), &failing)
            .await
            .unwrap_err()
            .into_actor_error();
        assert!(error.is("user", "no_deal"), "{error}");
    }
    // A key chosen by the user means the same intention in every client.
    let probe = node.cluster().get::<Probe>("rule7");
    let before = probe.add(1).idempotency_key("order-1").await.unwrap();
    assert_eq!(probe.add(1).idempotency_key("order-1").await.unwrap(), before);
    assert_eq!(probe.add(1).idempotency_key("order-2").await.unwrap(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule8_idle_actors_cost_no_task_and_little_memory() {
    const ACTORS: u64 = 4000;
    let _alone = METRICS.write().await;
    let cluster = TestCluster::start(1, registry()).await;
    let cluster_of = cluster.node(0).cluster().clone();
    cluster_of.get::<Probe>("warm").get().await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (tasks_before, memory_before) = (tasks(), resident());
    for chunk in 0..ACTORS / 100 {
        let made = (0..100).map(|n| {
            let handle = cluster_of.get::<Probe>(format!("idle-{}", chunk * 100 + n));
            async move { handle.look().await.unwrap() }
        });
        join_all(made).await;
    }
    let grown = resident().saturating_sub(memory_before) / ACTORS;
    eventually("no task is left", || async { tasks() <= tasks_before + 8 }).await;
    // The store's cache, the dedup table and the log's buffers are in it; a task with a channel each would not fit.
    assert!(grown < 16 * 1024, "{grown} bytes per idle actor");
    let meta = cluster_of
        .get::<Probe>("idle-7")
        .get()
        .if_active()
        .meta()
        .await
        .unwrap()
        .1;
    assert!(!meta.created, "it is awake");
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<u64>().ok())
        .expect("a number")
        * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn rule5_a_read_never_shows_what_may_still_be_lost() {
    let _shared = METRICS.read().await;
    let cluster = TestCluster::start(1, registry()).await;
    let probe = cluster.node(0).cluster().get::<Probe>("rule5");
    let writer = {
        let probe = probe.clone();
        tokio::spawn(async move {
            for expected in 1..=300 {
                assert_eq!(probe.add(1).await.unwrap(), expected);
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() {
        let (value, meta) = probe.get().meta().await.unwrap();
        assert!(value >= seen, "a read went back from {seen} to {value}");
        // Creation is version 1, so a value of n has version n + 1: state and version belong together.
        assert!(
            value == 0 || meta.version.0 == value as u64 + 1,
            "{value} at {:?}",
            meta.version
        );
        seen = value;
    }
    writer.await.unwrap();
    assert_eq!(probe.get().timeout(Duration::from_secs(20)).await.unwrap(), 300);
}
