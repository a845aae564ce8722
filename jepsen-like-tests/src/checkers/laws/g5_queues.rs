//! G1, G5: a message that was accepted into a queue is dealt with; settled in the turn of its effect exactly once; and once
//! settled it comes to nobody again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Law, Placed, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

/// Pause before the last looks, in ns: leases are over, and what was put off may be received.
const QUIET_NS: u64 = 2_000_000_000;

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let pushed: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter_map(|o| match o.op {
            Op::Push(job) | Op::Enqueue(job) | Op::Spoil(job) => Some((job, *o)),
            _ => None,
        })
        .collect();
    let placed = placed(operations);
    for life in lives(&placed) {
        let Some(last) = life.iter().rfind(|p| p.operation.op == Op::Works) else {
            continue;
        };
        let (done, worked) = parts(last);
        let mut once = BTreeSet::new();
        for job in done {
            if !once.insert(job) {
                let text = format!("message {job} was settled in two turns");
                report.add(Law::Queues, &[last.operation], text);
            }
        }
        for job in done.iter().chain(worked) {
            match pushed.get(job) {
                None => {
                    let text = format!("nobody pushed message {job}");
                    report.add(Law::Queues, &[last.operation], text);
                }
                Some(push) if push.outcome == Outcome::Fail => {
                    let text = format!("message {job} was said to have failed, and it came");
                    report.add(Law::Honest, &[push, last.operation], text);
                }
                Some(_) => {}
            }
        }
        comes_again(life, report);
        all_came(operations, life, last, report);
    }
}

/// What was dealt with exactly once, and what at least once.
fn parts<'a>(look: &Placed<'a>) -> (&'a [i64], &'a [i64]) {
    let Some((count, rest)) = look.operation.list.split_first() else {
        return (&[], &[]);
    };
    rest.split_at(usize::try_from(*count).unwrap_or(0).min(rest.len()))
}

fn comes_again(life: &[Placed<'_>], report: &mut Report) {
    let mut settled: BTreeMap<i64, &Placed<'_>> = BTreeMap::new();
    for taken in life {
        if let (Op::Pop | Op::Work(0 | 1 | 4), [job]) = (taken.operation.op, &taken.operation.list[..]) {
            let first = settled.entry(*job).or_insert(taken);
            if taken.returned < first.returned {
                *first = taken;
            }
        }
    }
    for taken in life {
        if let (Op::Pop | Op::Work(_), [job]) = (taken.operation.op, &taken.operation.list[..])
            && let Some(first) = settled.get(job)
            && first.returned < taken.operation.invoke_ns
        {
            let text = format!("message {job} was settled, and somebody got it afterwards");
            report.add(Law::Queues, &[first.operation, taken.operation], text);
        }
    }
}

/// Judged when the queue was found empty at the very end, after a while in which nobody worked on it.
fn all_came(operations: &[&Operation], life: &[Placed<'_>], last: &Placed<'_>, report: &mut Report) {
    let Some(empty) = life
        .iter()
        .filter(|p| p.operation.op == Op::Pop)
        .max_by_key(|p| p.operation.invoke_ns)
        .filter(|p| p.operation.list.is_empty() && p.returned < last.operation.invoke_ns)
    else {
        return;
    };
    let at = empty.operation.invoke_ns;
    let quiet = operations.iter().all(|o| match o.op {
        Op::Work(_) | Op::Push(_) | Op::Enqueue(_) => o.invoke_ns + QUIET_NS < at,
        _ => true,
    });
    if !quiet {
        return;
    }
    let (done, worked) = parts(last);
    let seen: BTreeSet<&i64> = done.iter().chain(worked).collect();
    for push in life {
        if let Op::Push(job) | Op::Enqueue(job) = push.operation.op
            && !seen.contains(&job)
        {
            let text = format!("message {job} was accepted, and nobody ever got it");
            report.add(
                Law::Arrived,
                &[push.operation, empty.operation, last.operation],
                text,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    const LATER: u64 = 9_000_000_000;

    fn sound() -> Sample {
        let mut sample = Sample::default();
        sample.ok(Op::Push(7), (0, 10), 900, &[], 1, 1);
        sample.ok(Op::Enqueue(8), (11, 20), 8, &[], 1, 2);
        sample.ok(Op::Work(3), (21, 30), 3, &[7], 1, 2);
        sample.ok(Op::Work(1), (31, 40), 1, &[8], 1, 4);
        sample.ok(Op::Pop, (41, 50), 0, &[7], 1, 5);
        sample.ok(Op::Pop, (LATER, LATER + 1), 0, &[], 1, 5);
        sample
    }

    fn looked(mut sample: Sample, list: &[i64]) -> Vec<Law> {
        sample.ok(Op::Works, (LATER + 2, LATER + 3), 1, list, 1, 6);
        laws(check, &sample)
    }

    #[test]
    fn messages_that_are_settled_once_are_sound() {
        assert_eq!(looked(sound(), &[1, 7, 8]), []);
    }

    #[test]
    fn what_is_lost_doubled_made_up_or_back_again_is_found() {
        assert_eq!(looked(sound(), &[1, 7]), [Law::Arrived], "8 is lost");
        assert_eq!(looked(sound(), &[2, 7, 7, 8]), [Law::Queues], "7 twice");
        assert_eq!(looked(sound(), &[2, 7, 9, 8]), [Law::Queues], "9 is nobody's");
        let mut back = sound();
        back.ok(Op::Work(2), (60, 70), 2, &[8], 2, 5);
        assert_eq!(looked(back, &[1, 7, 8]), [Law::Queues]);
        let mut failed = sound();
        failed.failed(Op::Spoil(9), 60);
        assert_eq!(looked(failed, &[2, 7, 9, 8]), [Law::Honest]);
    }
}
