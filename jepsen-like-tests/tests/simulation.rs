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
fn a_history_left_behind_is_judged_again_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_jepsen-like-tests"))
            .args(args)
            .output();
        output.expect("the simulator starts")
    };
    let dir = folder.path().to_str().expect("a path");
    let simulated = run(&[
        "sim",
        "--seed",
        "8",
        "--minutes",
        "0.2",
        "--keep",
        "--histories",
        dir,
    ]);
    assert!(simulated.status.success(), "{}", text(&simulated));
    let file = format!("{dir}/seed-8.jsonl");
    let judged = run(&["history", &file]);
    assert!(judged.status.success(), "{}", text(&judged));
    let acknowledged = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with("acknowledged"));
        at.and_then(|at| words[at - 1].parse::<u64>().ok())
            .expect("a number")
    };
    assert_eq!(acknowledged(&text(&judged)), acknowledged(&text(&simulated)));
    // One answer that cannot be: a sum that nobody asked for.
    let lines = std::fs::read_to_string(&file).expect("the history");
    let sum = lines
        .lines()
        .find(|l| l.contains("\"op\":\"read\"") && l.contains("{\"ok\":"));
    let sum = sum.expect("somebody read a sum");
    let wrong = lines.replace(sum, &sum.replace("{\"ok\":", "{\"ok\":9"));
    std::fs::write(&file, wrong).expect("the history");
    assert!(!run(&["history", &file]).status.success());
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
    // What a seed does changes with the code; one in two shows this bug.
    for seed in ["5000", "5001", "5002", "5003"] {
        let args = ["sim", "--seed", seed, "--minutes", "0.3"];
        let with = simulator(&[&args[..], &["--bug", "early-reply"]].concat());
        if !with.status.success() {
            assert!(text(&with).contains("laws broken"), "{}", text(&with));
            let without = simulator(&args);
            assert!(without.status.success(), "{}", text(&without));
            return;
        }
    }
    panic!("answers that leave before they are committed are not noticed");
}
