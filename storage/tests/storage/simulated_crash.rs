//! Random histories on a disk that loses power: what was acknowledged is recovered, and nothing that never was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clinch_storage::raft::{Entry, LeaderId, Vote, log_id, term_of};
use clinch_storage::{
    DiskStore, Driver, GroupId, GroupLog, GroupMachine, GroupReader, SimDisk, SimFaults, Storage,
};
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use proptest::prelude::*;

use crate::util::{Answer, apply, entries, entry, open, queue, value};

const GROUPS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Entries for a group; `wait` for the answer, or go on.
    Append {
        group: u32,
        entries: usize,
        fill: usize,
        wait: bool,
    },
    /// Takes entries back that were not committed, as a new leader would.
    Truncate {
        group: u32,
        entries: usize,
    },
    Vote {
        group: u32,
    },
    /// Commits and applies what is acknowledged.
    Apply {
        group: u32,
    },
    Checkpoint,
    Purge {
        group: u32,
    },
    /// Lets time pass: the writer may be anywhere between its write and its answers.
    Pass {
        ms: u64,
    },
    /// From here on the power fails at some operation.
    Doom {
        after: u64,
    },
    /// Power loss, or the death of the process only.
    Crash {
        power: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || 0..GROUPS;
    prop::collection::vec(
        prop_oneof![
            12 => (group(), 1usize..6, 0usize..900, any::<bool>())
                .prop_map(|(group, entries, fill, wait)| Step::Append { group, entries, fill, wait }),
            2 => (group(), 1usize..6).prop_map(|(group, entries)| Step::Truncate { group, entries }),
            2 => group().prop_map(|group| Step::Vote { group }),
            4 => group().prop_map(|group| Step::Apply { group }),
            2 => Just(Step::Checkpoint),
            3 => group().prop_map(|group| Step::Purge { group }),
            5 => (0u64..4).prop_map(|ms| Step::Pass { ms }),
            1 => (0u64..12).prop_map(|after| Step::Doom { after }),
            2 => any::<bool>().prop_map(|power| Step::Crash { power }),
        ],
        1..70,
    )
}

/// What a log holds: purged index, then index, term and fill of each entry.
#[derive(Debug, Clone, Default, PartialEq)]
struct LogImage {
    purged: Option<u64>,
    entries: BTreeMap<u64, (u64, usize)>,
    vote: u64,
}

impl LogImage {
    fn next(&self) -> u64 {
        self.entries
            .keys()
            .next_back()
            .copied()
            .or(self.purged)
            .map_or(0, |index| index + 1)
    }
}

/// One group: every state its log went through, how many of them are certain, and what was committed.
struct Model {
    id: GroupId,
    term: u64,
    history: Vec<LogImage>,
    certain: usize,
    pending: Vec<(usize, Answer)>,
    /// Committed entries: an index is never committed twice.
    committed: BTreeMap<u64, usize>,
    applied: Option<u64>,
    checkpointed: Option<u64>,
}

impl Model {
    fn now(&self) -> &LogImage {
        self.history.last().expect("there is always a state")
    }

    fn push(&mut self, change: impl FnOnce(&mut LogImage)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.history.push(next);
    }

    /// Takes the answers that have come.
    fn settle(&mut self) {
        use futures_util::FutureExt as _;
        for (state, answer) in std::mem::take(&mut self.pending) {
            let mut answer = Box::pin(answer);
            match answer.as_mut().now_or_never() {
                Some(Ok(Ok(()))) => self.certain = self.certain.max(state),
                Some(_) => {}
                None => self.pending.push((state, *std::pin::Pin::into_inner(answer))),
            }
        }
    }

    /// Entries acknowledged by this log, and so (were it the only one) committed.
    fn last_certain(&self) -> Option<u64> {
        let certain = &self.history[self.certain];
        let shared = certain
            .entries
            .iter()
            .filter(|(index, entry)| self.now().entries.get(index) == Some(entry));
        shared.map(|(index, _)| *index).max()
    }
}

struct World {
    disk: SimDisk,
    storage: Storage,
    handles: Vec<(GroupLog, GroupMachine, GroupReader)>,
    groups: Vec<Model>,
}

/// No faults, but syncs take their time, so that a crash can fall into them.
fn slow() -> SimFaults {
    SimFaults {
        sync_latency: (Duration::ZERO, Duration::from_millis(3)),
        ..SimFaults::default()
    }
}

fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId {
            term,
            voted_for: term % 5,
        },
        committed: true,
    }
}

fn start(disk: &SimDisk) -> (Storage, Vec<(GroupLog, GroupMachine, GroupReader)>) {
    let store = DiskStore::open(disk.mount()).expect("the store opens");
    let storage = open(Driver::Task, disk.mount(), Arc::new(store)).expect("a crash is not damage");
    let handles = (0..GROUPS)
        .map(|group| storage.group(GroupId(group)).unwrap())
        .collect();
    (storage, handles)
}

async fn image(log: &mut GroupLog) -> LogImage {
    let state = log.get_log_state().await.unwrap();
    let mut image = LogImage {
        purged: state.last_purged_log_id.map(|id| id.index),
        ..LogImage::default()
    };
    image.vote = log
        .read_vote()
        .await
        .unwrap()
        .map_or(0, |vote| vote.leader_id.term);
    for found in entries(log).await.unwrap() {
        let (index, term) = (found.log_id.index, term_of(&found.log_id));
        let fill = fill_of(&found);
        assert_eq!(
            found,
            entry(log.group(), term, index, fill),
            "contents are those that were written"
        );
        image.entries.insert(index, (term, fill));
    }
    image
}

fn fill_of(found: &Entry) -> usize {
    use clinch_storage::raft::EntryPayload;
    let EntryPayload::Normal(batch) = &found.payload else {
        panic!("only batches were written")
    };
    let Some(Ok(mutation)) = batch.mutations().next() else {
        panic!("each has one write")
    };
    let clinch_storage::Write::Put(value) = mutation.write else {
        panic!("a put")
    };
    let head = value
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b':')
        .nth(1)
        .unwrap()
        .0
        + 1;
    value.len() - head
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_faults(slow());
        let (storage, handles) = start(&disk);
        let model = |group| Model {
            id: GroupId(group),
            term: 1,
            history: vec![LogImage::default()],
            certain: 0,
            pending: Vec::new(),
            committed: BTreeMap::new(),
            applied: None,
            checkpointed: None,
        };
        Self {
            disk,
            storage,
            handles,
            groups: (0..GROUPS).map(model).collect(),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                group,
                entries,
                fill,
                wait,
            } => self.append(group, entries, fill, wait).await,
            Step::Truncate { group, entries } => self.truncate(group, entries).await,
            Step::Vote { group } => {
                let (model, (log, ..)) = (
                    &mut self.groups[group as usize],
                    &mut self.handles[group as usize],
                );
                model.term += 1;
                let term = model.term;
                model.push(|image| image.vote = term);
                if log.save_vote(&vote(term)).await.is_ok() {
                    model.certain = model.history.len() - 1;
                }
            }
            Step::Apply { group } => self.apply(group).await,
            Step::Checkpoint => {
                if self.storage.checkpoint_blocking().is_ok() {
                    self.groups
                        .iter_mut()
                        .for_each(|model| model.checkpointed = model.applied);
                }
            }
            Step::Purge { group } => {
                let Some(upto) = self.storage.purge_target(GroupId(group)) else {
                    return;
                };
                let (model, (log, ..)) = (
                    &mut self.groups[group as usize],
                    &mut self.handles[group as usize],
                );
                assert!(Some(upto) <= model.checkpointed, "purged beyond the checkpoint");
                let Some((term, _)) = model.now().entries.get(&upto).copied() else {
                    return;
                };
                if log.purge(log_id(term, upto)).await.is_ok() {
                    model.push(|image| {
                        image.purged = Some(upto);
                        image.entries = image.entries.split_off(&(upto + 1));
                    });
                }
            }
            Step::Pass { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Step::Doom { after } => {
                self.disk.set_faults(SimFaults {
                    power_fails_after: Some(after),
                    ..slow()
                });
            }
            Step::Crash { power } => self.crash(power).await,
        }
        self.groups.iter_mut().for_each(Model::settle);
    }

    async fn append(&mut self, group: u32, count: usize, fill: usize, wait: bool) {
        let (model, (log, ..)) = (
            &mut self.groups[group as usize],
            &mut self.handles[group as usize],
        );
        let (next, term) = (model.now().next(), model.term);
        let batch: Vec<_> = (next..)
            .take(count)
            .map(|index| entry(model.id, term, index, fill))
            .collect();
        let Ok(answer) = queue(log, batch).await else {
            return;
        };
        // A crash may leave any prefix of the entries.
        for index in (next..).take(count) {
            model.push(|image| {
                image.entries.insert(index, (term, fill));
            });
        }
        let state = model.history.len() - 1;
        if !wait {
            model.pending.push((state, answer));
        } else if matches!(answer.await, Ok(Ok(()))) {
            model.certain = model.certain.max(state);
        }
    }

    async fn truncate(&mut self, group: u32, count: usize) {
        let (model, (log, ..)) = (
            &mut self.groups[group as usize],
            &mut self.handles[group as usize],
        );
        let keep = model
            .committed
            .keys()
            .next_back()
            .copied()
            .max(model.now().purged);
        let cut: Vec<u64> = model
            .now()
            .entries
            .keys()
            .rev()
            .copied()
            .take(count)
            .filter(|i| Some(*i) > keep)
            .collect();
        let Some(first) = cut.last().copied() else { return };
        let last = first
            .checked_sub(1)
            .map(|last| log_id(model.now().entries.get(&last).map_or(0, |e| e.0), last));
        if log.truncate_after(last).await.is_ok() {
            model.term += 1;
            model.push(|image| drop(image.entries.split_off(&first)));
        }
    }

    async fn apply(&mut self, group: u32) {
        let (model, (_, machine, _)) = (
            &mut self.groups[group as usize],
            &mut self.handles[group as usize],
        );
        let Some(last) = model.last_certain() else { return };
        let from = model.applied.map_or(0, |applied| applied + 1);
        let batch: Vec<_> = model
            .now()
            .entries
            .range(from..=last.max(from))
            .map(|(i, e)| (*i, *e))
            .collect();
        for (index, (term, fill)) in batch.into_iter().filter(|(index, _)| *index <= last) {
            model.committed.insert(index, fill);
            if apply(machine, vec![entry(model.id, term, index, fill)])
                .await
                .is_ok()
            {
                model.applied = Some(index);
            }
        }
    }

    async fn crash(&mut self, power: bool) {
        self.groups.iter_mut().for_each(Model::settle);
        if power || self.disk.is_off() {
            self.disk.crash();
        } else {
            self.disk.kill();
        }
        self.disk.set_faults(slow());
        self.handles.clear();
        (self.storage, self.handles) = start(&self.disk);
        assert_eq!(
            self.storage.needs_rebuild(),
            [],
            "the log never forgets what the store has not"
        );
        for (model, (log, machine, reader)) in self.groups.iter_mut().zip(&mut self.handles) {
            let found = image(log).await;
            let possible = &model.history[model.certain..];
            assert!(
                possible.contains(&found),
                "group {}: recovered {found:?}, which is none of the {} states since the last acknowledged {:?}",
                model.id,
                possible.len(),
                possible[0]
            );
            // After an answered append the state is certain for good, whatever comes next.
            model.history = vec![found];
            model.certain = 0;
            model.pending.clear();
            model.term = model.term.max(model.now().vote) + 1;
            recover_state(model, log, machine, reader).await;
        }
    }
}

/// The state store is at or after the last checkpoint, and the log brings it to everything committed.
async fn recover_state(
    model: &mut Model,
    log: &mut GroupLog,
    machine: &mut GroupMachine,
    reader: &GroupReader,
) {
    let applied = reader.applied().map(|id| id.index);
    assert!(
        applied >= model.checkpointed,
        "group {}: {applied:?} < {:?}",
        model.id,
        model.checkpointed
    );
    let committed = model.committed.keys().next_back().copied();
    assert!(applied <= committed);
    let from = applied.map_or(0, |applied| applied + 1);
    let rest: Vec<Entry> = entries(log)
        .await
        .unwrap()
        .into_iter()
        .filter(|e| (from..).contains(&e.log_id.index))
        .collect();
    let rest: Vec<Entry> = rest
        .into_iter()
        .filter(|e| Some(e.log_id.index) <= committed)
        .collect();
    apply(machine, rest).await.unwrap();
    model.applied = reader.applied().map(|id| id.index);
    model.checkpointed = applied;
    assert_eq!(model.applied, committed, "everything committed is there again");
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (index, fill) in &model.committed {
        expected.insert(format!("key-{:04}", index % 50), value(model.id, *index, *fill));
    }
    let found = reader
        .scan(
            std::ops::Bound::Unbounded,
            std::ops::Bound::Unbounded,
            usize::MAX,
            false,
        )
        .unwrap();
    let found: BTreeMap<String, Vec<u8>> = found
        .into_iter()
        .map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), v.to_vec()))
        .collect();
    assert_eq!(found, expected);
}

proptest! {
    // More with PROPTEST_CASES.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(500), ..ProptestConfig::default() })]

    /// After any crash, each group's log is in a state it went through, no older than the last acknowledged one;
    /// and its applied state can be brought to everything committed.
    #[test]
    fn what_was_acknowledged_is_recovered_and_nothing_that_never_was(seed in any::<u64>(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(seed);
            for step in steps {
                world.step(step).await;
            }
            world.step(Step::Crash { power: true }).await;
        });
    }
}
