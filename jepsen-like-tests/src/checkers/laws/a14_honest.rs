//! G4, A14: what was said to have failed is never seen: not in a register, a list, a sum's stamp or a schedule.

use std::collections::BTreeMap;

use super::{Law, Report, placed};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    // Numbers are used once, so a number tells whose it is.
    let failed: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter(|o| o.outcome == Outcome::Fail)
        .filter_map(|o| match o.op {
            Op::Write(value)
            | Op::Cas(_, value)
            | Op::Append(value)
            | Op::Tell(value)
            | Op::Relay(value, _)
            | Op::Spoil(value)
            | Op::Stamp(value)
            | Op::Remind(value, _) => Some((value, *o)),
            _ => None,
        })
        .collect();
    if failed.is_empty() {
        return;
    }
    for seen in placed(operations) {
        let told = match seen.operation.op {
            Op::Get | Op::Stamps | Op::List => seen.operation.list.iter().chain([&seen.value]),
            _ => continue,
        };
        // The length of a list is no value.
        let told = told.filter(|value| seen.operation.op != Op::List || seen.operation.list.contains(value));
        if let Some(op) = told.filter_map(|value| failed.get(value)).next() {
            let text = format!("{:?} was said to have failed, and its effect is seen", op.op);
            report.add(Law::Honest, &[op, seen.operation], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    #[test]
    fn the_effect_of_a_failed_turn_is_found_wherever_it_shows() {
        let mut sample = Sample::default();
        sample.failed(Op::Spoil(77), 0);
        sample.ok(Op::Get, (10, 20), 3, &[], 1, 2);
        sample.ok(Op::List, (10, 20), 77, &[1, 2], 1, 2);
        assert_eq!(laws(check, &sample), []);
        for (op, value, list) in [
            (Op::Get, 77, vec![]),
            (Op::List, 1, vec![77]),
            (Op::Stamps, 1, vec![1, 77, 1]),
        ] {
            let mut seen = sample.clone();
            seen.ok(op, (30, 40), value, &list, 1, 2);
            assert_eq!(laws(check, &seen), [Law::Honest], "{op:?}");
        }
    }
}
