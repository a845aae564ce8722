//! Whether any sane counter could have given the answers of a history.
//!
//! Three independent judges: [`witness`] follows the versions in the replies and is linear in the length of the history;
//! [`bounds`] uses values alone and knows nothing of versions; [`wgl`] looks for an order that explains the values, as far
//! as that can be done. All judge each key by itself.

pub mod bounds;
pub mod laws;
#[cfg(test)]
mod samples;
mod subset;
pub mod wgl;
pub mod witness;
#[cfg(test)]
mod witness_tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Op, Operation, Outcome};

/// A law that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// A reply says where it was produced.
    Placed,
    /// A key that nobody destroys has one life.
    OneLife,
    /// A version is written once, and has one value.
    OneValue,
    /// An operation sees all that was acknowledged before it began.
    RealTime,
    /// Later versions, and later operations, are of the same or later epochs.
    Epochs,
    /// Values are the sums of the increments between them, each of which somebody asked for, once.
    Sums,
    /// Every key is read at the end, so that a loss cannot hide.
    FinalRead,
    /// The end is not below what was acknowledged, nor above that and what is unknown.
    Bounds,
    /// A register has the value written last.
    Register,
    /// What was appended is there once, in one order.
    Lists,
    /// A turn's effects are seen together or not at all.
    Atomic,
    /// A schedule fires once, and not before it is due.
    Schedules,
    /// A destroyed actor stays destroyed.
    Gone,
    /// What was said to have failed is never seen.
    Honest,
    /// Payments arrive once and in order.
    Payments,
    /// One order fits what everybody saw of several lists.
    Cycles,
    /// Queue messages are settled once, and do not come again.
    Queues,
    /// Repeated schedules fire each tick once, on their grid.
    Ticks,
    /// Events come in commit order, of what has happened.
    Events,
    /// A connection hears everything in order, before the answer it belongs to.
    Connections,
    /// Hooks of connections take effect once each.
    Visits,
    /// What was done at another actor is there once.
    Buys,
    /// What was accepted has happened by the end.
    Arrived,
    /// Some order of the operations explains the values alone.
    Explained,
}

impl Law {
    /// The guarantee it stands for (DESIGN §2), and the invariant of the reliability report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Placed => "R1 every reply is placed",
            Self::OneLife => "A9 one life (G9)",
            Self::OneValue => "A5 a version is written once (G2, G5)",
            Self::RealTime => "A4 linearizable (G3)",
            Self::Epochs => "A2 stale owner fenced (G2)",
            Self::Sums => "A5 every effect once (G1, G5)",
            Self::FinalRead => "A3 read at the end",
            Self::Bounds => "A3 no lost ack (G1)",
            Self::Register => "A4 registers (G3)",
            Self::Lists => "A11 lists (G1, G5)",
            Self::Atomic => "A6 atomic turns (G4)",
            Self::Schedules => "A7 schedules (G7)",
            Self::Gone => "A9 gone is gone (G9)",
            Self::Honest => "A14 honest errors (G4, G10)",
            Self::Payments => "A11 payments (G4, G5)",
            Self::Cycles => "A11 no cycles (G3, G5)",
            Self::Queues => "A5 queues (G5)",
            Self::Ticks => "A7 repeated schedules (G7)",
            Self::Events => "A8 events (G6, G8)",
            Self::Connections => "A8 connections (G6, G8)",
            Self::Visits => "A5 visits (G4, G5)",
            Self::Buys => "A11 calls that wait (G4, G5)",
            Self::Arrived => "A3 nothing accepted is lost (G1, G5, G7)",
            Self::Explained => "A4 linearizable by values alone (G3)",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The law.
    pub law: Law,
    /// The counter.
    pub key: String,
    /// The operations that show it, by id.
    pub operations: Vec<usize>,
    /// What is wrong, for people.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} broken at key {:?}, operations {:?}: {}",
            self.law, self.key, self.operations, self.text
        )
    }
}

/// What a history was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Operations with a value, all of which were judged.
    pub acknowledged: usize,
    /// Operations that certainly had no effect.
    pub failed: usize,
    /// Operations whose outcome their client never learnt.
    pub unknown: usize,
    /// Increments of unknown outcome that others saw the effect of.
    pub surfaced: usize,
    /// Gaps with more candidates than could be tried: judged by their number only.
    pub unresolved: usize,
    /// Operations that [`wgl`] has decided, too.
    pub cross_checked: usize,
    /// Keys that took [`wgl`] too long.
    pub undecided: usize,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} failed, {} unknown ({} of them took effect, {} gaps unresolved), {} violations",
            self.acknowledged,
            self.failed,
            self.unknown,
            self.surfaced,
            self.unresolved,
            self.violations.len()
        )
    }
}

/// All judges: [`witness`] and [`bounds`] of counters, [`laws`] of everything else.
pub fn check(operations: &[Operation]) -> Verdict {
    let is_counter = |o: &Operation| matches!(o.op, Op::Increment(_) | Op::Read);
    let (counters, others): (Vec<Operation>, Vec<Operation>) =
        operations.iter().cloned().partition(is_counter);
    let mut verdict = witness::check(&counters);
    verdict.violations.extend(bounds::check(&counters));
    for operation in &others {
        match operation.outcome {
            Outcome::Ok(_) => verdict.acknowledged += 1,
            Outcome::Fail => verdict.failed += 1,
            Outcome::Unknown => verdict.unknown += 1,
        }
    }
    verdict.violations.extend(laws::check(&others));
    let opinion = wgl::check(operations);
    verdict.cross_checked = opinion.decided;
    verdict.undecided = opinion.undecided;
    verdict.violations.extend(opinion.violations);
    verdict
}

fn by_key(operations: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    keys
}

fn amount(operation: &Operation) -> Option<i64> {
    match operation.op {
        Op::Increment(by) => Some(by),
        _ => None,
    }
}

fn value(operation: &Operation) -> Option<i64> {
    match operation.outcome {
        Outcome::Ok(value) => Some(value),
        Outcome::Fail | Outcome::Unknown => None,
    }
}
