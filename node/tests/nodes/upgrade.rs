//! Nodes with different code: the newest owns what it can, and an upgrade ends as even as it began.

use crate::common::{Counter, TestCluster, eventually};
use clinch::prelude::*;
use serde_json::Value;

fn registry() -> Registry {
    Registry::new().actor::<Counter>()
}

/// How many shards each node owns and should own, by a node that runs; nothing while the two differ.
fn owned(cluster: &TestCluster) -> Option<[usize; 3]> {
    let status = cluster.nodes.iter().flatten().next()?.status();
    let mut owned = [0; 3];
    for shard in status["shards"].as_array()? {
        let owner = shard["owner"]
            .as_u64()
            .filter(|_| shard["owner"] == shard["preferred"])?;
        owned[usize::try_from(owner).ok()? - 1] += 1;
    }
    Some(owned)
}

fn versions(status: &Value) -> Vec<u64> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter_map(|node| node["codeVersion"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_to_the_newest_code_and_are_even_again_when_all_nodes_have_it() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let mut before = owned(&cluster).expect("it has settled");
    before.sort_unstable();
    assert_eq!(before, [1, 1, 2], "equal code, equal shares");
    for (index, expected) in [[4, 0, 0], [2, 2, 0], [2, 1, 1]].into_iter().enumerate() {
        cluster.stop_node(index).await;
        cluster.configs[index].code_version = 7;
        cluster.start_all(registry()).await;
        eventually("the newest code owns what it can", || async {
            owned(&cluster).is_some_and(|mut owned| {
                owned.sort_unstable_by(|a, b| b.cmp(a));
                owned == expected
            })
        })
        .await;
        let upgraded = owned(&cluster).expect("it was so just now");
        assert!(
            upgraded[index] > 0,
            "{upgraded:?} after the upgrade of node {}",
            index + 1
        );
        let known = versions(&cluster.node(2).status());
        assert_eq!(
            known.iter().filter(|version| **version == 7).count(),
            index + 1,
            "{known:?}"
        );
        let counter = cluster.node(2).cluster().get::<Counter>("a");
        assert_eq!(counter.increment(1).await.expect("an answer"), index as i64 + 1);
    }
}
