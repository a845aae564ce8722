//! `clinch dev` and the commands that talk to it.

use std::path::Path;

use crate::cli_support::{Running, failure_of, free_base, stdout_of};
use serde_json::Value;

fn dev(dir: &Path, port: u16, log: &str) -> (Running, String) {
    let (folder, port, listen) = (dir.join("d"), port.to_string(), (port + 1000).to_string());
    let args = [
        "dev",
        "--dir",
        folder.to_str().unwrap(),
        "--port",
        &port,
        "--listen-port",
        &listen,
    ];
    let running = Running::start(&args, dir.join(log));
    let mut told = String::new();
    while !told.contains("Ctrl-C") {
        told.push_str(&running.line());
        told.push('\n');
    }
    assert!(told.starts_with("ready\n"), "{told}");
    (running, told)
}

#[test]
fn dev_serves_at_once_keeps_its_data_and_stops_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let base = free_base(1);
    let gateway = format!("http://127.0.0.1:{base}");
    let ask = |args: &[&str]| {
        stdout_of(&[args, &["--gateway", &gateway]].concat())
            .trim()
            .to_owned()
    };

    let (mut node, told) = dev(dir.path(), base, "first.log");
    assert!(
        told.contains(&format!("curl -s '{gateway}/gateway/counter/action/increment")),
        "{told}"
    );
    assert_eq!(
        ask(&["actors", "call", "counter", "a", "b", "increment", "[3]"]),
        "3"
    );
    assert_eq!(ask(&["actors", "call", "counter", "a", "b", "getCount"]), "3");
    let status: Value = serde_json::from_str(&ask(&["status", "--json"])).unwrap();
    assert_eq!(
        (&status["formed"], status["shards"].as_array().unwrap().len()),
        (&true.into(), 16)
    );
    assert!(ask(&["status"]).contains("16 shards, each with an owner"));
    assert_eq!(ask(&["shards"]).lines().count(), 17);

    let listed: Value = serde_json::from_str(&ask(&["actors", "ls", "counter", "--json"])).unwrap();
    assert_eq!(listed["actors"][0]["key"], "a/b", "{listed}");
    assert_eq!(listed["actors"][0]["status"], "running", "{listed}");
    let found = ask(&["actors", "get", "counter", "a", "b"]);
    assert!(
        found.contains("a/b") && found.contains("STATUS") && found.contains("running"),
        "{found}"
    );
    let said = failure_of(&["actors", "get", "counter", "x", "--gateway", &gateway], 1);
    assert!(said.contains("no counter"), "{said}");
    let said = failure_of(
        &["actors", "call", "errors", "e", "withCode", "--gateway", &gateway],
        1,
    );
    assert!(
        said.contains("user.username_too_short: Username is too short"),
        "{said}"
    );

    namespaces_are_worlds_of_their_own(&gateway, ask);

    node.signal(libc::SIGINT);
    assert_eq!(node.wait(), Some(0), "{}", node.stderr());

    let (mut node, _) = dev(dir.path(), base, "second.log");
    assert_eq!(ask(&["namespaces", "ls"]), "default\nshop");
    assert_eq!(ask(&["actors", "call", "counter", "a", "b", "increment"]), "4");
    let id = listed["actors"][0]["actor_id"].as_str().unwrap();
    ask(&["actors", "destroy", id]);
    failure_of(&["actors", "get", "counter", "a", "b", "--gateway", &gateway], 1);
    failure_of(&["actors", "destroy", id, "--gateway", &gateway], 1);
    node.signal(libc::SIGTERM);
    assert_eq!(node.wait(), Some(0), "{}", node.stderr());
}

/// `counter` with the key `a/b` exists in `default` only, at first.
fn namespaces_are_worlds_of_their_own(gateway: &str, ask: impl Fn(&[&str]) -> String) {
    let said = failure_of(
        &[
            "actors",
            "call",
            "counter",
            "a",
            "increment",
            "--namespace",
            "shop",
            "--gateway",
            gateway,
        ],
        1,
    );
    assert!(said.contains("namespace.not_found"), "{said}");
    assert_eq!(ask(&["namespaces", "create", "shop"]), "shop is created");
    assert_eq!(ask(&["namespaces", "create", "shop"]), "shop was there already");
    assert_eq!(ask(&["namespaces", "ls"]), "default\nshop");
    let said = failure_of(&["namespaces", "create", "a b", "--gateway", gateway], 1);
    assert!(said.contains("a b"), "{said}");
    let in_shop = [
        "actors",
        "call",
        "counter",
        "a",
        "b",
        "increment",
        "[10]",
        "--namespace",
        "shop",
    ];
    assert_eq!(
        ask(&in_shop),
        "10",
        "another actor than that of the same key in `default`"
    );
    let list: Value = serde_json::from_str(&ask(&[
        "actors",
        "ls",
        "counter",
        "--json",
        "--namespace",
        "shop",
    ]))
    .unwrap();
    assert_eq!(list["actors"].as_array().unwrap().len(), 1, "{list}");
}

#[test]
fn a_second_dev_on_the_same_folder_says_which_process_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (base, other) = (free_base(1), free_base(1));
    let (node, _) = dev(dir.path(), base, "log");
    let folder = dir.path().join("d");
    let (port, listen) = (other.to_string(), (other + 1000).to_string());
    let args = [
        "dev",
        "--dir",
        folder.to_str().unwrap(),
        "--port",
        &port,
        "--listen-port",
        &listen,
    ];
    let said = failure_of(&args, 1);
    assert!(said.contains(&format!("process {}", node.pid())), "{said}");
}
