//! `clinch demo`: the proof, and that it is one.

use std::time::Duration;

use crate::cli_support::{run_within, text};
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

/// Programs that are wrong on purpose: the demo must say so, whatever it is that they do.
#[cfg(all(feature = "planted", debug_assertions))]
mod broken {
    use crate::cli_support::{clinch, run_command};

    use super::*;

    /// Kills all nodes at once under load, with this bug in the program.
    fn demo_with(bug: &str) -> (Option<i32>, String) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("d");
        let load = ["--increments", "1500", "--actors", "100", "--timeout", "200"];
        let faults = ["--kills", "0", "--kill-all", "3"];
        let args = [&["demo", "--dir", folder.to_str().unwrap()][..], &load, &faults].concat();
        let mut command = clinch(&args);
        command.env("PLANTED_BUG", bug);
        let output = run_command(command, Duration::from_secs(300));
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code(), said)
    }

    #[test]
    fn a_disk_that_forgets_what_was_not_synced_costs_nothing_acknowledged() {
        let (code, said) = demo_with("volatile-disk");
        assert_eq!(code, Some(0), "{said}");
    }

    #[test]
    fn a_program_that_acknowledges_before_the_sync_is_found_out_on_such_a_disk() {
        let (code, said) = demo_with("no-sync");
        assert!(code.is_some_and(|code| code > 0), "{said}");
        let serves_no_more = said.contains("not ready after");
        assert!(serves_no_more || said.contains("verification failed"), "{said}");
    }

    #[test]
    fn a_program_that_acknowledges_before_the_commit_is_found_out() {
        let (code, said) = demo_with("early-reply");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("verification failed"), "{said}");
    }
}
