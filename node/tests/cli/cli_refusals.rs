//! Nodes that must not come into a cluster, and what they say.

use std::path::{Path, PathBuf};

use crate::cli_support::{PATIENCE, Running, free_base, program, stdout_of, wait_until};
use clinch::cli::local::{LocalCluster, LocalOptions};
use clinch_types::NodeId;

async fn one_node(dir: PathBuf) -> LocalCluster {
    let options = LocalOptions {
        nodes: 1,
        ..LocalOptions::new(dir, program())
    };
    let cluster = LocalCluster::start(options).await.unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    cluster
}

/// The configuration of node 2, to join a cluster.
fn joiner(dir: &Path, data: &Path, certs: &Path, seed: &str) -> PathBuf {
    let file = dir.join("joiner.toml");
    let text = format!(
        "node = 2\ndata-dir = {data:?}\ncert-dir = {certs:?}\nlisten = \"127.0.0.1:{}\"\n[cluster]\njoin = [{seed:?}]\n",
        free_base(1)
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = one_node(dir.path().join("ours")).await;
    let seed = cluster.addresses()[&NodeId(1)].clone();
    let foreign = dir.path().join("foreign");
    let path = foreign.to_str().unwrap();
    stdout_of(&["cert", "init", "--dir", path, "--cluster", "local"]);
    stdout_of(&["cert", "issue", "--dir", path, "--node", "2"]);
    let file = joiner(dir.path(), &dir.path().join("data"), &foreign, &seed);
    let node = Running::start(
        &["start", "--config", file.to_str().unwrap()],
        dir.path().join("joiner.log"),
    );
    let said = wait_until("the node says that its certificate is refused", || {
        let said = node.stderr();
        said.to_lowercase().contains("certificate").then_some(said)
    });
    assert!(said.contains(&seed), "{said}");
    let status = cluster.status().await.unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1, "{status}");
}

#[tokio::test]
async fn a_node_with_the_data_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = LocalCluster::start(LocalOptions {
        nodes: 2,
        ..LocalOptions::new(dir.path().join("other"), program())
    })
    .await
    .unwrap();
    other.wait_ready(PATIENCE).await.unwrap();
    other.stop_all().await;
    let ours = one_node(dir.path().join("ours")).await;
    let certs = ours.cert_dir();
    stdout_of(&["cert", "issue", "--dir", certs.to_str().unwrap(), "--node", "2"]);
    let data = other.dir().join("node-2/data");
    let file = joiner(dir.path(), &data, &certs, &ours.addresses()[&NodeId(1)]);
    let mut node = Running::start(
        &["start", "--config", file.to_str().unwrap()],
        dir.path().join("joiner.log"),
    );
    wait_until("the node says that its data is another cluster's", || {
        node.stderr().contains("belongs to cluster").then_some(())
    });
    assert_eq!(node.wait(), Some(1), "{}", node.stderr());
    let status = ours.status().await.unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1, "{status}");
}
