//! G4, G5, A5: the hooks of a connection take effect once each: `on_connect` of every one that is open, `on_disconnect`
//! of every one that was, however it ended, and neither of one that was not let in.

use std::collections::{BTreeMap, BTreeSet};

use super::{Law, Report};
use crate::actors::Visitor;
use crate::history::{Op, Operation, Outcome};

/// Time after which an owner has noticed that a gateway is gone, and after another change of owner.
const QUIET_NS: u64 = 40_000_000_000;

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let came: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter_map(|o| match o.op {
            Op::Enter(number) => Some((number, *o)),
            _ => None,
        })
        .collect();
    let is_look = |o: &&&Operation| o.op == Op::Visits && matches!(o.outcome, Outcome::Ok(_));
    let mut looks: Vec<&Operation> = operations.iter().filter(is_look).copied().collect();
    looks.sort_by_key(|look| look.invoke_ns);
    for look in &looks {
        let (entered, left) = parts(look);
        let inside = once(look, entered, "entered", report);
        let outside = once(look, left, "left", report);
        for number in &inside {
            match came.get(number) {
                Some(enter) if enter.outcome == Outcome::Fail || !Visitor::is_welcome(*number) => {
                    let text = format!("{number} was not let in, and its hook took effect");
                    report.add(Law::Honest, &[enter, look], text);
                }
                Some(_) => {}
                None => report.add(Law::Visits, &[look], format!("{number} entered, and is nobody")),
            }
        }
        for number in outside.difference(&inside) {
            report.add(
                Law::Visits,
                &[look],
                format!("{number} left, and had not entered"),
            );
        }
    }
    let Some(last) = looks.last() else { return };
    let (entered, left) = parts(last);
    for (number, enter) in &came {
        let is_open = matches!(enter.outcome, Outcome::Ok(_)) && enter.return_ns < Some(last.invoke_ns);
        if is_open && !entered.contains(number) {
            let text = format!("connection {number} was open, and its hook has left no trace");
            report.add(Law::Visits, &[enter, last], text);
        }
    }
    let active = |o: &&&Operation| o.client.starts_with("conn-");
    let latest = operations
        .iter()
        .filter(active)
        .map(|o| o.return_ns.unwrap_or(o.invoke_ns))
        .max();
    if latest.is_some_and(|latest| latest + QUIET_NS < last.invoke_ns) {
        for number in entered.iter().filter(|number| !left.contains(number)) {
            let text = format!("connection {number} is over for long, and nobody was told");
            report.add(Law::Visits, &[last], text);
        }
    }
}

/// Who entered and who left.
fn parts(look: &Operation) -> (&[i64], &[i64]) {
    let Some((count, rest)) = look.list.split_first() else {
        return (&[], &[]);
    };
    rest.split_at(usize::try_from(*count).unwrap_or(0).min(rest.len()))
}

fn once(look: &Operation, numbers: &[i64], what: &str, report: &mut Report) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    for number in numbers {
        if !seen.insert(*number) {
            report.add(Law::Visits, &[look], format!("{number} {what} twice"));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    const LATER: u64 = 90_000_000_000;

    fn sound() -> Sample {
        let mut sample = Sample::default();
        sample.client("conn-3");
        sample.ok(Op::Enter(3), (0, 10), 3, &[], 1, 2);
        sample.client("conn-5");
        sample.unknown(Op::Enter(5), 1);
        sample.client("conn-16");
        sample.failed(Op::Enter(16), 2);
        sample.client("c");
        sample
    }

    fn looked(list: &[i64], at: u64) -> Vec<Law> {
        let mut sample = sound();
        sample.ok(Op::Visits, (at, at + 1), 1, list, 1, 9);
        laws(check, &sample)
    }

    #[test]
    fn hooks_that_took_effect_once_are_sound() {
        assert_eq!(looked(&[1, 3, 3], 20), []);
        assert_eq!(looked(&[2, 3, 5, 5, 3], LATER), []);
        assert_eq!(looked(&[1, 3], 20), [], "it may still be there");
        assert_eq!(looked(&[0], 5), [], "it was not open yet");
    }

    #[test]
    fn hooks_that_ran_twice_never_or_for_nobody_are_found() {
        assert_eq!(looked(&[2, 3, 3], 20), [Law::Visits], "entered twice");
        assert_eq!(looked(&[1, 3, 3, 3], 20), [Law::Visits], "left twice");
        assert_eq!(looked(&[0], 20), [Law::Visits], "its hook has no effect");
        assert_eq!(looked(&[1, 3, 7], 20), [Law::Visits], "who left was never there");
        assert_eq!(looked(&[2, 3, 7], 20), [Law::Visits], "nobody is 7");
        assert_eq!(
            looked(&[1, 3], LATER),
            [Law::Visits],
            "nobody was told of its end"
        );
        assert_eq!(looked(&[2, 3, 16], 20), [Law::Honest], "it was not let in");
    }
}
