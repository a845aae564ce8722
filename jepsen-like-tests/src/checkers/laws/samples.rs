//! Histories with a known verdict, for the tests of the laws.

use super::{Law, Report};
use crate::history::{Meta, Op, Operation, Outcome};

/// A history under construction, of one key.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    operations: Vec<Operation>,
    life: String,
    key: String,
    client: String,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            operations: Vec::new(),
            life: "one".into(),
            key: "k".into(),
            client: "c".into(),
        }
    }
}

impl Sample {
    /// What follows is of this life of the actor.
    pub(super) fn life(&mut self, name: &str) {
        self.life = name.to_owned();
    }

    /// What follows is of this actor.
    pub(super) fn key(&mut self, key: &str) {
        self.key = key.to_owned();
    }

    /// What follows is this client's.
    pub(super) fn client(&mut self, name: &str) {
        self.client = name.to_owned();
    }

    pub(super) fn ok(
        &mut self,
        op: Op,
        (from, to): (u64, u64),
        value: i64,
        list: &[i64],
        epoch: u64,
        version: u64,
    ) {
        let meta = Meta {
            incarnation: self.life.clone(),
            epoch,
            version,
        };
        self.push(op, from, Some(to), Outcome::Ok(value), Some(meta), list.to_vec());
    }

    pub(super) fn unknown(&mut self, op: Op, from: u64) {
        self.push(op, from, None, Outcome::Unknown, None, Vec::new());
    }

    pub(super) fn failed(&mut self, op: Op, from: u64) {
        self.push(op, from, Some(from + 1), Outcome::Fail, None, Vec::new());
    }

    fn push(
        &mut self,
        op: Op,
        invoke_ns: u64,
        return_ns: Option<u64>,
        outcome: Outcome,
        meta: Option<Meta>,
        list: Vec<i64>,
    ) {
        self.operations.push(Operation {
            id: self.operations.len(),
            client: self.client.clone(),
            key: self.key.clone(),
            op,
            invoke_ns,
            return_ns,
            outcome,
            meta,
            list,
            error: None,
        });
    }
}

/// The laws that one check finds broken, each once.
pub(super) fn laws(check: fn(&[&Operation], &mut Report), sample: &Sample) -> Vec<Law> {
    let mut report = Report::default();
    check(&sample.operations.iter().collect::<Vec<_>>(), &mut report);
    broken(&report)
}

/// The same of a check that looks at several actors.
pub(super) fn laws_of_all(check: fn(&[Operation], &mut Report), sample: &Sample) -> Vec<Law> {
    let mut report = Report::default();
    check(&sample.operations, &mut report);
    broken(&report)
}

fn broken(report: &Report) -> Vec<Law> {
    let mut laws: Vec<Law> = report.violations.iter().map(|v| v.law).collect();
    laws.sort_unstable();
    laws.dedup();
    laws
}
