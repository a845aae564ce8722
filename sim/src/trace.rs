//! What happened, folded into one number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The identity of a run: two runs with the same trace did the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
}

impl Trace {
    /// Adds an event: what, when (ns), and its bytes.
    pub fn event(&mut self, what: &str, at_ns: u64, bytes: &[u8]) {
        let header = xxh3_64_with_seed(what.as_bytes(), self.hash ^ at_ns);
        self.hash = xxh3_64_with_seed(bytes, header);
        self.events += 1;
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events it stands for.
    pub fn events(&self) -> u64 {
        self.events
    }
}
