//! The shortest beginning of a history that breaks a law: what to read first.

use crate::checkers::{self, Law};
use crate::history::{Operation, Outcome};

/// Operations told.
const TOLD: usize = 14;

/// The history as it was known at a moment: later answers are not there yet.
fn known_at(operations: &[Operation], at_ns: u64) -> Vec<Operation> {
    let begun = operations.iter().filter(|o| o.invoke_ns <= at_ns);
    begun
        .map(|operation| match operation.return_ns {
            Some(returned) if returned <= at_ns => operation.clone(),
            _ => Operation {
                return_ns: None,
                outcome: Outcome::Unknown,
                meta: None,
                list: Vec::new(),
                error: None,
                ..operation.clone()
            },
        })
        .collect()
}

/// Whether the law is broken there; an increment that surfaces later explains what it explains.
fn shows(operations: &[Operation], law: Law) -> bool {
    checkers::check(operations)
        .violations
        .iter()
        .any(|v| v.law == law)
}

/// The last operations on the key of the first violation of this law, up to the answer that shows it.
pub(super) fn shortest(operations: &[Operation], law: Law) -> Vec<String> {
    // What only the whole history shows (a missing last read, the bounds at the end) has no shorter beginning.
    if matches!(law, Law::FinalRead | Law::Bounds | Law::Arrived) {
        return Vec::new();
    }
    let mut moments: Vec<u64> = operations.iter().filter_map(|o| o.return_ns).collect();
    moments.sort_unstable();
    moments.dedup();
    let (mut good, mut bad) = (0, moments.len());
    while good < bad {
        let middle = (good + bad) / 2;
        match shows(&known_at(operations, moments[middle]), law) {
            true => bad = middle,
            false => good = middle + 1,
        }
    }
    let Some(at) = moments.get(good) else {
        return Vec::new();
    };
    let prefix = known_at(operations, *at);
    let violations = checkers::check(&prefix).violations;
    let Some(first) = violations.iter().find(|v| v.law == law) else {
        return Vec::new();
    };
    let mut told = vec![format!("{first} (at {:.3} s)", *at as f64 / 1e9)];
    let of_key: Vec<&Operation> = prefix.iter().filter(|o| o.key == first.key).collect();
    let named = |o: &&&Operation| first.operations.contains(&o.id);
    told.extend(of_key.iter().filter(named).map(|o| format!("> {}", line(o))));
    told.extend(
        of_key
            .iter()
            .skip(of_key.len().saturating_sub(TOLD))
            .map(|o| format!("  {}", line(o))),
    );
    told
}

fn line(operation: &Operation) -> String {
    let meta = operation.meta.as_ref().map_or(String::new(), |m| {
        format!(" epoch {} version {}", m.epoch, m.version)
    });
    format!(
        "{} {} {:?} {:.3}..{} s {:?}{meta}{}",
        operation.id,
        operation.client,
        operation.op,
        operation.invoke_ns as f64 / 1e9,
        operation
            .return_ns
            .map_or("?".to_owned(), |ns| format!("{:.3}", ns as f64 / 1e9)),
        operation.outcome,
        operation
            .error
            .as_ref()
            .map_or(String::new(), |e| format!(" {e}")),
    )
}
