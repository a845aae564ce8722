//! Records per second of the log on real files: `cargo run --release -p clinch-storage --example log_bench [DIR]`.
//!
//! 256-byte records over 64 groups; each batch is queued as a whole and waited for, so it is one sync. The last
//! rows let every group wait for itself, as raft does.

use std::sync::Arc;
use std::time::Duration;

use clinch_storage::raft::{Entry, EntryPayload, IoFlushed, log_id};
use clinch_storage::{
    BatchBuilder, FileDisk, GroupId, GroupLog, MemStore, Storage, StorageOptions, TypeConfig,
};
use openraft::storage::RaftLogStorage as _;
use openraft::type_config::TypeConfigExt as _;

const GROUPS: u32 = 64;
const RECORD: usize = 256;
const EACH: Duration = Duration::from_secs(2);

/// One group's log, and the next index in it.
struct Writer {
    log: GroupLog,
    next: u64,
}

impl Writer {
    async fn queue(&mut self, records: u64) -> impl Future<Output = ()> + use<> {
        let mut batch = BatchBuilder::new();
        batch.put(b"key-of-a-record", &[7; RECORD - 20]);
        let payload = EntryPayload::Normal(batch.finish());
        let entries: Vec<Entry> = (self.next..self.next + records)
            .map(|index| Entry {
                log_id: log_id(1, index),
                payload: payload.clone(),
            })
            .collect();
        self.next += records;
        let (tx, rx) = TypeConfig::oneshot();
        self.log
            .append(entries, IoFlushed::signal(tx))
            .await
            .expect("the append");
        async move { rx.await.expect("an answer").expect("durable") }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let base = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let disk = FileDisk::open(dir.path()).expect("a fresh directory");
    let options = StorageOptions {
        log_bytes_max: 512 << 20,
        ..StorageOptions::default()
    };
    let storage = Storage::open(options, Arc::new(disk), Arc::new(MemStore::new())).expect("it opens");
    let mut writers: Vec<Writer> = (0..GROUPS)
        .map(|group| Writer {
            log: storage.group(GroupId(group)).expect("the group").0,
            next: 0,
        })
        .collect();
    println!(
        "{:>24} {:>12} {:>12} {:>10} {:>10}",
        "records per sync", "records/s", "syncs/s", "p50 us", "p99 us"
    );
    // Twice: the first time the segments are filled with zeros, afterwards they are reused.
    for life in ["new", "reused"] {
        for batch in [1, 64, 256] {
            one_at_a_time(&format!("{batch} ({life} segments)"), batch, &mut writers).await;
        }
    }
    for clients in [16, 64] {
        each_for_itself(clients, &mut writers).await;
    }
}

async fn one_at_a_time(name: &str, batch: u64, writers: &mut [Writer]) {
    let began = tokio::time::Instant::now();
    let mut times = Vec::new();
    let mut round = 0;
    while began.elapsed() < EACH {
        let start = tokio::time::Instant::now();
        // Spread over the groups, as many per group as it takes.
        let groups = batch.min(u64::from(GROUPS));
        let mut waits = Vec::new();
        for n in 0..groups {
            let writer = &mut writers[((round + n) % u64::from(GROUPS)) as usize];
            waits.push(writer.queue(batch / groups).await);
        }
        futures_util::future::join_all(waits).await;
        times.push(start.elapsed());
        round += groups;
        purge(writers, round).await;
    }
    report(name, times.len() as u64 * batch, began.elapsed(), &mut times);
}

async fn each_for_itself(clients: usize, writers: &mut [Writer]) {
    let began = tokio::time::Instant::now();
    let tasks = writers.iter_mut().take(clients).map(|writer| async move {
        let mut times = Vec::new();
        while began.elapsed() < EACH {
            let start = tokio::time::Instant::now();
            writer.queue(1).await.await;
            times.push(start.elapsed());
            if writer.next.is_multiple_of(4096) {
                writer
                    .log
                    .purge(log_id(1, writer.next - 1))
                    .await
                    .expect("the purge");
            }
        }
        times
    });
    let mut times: Vec<Duration> = futures_util::future::join_all(tasks).await.concat();
    report(
        &format!("{clients} clients"),
        times.len() as u64,
        began.elapsed(),
        &mut times,
    );
}

/// Now and then forgets what was written, so that segments are reused.
async fn purge(writers: &mut [Writer], round: u64) {
    if round.is_multiple_of(1 << 14) {
        for writer in writers.iter_mut().filter(|writer| writer.next > 0) {
            writer
                .log
                .purge(log_id(1, writer.next - 1))
                .await
                .expect("the purge");
        }
    }
}

fn report(name: &str, records: u64, took: Duration, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    let per_second = |count: u64| count as f64 / took.as_secs_f64();
    println!(
        "{name:>24} {:>12.0} {:>12.0} {:>10} {:>10}",
        per_second(records),
        per_second(times.len() as u64),
        at(0.5),
        at(0.99)
    );
}
