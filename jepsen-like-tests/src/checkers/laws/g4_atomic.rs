//! G4, A6: state and KV of one turn change together: whoever reads sees the same stamp everywhere.

use super::{Law, Report, placed};
use crate::history::{Op, Operation};

pub(super) fn check(operations: &[&Operation], report: &mut Report) {
    for seen in placed(operations) {
        if seen.operation.op == Op::Stamps && seen.operation.list.windows(2).any(|pair| pair[0] != pair[1]) {
            let text = format!("state and KV differ: {:?}", seen.operation.list);
            report.add(Law::Atomic, &[seen.operation], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws};
    use super::*;

    #[test]
    fn a_turn_that_changed_in_part_is_found() {
        let mut sample = Sample::default();
        sample.ok(Op::Stamp(3), (0, 10), 3, &[], 1, 2);
        sample.ok(Op::Stamps, (11, 20), 3, &[3, 3, 3], 1, 2);
        assert_eq!(laws(check, &sample), []);
        sample.ok(Op::Stamps, (21, 30), 4, &[4, 4, 3], 1, 3);
        assert_eq!(laws(check, &sample), [Law::Atomic]);
    }
}
