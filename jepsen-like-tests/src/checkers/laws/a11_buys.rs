//! G3, G4, G5, A11: what an actor did at another by a call that it waited for, under a key of its own, is there once, at the
//! place it was told, however often its turn was executed; and of a turn that failed it keeps nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{Law, Report};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[Operation], report: &mut Report) {
    let is_answered = |o: &&Operation| matches!(o.outcome, Outcome::Ok(_));
    let mut buys: BTreeMap<i64, &Operation> = BTreeMap::new();
    for operation in operations.iter().filter(|o| o.key.starts_with('w')) {
        if let Op::Buy(number) | Op::Spoil(number) = operation.op {
            buys.insert(number, operation);
        }
    }
    let tills = operations.iter().filter(|o| o.op == Op::Till).filter(is_answered);
    let Some(till) = tills.max_by_key(|o| (o.invoke_ns, o.id)) else {
        return;
    };
    report.key.clone_from(&till.key);
    let mut places: BTreeMap<i64, i64> = BTreeMap::new();
    for (place, number) in (1..).zip(&till.list) {
        if let Some(before) = places.insert(*number, place) {
            let text = format!("{number} was paid twice, at places {before} and {place}");
            report.add(Law::Buys, &[till], text);
        }
        if !buys.contains_key(number) {
            report.add(Law::Buys, &[till], format!("nobody paid {number}"));
        }
    }
    let mut last: BTreeMap<&str, &Operation> = BTreeMap::new();
    for look in operations
        .iter()
        .filter(|o| o.op == Op::Bought)
        .filter(is_answered)
    {
        let newest = last.entry(&look.key).or_insert(look);
        if (look.invoke_ns, look.id) > (newest.invoke_ns, newest.id) {
            *newest = look;
        }
    }
    for (key, look) in last {
        report.key = key.to_owned();
        one(look, till, &places, &buys, report);
    }
}

/// The last look at one buyer.
fn one(
    look: &Operation,
    till: &Operation,
    places: &BTreeMap<i64, i64>,
    buys: &BTreeMap<i64, &Operation>,
    report: &mut Report,
) {
    let mut kept = BTreeSet::new();
    for pair in look.list.chunks_exact(2) {
        let [number, place] = *pair else { continue };
        if !kept.insert(number) {
            report.add(Law::Buys, &[look], format!("{number} was bought twice"));
        }
        let is_later = look.return_ns.is_some_and(|returned| returned <= till.invoke_ns);
        if is_later && places.get(&number) != Some(&place) {
            let there = places.get(&number);
            let text = format!("{number} was bought at place {place}, and was paid at {there:?}");
            report.add(Law::Buys, &[look, till], text);
        }
        match buys.get(&number) {
            Some(buy) if buy.outcome == Outcome::Fail => {
                let text = format!("buying {number} was said to have failed, and it is kept");
                report.add(Law::Honest, &[buy, look], text);
            }
            Some(_) => {}
            None => report.add(Law::Buys, &[look], format!("nobody bought {number}")),
        }
    }
    for buy in buys.values().filter(|buy| buy.key == look.key) {
        if let (Op::Buy(number), Outcome::Ok(place)) = (buy.op, buy.outcome)
            && buy.return_ns < Some(look.invoke_ns)
        {
            let pair = [number, place];
            if !look.list.chunks_exact(2).any(|kept| kept == pair) {
                let text = format!("{number} was bought at place {place}, and is not kept so");
                report.add(Law::Buys, &[buy, look], text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws_of_all};
    use super::*;

    fn looked(kept: &[i64], paid: &[i64]) -> Vec<Law> {
        let mut sample = Sample::default();
        sample.key("w0");
        sample.ok(Op::Buy(7), (0, 10), 1, &[], 1, 2);
        sample.unknown(Op::Buy(8), 11);
        sample.failed(Op::Spoil(9), 20);
        sample.ok(Op::Bought, (30, 40), 0, kept, 1, 3);
        sample.key("v0");
        sample.ok(Op::Till, (50, 60), 0, paid, 1, 4);
        laws_of_all(check, &sample)
    }

    #[test]
    fn what_is_kept_is_paid_once_and_what_failed_may_be_paid_too() {
        assert_eq!(looked(&[7, 1], &[7]), []);
        assert_eq!(looked(&[7, 1, 8, 2], &[7, 8]), []);
        assert_eq!(
            looked(&[7, 1], &[7, 9, 8]),
            [],
            "the other side of what failed or is unknown"
        );
    }

    #[test]
    fn what_is_paid_twice_elsewhere_or_not_at_all_is_found() {
        assert_eq!(looked(&[7, 1], &[7, 8, 8]), [Law::Buys], "twice");
        assert_eq!(looked(&[7, 1, 8, 2], &[7, 9, 8]), [Law::Buys], "elsewhere");
        assert_eq!(looked(&[7, 1, 8, 2], &[7]), [Law::Buys], "never");
        assert_eq!(looked(&[8, 2], &[7, 8]), [Law::Buys], "acknowledged and not kept");
        assert_eq!(looked(&[7, 1, 9, 2], &[7, 9]), [Law::Honest], "it failed");
        assert_eq!(looked(&[7, 1], &[7, 5]), [Law::Buys], "nobody's");
    }
}
