//! `clinch up` and the local cluster behind it: real processes, killed, paused and restarted.

use std::time::Duration;

use crate::cli_support::{
    CALM, PATIENCE, Running, calm, free_base, lives, program, signal, stdout_of, wait_until,
};
use clinch::cli::actors::Counter;
use clinch::cli::local::{LocalCluster, LocalOptions, Ports};
use clinch_types::NodeId;
use serde_json::{Value, json};

fn json_line(running: &Running) -> Value {
    serde_json::from_str(&running.line()).unwrap()
}

fn up(dir: &std::path::Path, base: u16, log: &str) -> (Running, Vec<u32>, Vec<String>) {
    let (folder, base) = (dir.join("c"), base.to_string());
    let mut args = vec![
        "up",
        "--nodes",
        "3",
        "--base-port",
        &base,
        "--dir",
        folder.to_str().unwrap(),
        "--json",
    ];
    args.extend(CALM.iter().flat_map(|setting| ["--set", *setting]));
    let running = Running::start(&args, dir.join(log));
    let ready = json_line(&running);
    assert_eq!(ready["ready"], true, "{ready}");
    let nodes = ready["nodes"].as_array().unwrap();
    let pids = nodes
        .iter()
        .map(|n| u32::try_from(n["pid"].as_u64().unwrap()).unwrap())
        .collect();
    let gateways = nodes
        .iter()
        .map(|n| n["gateway"].as_str().unwrap().to_owned())
        .collect();
    (running, pids, gateways)
}

fn increment(gateway: &str) -> i64 {
    let said = stdout_of(&[
        "actors",
        "call",
        "counter",
        "k",
        "increment",
        "[1]",
        "--gateway",
        gateway,
    ]);
    said.trim().parse().unwrap()
}

#[test]
fn up_survives_the_death_of_a_node_keeps_its_data_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_base(3);
    let (mut cluster, pids, gateways) = up(dir.path(), base, "first.log");
    assert_eq!(gateways[2], format!("http://127.0.0.1:{}", base + 2));
    assert_eq!(increment(&gateways[0]), 1);

    signal(pids[0], libc::SIGKILL);
    let ended = json_line(&cluster);
    assert_eq!(ended["ended"], 1, "{ended}");
    assert_eq!(increment(&gateways[1]), 2);
    assert_eq!(increment(&gateways[2]), 3);

    cluster.signal(libc::SIGINT);
    assert_eq!(cluster.wait(), Some(0), "{}", cluster.stderr());
    assert!(pids.iter().all(|pid| !lives(*pid)));

    let (mut cluster, pids, gateways) = up(dir.path(), base, "second.log");
    assert_eq!(increment(&gateways[0]), 4);
    // Not even `kill -9` of the parent leaves orphans.
    cluster.signal(libc::SIGKILL);
    cluster.wait();
    wait_until("all nodes have ended", || {
        pids.iter().all(|pid| !lives(*pid)).then_some(())
    });
}

/// What is on the wire of one request, up to the end of the connection or `until`.
fn read_until(socket: &mut std::net::TcpStream, until: &str) -> String {
    use std::io::Read;
    let (mut heard, mut bytes) = (String::new(), [0; 4096]);
    while !heard.contains(until) {
        match socket.read(&mut bytes) {
            Ok(read @ 1..) => heard.push_str(&String::from_utf8_lossy(&bytes[..read])),
            // A connection that is reset has ended, too.
            Ok(0) | Err(_) => return heard,
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_owner_is_killed_is_cut_short_and_the_next_owner_answers_anew() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(options(dir.path())).await.unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let key = clinch_types::Key::new(["k"]).unwrap();
    let slot = clinch_types::slot_of("default", "rawHttp", &key);
    let owner = cluster.client().await.unwrap().cluster().router().routes();
    let shard = owner.shard_of(slot).unwrap();
    let owner = cluster.owners().await.unwrap()[&shard].expect("every shard has an owner");
    let other = cluster.nodes().into_iter().find(|node| *node != owner).unwrap();
    let gateway = cluster.gateways()[&other].replace("http://", "");
    let ask = |path: &str| {
        let mut socket = std::net::TcpStream::connect(&gateway).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=r&rvt-key=k";
        let head = format!("GET /gateway/rawHttp/request/{path}?{query} HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    let mut ticks = ask("ticks");
    assert!(read_until(&mut ticks, "data: 2\n\n").contains("text/event-stream"));
    cluster.kill(owner).await.unwrap();
    let rest = read_until(&mut ticks, "\r\n0\r\n\r\n");
    assert!(
        !rest.contains("\r\n0\r\n\r\n"),
        "a body that was cut short looks whole: {rest:?}"
    );
    let anew = read_until(&mut ask("ticks"), "data: 0\n\n");
    assert!(anew.contains("200 OK"), "{anew}");
    cluster.stop_all().await;
}

fn options(dir: &std::path::Path) -> LocalOptions {
    LocalOptions {
        settings: calm(),
        ..LocalOptions::new(dir.join("c"), program())
    }
}

#[tokio::test]
async fn killed_and_paused_nodes_are_done_without_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(options(dir.path())).await.unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = cluster.client().await.unwrap();
    let counter = client.cluster().get::<Counter>("k");
    assert_eq!(counter.increment(Some(1)).await.unwrap(), 1);

    let pid = cluster.pids()[&NodeId(2)];
    cluster.kill(NodeId(2)).await.unwrap();
    assert!(!lives(pid) && cluster.pids().len() == 2);
    assert!(cluster.kill(NodeId(2)).await.is_err(), "it is dead already");
    assert_eq!(counter.increment(Some(1)).await.unwrap(), 2);
    for node in [NodeId(1), NodeId(3)] {
        let count = cluster
            .http(node)
            .unwrap()
            .call("counter", &["k".into()], "getCount", json!([]))
            .await
            .unwrap();
        assert_eq!(count, 2);
    }
    cluster.restart(NodeId(2)).unwrap();
    assert!(cluster.restart(NodeId(2)).is_err(), "it runs already");
    cluster.wait_ready(PATIENCE).await.unwrap();
    let count = cluster
        .http(NodeId(2))
        .unwrap()
        .call("counter", &["k".into()], "getCount", json!([]))
        .await
        .unwrap();
    assert_eq!(count, 2);

    cluster.pause(NodeId(1)).unwrap();
    assert_eq!(counter.increment(Some(1)).await.unwrap(), 3);
    cluster.resume(NodeId(1)).unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    // A node that was paused is ready as soon as it knows the owners again; leases may still be on their way to new ones.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !cluster.owners().await.unwrap().values().all(Option::is_some) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "a shard stays without an owner"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    cluster.kill_all().await.unwrap();
    assert!(cluster.pids().is_empty() && cluster.owners().await.is_err());
    for node in cluster.nodes() {
        cluster.restart(node).unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(counter.get_count().await.unwrap(), 3);
    let pids = cluster.pids();
    cluster.stop_all().await;
    assert!(pids.values().all(|pid| !lives(*pid)));
}

#[tokio::test]
async fn a_cluster_that_does_not_become_ready_says_which_node_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(options(dir.path())).await.unwrap();
    cluster.kill(NodeId(3)).await.unwrap();
    let error = cluster
        .wait_node_ready(NodeId(3), PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("node 3 has ended") && error.contains("node.log"),
        "{error}"
    );
    cluster.kill(NodeId(2)).await.unwrap();
    let error = cluster
        .wait_node_ready(NodeId(1), Duration::from_millis(500))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("node 1: "), "{error}");
}

#[tokio::test]
async fn a_folder_keeps_its_ports_and_is_not_started_with_fewer_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        nodes: 2,
        ..options(dir.path())
    };
    let cluster = LocalCluster::start(options.clone()).await.unwrap();
    let gateways = cluster.gateways();
    drop(cluster);
    let start = |options| async move {
        LocalCluster::start(options)
            .await
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let error = start(LocalOptions {
        nodes: 1,
        ..options.clone()
    })
    .await;
    assert!(error.contains("more than 1 nodes"), "{error}");
    let error = start(LocalOptions {
        ports: Ports::Base(11_000),
        ..options.clone()
    })
    .await;
    assert!(error.contains("cannot move"), "{error}");
    let again = wait_for_start(options).await;
    assert_eq!(again.gateways(), gateways);
}

/// The processes that the dropped cluster killed may hold their ports for a moment longer.
async fn wait_for_start(options: LocalOptions) -> LocalCluster {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match LocalCluster::start(options.clone()).await {
            Ok(cluster) => return cluster,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
