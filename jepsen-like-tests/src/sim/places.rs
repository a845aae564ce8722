//! Named places in the product (`fp!`): counted as they are come by, and armed to cut the power there: one at a time of
//! those that are often come by, and one of the others, which may take long.
//!
//! Invariant: what a node does after the place where its power was cut reaches neither its disk nor the network.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use clinch::simulate::{Machine, Simulation};
use clinch_types::probe;

/// The places of one run.
#[derive(Clone, Default)]
pub(super) struct Places {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Which node runs now.
    running: Option<usize>,
    /// How often nodes came by each place.
    seen: BTreeMap<&'static str, u64>,
    /// One of the often, one of the seldom.
    armed: [Option<Armed>; 2],
    /// The node whose power was cut in this step, and where.
    struck: Option<(usize, &'static str)>,
    /// How often the power was cut at each place.
    cut: BTreeMap<&'static str, u64>,
}

struct Armed {
    /// One node, or any.
    node: Option<usize>,
    /// One place, or the next of any.
    place: Option<&'static str>,
    /// Times it is come by before.
    after: u64,
    /// When another may be chosen.
    until: Duration,
    /// For each node, what cuts its power.
    sever: Vec<Box<dyn Fn()>>,
}

/// Time that a place is waited for before another may be chosen, and that one of [`SELDOM`] is.
const PATIENCE: Duration = Duration::from_secs(8);
const LONG_PATIENCE: Duration = Duration::from_secs(20);

/// Places that few runs come by, or seldom: aimed at more often.
pub(super) const SELDOM: [&str; 10] = [
    "checkpoint.part_written",
    "log.before_truncate",
    "log.truncate",
    "log.segment_renamed",
    "shard.before_transfer",
    "snapshot.chunk_received",
    "snapshot.installed",
    "snapshot.marked",
    "snapshot.part_installed",
    "snapshot.received",
];

/// Every place in the product.
pub(super) const ALL: [&str; 49] = [
    "checkpoint.after_write",
    "checkpoint.before_flush",
    "checkpoint.before_write",
    "checkpoint.flushed",
    "checkpoint.keys_written",
    "checkpoint.part_written",
    "life.erase",
    "log.after_sync",
    "log.after_write",
    "log.before_answer",
    "log.before_cut",
    "log.before_retire",
    "log.before_sync",
    "log.before_truncate",
    "log.before_vote",
    "log.before_write",
    "log.purge",
    "log.roll",
    "log.segment_named",
    "log.segment_renamed",
    "log.truncate",
    "log.vote",
    "machine.after_apply",
    "machine.before_apply",
    "meta.after_write",
    "meta.before_write",
    "owner.admitted",
    "owner.answered",
    "owner.before_answers",
    "replace.after_rename",
    "replace.before_rename",
    "shard.after_propose",
    "shard.after_take_over",
    "shard.before_propose",
    "shard.before_take_over",
    "shard.before_transfer",
    "shard.committed",
    "shard.lost",
    "shard.read_confirmed",
    "shard.read_under_lease",
    "shards.before_open",
    "snapshot.chunk_received",
    "snapshot.installed",
    "snapshot.marked",
    "snapshot.part_installed",
    "snapshot.received",
    "snapshot.unmarked",
    "turn.effects_written",
    "turn.state_written",
];

impl Places {
    /// Watches this thread. One at a time.
    pub(super) fn watch() -> Self {
        let places = Self::default();
        let inner = places.inner.clone();
        probe::watch(Some(Rc::new(move |place| hit(&inner, place))));
        places
    }

    /// Says who runs next.
    pub(super) fn running(&self, node: Option<usize>) {
        self.inner.borrow_mut().running = node;
    }

    /// Cuts the power of a node (of any, without one) when it has come by a place (any, without a name) that many times
    /// more. Not when another place was chosen a moment ago: those that are seldom come by need time.
    pub(super) fn arm(&self, sim: &Simulation, node: Option<usize>, place: Option<&'static str>, after: u64) {
        let now = sim.now();
        let is_seldom = place.is_some_and(|place| SELDOM.contains(&place));
        let slot = &mut self.inner.borrow_mut().armed[usize::from(is_seldom)];
        if slot.as_ref().is_some_and(|armed| armed.until > now) {
            return;
        }
        let patience = if is_seldom { LONG_PATIENCE } else { PATIENCE };
        let sever = (0..sim.len()).map(|node| Box::new(sim.severer(node)) as Box<dyn Fn()>);
        *slot = Some(Armed {
            node,
            place,
            after,
            until: now + patience,
            sever: sever.collect(),
        });
    }

    /// Nobody's power is cut any more.
    pub(super) fn disarm(&self) {
        self.inner.borrow_mut().armed = [None, None];
    }

    /// Whose power was cut since the last time it was asked.
    pub(super) fn struck(&self) -> Option<(usize, &'static str)> {
        self.inner.borrow_mut().struck.take()
    }

    /// How often a place was come by so far.
    pub(super) fn seen(&self, place: &str) -> u64 {
        self.inner.borrow().seen.get(place).copied().unwrap_or(0)
    }

    /// How often each was come by, and how often the power was cut there.
    pub(super) fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        let inner = self.inner.borrow();
        let cut = |place| inner.cut.get(place).copied().unwrap_or(0);
        inner
            .seen
            .iter()
            .map(|(place, seen)| ((*place).to_owned(), (*seen, cut(place))))
            .collect()
    }
}

fn hit(inner: &RefCell<Inner>, place: &'static str) {
    let mut inner = inner.borrow_mut();
    *inner.seen.entry(place).or_default() += 1;
    let Some(node) = inner.running.filter(|_| inner.struck.is_none()) else {
        return;
    };
    for slot in 0..inner.armed.len() {
        let Some(armed) = inner.armed[slot].take() else {
            continue;
        };
        match armed.comes_by(node, place) {
            Some(armed) => inner.armed[slot] = Some(armed),
            None => {
                inner.struck = Some((node, place));
                *inner.cut.entry(place).or_default() += 1;
                return;
            }
        }
    }
}

impl Armed {
    /// A node comes by a place; `None`: its power was cut there.
    fn comes_by(mut self, node: usize, place: &'static str) -> Option<Self> {
        let is_other_node = self.node.is_some_and(|armed| armed != node);
        if is_other_node || self.place.is_some_and(|name| name != place) {
            return Some(self);
        }
        if let Some(after) = self.after.checked_sub(1) {
            self.after = after;
            return Some(self);
        }
        if let Some(sever) = self.sever.get(node) {
            sever();
        }
        None
    }
}

/// The node of a machine, if it is one's.
pub(super) fn node_of(machines: &[Machine], machine: Machine) -> Option<usize> {
    machines.iter().position(|m| *m == machine)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn marks(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                marks(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let names = text.split("fp!(\"").skip(1);
                found.extend(names.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_place_in_the_product_is_known_here() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut found = BTreeSet::new();
        for package in [
            "node",
            "storage",
            "transport",
            "client",
            "gateway",
            "membership",
            "actor",
        ] {
            marks(&root.join(package).join("src"), &mut found);
        }
        assert_eq!(found, ALL.into_iter().map(str::to_owned).collect());
        assert!(SELDOM.iter().all(|place| ALL.contains(place)));
    }
}
