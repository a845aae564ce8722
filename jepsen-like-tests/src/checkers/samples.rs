//! Histories with a known verdict, for the tests of the checkers.

use super::{Law, Violation};
use crate::history::{Meta, Op, Operation, Outcome};

/// A history under construction; its operations have names.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) operations: Vec<Operation>,
}

impl Sample {
    /// Two writers, two lost replies (of which one increment took effect), a failure, a change of owner, reads.
    pub(super) fn sound() -> Self {
        let mut sample = Self::default();
        sample.ok("first", Op::Increment(1), (0, 10), 1, 1, 2);
        sample.ok("second", Op::Increment(2), (5, 20), 3, 1, 3);
        sample.ok("early read", Op::Read, (12, 14), 3, 1, 3);
        sample.lost("surfaced", Op::Increment(4), 21, Some(40));
        sample.lost("vanished", Op::Increment(8), 22, None);
        sample.failed("failed", Op::Increment(16), (23, 24));
        sample.ok("third", Op::Increment(32), (41, 50), 39, 2, 5);
        sample.ok("same read", Op::Read, (51, 60), 39, 2, 5);
        sample.ok("final read", Op::Read, (61, 70), 39, 2, 5);
        sample
    }

    pub(super) fn ok(
        &mut self,
        name: &str,
        op: Op,
        (from, to): (u64, u64),
        value: i64,
        epoch: u64,
        version: u64,
    ) {
        let meta = Some(Meta {
            incarnation: "life-1".into(),
            epoch,
            version,
        });
        self.push(name, op, from, Some(to), Outcome::Ok(value), meta);
    }

    pub(super) fn lost(&mut self, name: &str, op: Op, from: u64, to: Option<u64>) {
        self.push(name, op, from, to, Outcome::Unknown, None);
    }

    pub(super) fn failed(&mut self, name: &str, op: Op, (from, to): (u64, u64)) {
        self.push(name, op, from, Some(to), Outcome::Fail, None);
    }

    fn push(
        &mut self,
        name: &str,
        op: Op,
        invoke_ns: u64,
        return_ns: Option<u64>,
        outcome: Outcome,
        meta: Option<Meta>,
    ) {
        let (id, client, key) = (self.operations.len(), name.to_owned(), "k".to_owned());
        self.operations.push(Operation {
            id,
            client,
            key,
            op,
            invoke_ns,
            return_ns,
            outcome,
            meta,
            list: Vec::new(),
            error: None,
        });
    }

    pub(super) fn get(&mut self, name: &str) -> &mut Operation {
        self.operations
            .iter_mut()
            .find(|o| o.client == name)
            .expect("a name of this sample")
    }

    pub(super) fn meta(&mut self, name: &str) -> &mut Meta {
        self.get(name).meta.as_mut().expect("an operation with a value")
    }

    pub(super) fn set_value(&mut self, name: &str, value: i64) {
        self.get(name).outcome = Outcome::Ok(value);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.operations.retain(|o| o.client != name);
    }
}

/// The laws that were found broken, each once.
pub(super) fn laws(violations: &[Violation]) -> Vec<Law> {
    let mut laws: Vec<Law> = violations.iter().map(|v| v.law).collect();
    laws.sort_unstable();
    laws.dedup();
    laws
}
