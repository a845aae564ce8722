//! G3, G5, A11: over all lists together there is one order of all appends, deliveries and looks that fits what everybody
//! saw, the order of sending, and time: no cycle. What is sent on arrives once, in the end.
//!
//! Operations and deliveries are the nodes. Edges: neighbours in a list; from the last append a look saw to the look, and
//! on to the first it did not see; from an append to its delivery elsewhere; from one delivery to the next of the same
//! two lists; from what was answered to what began afterwards (by way of one node for each answer, in order of time).

use std::collections::{BTreeMap, BTreeSet};

use super::{Law, Report, by_key, placed};
use crate::history::{Op, Operation, Outcome};

pub(super) fn check(operations: &[Operation], report: &mut Report) {
    let lists: Vec<Operation> = operations
        .iter()
        .filter(|o| {
            matches!(
                o.op,
                Op::Append(_) | Op::Relay(..) | Op::Tell(_) | Op::List | Op::Spoil(_)
            )
        })
        .cloned()
        .collect();
    let mut book = Book::default();
    for (key, operations) in by_key(&lists) {
        // Only lists: others are spoilt, too.
        if operations.iter().any(|o| o.op == Op::List) {
            book.read(key, &operations, report);
        }
    }
    book.judge_values(report);
    book.graph(report);
}

/// One list as it was last seen.
#[derive(Default)]
struct List<'a> {
    order: &'a [i64],
    look: Option<&'a Operation>,
    looks: Vec<&'a Operation>,
}

#[derive(Default)]
struct Book<'a> {
    lists: BTreeMap<&'a str, List<'a>>,
    /// Who asked for a value, and where.
    asked: BTreeMap<i64, &'a Operation>,
}

impl<'a> Book<'a> {
    fn read(&mut self, key: &'a str, operations: &[&'a Operation], report: &mut Report) {
        report.key = key.to_owned();
        for operation in operations {
            if let Op::Append(value) | Op::Relay(value, _) | Op::Tell(value) | Op::Spoil(value) = operation.op
            {
                self.asked.insert(value, operation);
            }
        }
        let placed = placed(operations);
        let mut looks: Vec<&'a Operation> = placed
            .iter()
            .filter(|p| p.operation.op == Op::List)
            .map(|p| p.operation)
            .collect();
        looks.sort_by_key(|look| look.list.len());
        for pair in looks.windows(2) {
            if !pair[1].list.starts_with(&pair[0].list) {
                let text = format!(
                    "a list of {} does not begin one of {}",
                    pair[0].list.len(),
                    pair[1].list.len()
                );
                report.add(Law::Cycles, &[pair[0], pair[1]], text);
            }
        }
        let look = looks.last().copied();
        let order = look.map_or(&[][..], |look| &look.list[..]);
        self.lists.insert(key, List { order, look, looks });
    }

    /// Where a value is sent on to.
    fn target(operation: &Operation) -> Option<String> {
        match operation.op {
            Op::Relay(_, to) => Some(format!("x{to}")),
            _ => None,
        }
    }

    fn judge_values(&self, report: &mut Report) {
        for (key, list) in &self.lists {
            report.key = (*key).to_owned();
            let Some(look) = list.look else { continue };
            let mut once = BTreeSet::new();
            for value in list.order {
                if !once.insert(value) {
                    report.add(Law::Cycles, &[look], format!("{value} is in the list twice"));
                }
                let asked = self.asked.get(value);
                let fits = asked.is_some_and(|o| o.key == *key || Self::target(o).as_deref() == Some(*key));
                match asked {
                    Some(failed) if failed.outcome == Outcome::Fail => {
                        let text = format!("{value} was said to have failed, and it is in a list");
                        report.add(Law::Honest, &[failed, look], text);
                    }
                    _ if fits => {}
                    _ => report.add(Law::Cycles, &[look], format!("nobody put {value} there")),
                }
            }
        }
        self.arrived(report);
    }

    /// Of what is in a list to be sent on, all is in the other list when the last looks came after everything.
    fn arrived(&self, report: &mut Report) {
        let looks = self.lists.values().filter_map(|list| list.look);
        let first = looks.map(|look| look.invoke_ns).min().unwrap_or(0);
        let quiet = self
            .asked
            .values()
            .filter(|o| matches!(o.op, Op::Relay(..)))
            .all(|o| o.return_ns.is_some_and(|returned| returned < first));
        if !quiet {
            return;
        }
        for (key, list) in &self.lists {
            report.key = (*key).to_owned();
            for value in list.order {
                let Some(asked) = self.asked.get(value).filter(|o| o.key == *key) else {
                    continue;
                };
                let target = Self::target(asked);
                if let Some(other) = target.and_then(|to| self.lists.get(to.as_str()))
                    && !other.order.contains(value)
                {
                    let seen: Vec<&Operation> = [Some(*asked), list.look, other.look]
                        .into_iter()
                        .flatten()
                        .collect();
                    report.add(
                        Law::Arrived,
                        &seen,
                        format!("{value} was sent on and never arrived"),
                    );
                }
            }
        }
    }

    fn graph(&self, report: &mut Report) {
        let mut graph = Graph::default();
        for (key, list) in &self.lists {
            let nodes: Vec<usize> = list
                .order
                .iter()
                .map(|value| self.node(&mut graph, key, *value))
                .collect();
            for pair in nodes.windows(2) {
                graph.edge(pair[0], pair[1]);
            }
            for look in &list.looks {
                let me = graph.node(Node::Of(look));
                if let Some(last) = look.list.len().checked_sub(1).and_then(|at| nodes.get(at)) {
                    graph.edge(*last, me);
                }
                if let Some(next) = nodes.get(look.list.len()) {
                    graph.edge(me, *next);
                }
            }
            // In order of sending.
            let mut before: BTreeMap<String, usize> = BTreeMap::new();
            for value in list.order {
                let Some(asked) = self.asked.get(value).filter(|o| o.key == *key) else {
                    continue;
                };
                let Some(target) = Self::target(asked) else {
                    continue;
                };
                let (sent, there) = (graph.node(Node::Of(asked)), graph.node(Node::Delivery(*value)));
                graph.edge(sent, there);
                if let Some(before) = before.insert(target, there) {
                    graph.edge(before, there);
                }
            }
        }
        graph.time();
        let cycle = graph.cycle();
        if let Some(first) = cycle.first() {
            report.key.clone_from(&first.key);
            let told: Vec<String> = cycle
                .iter()
                .map(|o| format!("{} ({:?} of {})", o.id, o.op, o.key))
                .collect();
            let text = format!("no order fits {}", told.join(" before "));
            report.add(Law::Cycles, &cycle, text);
        }
    }

    /// Who put a value into a list: whoever appended it there, or the delivery of what was appended elsewhere.
    fn node(&self, graph: &mut Graph<'a>, key: &str, value: i64) -> usize {
        match self.asked.get(&value).filter(|o| o.key == key) {
            Some(operation) => graph.node(Node::Of(operation)),
            None => graph.node(Node::Delivery(value)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Node<'a> {
    Of(&'a Operation),
    Delivery(i64),
    /// All answers until then.
    Time,
}

#[derive(Default)]
struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    next: Vec<Vec<usize>>,
    operations: BTreeMap<usize, usize>,
    deliveries: BTreeMap<i64, usize>,
}

impl<'a> Graph<'a> {
    fn node(&mut self, node: Node<'a>) -> usize {
        let known = match node {
            Node::Of(operation) => self.operations.get(&operation.id),
            Node::Delivery(value) => self.deliveries.get(&value),
            Node::Time => None,
        };
        if let Some(known) = known {
            return *known;
        }
        let index = self.nodes.len();
        match node {
            Node::Of(operation) => drop(self.operations.insert(operation.id, index)),
            Node::Delivery(value) => drop(self.deliveries.insert(value, index)),
            Node::Time => {}
        }
        self.nodes.push(node);
        self.next.push(Vec::new());
        index
    }

    fn edge(&mut self, from: usize, to: usize) {
        self.next[from].push(to);
    }

    /// What was answered comes before what began afterwards.
    fn time(&mut self) {
        let mut answered: Vec<(u64, usize)> = Vec::new();
        let mut begun: Vec<(u64, usize)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Node::Of(operation) = node else { continue };
            begun.push((operation.invoke_ns, index));
            if let (Outcome::Ok(_), Some(returned)) = (operation.outcome, operation.return_ns) {
                answered.push((returned, index));
            }
        }
        answered.sort_unstable();
        begun.sort_unstable();
        let (mut answered, mut latest) = (answered.into_iter().peekable(), None);
        for (at, operation) in begun {
            while let Some((_, before)) = answered.next_if(|(returned, _)| *returned < at) {
                let now = self.node(Node::Time);
                self.edge(before, now);
                if let Some(latest) = latest.replace(now) {
                    self.edge(latest, now);
                }
            }
            if let Some(latest) = latest {
                self.edge(latest, operation);
            }
        }
    }

    /// The operations of one cycle, in its order; none: there is an order.
    fn cycle(&self) -> Vec<&'a Operation> {
        let mut before = vec![0usize; self.nodes.len()];
        for to in self.next.iter().flatten() {
            before[*to] += 1;
        }
        let mut free: Vec<usize> = (0..self.nodes.len()).filter(|n| before[*n] == 0).collect();
        let mut left: BTreeSet<usize> = (0..self.nodes.len()).collect();
        while let Some(node) = free.pop() {
            left.remove(&node);
            for to in &self.next[node] {
                before[*to] -= 1;
                if before[*to] == 0 {
                    free.push(*to);
                }
            }
        }
        // What is left has one before it that is left, too: going back, some node comes a second time.
        let mut former: BTreeMap<usize, usize> = BTreeMap::new();
        for from in &left {
            for to in self.next[*from].iter().filter(|to| left.contains(to)) {
                former.entry(*to).or_insert(*from);
            }
        }
        let Some(mut at) = left.first().copied() else {
            return Vec::new();
        };
        let mut path: Vec<usize> = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            let Some(back) = former.get(&at) else {
                return Vec::new();
            };
            at = *back;
        }
        let from = path.iter().position(|n| *n == at).unwrap_or(0);
        let cycle = path[from..].iter().rev();
        cycle
            .filter_map(|node| match self.nodes[*node] {
                Node::Of(operation) => Some(operation),
                Node::Delivery(_) | Node::Time => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws_of_all};
    use super::*;

    /// 5 and 6 are appended to `x0` and sent on to `x1`; 9 is appended to `x1` alone.
    fn looked(change: impl FnOnce(&mut Sample), one: &[i64], two: &[i64]) -> Vec<Law> {
        let mut sample = Sample::default();
        sample.key("x0");
        sample.ok(Op::Relay(5, 1), (0, 10), 1, &[], 1, 2);
        sample.ok(Op::Relay(6, 1), (11, 20), 2, &[], 1, 3);
        sample.failed(Op::Spoil(7), 21);
        change(&mut sample);
        sample.key("x0");
        sample.ok(Op::List, (90, 95), 0, one, 1, 4);
        sample.key("x1");
        sample.ok(Op::Append(9), (22, 25), 1, &[], 1, 2);
        sample.ok(Op::List, (90, 95), 0, two, 1, 4);
        laws_of_all(check, &sample)
    }

    #[test]
    fn lists_with_one_order_are_sound() {
        assert_eq!(looked(|_| {}, &[5, 6], &[5, 9, 6]), []);
        assert_eq!(looked(|_| {}, &[5, 6], &[9, 5, 6]), []);
    }

    #[test]
    fn what_is_doubled_lost_made_up_or_failed_is_found() {
        assert_eq!(looked(|_| {}, &[5, 6], &[5, 9]), [Law::Arrived]);
        assert!(looked(|_| {}, &[5, 6], &[5, 9, 6, 5]).contains(&Law::Cycles));
        assert!(looked(|_| {}, &[5, 6, 4], &[5, 9, 6]).contains(&Law::Cycles));
        assert!(looked(|_| {}, &[5, 6, 7], &[5, 9, 6]).contains(&Law::Honest));
    }

    #[test]
    fn an_order_of_arrival_other_than_that_of_sending_is_a_cycle() {
        assert_eq!(looked(|_| {}, &[5, 6], &[6, 9, 5]), [Law::Cycles]);
    }

    #[test]
    fn looks_at_two_lists_that_no_order_explains_are_a_cycle() {
        // Somebody saw 9 in one list, and afterwards somebody found the other list empty, where 5 had been put before 9.
        let looks = |sample: &mut Sample| {
            sample.key("x0");
            sample.ok(Op::List, (40, 50), 0, &[], 1, 1);
        };
        assert_eq!(looked(looks, &[5, 6], &[5, 9, 6]), [Law::Cycles]);
        let sound = |sample: &mut Sample| {
            sample.key("x0");
            sample.ok(Op::List, (40, 50), 2, &[5, 6], 1, 3);
        };
        assert_eq!(looked(sound, &[5, 6], &[5, 9, 6]), []);
    }
}
