//! Linearizability by values alone: some order of the operations, each at one moment between its call and its answer,
//! gives every answer. A second opinion, which believes no version: the search of Wing and Gong with the memory of Lowe.
//!
//! Invariant: accuses only when the whole search has found no order. It takes exponential time at worst, so it is bounded;
//! what was not decided is counted, and decided by [`super::witness`] and the laws anyway.

use std::collections::HashSet;

use super::{Law, Violation, by_key};
use crate::history::{Op, Operation, Outcome};

/// Steps for one key before the search gives up.
const STEPS_MAX: usize = 100_000;

/// What came of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opinion {
    /// Operations with a value on keys that were decided.
    pub decided: usize,
    /// Keys that took too long.
    pub undecided: usize,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

/// Judges registers and counters, each key by itself.
pub fn check(operations: &[Operation]) -> Opinion {
    let mut opinion = Opinion::default();
    for (key, operations) in by_key(operations) {
        let calls: Vec<Call> = operations.iter().filter_map(|o| Call::of(o)).collect();
        if calls.is_empty() {
            continue;
        }
        let answered = calls.iter().filter(|call| call.answer.is_some()).count();
        match search(&calls) {
            Found::Order => opinion.decided += answered,
            Found::TooLong => opinion.undecided += 1,
            Found::None { stuck } => {
                opinion.decided += answered;
                opinion.violations.push(Violation {
                    law: Law::Explained,
                    key: key.to_owned(),
                    operations: stuck.iter().map(|call| calls[*call].id).collect(),
                    text: format!("no order of {} operations gives their answers", calls.len()),
                });
            }
        }
    }
    opinion
}

/// An operation as the search sees it.
#[derive(Debug, Clone)]
struct Call {
    id: usize,
    op: Op,
    begun: u64,
    /// `u64::MAX`: never.
    ended: u64,
    /// The value, and whether a compare-and-set was refused; `None`: it may or may not have happened.
    answer: Option<(i64, bool)>,
}

impl Call {
    /// `None`: it is none of a register or counter, or it certainly did nothing, or nobody could ever tell.
    fn of(operation: &Operation) -> Option<Self> {
        let op = operation.op;
        let changes = matches!(op, Op::Increment(_) | Op::Write(_) | Op::Cas(..));
        let looks = matches!(op, Op::Read | Op::Get);
        let answer = match operation.outcome {
            Outcome::Ok(value) if changes || looks => Some((value, !operation.list.is_empty())),
            Outcome::Unknown if changes => None,
            _ => return None,
        };
        let ended = match answer {
            Some(_) => operation.return_ns?,
            None => u64::MAX,
        };
        Some(Self {
            id: operation.id,
            op,
            begun: operation.invoke_ns,
            ended,
            answer,
        })
    }

    /// The value after it, if it fits on this one.
    fn after(&self, value: i64) -> Option<i64> {
        let next = match self.op {
            Op::Increment(by) => value.wrapping_add(by),
            Op::Write(to) => to,
            Op::Cas(from, to) => match (self.answer, value == from) {
                (Some((_, true)), false) | (None, false) => value,
                (Some((_, false)), true) | (None, true) => to,
                (Some(_), _) => return None,
            },
            _ => value,
        };
        match self.answer {
            Some((answer, _)) if answer != next => None,
            _ => Some(next),
        }
    }
}

enum Found {
    Order,
    TooLong,
    /// The operations that could not be put into any order after the longest one that was found.
    None {
        stuck: Vec<usize>,
    },
}

/// Beginnings and ends in order of time, as a list that entries can be lifted out of and put back.
struct Events {
    /// The call, and whether this is its end. The last one is the end of the list.
    events: Vec<(usize, bool)>,
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where each call's end is.
    end_of: Vec<usize>,
}

/// The head of the list.
const HEAD: usize = 0;

impl Events {
    fn of(calls: &[Call]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            times.push((call.begun, false, index));
            times.push((call.ended, true, index));
        }
        // At the same moment beginnings first: such calls are concurrent.
        times.sort_unstable();
        let mut events = vec![(usize::MAX, false)];
        let mut end_of = vec![0; calls.len()];
        for (_, is_end, call) in times {
            if is_end {
                end_of[call] = events.len();
            }
            events.push((call, is_end));
        }
        let count = events.len();
        Self {
            events,
            next: (1..=count).collect(),
            before: (0..count + 1).map(|at| at.saturating_sub(1)).collect(),
            end_of,
        }
    }

    fn unlink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn relink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        self.before[next] = at;
    }

    fn lift(&mut self, at: usize) {
        let end = self.end_of[self.events[at].0];
        self.unlink(at);
        self.unlink(end);
    }

    fn put_back(&mut self, at: usize) {
        let end = self.end_of[self.events[at].0];
        self.relink(end);
        self.relink(at);
    }
}

fn search(calls: &[Call]) -> Found {
    let mut events = Events::of(calls);
    let mut open = calls.iter().filter(|call| call.answer.is_some()).count();
    let mut taken = vec![0u64; calls.len().div_ceil(64)];
    let mut seen: HashSet<(Vec<u64>, i64)> = HashSet::new();
    let mut stack: Vec<(usize, i64)> = Vec::new();
    let (mut value, mut at, mut steps) = (0, events.next[HEAD], 0);
    let (mut longest, mut stuck) = (0, Vec::new());
    while open > 0 {
        steps += 1;
        if steps > STEPS_MAX {
            return Found::TooLong;
        }
        let (call, is_end) = events.events.get(at).copied().unwrap_or((usize::MAX, true));
        if !is_end {
            let mut with = taken.clone();
            with[call / 64] |= 1 << (call % 64);
            if let Some(next) = calls[call].after(value)
                && seen.insert((with.clone(), next))
            {
                stack.push((at, value));
                (value, taken) = (next, with);
                open -= usize::from(calls[call].answer.is_some());
                events.lift(at);
                at = events.next[HEAD];
            } else {
                at = events.next[at];
            }
            continue;
        }
        if stack.len() >= longest {
            longest = stack.len();
            stuck = std::iter::successors(Some(events.next[HEAD]), |at| Some(events.next[*at]))
                .map_while(|at| events.events.get(at).filter(|(_, is_end)| !is_end))
                .map(|(call, _)| *call)
                .take(8)
                .collect();
        }
        // An answer that nothing before it explains: the last choice was wrong.
        let Some((last, former)) = stack.pop() else {
            return Found::None { stuck };
        };
        let call = events.events[last].0;
        taken[call / 64] &= !(1 << (call % 64));
        open += usize::from(calls[call].answer.is_some());
        value = former;
        events.put_back(last);
        at = events.next[last];
    }
    Found::Order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkers::samples::Sample;

    fn is_sound(sample: &Sample) -> bool {
        let opinion = check(&sample.operations);
        assert_eq!(opinion.undecided, 0);
        opinion.violations.is_empty()
    }

    #[test]
    fn a_history_with_a_lost_answer_has_an_order() {
        assert!(is_sound(&Sample::sound()));
    }

    #[test]
    fn stale_lost_doubled_and_made_up_values_have_none() {
        let mut stale = Sample::sound();
        stale.ok("stale", Op::Read, (65, 70), 7, 2, 4);
        assert!(!is_sound(&stale));
        let mut lost = Sample::sound();
        lost.ok("lost", Op::Increment(64), (80, 90), 7 + 64, 3, 5);
        assert!(!is_sound(&lost));
        let mut doubled = Sample::sound();
        doubled.ok("doubled", Op::Increment(64), (80, 90), 39 + 2 + 64, 2, 7);
        assert!(!is_sound(&doubled));
        let mut failed = Sample::sound();
        failed.ok("failed", Op::Increment(64), (80, 90), 39 + 16 + 64, 2, 7);
        assert!(!is_sound(&failed));
    }

    #[test]
    fn a_compare_and_set_is_refused_only_on_another_value() {
        let mut sample = Sample::default();
        sample.ok("w", Op::Write(5), (0, 10), 5, 1, 2);
        sample.ok("c", Op::Cas(5, 6), (11, 20), 6, 1, 3);
        assert!(is_sound(&sample));
        let mut refused = sample.clone();
        refused.ok("r", Op::Cas(5, 7), (21, 30), 6, 1, 3);
        refused.get("r").list = vec![6];
        assert!(is_sound(&refused));
        let mut wrong = sample.clone();
        wrong.ok("r", Op::Cas(6, 7), (21, 30), 6, 1, 3);
        wrong.get("r").list = vec![6];
        assert!(!is_sound(&wrong), "it fitted");
        sample.ok("r", Op::Cas(5, 7), (21, 30), 7, 1, 4);
        assert!(!is_sound(&sample), "it did not fit");
    }

    proptest! {
        /// It agrees with trying every order.
        #[test]
        fn it_agrees_with_trying_everything(
            moves in prop::collection::vec((0u64..30, 1u64..20, 0u8..6, 0i64..3, 0i64..4), 0..6),
        ) {
            let mut sample = Sample::default();
            for (index, (from, long, kind, value, answer)) in moves.into_iter().enumerate() {
                let name = format!("m{index}");
                let window = (from, from + long);
                match kind {
                    0 => sample.ok(&name, Op::Write(value), window, value, 1, 1),
                    1 => sample.lost(&name, Op::Write(value), from, None),
                    2 => sample.ok(&name, Op::Cas(answer, value), window, value, 1, 1),
                    3 => sample.ok(&name, Op::Increment(value), window, answer, 1, 1),
                    _ => sample.ok(&name, Op::Get, window, value, 1, 1),
                }
            }
            let calls: Vec<Call> = sample.operations.iter().filter_map(Call::of).collect();
            prop_assert_eq!(is_sound(&sample), every(&calls, 0, &mut vec![false; calls.len()]));
        }
    }

    fn every(calls: &[Call], value: i64, used: &mut Vec<bool>) -> bool {
        let open = |used: &[bool]| (0..calls.len()).filter(|i| !used[*i]).collect::<Vec<_>>();
        let left = open(used);
        if left.iter().all(|i| calls[*i].answer.is_none()) {
            return true;
        }
        let first_end = left.iter().map(|i| calls[*i].ended).min().unwrap_or(u64::MAX);
        for i in left {
            if calls[i].begun <= first_end
                && let Some(next) = calls[i].after(value)
            {
                used[i] = true;
                let fits = every(calls, next, used);
                used[i] = false;
                if fits {
                    return true;
                }
            }
        }
        false
    }
}
