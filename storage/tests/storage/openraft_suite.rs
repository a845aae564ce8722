//! openraft's own suite for log storage and state machine, on this crate's.

use std::sync::Arc;

use clinch_storage::{
    Driver, FileDisk, GroupId, GroupLog, GroupMachine, MemStore, SimDisk, SledStore, Storage, TypeConfig,
};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::util::small_options;

/// Each store gets a storage of its own, in memory.
struct InMemory;

impl StoreBuilder<TypeConfig, GroupLog, GroupMachine, Storage> for InMemory {
    async fn build(&self) -> Result<(Storage, GroupLog, GroupMachine), StorageError<TypeConfig>> {
        let storage = Storage::open(
            small_options(Driver::Task),
            SimDisk::new(1).mount(),
            Arc::new(MemStore::new()),
        );
        let storage = storage.expect("an empty disk opens");
        let (log, machine, _) = storage.group(GroupId(3)).expect("a new group");
        Ok((storage, log, machine))
    }
}

/// The production parts: real files, a writer thread, sled.
struct OnFiles;

impl StoreBuilder<TypeConfig, GroupLog, GroupMachine, (TempDir, Storage)> for OnFiles {
    async fn build(&self) -> Result<((TempDir, Storage), GroupLog, GroupMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = FileDisk::open(dir.path()).expect("a fresh directory");
        let store = SledStore::open(&disk, 1 << 20).expect("a fresh store");
        let storage = Storage::open(small_options(Driver::Thread), Arc::new(disk), Arc::new(store));
        let storage = storage.expect("an empty directory opens");
        let (log, machine, _) = storage.group(GroupId(3)).expect("a new group");
        Ok(((dir, storage), log, machine))
    }
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_files_with_sled() {
    Suite::test_all(OnFiles).await.unwrap();
}
