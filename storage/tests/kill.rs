//! `kill -9` at a random moment, again and again: a child appends through the real log on real files and says on
//! its standard output what was acknowledged; after each round everything it said is there, and nothing else.
//!
//! `CLINCH_CRASH_ROUNDS` sets the rounds (default 200), `CLINCH_CRASH_SEED` the seed.

#![expect(
    clippy::disallowed_methods,
    reason = "real processes run in real time, with threads of their own"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clinch_storage::raft::{Entry, EntryPayload, IoFlushed, LeaderId, Vote, log_id};
use clinch_storage::{
    BatchBuilder, FileDisk, GroupId, GroupLog, GroupMachine, GroupReader, OpenError, SledStore, Storage,
    StorageOptions, TypeConfig,
};
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _, RaftStateMachine as _};
use openraft::type_config::TypeConfigExt as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

const GROUPS: u32 = 3;
const CHILD_DIR: &str = "CLINCH_CRASH_CHILD_DIR";
/// Keys each group cycles through.
const KEYS: u64 = 40;

fn main() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        child(Path::new(&dir));
        return;
    }
    // Asked for the tests by name (`--list`, a filter): there is one.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        println!("acknowledged_records_survive_kill_9: test");
        return;
    }
    let number = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    };
    let rounds = number("CLINCH_CRASH_ROUNDS", 200);
    let seed = number("CLINCH_CRASH_SEED", u64::from(std::process::id()));
    println!("test acknowledged_records_survive_kill_9 ({rounds} rounds, CLINCH_CRASH_SEED={seed}) ...");
    a_second_process_is_told_who_has_the_directory();
    let began = Instant::now();
    let acknowledged = acknowledged_records_survive_kill_9(rounds, seed);
    println!(
        "ok: {acknowledged} acknowledged records, none lost, {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

fn options() -> StorageOptions {
    // Small, so that rounds cross segments and segments are reused.
    StorageOptions {
        segment_bytes: 64 << 10,
        cache_bytes: 16 << 10,
        retain_bytes: 8 << 10,
        log_bytes_max: 4 << 20,
        ..StorageOptions::default()
    }
}

fn open(dir: &Path) -> Result<Storage, OpenError> {
    let disk = FileDisk::open(dir)?;
    let store = SledStore::open(&disk, 1 << 20)?;
    assert_eq!(store.set_aside(), None, "kill -9 does not damage the state store");
    Storage::open(options(), Arc::new(disk), Arc::new(store))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// Key and value follow from group and index, so that whoever reads them can check them.
fn write_of(group: u32, index: u64) -> (String, Vec<u8>) {
    let mut value = format!("{group}:{index}:").into_bytes();
    value.resize(value.len() + (index * 37 % 700) as usize, index as u8);
    (format!("key-{:02}", index % KEYS), value)
}

fn entry(group: u32, index: u64) -> Entry {
    let (key, value) = write_of(group, index);
    let mut builder = BatchBuilder::new();
    builder.put(key.as_bytes(), &value);
    Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(builder.finish()),
    }
}

fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId { term, voted_for: 1 },
        committed: false,
    }
}

// ---- the child

/// Says something in one write, so that a kill cuts nothing in half.
fn say(text: &str) {
    std::io::stdout()
        .write_all(format!("{text}\n").as_bytes())
        .expect("the parent listens");
}

fn child(dir: &Path) {
    let storage = open(dir).expect("the child opens the storage");
    runtime().block_on(async {
        say("open");
        let checkpoints = storage.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(15));
                checkpoints.checkpoint_blocking().expect("the checkpoint");
            }
        });
        let groups = (0..GROUPS).map(|group| serve(storage.clone(), group));
        futures_util::future::join_all(groups).await;
    });
}

async fn serve(storage: Storage, group: u32) {
    let (mut log, mut machine, reader) = storage.group(GroupId(group)).expect("the group");
    let mut next = log
        .get_log_state()
        .await
        .expect("the state")
        .last_log_id
        .map_or(0, |id| id.index + 1);
    let mut term = log
        .read_vote()
        .await
        .expect("the vote")
        .map_or(1, |vote| vote.leader_id.term);
    replay(&mut log, &mut machine, &reader).await;
    for round in 0u64.. {
        let count = 1 + (round * 7 + u64::from(group)) % 12;
        let (tx, rx) = TypeConfig::oneshot();
        let batch: Vec<Entry> = (next..next + count).map(|index| entry(group, index)).collect();
        log.append(batch.clone(), IoFlushed::signal(tx))
            .await
            .expect("the append");
        rx.await.expect("an answer").expect("durable");
        next += count;
        say(&format!("log {group} {}", next - 1));
        apply(&mut machine, batch).await;
        if round % 5 == 0 {
            term += 1;
            log.save_vote(&vote(term)).await.expect("the vote");
            say(&format!("vote {group} {term}"));
        }
        if round % 8 == 0
            && let Some(upto) = storage.purge_target(GroupId(group))
        {
            log.purge(log_id(1, upto)).await.expect("the purge");
        }
    }
}

async fn apply(machine: &mut GroupMachine, entries: Vec<Entry>) {
    let entries = futures_util::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    machine.apply(entries).await.expect("applied");
}

/// Brings the state to the end of the log, as raft does at start.
async fn replay(log: &mut GroupLog, machine: &mut GroupMachine, reader: &GroupReader) {
    let from = reader.applied().map_or(0, |id| id.index + 1);
    let rest = log.try_get_log_entries(from..).await.expect("the log");
    assert!(
        rest.first().is_none_or(|first| first.log_id.index == from),
        "the log reaches down to the state"
    );
    apply(machine, rest).await;
}

// ---- the parent

#[derive(Default)]
struct Said {
    /// Per group: last acknowledged index, and term.
    log: BTreeMap<u32, u64>,
    vote: BTreeMap<u32, u64>,
    lines: u64,
}

impl Said {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match words[0] {
            "log" => drop(self.log.insert(number(1) as u32, number(2))),
            "vote" => drop(self.vote.insert(number(1) as u32, number(2))),
            "open" => {}
            other => panic!("the child said {other:?}"),
        }
        self.lines += 1;
    }
}

fn acknowledged_records_survive_kill_9(rounds: u64, seed: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut said = Said::default();
    for round in 0..rounds {
        let wait = Duration::from_micros(rng.random_range(5_000..100_000));
        let before = said.lines;
        kill_a_child(dir.path(), wait, &mut said);
        assert!(said.lines > before, "round {round}: the child did not even open");
        runtime().block_on(check(dir.path(), round, &said));
    }
    let acknowledged: u64 = said.log.values().map(|last| last + 1).sum();
    assert!(
        acknowledged > 10 * rounds,
        "only {acknowledged} records in {rounds} rounds prove little"
    );
    acknowledged
}

/// Starts a child, kills it some time after it has opened, and reads what it said.
fn kill_a_child(dir: &Path, wait: Duration, said: &mut Said) {
    let exe = std::env::current_exe().expect("this program");
    let mut child = Command::new(exe)
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let out = child.stdout.take().expect("it is piped");
    let (opened, is_open) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(out).lines() {
            lines.push(line.expect("the pipe"));
            // Only the first one is waited for.
            let _ = opened.send(());
        }
        lines
    });
    is_open
        .recv_timeout(Duration::from_secs(20))
        .expect("the child opens the storage");
    std::thread::sleep(wait);
    child.kill().expect("kill -9");
    child.wait().expect("the child is gone");
    for line in reader.join().expect("the reader") {
        said.line(&line);
    }
}

async fn check(dir: &Path, round: u64, said: &Said) {
    let storage = open(dir).unwrap_or_else(|error| panic!("round {round}: {error}"));
    assert_eq!(storage.needs_rebuild(), [], "round {round}");
    for group in 0..GROUPS {
        let (mut log, mut machine, reader) = storage.group(GroupId(group)).expect("the group");
        let state = log.get_log_state().await.expect("the state");
        let last = state.last_log_id.map(|id| id.index);
        assert!(
            last >= said.log.get(&group).copied(),
            "round {round}, group {group}: lost up to {last:?}"
        );
        let vote = log
            .read_vote()
            .await
            .expect("the vote")
            .map(|vote| vote.leader_id.term);
        assert!(
            vote >= said.vote.get(&group).copied(),
            "round {round}, group {group}: vote went back to {vote:?}"
        );
        let first = state.last_purged_log_id.map_or(0, |id| id.index + 1);
        let entries = log.try_get_log_entries(0..).await.expect("the entries");
        let expected = (first..=last.unwrap_or(0)).map(|index| entry(group, index));
        assert!(
            last.is_none() || entries.into_iter().eq(expected),
            "round {round}, group {group}: wrong entries"
        );
        replay(&mut log, &mut machine, &reader).await;
        let Some(last) = last else { continue };
        for index in last.saturating_sub(KEYS - 1)..=last {
            let (key, value) = write_of(group, index);
            let found = reader.get(key.as_bytes()).expect("the state");
            assert_eq!(
                found.as_deref(),
                Some(&value[..]),
                "round {round}, group {group}, entry {index}"
            );
        }
    }
}

fn a_second_process_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let _held = FileDisk::open(dir.path()).expect("the first");
    let exe = std::env::current_exe().expect("this program");
    let output = Command::new(exe)
        .env(CHILD_DIR, dir.path())
        .output()
        .expect("the child runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!(
        "InUse {{ dir: {:?}, owner: \"process {}\" }}",
        dir.path(),
        std::process::id()
    );
    assert!(error.contains(&expected), "{error}");
}
