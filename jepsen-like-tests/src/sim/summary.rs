//! What came of one seed, for the program that runs many.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which, by the names of the guarantees.
    pub law: String,
    /// How it shows.
    pub text: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.text)
    }
}

/// One line of JSON: a run that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What it came from.
    pub seed: u64,
    /// Everything that happened, as one number in hexadecimal.
    pub trace: String,
    /// How many events that number stands for.
    pub events: u64,
    /// Whether randomness was under control.
    pub repeatable: bool,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Time of a processor it took, in seconds.
    pub cpu_s: f64,
    /// Operations with a value, all of which were judged.
    pub acknowledged: usize,
    /// Of these, operations that the search for an order has decided, too.
    pub cross_checked: usize,
    /// Keys on which that search gave up.
    pub undecided: usize,
    /// Operations that certainly had no effect.
    pub failed: usize,
    /// Operations whose outcome their client never learnt.
    pub unknown: usize,
    /// From the end of all faults until every client was answered, in ms.
    pub recovery_ms: u64,
    /// Faults that struck, by name.
    pub fired: BTreeMap<String, u64>,
    /// Named places: how often they were come by, and how often the power was cut there.
    pub places: BTreeMap<String, (u64, u64)>,
    /// What is wrong.
    pub broken: Vec<Broken>,
    /// The shortest beginning of the history that shows it, for people.
    pub prefix: Vec<String>,
    /// Where the history lies.
    pub history: Option<String>,
}

impl Summary {
    /// Of a run whose process died before it could say anything: that is a failure of its seed, as any other.
    pub(super) fn of_death(seed: u64, how: &str) -> Self {
        Self {
            seed,
            trace: format!("none: {how}"),
            repeatable: true,
            broken: vec![Broken {
                law: "no process dies".into(),
                text: how.into(),
            }],
            ..Self::default()
        }
    }
}
