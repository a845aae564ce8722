//! G7, A7: a repeated schedule fires each of its ticks once, in order, on its grid and never before it is due by its
//! owner's clock; and it goes on.

use std::collections::BTreeMap;

use super::{Law, Placed, Report, lives, placed};
use crate::history::{Op, Operation, Outcome};

/// Distances of the ticks of the two schedules, in ms: those of [`crate::actors::Ticker`].
const GRIDS_MS: [i64; 2] = [400, 2000];
/// How long after its time a tick may be missing, in ms, when all is well.
const LATE_MAX_MS: i64 = 5_000;
/// Before the last look, in ns of the history: by then an acknowledged beginning shows.
const SHOWS_WITHIN_NS: u64 = 8_000_000_000;

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    let placed = placed(operations);
    for life in lives(&placed) {
        let looks: Vec<&Placed<'_>> = life.iter().filter(|p| p.operation.op == Op::Ticks).collect();
        for pair in looks.windows(2) {
            if !pair[1].operation.list.starts_with(&pair[0].operation.list) {
                let text = "ticks that were seen are not what they were".to_owned();
                report.add(Law::Ticks, &[pair[0].operation, pair[1].operation], text);
            }
        }
        let Some(last) = looks.last() else { continue };
        on_grid(last, report);
        goes_on(operations, life, last, report);
    }
}

fn on_grid(last: &Placed<'_>, report: &mut Report) {
    let mut before: BTreeMap<i64, i64> = BTreeMap::new();
    let mut wrong = |text: String| report.add(Law::Ticks, &[last.operation], text);
    for tick in last.operation.list.chunks(3) {
        let [which, due, fired] = *tick else { continue };
        let grid = usize::try_from(which).ok().and_then(|which| GRIDS_MS.get(which));
        let Some(grid) = grid else {
            wrong(format!(
                "a schedule ticked that was set by a turn which failed ({which})"
            ));
            continue;
        };
        if fired < due {
            wrong(format!("schedule {which} was due at {due} and fired at {fired}"));
        }
        match before.insert(which, due) {
            Some(former) if former >= due => {
                wrong(format!(
                    "schedule {which} ticked for {due} after it had for {former}"
                ));
            }
            Some(former) if (due - former) % grid != 0 => {
                wrong(format!(
                    "schedule {which} ticked for {due}, off its grid from {former}"
                ));
            }
            _ => {}
        }
    }
}

/// By the last look. The clocks must have agreed for a while: in the middle of a history they need not.
fn goes_on(operations: &[&Operation], life: &[Placed<'_>], last: &Placed<'_>, report: &mut Report) {
    let ended = operations
        .iter()
        .all(|o| o.invoke_ns <= last.operation.invoke_ns || o.outcome != Outcome::Unknown);
    let begun = life.iter().find(|p| {
        matches!(p.operation.op, Op::Begin(_)) && p.returned + SHOWS_WITHIN_NS < last.operation.invoke_ns
    });
    let (Some(begun), true) = (begun, ended) else {
        return;
    };
    for (which, grid) in (0..).zip(GRIDS_MS) {
        let ticks = last.operation.list.chunks(3).filter(|tick| tick[0] == which);
        let due = ticks.filter_map(|tick| tick.get(1)).max();
        if due.is_none_or(|due| last.value - due > grid + LATE_MAX_MS) {
            let text = format!(
                "schedule {which} ticked last for {due:?}, and it is {} already",
                last.value
            );
            report.add(Law::Arrived, &[begun.operation, last.operation], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    fn looked(now: i64, ticks: &[i64]) -> Sample {
        let minute = 60_000_000_000;
        let mut sample = Sample::default();
        sample.ok(Op::Begin(1), (0, 10), 1, &[], 1, 2);
        sample.ok(Op::Ticks, (minute, minute + 5), now, ticks, 1, 9);
        sample
    }

    const SOUND: [i64; 12] = [
        0, 60_100, 60_101, 1, 62_000, 62_003, 0, 62_500, 62_500, 1, 64_000, 64_000,
    ];

    #[test]
    fn ticks_on_their_grids_are_sound() {
        assert_eq!(laws(check, &looked(64_001, &SOUND)), []);
    }

    #[test]
    fn what_is_early_doubled_off_the_grid_nobodys_or_over_is_found() {
        let with = |tick: [i64; 3]| laws(check, &looked(64_900, &[&SOUND[..], &tick].concat()));
        assert_eq!(with([0, 62_900, 62_901]), [], "the next");
        assert_eq!(with([0, 62_900, 62_899]), [Law::Ticks], "early");
        assert_eq!(with([0, 62_500, 62_600]), [Law::Ticks], "twice");
        assert_eq!(with([0, 62_901, 62_901]), [Law::Ticks], "off the grid");
        assert_eq!(with([2, 62_900, 62_901]), [Law::Ticks], "nobody's");
        assert_eq!(laws(check, &looked(99_000, &SOUND)), [Law::Arrived], "it stopped");
        assert_eq!(
            laws(check, &looked(64_000, &[])),
            [Law::Arrived],
            "it never began"
        );
    }
}
