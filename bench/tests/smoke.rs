//! The whole bench at its smallest: every workload runs against real processes, without an error.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_workload_gets_answers_without_errors_and_says_what_was_durable() {
    // On the disk of the build, not in a temporary folder that may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = folder.path().join("results").join("smoke.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_clinch-bench"))
        .args(["--smoke", "--dir"])
        .arg(folder.path())
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        lines,
        "the file has the same lines"
    );
    let records: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for workload in ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8"] {
        let runs: Vec<&Value> = records.iter().filter(|r| r["workload"] == workload).collect();
        assert!(!runs.is_empty(), "{workload} did not run\n{told}");
        for run in runs {
            assert!(
                run["ops"].as_u64().unwrap() > 0 && run["p50_us"].as_f64().unwrap() > 0.0,
                "{run}"
            );
            // A caller of a killed gateway loses its connection.
            assert!(run["errors"] == 0 || workload == "W8", "{run}");
            let syncs = if workload == "W3" {
                "nothing is written"
            } else {
                "fsync at"
            };
            assert!(run["durable"].as_str().unwrap().starts_with(syncs), "{run}");
        }
    }
    let verified = records.iter().filter(|r| r.get("verified").is_some()).count();
    assert!(
        verified >= 10,
        "W1, W2 and W8 read their counts back: {verified} did"
    );
    let memory = records.iter().find(|r| r["workload"] == "W5").unwrap();
    assert_eq!(memory["memory"]["awake"], memory["memory"]["sampled"], "{memory}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "only the results are left behind");
}
