//! The simulator itself: what it must do before what it says means anything.

use std::process::{Command, Output};

fn simulator(args: &[&str]) -> Output {
    let histories = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_jepsen-like-tests"))
        .args(args)
        .arg("--histories")
        .arg(histories.path())
        .output();
    output.expect("the simulator starts")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_seed_gives_the_same_trace_again_and_another_seed_another_one() {
    let output = simulator(&[
        "sim",
        "--seed",
        "42",
        "--seeds",
        "2",
        "--twice",
        "--minutes",
        "0.1",
    ]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let traces: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("twice the trace ").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(traces.len(), 2, "{text}");
    assert_ne!(traces[0], traces[1], "{text}");
}

#[test]
fn a_few_seeds_break_no_law_and_faults_really_strike() {
    let output = simulator(&["sim", "--seed", "7", "--seeds", "4", "--minutes", "0.2"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("4 seeds, 0 red"), "{text}");
    assert!(
        text.contains("faults: ") && text.contains("packets-cut"),
        "{text}"
    );
}

#[test]
fn disks_that_lie_are_noticed_and_the_way_to_see_it_again_is_told() {
    let faults = "lying-sync,power-loss-all,power-loss-several";
    let output = simulator(&["sim", "--seed", "1", "--seeds", "6", "--faults", faults]);
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("laws broken") && text.contains("history: "),
        "{text}"
    );
    assert!(text.contains("-- sim --seed ") && text.contains(faults), "{text}");
}

#[cfg(feature = "planted")]
#[test]
fn a_bug_put_in_on_purpose_is_caught() {
    let args = ["sim", "--seed", "5000", "--seeds", "4", "--minutes", "0.3"];
    let with = simulator(&[&args[..], &["--bug", "early-reply"]].concat());
    assert!(
        !with.status.success() && text(&with).contains("laws broken"),
        "{}",
        text(&with)
    );
    let without = simulator(&args);
    assert!(without.status.success(), "{}", text(&without));
}
