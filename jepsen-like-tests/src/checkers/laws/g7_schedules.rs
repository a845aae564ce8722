//! G7, A7: a schedule never fires before it is due by its owner's clock, fires once, and none that was acknowledged is
//! missing from a last look long after.

use std::collections::BTreeMap;

use super::{Law, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

/// How long after its time a schedule may be missing, in ms, when all is well: several looks at the clock.
const LATE_MAX_MS: u64 = 5_000;

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let asked: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter_map(|o| match o.op {
            Op::Remind(number, _) => Some((number, *o)),
            _ => None,
        })
        .collect();
    let placed = placed(operations);
    for life in lives(&placed) {
        let Some(last) = life.iter().rfind(|p| p.operation.op == Op::Fired) else {
            continue;
        };
        let mut fired: BTreeMap<i64, usize> = BTreeMap::new();
        for firing in last.operation.list.chunks(3) {
            let [number, due, at] = *firing else { continue };
            *fired.entry(number).or_default() += 1;
            if at < due {
                let text = format!("schedule {number} was due at {due} and fired at {at}");
                report.add(Law::Schedules, &[last.operation], text);
            }
            match asked.get(&number) {
                None => report.add(
                    Law::Schedules,
                    &[last.operation],
                    format!("nobody asked for schedule {number}"),
                ),
                Some(asked) if asked.outcome == Outcome::Fail => {
                    let text = format!("schedule {number} was said to have failed, and it fired");
                    report.add(Law::Honest, &[asked, last.operation], text);
                }
                Some(_) => {}
            }
        }
        for (number, times) in fired.iter().filter(|(_, times)| **times > 1) {
            let text = format!("schedule {number} fired {times} times");
            report.add(Law::Schedules, &[last.operation], text);
        }
        for write in life {
            let Op::Remind(number, after_ms) = write.operation.op else {
                continue;
            };
            let due_ns = write.returned + (after_ms + LATE_MAX_MS) * 1_000_000;
            if due_ns < last.operation.invoke_ns && !fired.contains_key(&number) {
                let text = format!("schedule {number} never fired");
                report.add(Law::Schedules, &[write.operation, last.operation], text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    /// Looks once, a minute later.
    fn looked(fired: &[i64]) -> Sample {
        let minute = 60_000_000_000;
        let mut sample = Sample::default();
        sample.ok(Op::Remind(4, 100), (0, 10), 4, &[], 1, 2);
        sample.failed(Op::Remind(5, 100), 11);
        sample.ok(Op::Fired, (minute, minute + 5), fired.len() as i64, fired, 1, 3);
        sample
    }

    #[test]
    fn a_schedule_that_fires_once_in_time_is_sound_and_all_else_is_found() {
        assert_eq!(laws(check, &looked(&[4, 1000, 1000])), []);
        assert_eq!(laws(check, &looked(&[4, 1000, 999])), [Law::Schedules], "early");
        assert_eq!(laws(check, &looked(&[])), [Law::Schedules], "never");
        assert_eq!(
            laws(check, &looked(&[4, 1000, 1000, 4, 1000, 1100])),
            [Law::Schedules],
            "twice"
        );
        assert_eq!(
            laws(check, &looked(&[4, 1000, 1000, 9, 1, 2])),
            [Law::Schedules],
            "nobody's"
        );
        assert_eq!(laws(check, &looked(&[4, 1000, 1000, 5, 1, 2])), [Law::Honest]);
    }
}
