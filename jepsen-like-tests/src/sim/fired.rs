//! How often each fault really happened: a fault that is planned and never strikes proves nothing.

use std::collections::BTreeMap;

use super::Fault;

/// Times each fault struck, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fired(BTreeMap<String, u64>);

impl Fired {
    /// It struck.
    pub(super) fn count(&mut self, fault: Fault) {
        self.add(fault.name(), 1);
    }

    /// Something struck that many times.
    pub(super) fn add(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.0.entry(what.to_owned()).or_default() += times;
        }
    }

    pub(super) fn into_map(self) -> BTreeMap<String, u64> {
        self.0
    }
}
