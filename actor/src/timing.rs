//! When a schedule is due next: once, at a fixed interval, or by a cron expression in a time zone.
//!
//! Invariant: [`Timing::next`] depends on its arguments alone. The time zones are in the binary, so every node of one
//! version computes the same time, and none reads the system's.
//! Not here: storing and firing (node).

use std::time::Duration;

use clinch_types::{WallMs, group};
use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::Error;

/// Shortest interval of a repeated schedule: each firing is a commit. Faster loops belong into `run`.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// Longest cron expression, in bytes.
pub const CRON_MAX: usize = 256;
/// Ticks counted at most when a cron schedule tells how many it missed.
const MISSED_MAX: u64 = 1000;

/// How a schedule repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Timing {
    /// Not at all.
    #[default]
    Once,
    /// After each interval, counted from the first due time: it does not drift.
    Every {
        /// The interval, in milliseconds.
        ms: u64,
    },
    /// By a cron expression.
    Cron {
        /// Five fields (minute, hour, day of month, month, day of week), or six with seconds first.
        expression: String,
        /// IANA name of the time zone, as `Europe/Berlin`.
        zone: String,
    },
}

/// What a repeated schedule does about ticks whose time passed while nobody could fire it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedTick {
    /// One late firing stands for all of them; [`crate::FireInfo::missed`] tells how many there were.
    #[default]
    FireOnce,
    /// None of them fires; the next one on time does.
    Skip,
    /// Each of them fires, one after the other.
    FireAll,
}

fn refused(message: String) -> Error {
    Error::new(group::SCHEDULE, "invalid_timing", message)
}

fn parse(expression: &str, zone: &str) -> Result<(Cron, TimeZone), Error> {
    if expression.len() > CRON_MAX {
        let len = expression.len();
        return Err(refused(format!(
            "cron expression has {len} bytes, at most {CRON_MAX} are allowed"
        )));
    }
    // The parser takes nothing for a value here, and then looks through thousands of years for it.
    let is_gap = |field: &&str| field.split(',').any(str::is_empty);
    if let Some(field) = expression.split_whitespace().find(is_gap) {
        return Err(refused(format!(
            "cron expression {expression:?}: an item is missing in {field:?}"
        )));
    }
    let cron = CronParser::builder()
        .year(Year::Disallowed)
        .build()
        .parse(expression)
        .map_err(|e| refused(format!("cron expression {expression:?}: {e}")))?;
    let zone = TimeZone::get(zone).map_err(|_| {
        refused(format!(
            "there is no time zone {zone:?}: write its IANA name, as \"Europe/Berlin\""
        ))
    })?;
    Ok((cron, zone))
}

fn next_cron(expression: &str, zone: &str, after: WallMs) -> Result<Option<WallMs>, Error> {
    let (cron, zone) = parse(expression, zone)?;
    let Some(after) = i64::try_from(after.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
    else {
        return Ok(None);
    };
    // An expression that matches no further day ends its schedule.
    let Ok(next) = cron.find_next_occurrence(&after.to_zoned(zone), false) else {
        return Ok(None);
    };
    Ok(u64::try_from(next.timestamp().as_millisecond()).ok().map(WallMs))
}

impl Timing {
    /// Passes a sound timing.
    ///
    /// # Errors
    /// `schedule.invalid_timing` naming the expression, zone or interval and what is wrong with it.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Once => Ok(()),
            Self::Every { ms } => match Duration::from_millis(*ms) {
                interval if interval >= EVERY_MIN => Ok(()),
                interval => Err(refused(format!(
                    "an interval of {} ms is too short, it must be at least {} ms",
                    interval.as_millis(),
                    EVERY_MIN.as_millis()
                ))),
            },
            Self::Cron { expression, zone } => match next_cron(expression, zone, WallMs(0))? {
                Some(_) => Ok(()),
                None => Err(refused(format!("cron expression {expression:?} matches no time"))),
            },
        }
    }

    /// When a new schedule of this timing is due first, set at `now`. `None`: never, or only at a given time.
    ///
    /// # Errors
    /// As [`Timing::check`].
    pub fn first(&self, now: WallMs) -> Result<Option<WallMs>, Error> {
        match self {
            Self::Once => Ok(None),
            Self::Every { ms } => Ok(Some(now.after(Duration::from_millis(*ms)))),
            Self::Cron { expression, zone } => next_cron(expression, zone, now),
        }
    }

    /// When it is due after the tick at `due`, handled at `now`. `None`: never again.
    ///
    /// # Errors
    /// As [`Timing::check`]; cannot happen for a timing that was checked.
    pub fn next(&self, due: WallMs, now: WallMs, missed: MissedTick) -> Result<Option<WallMs>, Error> {
        let after = match missed {
            MissedTick::FireOnce | MissedTick::Skip => due.max(now),
            MissedTick::FireAll => due,
        };
        match self {
            Self::Once => Ok(None),
            Self::Every { ms } => {
                let ms = (*ms).max(1);
                let ticks = (after.0 - due.0) / ms + 1;
                Ok(ticks
                    .checked_mul(ms)
                    .and_then(|d| due.0.checked_add(d))
                    .map(WallMs))
            }
            Self::Cron { expression, zone } => next_cron(expression, zone, after),
        }
    }

    /// How many ticks after the one at `due` have passed at `now` as well; of a cron expression at most 1,000 are
    /// counted.
    pub fn passed(&self, due: WallMs, now: WallMs) -> u64 {
        match self {
            Self::Once => 0,
            Self::Every { ms } => now.0.saturating_sub(due.0) / (*ms).max(1),
            Self::Cron { expression, zone } => {
                let (mut at, mut count) = (due, 0);
                while count < MISSED_MAX
                    && let Ok(Some(next)) = next_cron(expression, zone, at)
                    && next <= now
                {
                    (at, count) = (next, count + 1);
                }
                count
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cron(expression: &str, zone: &str) -> Timing {
        Timing::Cron {
            expression: expression.into(),
            zone: zone.into(),
        }
    }

    fn at(text: &str) -> WallMs {
        let time: Timestamp = text.parse().expect("a time");
        WallMs(u64::try_from(time.as_millisecond()).expect("after 1970"))
    }

    #[test]
    fn a_cron_expression_is_due_by_the_wall_clock_of_its_zone() {
        let daily = cron("0 9 * * *", "Europe/Berlin");
        let winter = daily.first(at("2025-01-10T12:00:00Z")).expect("sound");
        assert_eq!(winter, Some(at("2025-01-11T08:00:00Z")));
        let summer = daily.first(at("2025-07-10T12:00:00Z")).expect("sound");
        assert_eq!(summer, Some(at("2025-07-11T07:00:00Z")));
        let utc = cron("*/15 * * * MON-FRI", "UTC");
        // Friday, a minute before midnight: the next is on Monday.
        assert_eq!(
            utc.first(at("2025-01-10T23:59:00Z")).expect("sound"),
            Some(at("2025-01-13T00:00:00Z"))
        );
    }

    #[test]
    fn a_clock_change_neither_drops_nor_doubles_a_daily_tick() {
        // Clocks in Berlin go from 2:00 to 3:00 on 30 March and from 3:00 to 2:00 on 26 October 2025.
        let daily = cron("30 2 * * *", "Europe/Berlin");
        for (from, days) in [("2025-03-28T00:00:00Z", 5), ("2025-10-24T00:00:00Z", 5)] {
            let (mut due, mut seen) = (at(from), Vec::new());
            for _ in 0..days {
                due = daily
                    .next(due, due, MissedTick::FireAll)
                    .expect("sound")
                    .expect("daily");
                let zoned = Timestamp::from_millisecond(due.0 as i64)
                    .expect("a time")
                    .to_zoned(TimeZone::get("Europe/Berlin").expect("a zone"));
                seen.push(zoned.date());
            }
            let first = seen[0];
            let expected: Vec<_> = first.series(jiff::ToSpan::days(1)).take(days).collect();
            assert_eq!(seen, expected, "one a day");
        }
    }

    #[test]
    fn what_is_no_timing_is_refused_by_name() {
        for (timing, part) in [
            (cron("61 * * * *", "UTC"), "61"),
            (cron("* * * *", "UTC"), "* * * *"),
            (cron("0 0 30 2 *", "UTC"), "matches no time"),
            (cron(", 9 * * *", "UTC"), "missing in \",\""),
            (cron("0 9 * 1,,3 *", "UTC"), "missing in \"1,,3\""),
            (cron("0 9 * * *", "Europe/Atlantis"), "Europe/Atlantis"),
            (cron(&"1,".repeat(200), "UTC"), "at most 256"),
            (Timing::Every { ms: 99 }, "99 ms"),
        ] {
            let error = timing.check().expect_err("refused");
            assert!(error.is(group::SCHEDULE, "invalid_timing"), "{error}");
            assert!(error.message().contains(part), "{error}");
        }
        assert!(Timing::Every { ms: 100 }.check().is_ok());
        assert!(cron("*/5 * * * * *", "UTC").check().is_ok(), "with seconds");
    }

    #[test]
    fn missed_ticks_are_counted_and_passed_over_or_repeated() {
        let (every, due) = (Timing::Every { ms: 1000 }, WallMs(10_000));
        let next = |now, missed| every.next(due, WallMs(now), missed).expect("sound");
        assert_eq!(next(10_000, MissedTick::FireOnce), Some(WallMs(11_000)));
        assert_eq!(next(13_500, MissedTick::FireOnce), Some(WallMs(14_000)));
        assert_eq!(next(13_500, MissedTick::FireAll), Some(WallMs(11_000)));
        assert_eq!(every.passed(due, WallMs(13_500)), 3);
        let minutely = cron("* * * * *", "UTC");
        assert_eq!(minutely.passed(WallMs(60_000), WallMs(240_000)), 3);
        assert_eq!(minutely.passed(WallMs(60_000), WallMs(u64::MAX / 2)), MISSED_MAX);
    }

    proptest! {
        /// The next tick lies behind both the last one and the present, on the grid of the first, and none is left out.
        #[test]
        fn the_next_tick_is_the_first_on_the_grid_behind_now(due in 0u64..1 << 40, late in 0u64..1 << 30, ms in 100u64..1 << 20) {
            let (timing, now) = (Timing::Every { ms }, WallMs(due + late));
            let next = timing.next(WallMs(due), now, MissedTick::FireOnce).unwrap().unwrap();
            prop_assert!(next > now && next.0 - now.0 <= ms);
            prop_assert_eq!((next.0 - due) % ms, 0);
        }

        /// Whatever text comes in, it is refused or has a next time; it never panics.
        #[test]
        fn any_text_is_refused_or_has_a_next_time(expression in "[0-9*/,#LW? A-Z-]{0,30}", zone in "[A-Za-z/_]{0,20}") {
            let timing = cron(&expression, &zone);
            if timing.check().is_ok() {
                prop_assert!(timing.first(WallMs(1_700_000_000_000)).is_ok());
            }
            let _refused_or_not = cron(&expression, "UTC").check();
        }
    }
}
