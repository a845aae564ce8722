//! G3, A4: a version is made once and looks the same to all, and whoever begins later sees no older one.

use super::{Law, Placed, Report, lives, placed};
use crate::history::Operation;

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let placed = placed(operations);
    for life in lives(&placed) {
        for pair in life.windows(2) {
            let [one, two] = pair else { continue };
            if one.meta.version != two.meta.version {
                continue;
            }
            let both = [one.operation, two.operation];
            if two.writes() {
                let text = format!("both made version {}", one.meta.version);
                report.add(Law::OneValue, &both, text);
            } else if two.operation.op.is_look()
                && one.operation.op == two.operation.op
                && (one.value, &one.operation.list) != (two.value, &two.operation.list)
            {
                let text = format!("version {} looks different to two", one.meta.version);
                report.add(Law::OneValue, &both, text);
            }
        }
        in_time(life, report);
    }
}

fn in_time(life: &[Placed<'_>], report: &mut Report) {
    let (mut begun, mut ended) = (life.to_vec(), life.to_vec());
    begun.sort_by_key(Placed::begun);
    ended.sort_by_key(|p| p.returned);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<Placed<'_>> = None;
    for now in begun {
        while let Some(before) = ended.next_if(|e| e.returned < now.begun()) {
            if newest.is_none_or(|n| n.meta.version < before.meta.version) {
                newest = Some(before);
            }
        }
        let least = |n: &Placed<'_>| n.meta.version + u64::from(now.writes());
        if let Some(newest) = newest.filter(|n| now.meta.version < least(n)) {
            let text = format!(
                "version {} was acknowledged before the other began, which got version {}",
                newest.meta.version, now.meta.version
            );
            report.add(Law::RealTime, &[newest.operation, now.operation], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;
    use crate::history::Op;

    #[test]
    fn a_stale_read_a_version_made_twice_and_one_of_two_minds_are_found() {
        let mut sample = Sample::default();
        sample.ok(Op::Write(1), (0, 10), 1, &[], 1, 2);
        sample.ok(Op::Write(2), (20, 30), 2, &[], 1, 3);
        sample.ok(Op::Get, (25, 40), 1, &[], 1, 2);
        assert_eq!(
            laws(check, &sample),
            [],
            "the read began before the second write ended"
        );
        let mut stale = sample.clone();
        stale.ok(Op::Get, (41, 50), 1, &[], 1, 2);
        assert_eq!(laws(check, &stale), [Law::RealTime]);
        let mut twice = sample.clone();
        twice.ok(Op::Write(9), (15, 50), 9, &[], 1, 3);
        assert_eq!(laws(check, &twice), [Law::OneValue]);
        sample.ok(Op::List, (31, 40), 1, &[1], 1, 3);
        sample.ok(Op::List, (31, 40), 1, &[2], 1, 3);
        assert_eq!(laws(check, &sample), [Law::OneValue]);
    }

    #[test]
    fn an_event_may_be_told_late_but_what_it_told_is_there_from_then_on() {
        let mut sample = Sample::default();
        sample.ok(Op::Tell(8), (20, 30), 2, &[], 2, 3);
        sample.ok(Op::Heard(1, 7), (40, 40), 7, &[], 1, 2);
        assert_eq!(laws(check, &sample), []);
        let mut heard = Sample::default();
        heard.ok(Op::Heard(2, 8), (31, 31), 8, &[], 1, 3);
        heard.ok(Op::List, (32, 40), 1, &[7], 1, 2);
        assert_eq!(laws(check, &heard), [Law::RealTime]);
    }
}
