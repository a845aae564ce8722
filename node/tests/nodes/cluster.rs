//! A cluster as its users see it.

use std::time::Duration;

use crate::common::{Counter, Probe, TestCluster, eventually, gate, probe_target};
use clinch::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_keeps_its_actors_over_a_restart() {
    let mut cluster = TestCluster::start(1, Registry::new().actor::<Counter>()).await;
    let counter = cluster.node(0).cluster().get::<Counter>("a");
    assert_eq!(counter.increment(3).await.unwrap(), 3);
    assert_eq!(counter.increment(4).await.unwrap(), 7);
    assert_eq!(counter.get_count().await.unwrap(), 7);
    // A handle keeps its node's socket.
    drop(counter);
    cluster.stop_node(0).await;
    cluster.start_node(0).await;
    cluster.ready().await;
    assert_eq!(
        cluster
            .node(0)
            .cluster()
            .get::<Counter>("a")
            .get_count()
            .await
            .unwrap(),
        7
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_of_three_nodes_answers_for_any_actor() {
    let cluster = TestCluster::start(3, Registry::new().actor::<Counter>()).await;
    for round in 1..=3i64 {
        for index in 0..3 {
            for key in ["a", "b", "c", "d", "e"] {
                let counter = cluster.node(index).cluster().get::<Counter>(key);
                let expected = (round - 1) * 3 + index as i64 + 1;
                assert_eq!(
                    counter.increment(1).await.unwrap(),
                    expected,
                    "{key} through node {}",
                    index + 1
                );
                assert_eq!(counter.get_count().await.unwrap(), expected);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_little_time_does_not_make_others_avoid_the_owner() {
    let cluster = TestCluster::start(3, Registry::new().actor::<Probe>()).await;
    cluster.settled().await;
    eventually("an owner is known", || async {
        cluster.owner(0, &probe_target("slow")).is_some()
    })
    .await;
    let (_, owner) = cluster.owner(0, &probe_target("slow")).expect("an owner");
    let elsewhere = cluster.node((owner + 1) % 3).cluster();
    let slow = elsewhere.get::<Probe>("slow");
    assert_eq!(slow.get().await.expect("it is there"), 0);
    let little = Duration::from_millis(300);
    for round in 1..=5 {
        let held = slow.add_held(1, format!("little-{round}")).timeout(little).await;
        assert!(held.expect_err("nobody opens the gate").is_perhaps());
        // From here on the owner can answer at once.
        gate(&format!("little-{round}")).add_permits(1);
        let asked = tokio::time::Instant::now();
        let count = slow.get().timeout(Duration::from_millis(900)).await;
        assert_eq!(
            count.expect("an answer of the owner"),
            round,
            "after {:?}",
            asked.elapsed()
        );
    }
}
