//! The witness check against histories with a known verdict, and against true counters.

use proptest::prelude::*;

use super::samples::{Sample, laws};
use super::witness::{BORN, check};
use super::{Law, amount, value};
use crate::history::Op;

fn broken(sample: &Sample) -> Vec<Law> {
    laws(&check(&sample.operations).violations)
}

#[test]
fn a_sound_history_passes_and_its_lost_reply_is_found_again() {
    let verdict = check(&Sample::sound().operations);
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.acknowledged, verdict.failed, verdict.unknown), (6, 1, 2));
    assert_eq!((verdict.surfaced, verdict.unresolved), (1, 0));
}

#[test]
fn a_stale_read_is_caught() {
    let mut sample = Sample::sound();
    sample.ok("stale", Op::Read, (65, 70), 7, 2, 4);
    assert_eq!(broken(&sample), [Law::RealTime]);
}

#[test]
fn a_read_of_a_deposed_owner_is_caught_even_when_it_is_right() {
    let mut sample = Sample::sound();
    sample.ok("new owner", Op::Read, (61, 64), 39, 3, 5);
    sample.meta("final read").epoch = 3;
    assert_eq!(broken(&sample), []);
    sample.ok("old owner", Op::Read, (65, 70), 39, 2, 5);
    assert_eq!(broken(&sample), [Law::Epochs]);
}

#[test]
fn a_lost_acknowledgement_is_caught() {
    // The last increment is gone from the state: the read sees the version before.
    let mut sample = Sample::sound();
    sample.ok("after loss", Op::Read, (80, 90), 7, 3, 4);
    assert!(broken(&sample).contains(&Law::RealTime));
    // It is gone, and another took its version.
    sample.remove("after loss");
    sample.ok("its place taken", Op::Increment(64), (80, 90), 71, 3, 5);
    assert!(broken(&sample).contains(&Law::OneValue));
}

#[test]
fn an_increment_that_is_applied_twice_is_caught() {
    let mut sample = Sample::sound();
    // +2 once more, in a turn of its own.
    sample.ok("fourth", Op::Increment(64), (80, 90), 39 + 2 + 64, 2, 7);
    let verdict = check(&sample.operations);
    assert_eq!(laws(&verdict.violations), [Law::Sums]);
    assert!(
        verdict.violations[0]
            .text
            .contains("operation 1 was applied twice"),
        "{}",
        verdict.violations[0]
    );
}

#[test]
fn an_increment_of_unknown_outcome_is_not_believed_twice() {
    let mut sample = Sample::sound();
    // +4 surfaced between the second and the third; now it comes again.
    sample.ok("fourth", Op::Increment(64), (80, 90), 39 + 4 + 64, 2, 7);
    assert_eq!(broken(&sample), [Law::Sums]);
}

#[test]
fn a_lost_reply_may_take_effect_late_but_not_before_it_was_asked_for() {
    let mut late = Sample::sound();
    // +8 was never answered, and shows long after.
    late.ok("fourth", Op::Increment(64), (800, 900), 39 + 8 + 64, 2, 7);
    assert_eq!(broken(&late), []);
    let mut early = Sample::sound();
    early.get("surfaced").invoke_ns = 55;
    assert_eq!(broken(&early), [Law::Sums]);
}

#[test]
fn an_error_that_says_no_effect_must_be_true() {
    let mut sample = Sample::sound();
    sample.ok("fourth", Op::Increment(64), (80, 90), 39 + 16 + 64, 2, 7);
    let verdict = check(&sample.operations);
    assert_eq!(laws(&verdict.violations), [Law::Sums]);
    assert!(
        verdict.violations[0]
            .text
            .contains("operation 5 was said to have failed"),
        "{}",
        verdict.violations[0]
    );
}

#[test]
fn a_value_that_is_not_the_sum_is_caught() {
    let mut sample = Sample::sound();
    sample.set_value("second", 4);
    assert!(broken(&sample).contains(&Law::Sums));
    let mut sample = Sample::sound();
    sample.set_value("same read", 40);
    assert_eq!(broken(&sample), [Law::OneValue]);
}

#[test]
fn epochs_never_go_back() {
    let mut sample = Sample::sound();
    sample.meta("second").epoch = 3;
    assert!(broken(&sample).contains(&Law::Epochs));
}

#[test]
fn a_second_life_of_a_key_that_nobody_destroyed_is_caught() {
    let mut sample = Sample::sound();
    sample.meta("third").incarnation = "life-2".into();
    assert_eq!(broken(&sample), [Law::OneLife]);
}

#[test]
fn a_value_from_nowhere_is_caught() {
    let mut sample = Sample::sound();
    sample.get("third").meta = None;
    assert!(broken(&sample).contains(&Law::Placed));
}

/// A true counter with several clients: each operation takes effect at one moment inside its window.
fn simulate(moves: &[(u64, u64, u64, bool, u8)]) -> Sample {
    let mut effects: Vec<(u64, usize)> = moves
        .iter()
        .enumerate()
        .map(|(i, (from, half, ..))| (from * 10 + half, i))
        .collect();
    effects.sort_unstable();
    let (mut version, mut count) = BORN;
    let mut sample = Sample::default();
    for (at, index) in effects {
        let (from, half, more, writes, fate) = moves[index];
        debug_assert_eq!(at, from * 10 + half);
        let (name, window) = (format!("m{index}"), (from * 10, at + 1 + more));
        let by = 1i64 << index;
        let op = if writes { Op::Increment(by) } else { Op::Read };
        if fate == 0 {
            sample.failed(&name, op, window);
            continue;
        }
        if writes && fate != 1 {
            version += 1;
            count += by;
        }
        match fate {
            // Lost before or after its effect.
            1 | 2 => sample.lost(&name, op, window.0, Some(window.1)),
            _ => sample.ok(&name, op, window, count, at / 100, version),
        }
    }
    sample
}

fn moves() -> impl Strategy<Value = Vec<(u64, u64, u64, bool, u8)>> {
    prop::collection::vec((0u64..40, 0u64..60, 0u64..60, any::<bool>(), 0u8..9), 1..24)
}

proptest! {
    /// Whatever a true counter answers is accepted.
    #[test]
    fn no_true_counter_is_accused(moves in moves()) {
        let verdict = check(&simulate(&moves).operations);
        prop_assert_eq!(verdict.violations, []);
    }

    /// A true history in which one acknowledged increment is also applied a second time is never accepted, once
    /// anybody looks.
    #[test]
    fn a_doubled_increment_never_passes(moves in moves(), pick in any::<prop::sample::Index>()) {
        let mut sample = simulate(&moves);
        let acked: Vec<(i64, u64)> = sample
            .operations
            .iter()
            .filter(|o| value(o).is_some())
            .filter_map(|o| Some((amount(o)?, o.meta.as_ref()?.version)))
            .collect();
        prop_assume!(!acked.is_empty());
        let (by, _) = *pick.get(&acked);
        let (version, count) = sample
            .operations
            .iter()
            .filter_map(|o| Some((o.meta.as_ref()?.version, value(o)?)))
            .max()
            .unwrap_or(BORN);
        sample.ok("doubled", Op::Read, (10_000, 10_001), count + by, 100, version + 1);
        prop_assert!(broken(&sample).contains(&Law::Sums));
    }

    /// A read that goes back behind an acknowledged increment is never accepted.
    #[test]
    fn a_stale_read_never_passes(moves in moves(), pick in any::<prop::sample::Index>()) {
        let mut sample = simulate(&moves);
        let acked: Vec<(u64, i64, u64)> = sample
            .operations
            .iter()
            .filter_map(|o| Some((o.meta.as_ref()?.version, value(o)? - amount(o)?, o.meta.as_ref()?.epoch)))
            .collect();
        prop_assume!(!acked.is_empty());
        let (version, before, epoch) = *pick.get(&acked);
        sample.ok("stale", Op::Read, (10_000, 10_001), before, epoch, version - 1);
        prop_assert!(broken(&sample).contains(&Law::RealTime));
    }
}
