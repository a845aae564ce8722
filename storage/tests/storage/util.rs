//! What several tests need: small options, entries with known contents, and the log's answers.

use std::io;
use std::sync::Arc;

use clinch_storage::raft::{Entry, EntryPayload, IoFlushed, log_id};
use clinch_storage::{
    Batch, BatchBuilder, Disk, Driver, GroupId, GroupLog, GroupMachine, GroupReader, OpenError, StateStore,
    Storage, StorageOptions, TypeConfig,
};
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _, RaftStateMachine as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::type_config::alias::OneshotReceiverOf;

/// The answer to a queued append.
pub(crate) type Answer = OneshotReceiverOf<TypeConfig, io::Result<()>>;

/// Small segments, so that tests roll, free and reuse them.
pub(crate) fn small_options(driver: Driver) -> StorageOptions {
    StorageOptions {
        segment_bytes: 8 << 10,
        cache_bytes: 2 << 10,
        retain_bytes: 0,
        log_bytes_max: 1 << 20,
        driver,
        ..StorageOptions::default()
    }
}

pub(crate) fn open(
    driver: Driver,
    disk: Arc<dyn Disk>,
    store: Arc<dyn StateStore>,
) -> Result<Storage, OpenError> {
    Storage::open(small_options(driver), disk, store)
}

/// A batch of one put, whose key and value tell where it belongs.
pub(crate) fn batch(group: GroupId, index: u64, fill: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.put(
        format!("key-{:04}", index % 50).as_bytes(),
        &value(group, index, fill),
    );
    builder.finish()
}

pub(crate) fn value(group: GroupId, index: u64, fill: usize) -> Vec<u8> {
    let mut value = format!("{}:{index}:", group.0).into_bytes();
    // Never zero: a cut in zeros could not be told from no cut.
    value.resize(value.len() + fill, index as u8 % 251 + 1);
    value
}

pub(crate) fn entry(group: GroupId, term: u64, index: u64, fill: usize) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(batch(group, index, fill)),
    }
}

pub(crate) fn put(term: u64, index: u64, writes: &[(&str, Option<&str>)]) -> Entry {
    let mut builder = BatchBuilder::new();
    for (key, value) in writes {
        match value {
            Some(value) => builder.put(key.as_bytes(), value.as_bytes()),
            None => builder.delete(key.as_bytes()),
        }
    }
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(builder.finish()),
    }
}

/// Queues entries; the answer comes when they are durable.
pub(crate) async fn queue(log: &mut GroupLog, entries: Vec<Entry>) -> io::Result<Answer> {
    let (tx, rx) = TypeConfig::oneshot();
    log.append(entries, IoFlushed::signal(tx)).await?;
    Ok(rx)
}

/// Appends entries and waits until they are durable.
pub(crate) async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> io::Result<()> {
    queue(log, entries).await?.await.map_err(io::Error::other)?
}

pub(crate) async fn entries(log: &mut GroupLog) -> io::Result<Vec<Entry>> {
    log.try_get_log_entries(0..).await
}

pub(crate) async fn apply(machine: &mut GroupMachine, entries: Vec<Entry>) -> io::Result<()> {
    machine
        .apply(futures_util::stream::iter(
            entries.into_iter().map(|entry| Ok((entry, None))),
        ))
        .await
}

pub(crate) fn get(reader: &GroupReader, key: &str) -> Option<String> {
    reader
        .get(key.as_bytes())
        .unwrap()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
}
