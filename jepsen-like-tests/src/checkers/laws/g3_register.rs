//! G3, R2: a register has the value that was written last; a compare-and-set succeeds only on the value it names, and
//! one that fails tells a value that was there.

use std::collections::BTreeMap;

use super::{Law, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let is_register = |o: &Operation| matches!(o.op, Op::Write(_) | Op::Cas(..) | Op::Get);
    if !operations.iter().any(|o| is_register(o)) {
        return;
    }
    // Who could have written a value, and when that began; 0 is there from the beginning.
    let mut written: BTreeMap<i64, &Operation> = BTreeMap::new();
    for operation in operations {
        match operation.op {
            // What was refused was not written, now or later.
            Op::Cas(..) if !operation.list.is_empty() => {}
            Op::Write(value) | Op::Cas(_, value) if operation.outcome != Outcome::Fail => {
                written.insert(value, operation);
            }
            _ => {}
        }
    }
    let placed = placed(operations);
    for life in lives(&placed) {
        let mut known: BTreeMap<u64, i64> = BTreeMap::new();
        for seen in life.iter().filter(|p| is_register(p.operation)) {
            if let Op::Cas(from, to) = seen.operation.op
                && seen.operation.list.is_empty()
            {
                let before = known.get(&(seen.meta.version - 1)).copied();
                if before.is_some_and(|value| value != from) || seen.value != to {
                    let text = format!(
                        "a compare-and-set from {from} to {to} gave {} on {before:?}",
                        seen.value
                    );
                    report.add(Law::Register, &[seen.operation], text);
                }
            }
            if let Op::Write(value) = seen.operation.op
                && seen.value != value
            {
                let text = format!("writing {value} was answered {}", seen.value);
                report.add(Law::Register, &[seen.operation], text);
            }
            if let Op::Cas(from, _) = seen.operation.op
                && !seen.operation.list.is_empty()
                && seen.value == from
            {
                let text = format!("a compare-and-set from {from} failed on {from}");
                report.add(Law::Register, &[seen.operation], text);
            }
            let value = seen.value;
            match known.insert(seen.meta.version, value) {
                Some(other) if other != value => {
                    let text = format!("version {} is {other} and {value}", seen.meta.version);
                    report.add(Law::Register, &[seen.operation], text);
                }
                _ => {}
            }
            let writer = written.get(&value);
            if value != 0 && writer.is_none_or(|w| w.invoke_ns > seen.returned) {
                let text = format!("{value} was told, which nobody can have written by then");
                report.add(Law::Register, &[seen.operation], text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    fn sound() -> Sample {
        let mut sample = Sample::default();
        sample.ok(Op::Write(5), (0, 10), 5, &[], 1, 2);
        sample.ok(Op::Cas(5, 6), (11, 20), 6, &[], 1, 3);
        sample.ok(Op::Cas(5, 7), (21, 30), 6, &[6], 1, 3);
        sample.unknown(Op::Write(8), 31);
        sample.ok(Op::Get, (40, 50), 8, &[], 1, 4);
        sample
    }

    #[test]
    fn what_a_register_may_do_is_sound() {
        assert_eq!(laws(check, &sound()), []);
    }

    #[test]
    fn what_it_may_not_is_found() {
        let mut wrong = sound();
        wrong.ok(Op::Cas(5, 9), (60, 70), 9, &[], 1, 5);
        assert_eq!(laws(check, &wrong), [Law::Register], "8 was there, not 5");
        let mut wrong = sound();
        wrong.failed(Op::Write(9), 60);
        wrong.ok(Op::Get, (70, 80), 9, &[], 1, 5);
        assert_eq!(laws(check, &wrong), [Law::Register], "9 was said to have failed");
        let mut wrong = sound();
        wrong.ok(Op::Get, (60, 70), 7, &[], 1, 5);
        assert_eq!(laws(check, &wrong), [Law::Register], "7 was refused");
        let mut wrong = sound();
        wrong.ok(Op::Cas(8, 9), (60, 70), 8, &[8], 1, 4);
        assert_eq!(laws(check, &wrong), [Law::Register], "refused although it fitted");
    }
}
