//! What happened, folded into one number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The identity of a run: two runs with the same trace did the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    /// One line an event, when they are kept: to find where two runs part.
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Adds an event: what, when (ns), and its bytes.
    pub fn event(&mut self, what: &str, at_ns: u64, bytes: &[u8]) {
        let header = xxh3_64_with_seed(what.as_bytes(), self.hash ^ at_ns);
        self.hash = xxh3_64_with_seed(bytes, header);
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at_ns} {what} {} {:016x}", bytes.len(), self.hash));
        }
    }

    /// From now on, keeps a line for each event.
    pub(crate) fn keep(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// The lines kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
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
