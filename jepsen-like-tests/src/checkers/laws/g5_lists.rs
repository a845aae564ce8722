//! G1, G5, A11: what was appended is in the list exactly once, in one order that every reader sees, and stays there.

use std::collections::BTreeMap;

use super::{Law, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    // Of lists that others append to, [`super::a11_cycles`] speaks.
    if report.key.starts_with('x') {
        return;
    }
    let asked: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter_map(|o| match o.op {
            Op::Append(value) | Op::Tell(value) => Some((value, *o)),
            _ => None,
        })
        .collect();
    let placed = placed(operations);
    for life in lives(&placed) {
        let reads: Vec<_> = life.iter().filter(|p| p.operation.op == Op::List).collect();
        for pair in reads.windows(2) {
            let (one, two) = (&pair[0].operation.list, &pair[1].operation.list);
            if !two.starts_with(one) {
                let text = format!("{one:?} does not begin the later {two:?}");
                report.add(Law::Lists, &[pair[0].operation, pair[1].operation], text);
            }
        }
        let Some(last) = reads.last() else { continue };
        let mut places: BTreeMap<i64, usize> = BTreeMap::new();
        for (place, value) in last.operation.list.iter().enumerate() {
            if places.insert(*value, place).is_some() {
                report.add(
                    Law::Lists,
                    &[last.operation],
                    format!("{value} is in the list twice"),
                );
            }
            if !asked.contains_key(value) {
                report.add(Law::Lists, &[last.operation], format!("nobody appended {value}"));
            }
        }
        for write in life
            .iter()
            .filter(|p| matches!(p.operation.op, Op::Append(_) | Op::Tell(_)))
        {
            let (Op::Append(value) | Op::Tell(value)) = write.operation.op else {
                continue;
            };
            // Its answer is the length with it: that tells its place.
            let place = usize::try_from(write.value - 1).unwrap_or(usize::MAX);
            if write.meta.version <= last.meta.version && places.get(&value) != Some(&place) {
                let text = format!(
                    "{value} was acknowledged at place {place}, it is at {:?}",
                    places.get(&value)
                );
                report.add(Law::Lists, &[write.operation, last.operation], text);
            }
        }
        for value in places.keys() {
            if let Some(failed) = asked.get(value).filter(|o| o.outcome == Outcome::Fail) {
                let text = format!("appending {value} was said to have failed, and it is in the list");
                report.add(Law::Honest, &[failed, last.operation], text);
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
        sample.ok(Op::Append(7), (0, 10), 1, &[], 1, 2);
        sample.ok(Op::List, (11, 12), 1, &[7], 1, 2);
        sample.unknown(Op::Append(8), 13);
        sample.ok(Op::Append(9), (14, 20), 3, &[], 1, 4);
        sample.ok(Op::List, (21, 30), 3, &[7, 8, 9], 1, 4);
        sample
    }

    #[test]
    fn a_list_that_grows_at_its_end_is_sound() {
        assert_eq!(laws(check, &sound()), []);
    }

    #[test]
    fn what_is_lost_repeated_moved_or_made_up_is_found() {
        for (list, law) in [
            (vec![7, 8], Law::Lists),
            (vec![7, 8, 9, 9], Law::Lists),
            (vec![7, 9, 8], Law::Lists),
            (vec![7, 8, 9, 5], Law::Lists),
        ] {
            let mut sample = sound();
            sample.ok(Op::List, (40, 50), list.len() as i64, &list, 1, 5);
            assert_eq!(laws(check, &sample), [law], "{list:?}");
        }
        let mut sample = sound();
        sample.failed(Op::Append(11), 31);
        sample.ok(Op::List, (40, 50), 4, &[7, 8, 9, 11], 1, 5);
        assert_eq!(laws(check, &sample), [Law::Honest]);
    }
}
