//! The protocol of one shard, small enough to try everything: two nodes, one counter, two requests; elections, crashes,
//! late and repeated messages, refused batches, leases that run out.
//!
//! Raft is taken for granted here (one log, terms, the fence); what is tried is what Clinch builds on it: owners that run
//! ahead of the log, batches that carry absolute states, records of answers, reads under a lease. Each mistake that the
//! design guards against is made on purpose, and the model must find what comes of it.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker, HasDiscoveries, Model, Property};

const NODES: usize = 2;
const REQUESTS: [u8; 2] = [1, 2];
const TERMS_MAX: u8 = 2;

/// How the protocol is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Design {
    /// As it is.
    Sound,
    /// Proposals are not bound to the owner's term.
    NoFence,
    /// A request is not looked up before it is executed.
    NoDedup,
    /// A new owner does not load the records of answers.
    ForgetfulOwner,
    /// A new owner serves before everything committed is applied.
    EarlyOwner,
    /// A refused batch does not end the ownership: what rests on it goes on.
    GoOnAfterRefusal,
    /// Answers do not wait for the commit.
    EarlyReply,
    /// Reads are answered without a lease.
    NoLease,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Entry {
    /// The counter after it: an absolute write.
    count: u8,
    /// Requests whose answers travel in it, with these.
    answers: BTreeMap<u8, u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    epoch: u8,
    /// After everything executed.
    count: u8,
    /// Answers known, committed or not.
    answers: BTreeMap<u8, u8>,
    /// Executed and not proposed.
    waiting: BTreeMap<u8, u8>,
    /// Proposed and not decided.
    in_flight: Option<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    log: Vec<Entry>,
    term: u8,
    leader: usize,
    /// Who may still answer reads alone.
    lease: Option<usize>,
    owners: Vec<Option<Owner>>,
    /// Requests under way to a node. They are never used up: any may arrive late, and again.
    sent: BTreeSet<(usize, u8)>,
    /// What clients were told.
    told: BTreeSet<(u8, u8)>,
    /// A read was answered with something else than the present.
    stale_read: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    Send(usize, u8),
    Deliver(usize, u8),
    Propose(usize),
    /// The log decides about the batch in flight.
    Decide(usize),
    /// The log refuses it although nothing else has changed: the leader could not know that it still leads.
    Refuse(usize),
    Read(usize),
    LeaseEnds,
    Elect(usize),
    /// A deposed owner hears of it.
    Hear(usize),
    Crash(usize),
}

struct Shard(Design);

impl State {
    fn count(&self) -> u8 {
        self.log.last().map_or(0, |entry| entry.count)
    }

    fn recorded(&self) -> BTreeMap<u8, u8> {
        self.log.iter().flat_map(|entry| entry.answers.clone()).collect()
    }
}

impl Shard {
    fn elect(&self, state: &mut State, node: usize) {
        state.term += 1;
        state.leader = node;
        state.lease = Some(node);
        let applied = match self.0 {
            Design::EarlyOwner => state.log.len().saturating_sub(1),
            _ => state.log.len(),
        };
        let seen = &state.log[..applied];
        let answers = match self.0 {
            Design::ForgetfulOwner => BTreeMap::new(),
            _ => seen.iter().flat_map(|entry| entry.answers.clone()).collect(),
        };
        state.owners[node] = Some(Owner {
            epoch: state.term,
            count: seen.last().map_or(0, |entry| entry.count),
            answers,
            waiting: BTreeMap::new(),
            in_flight: None,
        });
    }

    fn deliver(&self, state: &mut State, node: usize, request: u8) {
        let recorded = state.recorded();
        let Some(owner) = &mut state.owners[node] else {
            return;
        };
        match owner.answers.get(&request) {
            Some(answer) if self.0 != Design::NoDedup => {
                // Known: told at once if it is committed, else with the commit.
                if recorded.get(&request) == Some(answer) {
                    state.told.insert((request, *answer));
                }
            }
            _ => {
                owner.count += 1;
                owner.answers.insert(request, owner.count);
                owner.waiting.insert(request, owner.count);
                if self.0 == Design::EarlyReply {
                    state.told.insert((request, owner.count));
                }
            }
        }
    }

    fn decide(&self, state: &mut State, node: usize, refused: bool) {
        let fenced = self.0 != Design::NoFence;
        let Some(owner) = &mut state.owners[node] else {
            return;
        };
        let Some(entry) = owner.in_flight.take() else {
            return;
        };
        if refused || (fenced && owner.epoch != state.term) {
            if self.0 != Design::GoOnAfterRefusal {
                state.owners[node] = None;
            }
            return;
        }
        for (request, answer) in &entry.answers {
            state.told.insert((*request, *answer));
        }
        state.log.push(entry);
    }
}

impl Model for Shard {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            log: Vec::new(),
            term: 0,
            leader: 0,
            lease: None,
            owners: vec![None; NODES],
            sent: BTreeSet::new(),
            told: BTreeSet::new(),
            stale_read: false,
        };
        self.elect(&mut state, 0);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..NODES {
            for request in REQUESTS {
                match state.sent.contains(&(node, request)) {
                    true => actions.push(Action::Deliver(node, request)),
                    false => actions.push(Action::Send(node, request)),
                }
            }
            if let Some(owner) = &state.owners[node] {
                actions.push(Action::Crash(node));
                match &owner.in_flight {
                    Some(_) => actions.extend([Action::Decide(node), Action::Refuse(node)]),
                    None if !owner.waiting.is_empty() => actions.push(Action::Propose(node)),
                    None => actions.push(Action::Read(node)),
                }
                if owner.epoch != state.term {
                    actions.push(Action::Hear(node));
                }
            }
            if state.lease.is_none() && state.term < TERMS_MAX {
                actions.push(Action::Elect(node));
            }
        }
        if state.lease.is_some() {
            actions.push(Action::LeaseEnds);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Send(node, request) => drop(state.sent.insert((node, request))),
            Action::Deliver(node, request) => self.deliver(&mut state, node, request),
            Action::Propose(node) => {
                let owner = state.owners[node].as_mut()?;
                owner.in_flight = Some(Entry {
                    count: owner.count,
                    answers: std::mem::take(&mut owner.waiting),
                });
            }
            Action::Decide(node) => self.decide(&mut state, node, false),
            Action::Refuse(node) => self.decide(&mut state, node, true),
            Action::Read(node) => {
                let owner = state.owners[node].as_ref()?;
                if self.0 == Design::NoLease || state.lease == Some(node) {
                    state.stale_read |= owner.count != state.count();
                }
            }
            Action::LeaseEnds => state.lease = None,
            Action::Elect(node) => self.elect(&mut state, node),
            Action::Hear(node) | Action::Crash(node) => state.owners[node] = None,
        }
        // Nothing new; and logs longer than this say nothing that shorter ones do not.
        (state != *last && state.log.len() <= 3 && state.count() <= 3).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every effect once", |_, state: &State| {
                usize::from(state.count()) == state.recorded().len()
            }),
            Property::always("one answer to one request", |_, state: &State| {
                REQUESTS
                    .iter()
                    .all(|request| state.told.iter().filter(|(r, _)| r == request).count() <= 1)
            }),
            Property::always("what was told is committed", |_, state: &State| {
                let recorded = state.recorded();
                state
                    .told
                    .iter()
                    .all(|(request, answer)| recorded.get(request) == Some(answer))
            }),
            Property::always("reads tell the present", |_, state: &State| !state.stale_read),
            Property::sometimes("both requests are answered", |_, state: &State| {
                state.told.len() == REQUESTS.len()
            }),
            Property::sometimes("a second owner answers", |_, state: &State| {
                state.term > 1 && state.log.len() > 1
            }),
        ]
    }
}

#[test]
fn two_owners_one_key_nothing_is_lost_doubled_or_stale() {
    let checker = Shard(Design::Sound).checker().spawn_bfs().join();
    assert!(
        checker.unique_state_count() > 1_000,
        "{}",
        checker.unique_state_count()
    );
    checker.assert_properties();
}

#[test]
fn every_mistake_the_design_guards_against_is_found() {
    for (design, law) in [
        (Design::NoFence, "every effect once"),
        (Design::NoDedup, "every effect once"),
        (Design::ForgetfulOwner, "every effect once"),
        (Design::EarlyOwner, "every effect once"),
        (Design::GoOnAfterRefusal, "every effect once"),
        (Design::EarlyReply, "what was told is committed"),
        (Design::NoLease, "reads tell the present"),
    ] {
        let checker = Shard(design)
            .checker()
            .finish_when(HasDiscoveries::AnyOf([law].into()))
            .spawn_bfs()
            .join();
        assert!(checker.discovery(law).is_some(), "{design:?} keeps {law:?}");
    }
}
