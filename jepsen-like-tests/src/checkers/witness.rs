//! Linearizability by witness: the versions in the replies name an order, and this verifies it in one pass.
//!
//! The order is not believed, it is checked: versions are written once, values are the sums of the increments in that
//! order, gaps are explained by increments of unknown outcome that were begun in time, real time is respected. If all
//! that holds, the order itself is the proof that the history is linearizable.
//!
//! One law is stronger than that: epochs follow real time. A deposed owner that answers a read which happens to be
//! right is caught all the same.

use std::collections::{BTreeMap, BTreeSet};

use super::subset::{Found, choose};
use super::{Law, Verdict, Violation, amount, by_key, value};
use crate::history::{Meta, Operation, Outcome};

/// A new counter is 0 at version 1: creating it is a turn of its own.
pub(super) const BORN: (u64, i64) = (1, 0);

/// Judges a history of counters. Amounts of one key should be distinct, so that an effect tells whose it is.
pub fn check(operations: &[Operation]) -> Verdict {
    let mut verdict = Verdict::default();
    for operation in operations {
        match operation.outcome {
            Outcome::Ok(_) => verdict.acknowledged += 1,
            Outcome::Fail => verdict.failed += 1,
            Outcome::Unknown => verdict.unknown += 1,
        }
    }
    for (key, operations) in by_key(operations) {
        Judge::new(key, operations, &mut verdict).judge();
    }
    verdict
}

/// An operation with a value, and where that came from.
#[derive(Clone, Copy)]
struct Seen<'a> {
    operation: &'a Operation,
    meta: &'a Meta,
    value: i64,
    returned: u64,
}

impl Seen<'_> {
    fn writes(&self) -> bool {
        amount(self.operation).is_some()
    }
}

struct Judge<'a, 'v> {
    key: &'a str,
    all: Vec<&'a Operation>,
    /// Sorted by version, the write first, then by epoch.
    seen: Vec<Seen<'a>>,
    verdict: &'v mut Verdict,
}

impl<'a, 'v> Judge<'a, 'v> {
    fn new(key: &'a str, all: Vec<&'a Operation>, verdict: &'v mut Verdict) -> Self {
        Self {
            key,
            all,
            seen: Vec::new(),
            verdict,
        }
    }

    fn report(&mut self, law: Law, operations: &[&Operation], text: String) {
        let operations = operations.iter().map(|o| o.id).collect();
        self.verdict.violations.push(Violation {
            law,
            key: self.key.to_owned(),
            operations,
            text,
        });
    }

    fn judge(mut self) {
        for operation in self.all.clone() {
            let Some(value) = value(operation) else { continue };
            match (&operation.meta, operation.return_ns) {
                (Some(meta), Some(returned)) => self.seen.push(Seen {
                    operation,
                    meta,
                    value,
                    returned,
                }),
                _ => self.report(
                    Law::Placed,
                    &[operation],
                    "a value without a place or time".into(),
                ),
            }
        }
        self.seen
            .sort_by_key(|s| (s.meta.version, !s.writes(), s.meta.epoch, s.operation.id));
        if self.one_life() {
            self.one_value();
            self.epochs();
            self.real_time();
            self.sums();
        }
    }

    /// The other laws compare versions, which count anew in each life.
    fn one_life(&mut self) -> bool {
        let Some(first) = self.seen.first().copied() else {
            return true;
        };
        let Some(other) = self
            .seen
            .iter()
            .find(|s| s.meta.incarnation != first.meta.incarnation)
            .copied()
        else {
            return true;
        };
        let text = format!(
            "actors {} and {} answered",
            first.meta.incarnation, other.meta.incarnation
        );
        self.report(Law::OneLife, &[first.operation, other.operation], text);
        false
    }

    fn one_value(&mut self) {
        for [one, two] in pairs(&self.seen) {
            if one.meta.version != two.meta.version {
                continue;
            }
            let version = one.meta.version;
            if two.writes() {
                let text = format!("both increments made version {version}");
                self.report(Law::OneValue, &[one.operation, two.operation], text);
            } else if one.value != two.value {
                let text = format!("version {version} is {} and {}", one.value, two.value);
                self.report(Law::OneValue, &[one.operation, two.operation], text);
            }
        }
    }

    fn epochs(&mut self) {
        for [one, two] in pairs(&self.seen) {
            if one.meta.epoch > two.meta.epoch {
                let text = format!(
                    "epoch {} answered version {}, the earlier epoch {} answered version {}",
                    one.meta.epoch, one.meta.version, two.meta.epoch, two.meta.version
                );
                self.report(Law::Epochs, &[one.operation, two.operation], text);
            }
        }
    }

    fn real_time(&mut self) {
        let (mut begun, mut ended) = (self.seen.clone(), self.seen.clone());
        begun.sort_by_key(|s| s.operation.invoke_ns);
        ended.sort_by_key(|s| s.returned);
        let mut ended = ended.into_iter().peekable();
        let (mut newest, mut latest): (Option<Seen<'a>>, Option<Seen<'a>>) = (None, None);
        for now in begun {
            while let Some(before) = ended.next_if(|e| e.returned < now.operation.invoke_ns) {
                if newest.is_none_or(|n| n.meta.version < before.meta.version) {
                    newest = Some(before);
                }
                if latest.is_none_or(|l| l.meta.epoch < before.meta.epoch) {
                    latest = Some(before);
                }
            }
            let least = |n: &Seen<'_>| n.meta.version + u64::from(now.writes());
            if let Some(newest) = newest.filter(|n| now.meta.version < least(n)) {
                let text = format!(
                    "version {} ({}) was acknowledged before the other began, which got version {} ({})",
                    newest.meta.version, newest.value, now.meta.version, now.value
                );
                self.report(Law::RealTime, &[newest.operation, now.operation], text);
            }
            if let Some(latest) = latest.filter(|l| l.meta.epoch > now.meta.epoch) {
                let text = format!(
                    "epoch {} had answered before the other began, which epoch {} answered",
                    latest.meta.epoch, now.meta.epoch
                );
                self.report(Law::Epochs, &[latest.operation, now.operation], text);
            }
        }
    }

    /// Walks from known value to known value.
    fn sums(&mut self) {
        let known: BTreeMap<u64, Seen<'a>> = self.seen.iter().rev().map(|s| (s.meta.version, *s)).collect();
        let seen_by = self.first_seen(&known);
        let mut open: BTreeSet<usize> = (0..self.all.len())
            .filter(|i| self.all[*i].outcome == Outcome::Unknown && amount(self.all[*i]).is_some())
            .collect();
        let mut from = BORN;
        for (version, seen) in known {
            if version < BORN.0 {
                self.report(
                    Law::Sums,
                    &[seen.operation],
                    format!("version {version} came before the counter"),
                );
                continue;
            }
            // Before the increment that made this version, if that one is known.
            let (before, start) = match amount(seen.operation) {
                Some(by) => (version - 1, seen.value.wrapping_sub(by)),
                None => (version, seen.value),
            };
            if before >= from.0 {
                let gap = Gap {
                    from,
                    to: (before, start),
                    seen,
                };
                self.explain(gap, seen_by.get(&version).copied().unwrap_or(u64::MAX), &mut open);
            } else {
                let text =
                    format!("an increment made version {version}, which is older than the counter's calls");
                self.report(Law::Sums, &[seen.operation], text);
            }
            from = (version, seen.value);
        }
    }

    /// Version → when anybody had first seen it or a later one.
    fn first_seen(&self, known: &BTreeMap<u64, Seen<'a>>) -> BTreeMap<u64, u64> {
        let mut first: BTreeMap<u64, u64> = known.keys().map(|v| (*v, u64::MAX)).collect();
        for seen in &self.seen {
            first
                .entry(seen.meta.version)
                .and_modify(|at| *at = seen.returned.min(*at));
        }
        let mut soonest = u64::MAX;
        for at in first.values_mut().rev() {
            soonest = soonest.min(*at);
            *at = soonest;
        }
        first
    }

    /// Finds the increments of unknown outcome that fill a gap; each is used once.
    fn explain(&mut self, gap: Gap<'a>, seen_at: u64, open: &mut BTreeSet<usize>) {
        let missing = gap.to.0 - gap.from.0;
        let sum = gap.to.1.wrapping_sub(gap.from.1);
        let may = |i: &&usize| self.all[**i].invoke_ns <= seen_at;
        let candidates: Vec<usize> = open.iter().filter(may).copied().collect();
        let amounts: Vec<i64> = candidates.iter().filter_map(|i| amount(self.all[*i])).collect();
        match choose(&amounts, usize::try_from(missing).unwrap_or(usize::MAX), sum) {
            Found::Yes(chosen) => {
                self.verdict.surfaced += chosen.len();
                for index in chosen {
                    open.remove(&candidates[index]);
                }
            }
            Found::TooMany => self.verdict.unresolved += 1,
            Found::No => {
                let guess = self.guess(sum);
                let text = format!(
                    "from version {} ({}) to version {} ({}) somebody added {sum} in {missing} turns, \
                     and no {missing} calls of unknown outcome explain that{guess}",
                    gap.from.0, gap.from.1, gap.to.0, gap.to.1
                );
                self.report(Law::Sums, &[gap.seen.operation], text);
            }
        }
    }

    /// Whose increment a sum looks like.
    fn guess(&self, sum: i64) -> String {
        let same = self.all.iter().find(|o| sum != 0 && amount(o) == Some(sum));
        match same.map(|o| (o.id, o.outcome)) {
            Some((id, Outcome::Ok(_))) => format!("; operation {id} was applied twice?"),
            Some((id, Outcome::Fail)) => format!("; operation {id} was said to have failed"),
            Some((id, Outcome::Unknown)) => format!("; operation {id} began later, or was applied twice?"),
            None => String::new(),
        }
    }
}

/// What happened between two known values.
struct Gap<'a> {
    from: (u64, i64),
    to: (u64, i64),
    seen: Seen<'a>,
}

fn pairs<'a>(seen: &[Seen<'a>]) -> Vec<[Seen<'a>; 2]> {
    seen.windows(2).map(|w| [w[0], w[1]]).collect()
}
