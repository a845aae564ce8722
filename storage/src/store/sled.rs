//! The production [`StateStore`]: sled, with the device flush it lacks.
//!
//! Invariant: `flush` returns after the data are on the device. sled 0.34.7 only starts the write-back
//! (`sync_file_range`), so its files are synced here as well. sled panics where others return an error; a panic
//! becomes an error here, which poisons the storage. What sled holds can always be rebuilt, so a database that does
//! not open is set aside and an empty one takes its place.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{KeyWrite, StateStore, is_empty_range};
use crate::OpenError;
use crate::disk::FileDisk;

/// The folder of the store, inside the data directory.
const DIR: &str = "state";
/// Where sled puts large values, each in a file of its own that is written once.
const BLOBS: &str = "blobs";
/// The tree that holds everything: a batch is atomic within one tree only.
const TREE: &str = "state";

/// How often, and how long apart, to try again while an earlier database of this process is going away.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// sled in a folder.
#[derive(Debug)]
pub struct SledStore {
    // Field order: the tree goes before the database it is in.
    tree: sled::Tree,
    db: sled::Db,
    dir: PathBuf,
    set_aside: Option<PathBuf>,
    /// Blob files that have been synced.
    synced_blobs: Mutex<BTreeSet<String>>,
}

impl SledStore {
    /// Opens the store inside the data directory of `disk`; `cache_bytes` is sled's own cache.
    ///
    /// A database that is damaged is renamed to `state.damaged-N`, see [`Self::set_aside`].
    ///
    /// # Errors
    /// Only when the file system fails; damage is not an error.
    pub fn open(disk: &FileDisk, cache_bytes: u64) -> Result<Self, OpenError> {
        let dir = disk.dir().join(DIR);
        match open_db(&dir, cache_bytes)? {
            Ok((db, tree)) => Ok(Self::new(db, tree, dir, None)),
            Err(reason) => {
                let aside = free_name(disk.dir());
                tracing::error!(
                    %reason,
                    aside = %aside.display(),
                    "the state store is damaged: setting it aside and rebuilding from the log and from peers"
                );
                std::fs::rename(&dir, &aside)
                    .map_err(OpenError::io(format!("set {} aside", dir.display())))?;
                match open_db(&dir, cache_bytes)? {
                    Ok((db, tree)) => Ok(Self::new(db, tree, dir, Some(aside))),
                    Err(reason) => Err(OpenError::damaged(
                        DIR,
                        0,
                        format!("an empty store does not open: {reason}"),
                    )),
                }
            }
        }
    }

    /// Where a damaged database was put when this one was opened.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    fn new(db: sled::Db, tree: sled::Tree, dir: PathBuf, set_aside: Option<PathBuf>) -> Self {
        Self {
            tree,
            db,
            dir,
            set_aside,
            synced_blobs: Mutex::default(),
        }
    }

    /// Runs sled, turning its panics and errors into plain errors that say where.
    fn guarded<T>(&self, what: &str, run: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
        let said = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "sled panicked".to_owned(),
        };
        Err(io::Error::other(format!(
            "{}, {what}: {said}",
            self.dir.display()
        )))
    }

    fn sync_files(&self) -> io::Result<()> {
        File::open(self.dir.join("db"))?.sync_data()?;
        let blobs = self.dir.join(BLOBS);
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&blobs)? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        let mut synced = self.synced_blobs.lock();
        let new: Vec<String> = names.difference(&synced).cloned().collect();
        for name in &new {
            match File::open(blobs.join(name)) {
                Ok(file) => file.sync_all()?,
                // Removed again meanwhile: nothing refers to it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if !new.is_empty() {
            File::open(&blobs)?.sync_all()?;
        }
        *synced = names;
        Ok(())
    }
}

/// The outer error is the file system's, the inner one a damaged database.
type Opened = Result<Result<(sled::Db, sled::Tree), String>, OpenError>;

fn open_db(dir: &Path, cache_bytes: u64) -> Opened {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes)
        .flush_every_ms(None);
    let open = || {
        let db = config.open()?;
        let tree = db.open_tree(TREE)?;
        Ok((db, tree))
    };
    let mut opened = catch_unwind(AssertUnwindSafe(open));
    for _ in 0..LOCK_TRIES {
        if !matches!(&opened, Ok(Err(sled::Error::Io(error))) if is_locked(error)) {
            break;
        }
        std::thread::sleep(LOCK_WAIT);
        opened = catch_unwind(AssertUnwindSafe(open));
    }
    match opened {
        Ok(Ok(opened)) => Ok(Ok(opened)),
        Ok(Err(sled::Error::Io(source))) if !is_damage(&source) => Err(OpenError::Io {
            action: format!("open {}", dir.display()),
            source,
        }),
        Ok(Err(error)) => Ok(Err(error.to_string())),
        Err(_) => Ok(Err("sled panicked".into())),
    }
}

/// The data directory is ours alone, so the lock is that of a database closed a moment ago, which sled's own
/// threads still hold.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// sled reports a file it cannot make sense of as an I/O error of these kinds.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

fn free_name(dir: &Path) -> PathBuf {
    (1..)
        .map(|n: u32| dir.join(format!("{DIR}.damaged-{n}")))
        .find(|path| !path.exists())
        .expect("there are fewer than 2^32 damaged stores")
}

impl StateStore for SledStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.guarded("get", || self.tree.get(key))?;
        Ok(value.map(|v| Bytes::copy_from_slice(&v)))
    }

    fn scan(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> io::Result<Vec<(Bytes, Bytes)>> {
        if is_empty_range(start, end) {
            return Ok(Vec::new());
        }
        let copy = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            pair.map(|(k, v)| (Bytes::copy_from_slice(&k), Bytes::copy_from_slice(&v)))
        };
        self.guarded("scan", || {
            let pairs = self.tree.range::<&[u8], _>((start, end));
            if reverse {
                pairs.rev().take(limit).map(copy).collect()
            } else {
                pairs.take(limit).map(copy).collect()
            }
        })
    }

    /// Never as one of sled's batches: a batch holds up every reader of the process until its last key is written, and
    /// from the first one on each read takes a lock that all share. Single writes also give sled's garbage collector the
    /// calls it needs to keep up (see docs/decisions/018).
    fn apply(&self, writes: Vec<KeyWrite>) -> io::Result<()> {
        self.guarded("apply", || {
            for (key, value) in writes {
                match value {
                    Some(value) => self.tree.insert(&key[..], &value[..])?,
                    None => self.tree.remove(&key[..])?,
                };
            }
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.guarded("flush", || self.db.flush())?;
        self.sync_files()
    }
}
