//! G6, G8, A8: a connection is greeted first and once, and then hears of what it asked for in the order of the actor's
//! history, each thing once and without a gap, before the answer of the action that caused it, whoever owns the actor; and
//! of nothing that is not there for everybody from then on.

use std::collections::BTreeMap;

use super::{Law, Report};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let mut conns: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        if operation.client.starts_with("conn-") {
            conns.entry(&operation.client).or_default().push(operation);
        }
    }
    if conns.is_empty() {
        return;
    }
    for conn in conns.values_mut() {
        // As they came.
        conn.sort_by_key(|operation| operation.id);
        in_order(conn, report);
        before_answers(conn, report);
    }
    happened(operations, report);
}

fn in_order(conn: &[&Operation], report: &mut Report) {
    let (mut number, mut listens) = (None, false);
    let mut last: Option<(i64, &Operation)> = None;
    for operation in conn {
        match operation.op {
            Op::Enter(own) => number = Some(own),
            Op::Hark(_) => listens = true,
            Op::Got(place, what) => {
                let wrong = match (place, last) {
                    (0, None) => (Some(what) != number).then(|| format!("was greeted as {what}")),
                    (0, Some(_)) => Some(format!("was told {what} alone, after its greeting")),
                    (_, None) => Some(format!("heard of place {place} before its greeting")),
                    _ if !listens => Some(format!("heard of place {place} and had not asked for it")),
                    (_, Some((0, _))) => None,
                    (_, Some((before, _))) => (place != before + 1)
                        .then(|| format!("heard of place {before}, then of place {place}")),
                };
                if let Some(text) = wrong {
                    let shown: Vec<&Operation> = last
                        .map(|(_, before)| before)
                        .into_iter()
                        .chain([*operation])
                        .collect();
                    report.add(Law::Connections, &shown, format!("a connection {text}"));
                }
                last = Some((place, operation));
            }
            _ => {}
        }
    }
}

/// The answers of actions tell how far their connection had heard, if it listened.
fn before_answers(conn: &[&Operation], report: &mut Report) {
    for operation in conn {
        if let (Op::Tell(number), Outcome::Ok(place), [heard]) =
            (operation.op, operation.outcome, &operation.list[..])
            && *heard < place
        {
            let text = format!(
                "{number} was answered at place {place}, when its connection had heard up to {heard}"
            );
            report.add(Law::Connections, &[operation], text);
        }
    }
}

/// What was heard of, or answered, is there, at its place, for whoever looks afterwards, and was not said to have failed.
fn happened(operations: &[&Operation], report: &mut Report) {
    let failed: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter(|o| o.outcome == Outcome::Fail)
        .filter_map(|o| match o.op {
            Op::Tell(number) | Op::Spoil(number) => Some((number, *o)),
            _ => None,
        })
        .collect();
    let is_look = |o: &&&Operation| o.op == Op::List && matches!(o.outcome, Outcome::Ok(_));
    let mut looks: Vec<&Operation> = operations.iter().filter(is_look).copied().collect();
    looks.sort_by_key(|look| look.invoke_ns);
    for told in operations.iter().filter(|o| o.client.starts_with("conn-")) {
        let (place, number) = match (told.op, told.outcome) {
            (Op::Got(place, number), _) if place > 0 => (place, number),
            (Op::Tell(number), Outcome::Ok(place)) => (place, number),
            _ => continue,
        };
        if let Some(failed) = failed.get(&number) {
            let text = format!("{number} was said to have failed, and a connection heard of it");
            report.add(Law::Honest, &[failed, told], text);
        }
        let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
        let returned = told.return_ns.unwrap_or(u64::MAX);
        // The first that began afterwards, and the last of all: what is lost is lost for good.
        let after = looks.partition_point(|look| look.invoke_ns <= returned);
        for look in looks.get(after).into_iter().chain(looks[after..].last()) {
            if look.list.get(at) != Some(&number) {
                let text = format!(
                    "a connection was told of {number} at place {place}, and who looked afterwards found {:?} there",
                    look.list.get(at)
                );
                report.add(Law::Connections, &[told, look], text);
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
        sample.client("conn-3");
        sample.ok(Op::Enter(3), (0, 10), 3, &[], 1, 2);
        sample.ok(Op::Got(0, 3), (11, 11), 3, &[], 1, 2);
        sample.ok(Op::Tell(6), (12, 14), 1, &[], 1, 3);
        sample.unknown(Op::Hark(3), 15);
        sample.ok(Op::Got(2, 7), (18, 18), 7, &[], 1, 4);
        sample.ok(Op::Tell(8), (16, 20), 3, &[3], 1, 5);
        sample.ok(Op::Got(3, 8), (19, 19), 8, &[], 1, 5);
        sample.client("c");
        sample.ok(Op::List, (21, 30), 3, &[6, 7, 8], 1, 5);
        sample.client("conn-3");
        sample
    }

    #[test]
    fn a_connection_that_hears_everything_in_order_is_sound() {
        assert_eq!(laws(check, &sound()), []);
        let mut another = sound();
        another.client("conn-4");
        another.ok(Op::Enter(4), (31, 32), 4, &[], 2, 6);
        another.ok(Op::Got(0, 4), (33, 33), 4, &[], 2, 6);
        another.unknown(Op::Hark(4), 34);
        another.ok(Op::Got(9, 5), (35, 35), 5, &[], 2, 12);
        assert_eq!(
            laws(check, &another),
            [],
            "what came before it asked is not missing"
        );
    }

    #[test]
    fn gaps_repetitions_and_what_was_not_asked_for_are_found() {
        for (place, number) in [(5, 9), (3, 8), (2, 7), (0, 3), (0, 77)] {
            let mut wrong = sound();
            wrong.ok(Op::Got(place, number), (31, 31), number, &[], 2, 6);
            assert_eq!(laws(check, &wrong), [Law::Connections], "place {place}, {number}");
        }
        let mut deaf = Sample::default();
        deaf.client("conn-3");
        deaf.ok(Op::Enter(3), (0, 10), 3, &[], 1, 2);
        deaf.ok(Op::Got(0, 3), (11, 11), 3, &[], 1, 2);
        deaf.ok(Op::Got(1, 6), (12, 12), 6, &[], 1, 3);
        assert_eq!(
            laws(check, &deaf),
            [Law::Connections],
            "it had not asked for events"
        );
        let mut rude = Sample::default();
        rude.client("conn-3");
        rude.ok(Op::Enter(3), (0, 10), 3, &[], 1, 2);
        rude.unknown(Op::Hark(3), 11);
        rude.ok(Op::Got(1, 6), (12, 12), 6, &[], 1, 3);
        assert_eq!(laws(check, &rude), [Law::Connections], "it was not greeted");
    }

    #[test]
    fn an_answer_before_its_event_is_found() {
        let mut early = sound();
        early.ok(Op::Tell(9), (31, 33), 4, &[3], 1, 6);
        assert_eq!(laws(check, &early), [Law::Connections]);
    }

    #[test]
    fn events_of_what_never_happened_are_found() {
        let mut never = sound();
        never.ok(Op::Got(4, 9), (31, 31), 9, &[], 1, 6);
        assert_eq!(laws(check, &never), []);
        let mut failed = never.clone();
        failed.failed(Op::Spoil(9), 29);
        assert_eq!(laws(check, &failed), [Law::Honest]);
        never.client("c");
        never.ok(Op::List, (40, 41), 3, &[6, 7, 8], 2, 6);
        assert_eq!(laws(check, &never), [Law::Connections]);
        let mut lost = sound();
        lost.client("c");
        lost.ok(Op::List, (40, 41), 1, &[6], 2, 6);
        assert_eq!(laws(check, &lost), [Law::Connections]);
    }
}
