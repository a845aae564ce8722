//! The laws of the workloads beyond counters, one a file, its sentence first.
//!
//! Invariant: every law judges from what clients saw alone; each has a history that keeps it and ones that break it.
//! Not here: counters ([`super::witness`], [`super::bounds`]).

mod a11_buys;
mod a11_cycles;
mod a11_payments;
mod a14_honest;
mod g2_fenced;
mod g3_register;
mod g3_versions;
mod g4_atomic;
mod g5_lists;
mod g5_queues;
mod g5_visits;
mod g7_schedules;
mod g7_ticks;
mod g8_connections;
mod g8_events;
mod g9_gone;
#[cfg(test)]
mod samples;

use super::{Law, Violation, by_key};
use crate::history::{Meta, Op, Operation, Outcome};

/// Judges everything but counters.
pub fn check(operations: &[Operation]) -> Vec<Violation> {
    let mut report = Report::default();
    for (key, operations) in by_key(operations) {
        report.key = key.to_owned();
        for law in [
            g2_fenced::check,
            g3_versions::check,
            g3_register::check,
            g4_atomic::check,
            g5_lists::check,
            g5_queues::check,
            g5_visits::check,
            g7_schedules::check,
            g7_ticks::check,
            g8_connections::check,
            g8_events::check,
            g9_gone::check,
            a14_honest::check,
        ] {
            law(&operations, &mut report);
        }
    }
    for law in [a11_payments::check, a11_cycles::check, a11_buys::check] {
        law(operations, &mut report);
    }
    report.violations
}

/// Where a law says what it found.
#[derive(Default)]
struct Report {
    key: String,
    violations: Vec<Violation>,
}

impl Report {
    fn add(&mut self, law: Law, operations: &[&Operation], text: String) {
        self.violations.push(Violation {
            law,
            key: self.key.clone(),
            operations: operations.iter().map(|o| o.id).collect(),
            text,
        });
    }
}

/// An operation with a value, and where that came from.
#[derive(Clone, Copy)]
struct Placed<'a> {
    operation: &'a Operation,
    meta: &'a Meta,
    value: i64,
    returned: u64,
}

impl Placed<'_> {
    /// Whether it made its version.
    fn writes(&self) -> bool {
        self.operation.op.made_version(&self.operation.list)
    }

    /// What ended before this came before it. An event began with its turn, whenever that was: an owner that stood still
    /// may tell it long after it was committed, when there is another owner.
    fn begun(&self) -> u64 {
        match self.operation.op {
            Op::Heard(..) => 0,
            _ => self.operation.invoke_ns,
        }
    }
}

/// Those with a value, by life of the actor, version, and the write before what saw it.
fn placed<'a>(operations: &[&'a Operation]) -> Vec<Placed<'a>> {
    let mut placed: Vec<Placed<'a>> = operations
        .iter()
        .filter_map(
            |operation| match (operation.outcome, &operation.meta, operation.return_ns) {
                (Outcome::Ok(value), Some(meta), Some(returned)) => Some(Placed {
                    operation,
                    meta,
                    value,
                    returned,
                }),
                _ => None,
            },
        )
        .collect();
    placed.sort_by(|a, b| {
        let order = |p: &Placed<'_>| (p.meta.version, !p.writes(), p.meta.epoch, p.operation.id);
        (&a.meta.incarnation, order(a)).cmp(&(&b.meta.incarnation, order(b)))
    });
    placed
}

/// The operations of each life of the actor.
fn lives<'a, 'p>(placed: &'p [Placed<'a>]) -> impl Iterator<Item = &'p [Placed<'a>]> {
    placed.chunk_by(|a, b| a.meta.incarnation == b.meta.incarnation)
}
