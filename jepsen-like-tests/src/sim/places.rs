//! Named places in the product (`fp!`): counted as they are come by, and one of them armed to cut the power there.
//!
//! Invariant: what a node does after the place where its power was cut reaches neither its disk nor the network.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

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
    armed: Option<Armed>,
    /// The node whose power was cut in this step, and where.
    struck: Option<(usize, &'static str)>,
    /// How often the power was cut at each place.
    cut: BTreeMap<&'static str, u64>,
}

struct Armed {
    node: usize,
    /// One place, or the next of any.
    place: Option<String>,
    /// Times it is come by before.
    after: u64,
    sever: Box<dyn Fn()>,
}

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

    /// Cuts the power of a node when it has come by a place (any, without a name) that many times more.
    pub(super) fn arm(&self, sim: &Simulation, node: usize, place: Option<String>, after: u64) {
        let sever = Box::new(sim.severer(node));
        self.inner.borrow_mut().armed = Some(Armed {
            node,
            place,
            after,
            sever,
        });
    }

    /// Whose power was cut since the last time it was asked.
    pub(super) fn struck(&self) -> Option<(usize, &'static str)> {
        self.inner.borrow_mut().struck.take()
    }

    /// Places come by so far, and how often.
    pub(super) fn seen(&self) -> Vec<(&'static str, u64)> {
        self.inner
            .borrow()
            .seen
            .iter()
            .map(|(place, times)| (*place, *times))
            .collect()
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
    let running = inner.running;
    let Some(armed) = &mut inner.armed else { return };
    if running != Some(armed.node) || armed.place.as_deref().is_some_and(|name| name != place) {
        return;
    }
    if armed.after > 0 {
        armed.after -= 1;
        return;
    }
    if let Some(armed) = inner.armed.take() {
        (armed.sever)();
        inner.struck = Some((armed.node, place));
        *inner.cut.entry(place).or_default() += 1;
    }
}

/// The node of a machine, if it is one's.
pub(super) fn node_of(machines: &[Machine], machine: Machine) -> Option<usize> {
    machines.iter().position(|m| *m == machine)
}
