//! `clinch demo`: the proof, and that it is one.

mod cli_support;

use std::time::Duration;

use cli_support::{run_within, text};
use serde_json::Value;

fn demo(args: &[&str]) -> (Option<i32>, Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("d");
    // It gives up by itself sooner.
    let args = [
        &["demo", "--timeout", "500", "--dir", folder.to_str().unwrap()],
        args,
    ]
    .concat();
    let output = run_within(&args, Duration::from_secs(600));
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(out.lines().count(), 1, "{out}{said}");
    assert_eq!(
        folder.exists(),
        output.status.code() != Some(0),
        "only the folder of a failed run is kept: {said}"
    );
    (output.status.code(), serde_json::from_str(&out).unwrap(), said)
}

#[test]
fn nothing_acknowledged_is_lost_when_an_owner_is_killed() {
    let (code, result, said) = demo(&["--increments", "5000", "--actors", "50", "--kills", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(result["acknowledged"].as_u64().unwrap() >= 5000, "{result}");
    assert_eq!(
        (&result["lost"], &result["wrong"], &result["kills"]),
        (&0.into(), &0.into(), &1.into())
    );
    assert!(result["failover_samples"].as_u64().unwrap() > 0, "{result}");
    assert!(result["failover_ms_p99"].as_u64().unwrap() > 0, "{result}");
}

#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    let args = [
        "--increments",
        "1000",
        "--actors",
        "20",
        "--kills",
        "0",
        "--kill-all",
        "1",
        "--via",
        "http",
    ];
    let (code, result, said) = demo(&args);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        (&result["lost"], &result["wrong"], &result["kill_all"]),
        (&0.into(), &0.into(), &1.into())
    );
    assert!(result["recovery_ms_max"].as_u64().unwrap() > 0, "{result}");
}
