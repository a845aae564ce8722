//! The counter's bounds: judged by values alone, so that a cluster that is wrong about its versions is caught too.

use std::collections::BTreeMap;

use super::{Law, Violation, amount, by_key, value};
use crate::history::{Op, Operation, Outcome};

/// Judges a history. Amounts must not be negative.
pub fn check(operations: &[Operation]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, operations) in by_key(operations) {
        judge(key, &operations, &mut violations);
    }
    violations
}

fn judge(key: &str, operations: &[&Operation], violations: &mut Vec<Violation>) {
    let mut report = |law, operations: Vec<usize>, text: String| {
        violations.push(Violation {
            law,
            key: key.to_owned(),
            operations,
            text,
        });
    };
    let sum_of = |wanted: fn(&Outcome) -> bool| -> i64 {
        operations
            .iter()
            .filter(|o| wanted(&o.outcome))
            .filter_map(|o| amount(o))
            .sum()
    };
    let acknowledged = sum_of(|o| matches!(o, Outcome::Ok(_)));
    let unknown = sum_of(|o| *o == Outcome::Unknown);
    let writes = operations
        .iter()
        .filter(|o| amount(o).is_some() && value(o).is_some());
    let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
    for write in writes.clone() {
        // Amounts are positive, so no two sums are equal.
        if let (Some(by @ 1..), Some(sum)) = (amount(write), value(write)) {
            if let Some(other) = seen.insert(sum, write.id) {
                report(
                    Law::Bounds,
                    vec![other, write.id],
                    format!("both increments were answered {sum}"),
                );
            }
            if sum < by || sum > acknowledged + unknown {
                let most = acknowledged + unknown;
                report(
                    Law::Bounds,
                    vec![write.id],
                    format!("+{by} gave {sum}, which must be {by} to {most}"),
                );
            }
        }
    }
    let Some(last) = writes.filter_map(|o| Some((o.return_ns?, o.id))).max() else {
        return;
    };
    let reads = operations
        .iter()
        .filter(|o| o.op == Op::Read && value(o).is_some() && o.invoke_ns > last.0);
    let Some(end) = reads.max_by_key(|o| o.invoke_ns) else {
        return report(
            Law::FinalRead,
            vec![last.1],
            "no read began after the last acknowledged increment".into(),
        );
    };
    let count = value(end).unwrap_or_default();
    if !(acknowledged..=acknowledged + unknown).contains(&count) {
        let most = acknowledged + unknown;
        let text = format!(
            "the end is {count}, it must be {acknowledged} (acknowledged) to {most} (with all unknown)"
        );
        report(Law::Bounds, vec![end.id], text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::samples::{Sample, laws};

    #[test]
    fn a_sound_history_is_within_its_bounds() {
        assert_eq!(check(&Sample::sound().operations), []);
    }

    #[test]
    fn a_lost_acknowledgement_is_below_the_bounds_whatever_the_versions_say() {
        let mut sample = Sample::sound();
        sample.set_value("final read", 16);
        assert_eq!(laws(&check(&sample.operations)), [Law::Bounds]);
    }

    #[test]
    fn more_than_everybody_asked_for_is_above_the_bounds() {
        let mut sample = Sample::sound();
        sample.set_value("final read", 1000);
        assert_eq!(laws(&check(&sample.operations)), [Law::Bounds]);
    }

    #[test]
    fn an_end_that_nobody_looked_at_proves_nothing() {
        let mut sample = Sample::sound();
        sample.remove("final read");
        assert_eq!(
            check(&sample.operations),
            [],
            "another read came after the last increment"
        );
        sample.remove("same read");
        assert_eq!(laws(&check(&sample.operations)), [Law::FinalRead]);
    }
}
