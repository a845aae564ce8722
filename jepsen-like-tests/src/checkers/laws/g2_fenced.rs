//! G2, A2: an owner that was replaced neither commits nor answers any more: epochs grow with versions and with time.

use super::{Law, Placed, Report, lives, placed};
use crate::history::Operation;

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let placed = placed(operations);
    for life in lives(&placed) {
        for pair in life.windows(2) {
            if pair[0].meta.epoch > pair[1].meta.epoch {
                let text = format!(
                    "epoch {} answered version {}, the earlier epoch {} answered version {}",
                    pair[0].meta.epoch, pair[0].meta.version, pair[1].meta.epoch, pair[1].meta.version
                );
                report.add(Law::Epochs, &[pair[0].operation, pair[1].operation], text);
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
    let mut latest: Option<Placed<'_>> = None;
    for now in begun {
        while let Some(before) = ended.next_if(|e| e.returned < now.begun()) {
            if latest.is_none_or(|l| l.meta.epoch < before.meta.epoch) {
                latest = Some(before);
            }
        }
        if let Some(latest) = latest.filter(|l| l.meta.epoch > now.meta.epoch) {
            let text = format!(
                "epoch {} had answered before the other began, which epoch {} answered",
                latest.meta.epoch, now.meta.epoch
            );
            report.add(Law::Epochs, &[latest.operation, now.operation], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;
    use crate::history::Op;

    #[test]
    fn an_old_epoch_that_answers_late_or_out_of_order_is_found() {
        let mut sample = Sample::default();
        sample.ok(Op::Write(1), (0, 10), 1, &[], 1, 2);
        sample.ok(Op::Write(2), (20, 30), 2, &[], 2, 3);
        assert_eq!(laws(check, &sample), []);
        let mut late = sample.clone();
        late.ok(Op::Get, (40, 50), 2, &[], 1, 3);
        assert!(laws(check, &late).contains(&Law::Epochs));
        sample.ok(Op::Get, (15, 50), 1, &[], 3, 2);
        assert!(laws(check, &sample).contains(&Law::Epochs));
    }

    #[test]
    fn an_event_may_be_told_late_and_nothing_older_is_answered_after_it() {
        let mut sample = Sample::default();
        sample.ok(Op::Tell(8), (20, 30), 2, &[], 2, 3);
        sample.ok(Op::Heard(1, 7), (40, 40), 7, &[], 1, 2);
        assert_eq!(laws(check, &sample), []);
        sample.ok(Op::Heard(2, 8), (41, 41), 8, &[], 2, 3);
        sample.ok(Op::List, (42, 50), 1, &[7], 1, 2);
        assert!(laws(check, &sample).contains(&Law::Epochs));
    }
}
