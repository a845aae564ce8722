//! `clinch doctor`: with and without a configuration, with and without a node, and never with a secret in it.

use std::path::{Path, PathBuf};

use crate::cli_support::{PATIENCE, calm, program, run, text, wait_until};
use clinch::cli::local::{LocalCluster, LocalOptions};
use clinch_types::NodeId;
use serde_json::Value;

const TOKEN: &str = "sesame-open-thyself";

fn sha256(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exit code, report, and everything that was printed.
fn doctor(args: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(&[&["doctor", "--json"], args].concat());
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{said}"));
    (output.status.code(), report, out + &said)
}

fn findings<'a>(report: &'a Value, about: &str) -> Vec<&'a Value> {
    let all = report["findings"].as_array().unwrap();
    all.iter().filter(|finding| finding["about"] == about).collect()
}

/// An address nobody listens at.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn config(dir: &Path, more: &str) -> PathBuf {
    let file = dir.join("clinch.toml");
    let text = format!(
        "node = 1\ndata-dir = \"data\"\ncert-dir = \"certs\"\nlisten = \"127.0.0.1:7420\"\ngateway = [\"{}\"]\n{more}\n\
         [cluster]\nbootstrap = true\n[[tokens]]\nkind = \"admin\"\nsha256 = \"{}\"\n",
        nobody(),
        sha256(TOKEN)
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_machine_is_examined_without_a_configuration_and_without_a_node() {
    let (_, report, _) = doctor(&[]);
    for about in [
        "program",
        "system",
        "processors",
        "memory",
        "clock",
        "open files",
        "UDP buffers",
        "free disk",
        "fdatasync",
        "node",
    ] {
        let found = findings(&report, about);
        assert!(!found.is_empty(), "nothing about {about}: {report}");
        for finding in found {
            let needs_advice = finding["level"] != "ok";
            assert_eq!(finding["advice"].is_string(), needs_advice, "{finding}");
        }
    }
    assert!(findings(&report, "configuration").is_empty(), "{report}");
    // People get the same in words.
    let said = text(&run(&["doctor"]).stdout);
    assert!(
        said.contains("fdatasync") && said.contains(env!("CARGO_PKG_VERSION")),
        "{said}"
    );
}

#[test]
fn a_gateway_that_was_given_must_answer_and_one_of_a_configuration_need_not() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = nobody();
    let (code, report, said) = doctor(&["--gateway", &gateway]);
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(findings(&report, "node")[0]["level"], "bad", "{report}");

    assert!(
        run(&[
            "cert",
            "init",
            "--cluster",
            "shop",
            "--dir",
            dir.path().join("certs").to_str().unwrap()
        ])
        .status
        .success()
    );
    let certs = dir.path().join("certs");
    assert!(
        run(&["cert", "issue", "--dir", certs.to_str().unwrap(), "--node", "1"])
            .status
            .success()
    );
    let file = config(dir.path(), "");
    let (code, report, said) = doctor(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    for about in ["configuration", "certificates", "node"] {
        assert_eq!(findings(&report, about)[0]["level"], "ok", "{report}");
    }
    assert!(!said.contains(&sha256(TOKEN)), "{said}");
    assert!(!dir.path().join("data").exists(), "it makes nothing");
}

#[test]
fn a_wrong_configuration_exits_with_2_and_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    for more in [
        format!("zone = [\"{TOKEN}\"]"),
        format!("{TOKEN} = 1"),
        "region = \"".into(),
    ] {
        let file = config(dir.path(), &more);
        let (code, report, said) = doctor(&["--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{more}: {said}");
        assert_eq!(findings(&report, "configuration")[0]["level"], "bad", "{report}");
        assert!(!said.contains(TOKEN) && !said.contains(&sha256(TOKEN)), "{said}");
        assert!(
            !findings(&report, "fdatasync").is_empty(),
            "the rest is examined all the same"
        );
    }
    let missing = dir.path().join("missing.toml");
    let (code, _, said) = doctor(&["--config", missing.to_str().unwrap()]);
    assert!(code == Some(2) && said.contains("missing.toml"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_cluster_is_examined_and_no_secret_of_it_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = calm();
    let tokens = format!("[[tokens]]\nkind = \"admin\"\nsha256 = \"{}\"", sha256(TOKEN));
    settings.extend(toml::from_str::<toml::Table>(&tokens).unwrap());
    let cluster = LocalCluster::start(LocalOptions {
        settings,
        ..LocalOptions::new(dir.path().join("c"), program())
    })
    .await
    .unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let file = dir.path().join("c/node-1/clinch.toml");
    let file = file.to_str().unwrap();
    let examine = |more: &[&str]| {
        let args = [&["--config", file], more].concat();
        let (code, report, said) = tokio::task::block_in_place(|| doctor(&args));
        let key = std::fs::read_to_string(cluster.cert_dir().join("node-1.key")).unwrap();
        let secret = key.lines().nth(1).unwrap();
        for secret in [TOKEN, &sha256(TOKEN), secret] {
            assert!(!said.contains(secret), "{secret} is in {said}");
        }
        (code, report, said)
    };
    let (code, report, said) = examine(&["--token", TOKEN]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(findings(&report, "ready")[0]["level"], "ok", "{report}");
    assert_eq!(findings(&report, "nodes").len(), 3, "{report}");
    let shards = &findings(&report, "shards")[0]["value"];
    assert_eq!(
        (&shards["count"], &shards["without_owner"]),
        (&16.into(), &Value::Array(Vec::new()))
    );
    let offsets = findings(&report, "clock");
    let ahead = offsets
        .iter()
        .filter_map(|clock| clock["value"]["ahead_ms"].as_i64());
    let ahead: Vec<i64> = ahead.collect();
    assert!(
        ahead.len() == 3 && ahead.iter().all(|ms| ms.abs() <= 2_000),
        "{report}"
    );

    // Who may not see the cluster is told so.
    let (code, report, said) = examine(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(findings(&report, "cluster")[0]["level"], "warn", "{report}");

    cluster.kill(NodeId(3)).await.unwrap();
    let found = wait_until("the killed node is told of", || {
        let (_, report, _) = examine(&["--token", TOKEN]);
        let killed = findings(&report, "nodes")
            .into_iter()
            .find(|node| node["value"]["id"] == 3);
        killed.filter(|node| node["level"] == "warn").cloned()
    });
    assert!(
        found["value"]["state"] == "down" && found["advice"].is_string(),
        "{found}"
    );
    cluster.stop_all().await;
}
