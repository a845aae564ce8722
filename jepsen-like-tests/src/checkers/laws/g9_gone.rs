//! G9, A9: a destroyed life of a key answers nobody who begins afterwards, lives do not alternate, and what they say of
//! their sums begins at nothing.

use std::collections::BTreeMap;

use super::{Law, Placed, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let placed = placed(operations);
    let churns = operations.iter().any(|o| o.op == Op::End);
    if !churns {
        one_life(&placed, report);
        return;
    }
    // First and last time that each life is known to have been there.
    let mut spans: BTreeMap<&str, (u64, &Operation, u64, &Operation)> = BTreeMap::new();
    for seen in &placed {
        let (returned, begun) = (seen.returned, seen.operation.invoke_ns);
        let span =
            spans
                .entry(&seen.meta.incarnation)
                .or_insert((returned, seen.operation, begun, seen.operation));
        if returned < span.0 {
            (span.0, span.1) = (returned, seen.operation);
        }
        if begun > span.2 {
            (span.2, span.3) = (begun, seen.operation);
        }
    }
    for seen in placed.iter().filter(|p| p.operation.op == Op::End) {
        let (_, _, begun, last) = spans[seen.meta.incarnation.as_str()];
        if begun > seen.returned {
            let text = format!("actor {} answered after it was destroyed", seen.meta.incarnation);
            report.add(Law::Gone, &[seen.operation, last], text);
        }
    }
    let spans: Vec<_> = spans.into_iter().collect();
    for (at, (one, (first, first_op, last, last_op))) in spans.iter().enumerate() {
        for (two, (other_first, other_op, other_last, other_last_op)) in &spans[at + 1..] {
            // Each was there before the other's last answer was asked for, and neither can have followed the other.
            if first < other_last && other_first < last {
                let text = format!("lives {one} and {two} of one key answer by turns");
                report.add(Law::Gone, &[first_op, other_op, last_op, other_last_op], text);
            }
        }
    }
    for life in lives(&placed) {
        sums(operations, life, report);
    }
}

fn one_life(placed: &[Placed<'_>], report: &mut Report) {
    if let (Some(first), Some(last)) = (placed.first(), placed.last())
        && first.meta.incarnation != last.meta.incarnation
    {
        let text = format!(
            "actors {} and {} answered, and nobody destroyed one",
            first.meta.incarnation, last.meta.incarnation
        );
        report.add(Law::OneLife, &[first.operation, last.operation], text);
    }
}

/// A sum is at least what was acknowledged to it in this life before, and at most that and everything in doubt.
fn sums(operations: &[&Operation], life: &[Placed<'_>], report: &mut Report) {
    let doubt: i64 = operations
        .iter()
        .filter(|o| o.outcome == Outcome::Unknown)
        .filter_map(|o| match o.op {
            Op::Add(by) => Some(by),
            _ => None,
        })
        .sum();
    let mut acknowledged = 0;
    for seen in life {
        if let Op::Add(by) = seen.operation.op {
            acknowledged += by;
        }
        if matches!(seen.operation.op, Op::Add(_) | Op::Sum)
            && !(acknowledged..=acknowledged + doubt).contains(&seen.value)
        {
            let text = format!(
                "the sum is {} at version {}, it must be {acknowledged} to {}",
                seen.value,
                seen.meta.version,
                acknowledged + doubt
            );
            report.add(Law::Gone, &[seen.operation], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    fn sound() -> Sample {
        let mut sample = Sample::default();
        sample.ok(Op::Add(5), (0, 10), 5, &[], 1, 2);
        sample.ok(Op::End, (20, 30), 5, &[], 1, 3);
        sample.life("two");
        sample.ok(Op::Add(7), (31, 40), 7, &[], 1, 2);
        sample
    }

    #[test]
    fn a_new_life_after_the_old_one_is_sound() {
        assert_eq!(laws(check, &sound()), []);
    }

    #[test]
    fn a_life_that_comes_back_or_remembers_is_found() {
        let mut back = sound();
        back.life("one");
        back.ok(Op::Sum, (50, 60), 5, &[], 1, 3);
        assert_eq!(laws(check, &back), [Law::Gone]);
        let mut remembers = sound();
        remembers.ok(Op::Sum, (50, 60), 12, &[], 1, 3);
        assert_eq!(laws(check, &remembers), [Law::Gone]);
        let mut two = Sample::default();
        two.ok(Op::Get, (0, 10), 0, &[], 1, 1);
        two.life("two");
        two.ok(Op::Get, (20, 30), 0, &[], 1, 1);
        assert_eq!(laws(check, &two), [Law::OneLife]);
    }
}
