//! G6, G8, A8: a listener hears of an actor's turns in the order of their commits, without gap or repetition while one
//! owner lasts, and of no turn that is not there for everybody from then on.

use std::collections::BTreeMap;

use super::{Law, Placed, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    if !operations.iter().any(|o| matches!(o.op, Op::Heard(..))) {
        return;
    }
    let placed = placed(operations);
    for life in lives(&placed) {
        in_order(life, report);
        happened(operations, life, report);
    }
}

fn heard<'a, 'p>(life: &'p [Placed<'a>]) -> impl Iterator<Item = (i64, i64, &'p Placed<'a>)> {
    life.iter().filter_map(|p| match p.operation.op {
        Op::Heard(place, number) => Some((place, number, p)),
        _ => None,
    })
}

fn in_order(life: &[Placed<'_>], report: &mut Report) {
    let mut streams: BTreeMap<&str, Vec<(i64, &Placed<'_>)>> = BTreeMap::new();
    for (place, _, event) in heard(life) {
        streams
            .entry(&event.operation.client)
            .or_default()
            .push((place, event));
    }
    for events in streams.values_mut() {
        // As they came.
        events.sort_by_key(|(_, event)| event.operation.id);
        for pair in events.windows(2) {
            let [(place, one), (next, two)] = pair else {
                continue;
            };
            let sound = match one.meta.epoch == two.meta.epoch {
                true => *next == place + 1,
                false => next > place && two.meta.epoch > one.meta.epoch,
            };
            if !sound || two.meta.version <= one.meta.version {
                let text = format!(
                    "a listener heard of place {place} (epoch {}, version {}), then of place {next} (epoch {}, version {})",
                    one.meta.epoch, one.meta.version, two.meta.epoch, two.meta.version
                );
                report.add(Law::Events, &[one.operation, two.operation], text);
            }
        }
    }
}

/// What was heard of is there, at its place, for whoever looks afterwards, and was not said to have failed.
fn happened(operations: &[&Operation], life: &[Placed<'_>], report: &mut Report) {
    let failed: BTreeMap<i64, &Operation> = operations
        .iter()
        .filter(|o| o.outcome == Outcome::Fail)
        .filter_map(|o| match o.op {
            Op::Tell(number) | Op::Spoil(number) => Some((number, *o)),
            _ => None,
        })
        .collect();
    let mut looks: Vec<&Placed<'_>> = life.iter().filter(|p| p.operation.op == Op::List).collect();
    looks.sort_by_key(|look| look.operation.invoke_ns);
    for (place, number, event) in heard(life) {
        if let Some(failed) = failed.get(&number) {
            let text = format!("{number} was said to have failed, and there was an event of it");
            report.add(Law::Honest, &[failed, event.operation], text);
        }
        let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
        // The first that began afterwards, and the last of all: what is lost is lost for good.
        let after = looks.partition_point(|look| look.operation.invoke_ns <= event.returned);
        for look in looks.get(after).into_iter().chain(looks[after..].last()) {
            if look.operation.list.get(at) != Some(&number) {
                let text = format!(
                    "{number} was heard of at place {place}, and who looked afterwards found {:?} there",
                    look.operation.list.get(at)
                );
                report.add(Law::Events, &[event.operation, look.operation], text);
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
        sample.ok(Op::Tell(7), (0, 10), 1, &[], 1, 2);
        sample.ok(Op::Heard(1, 7), (9, 9), 0, &[], 1, 2);
        sample.ok(Op::Tell(8), (11, 20), 2, &[], 1, 3);
        sample.ok(Op::Heard(2, 8), (15, 15), 0, &[], 1, 3);
        sample.ok(Op::List, (21, 30), 2, &[7, 8], 1, 3);
        sample
    }

    #[test]
    fn events_in_order_of_what_is_there_are_sound() {
        assert_eq!(laws(check, &sound()), []);
    }

    #[test]
    fn gaps_repetitions_and_events_of_what_never_happened_are_found() {
        let mut again = sound();
        again.ok(Op::Heard(2, 8), (31, 31), 0, &[], 1, 3);
        assert_eq!(laws(check, &again), [Law::Events]);
        let mut gap = sound();
        gap.ok(Op::Heard(4, 9), (31, 31), 0, &[], 1, 5);
        assert_eq!(laws(check, &gap), [Law::Events]);
        let mut later_owner = sound();
        later_owner.ok(Op::Heard(4, 9), (31, 31), 0, &[], 2, 5);
        assert_eq!(
            laws(check, &later_owner),
            [],
            "another owner's listener may have heard the third"
        );
        let mut never = sound();
        never.ok(Op::Heard(3, 9), (31, 31), 0, &[], 1, 4);
        never.ok(Op::List, (32, 40), 2, &[7, 8], 2, 3);
        assert_eq!(laws(check, &never), [Law::Events]);
        let mut failed = sound();
        failed.failed(Op::Spoil(9), 31);
        failed.ok(Op::Heard(3, 9), (32, 32), 0, &[], 1, 4);
        assert_eq!(laws(check, &failed), [Law::Honest]);
    }
}
