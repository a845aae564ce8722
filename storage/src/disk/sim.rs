//! A disk in memory that can lose power.
//!
//! Invariant: what was synced survives a crash; of the rest, each write survives whole, in part, or not at all, in
//! any combination, and changes of names survive as a prefix. Everything random comes from the seed. Without
//! faults it doubles as a plain disk in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Disk, DiskFile};

/// What a device writes as one.
const SECTOR: usize = 512;

/// What goes wrong besides power loss.
#[derive(Debug, Clone, PartialEq)]
pub struct SimFaults {
    /// Probability that a sync fails. The next one may succeed without having written anything.
    pub sync_fails: f64,
    /// Probability that a sync answers but does nothing.
    pub sync_lies: f64,
    /// Shortest and longest time of a sync.
    pub sync_latency: (Duration, Duration),
    /// Bytes the disk holds over all files; a write beyond fails after a part of it.
    pub capacity: Option<u64>,
    /// The power fails at this operation from now on (writes, syncs and changes of names count).
    pub power_fails_after: Option<u64>,
}

impl Default for SimFaults {
    fn default() -> Self {
        Self {
            sync_fails: 0.0,
            sync_lies: 0.0,
            sync_latency: (Duration::ZERO, Duration::ZERO),
            capacity: None,
            power_fails_after: None,
        }
    }
}

/// What went wrong so far, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimCounts {
    /// Syncs that did what they said.
    pub syncs: u64,
    /// Syncs that failed.
    pub syncs_failed: u64,
    /// Syncs that answered and did nothing.
    pub syncs_lied: u64,
    /// Writes lost whole in a power loss.
    pub writes_lost: u64,
    /// Writes of which a part was lost.
    pub writes_torn: u64,
    /// Changes of names lost.
    pub names_lost: u64,
    /// Writes refused by a full disk.
    pub writes_refused: u64,
}

/// The disk as the simulator holds it: see the module. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// The disk as one process sees it: dead after the next crash, so that nothing left over from an earlier life can
/// touch what a later one wrote.
#[derive(Debug)]
struct Mounted {
    disk: SimDisk,
    life: u64,
}

#[derive(Debug)]
struct Inner {
    rng: SmallRng,
    faults: SimFaults,
    /// Names as programs see them, and as they are after a crash.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of a directory, oldest first.
    pending_names: Vec<NameChange>,
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    operations: u64,
    counts: SimCounts,
    /// Grows with every crash: what was mounted before is dead.
    life: u64,
    off: bool,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            rng: SmallRng::seed_from_u64(seed),
            faults: SimFaults::default(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            operations: 0,
            counts: SimCounts::default(),
            life: 0,
            off: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// The disk for a process that starts now.
    pub fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(Mounted {
            disk: self.clone(),
            life: self.inner.lock().life,
        })
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: SimFaults) {
        let mut inner = self.inner.lock();
        inner.operations = 0;
        inner.faults = faults;
    }

    /// Power loss, and power again: synced bytes are there, others perhaps, in part, or not. Whatever was mounted
    /// or opened before answers with errors only.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        let Inner {
            rng,
            files,
            pending_names,
            durable_names,
            counts,
            ..
        } = &mut *inner;
        let kept = rng.random_range(0..=pending_names.len());
        counts.names_lost += (pending_names.len() - kept) as u64;
        for change in pending_names.drain(..).take(kept) {
            change.apply(durable_names);
        }
        for contents in files.values_mut() {
            for change in std::mem::take(&mut contents.pending) {
                match change {
                    Change::Write(at, mut data) => {
                        // Whole, torn at some byte, with sectors missing, or lost; each write for itself, since
                        // devices reorder.
                        match rng.random_range(0..4u8) {
                            0 => Change::Write(at, data).apply(&mut contents.durable),
                            1 => {
                                counts.writes_torn += 1;
                                data.truncate(rng.random_range(0..=data.len()));
                                Change::Write(at, data).apply(&mut contents.durable);
                            }
                            2 => {
                                counts.writes_torn += 1;
                                for (sector, part) in data.chunks(SECTOR).enumerate() {
                                    if rng.random() {
                                        let change = Change::Write(at + sector * SECTOR, part.to_vec());
                                        change.apply(&mut contents.durable);
                                    }
                                }
                            }
                            _ => counts.writes_lost += 1,
                        }
                    }
                    Change::SetLen(len) => {
                        if rng.random() {
                            Change::SetLen(len).apply(&mut contents.durable);
                        }
                    }
                }
            }
            contents.now.clone_from(&contents.durable);
        }
        inner.names = inner.durable_names.clone();
        inner.restart();
    }

    /// `kill -9`: the process is gone, what it wrote is still with the operating system.
    pub fn kill(&self) {
        self.inner.lock().restart();
    }

    /// Whether [`SimFaults::power_fails_after`] has struck: [`Self::crash`] is due.
    pub fn is_off(&self) -> bool {
        self.inner.lock().off
    }

    /// Successful syncs so far.
    pub fn syncs(&self) -> u64 {
        self.inner.lock().counts.syncs
    }

    /// What went wrong so far.
    pub fn counts(&self) -> SimCounts {
        self.inner.lock().counts
    }

    /// All bytes of a file, as programs see them.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        inner.names.get(name).map(|file| inner.files[file].now.clone())
    }

    /// Replaces a file behind everybody's back, durably: bit rot, cuts, copies.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.inner.lock();
        let file = match inner.names.get(name) {
            Some(file) => *file,
            None => {
                let file = inner.create(name);
                inner.settle_names();
                file
            }
        };
        inner.files.insert(
            file,
            Contents {
                now: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
            },
        );
    }

    /// A second disk with the same contents and no faults.
    pub fn fork(&self, seed: u64) -> Self {
        let inner = self.inner.lock();
        let copy = Self::new(seed);
        {
            let mut to = copy.inner.lock();
            to.names = inner.names.clone();
            to.durable_names = inner.durable_names.clone();
            to.pending_names = inner.pending_names.clone();
            to.files = inner.files.clone();
            to.next_file = inner.next_file;
        }
        copy
    }

    /// Every name on the disk, with its directory.
    pub fn names(&self) -> Vec<String> {
        self.inner.lock().names.keys().cloned().collect()
    }
}

impl Inner {
    fn restart(&mut self) {
        self.life += 1;
        self.off = false;
        self.faults.power_fails_after = None;
    }

    /// Counts an operation that changes something; errs when there is no power.
    fn operation(&mut self) -> io::Result<()> {
        self.powered(self.life)?;
        if self
            .faults
            .power_fails_after
            .is_some_and(|after| self.operations >= after)
        {
            self.off = true;
        }
        self.operations += 1;
        self.powered(self.life)
    }

    fn powered(&self, life: u64) -> io::Result<()> {
        if self.off || life != self.life {
            Err(io::Error::other("simulated power loss"))
        } else {
            Ok(())
        }
    }

    fn create(&mut self, name: &str) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Contents::default());
        self.change_names(NameChange::Create(name.to_string(), file));
        file
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn settle_names(&mut self) {
        for change in std::mem::take(&mut self.pending_names) {
            change.apply(&mut self.durable_names);
        }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|file| self.files[file].now.len() as u64)
            .sum()
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} is not there"))
}

impl Mounted {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner.lock();
        inner.powered(self.life)?;
        Ok(inner)
    }
}

impl Disk for Mounted {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let inner = self.inner()?;
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let names = inner.names.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names
            .filter(|name| !name.contains('/'))
            .map(str::to_string)
            .collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner()?;
        let file = match inner.names.get(name) {
            Some(file) => *file,
            None if create => {
                inner.operation()?;
                inner.create(name)
            }
            None => return Err(not_found(name)),
        };
        Ok(Arc::new(SimFile {
            disk: self.disk.clone(),
            file,
            life: self.life,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.operation()?;
        if !inner.names.contains_key(from) {
            return Err(not_found(from));
        }
        inner.change_names(NameChange::Rename(from.to_string(), to.to_string()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.operation()?;
        if !inner.names.contains_key(name) {
            return Err(not_found(name));
        }
        inner.change_names(NameChange::Remove(name.to_string()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.operation()?;
        // One journal for all directories, as file systems have it.
        inner.settle_names();
        Ok(())
    }

    fn sync_latency(&self) -> Duration {
        let mut inner = self.disk.inner.lock();
        let (low, high) = inner.faults.sync_latency;
        if low >= high {
            low
        } else {
            inner.rng.random_range(low..=high)
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, run: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner.lock();
        inner.powered(self.life)?;
        run(&mut inner)
    }

    fn change(&self, inner: &mut Inner, change: Change) {
        let contents = inner.files.entry(self.file).or_default();
        change.apply(&mut contents.now);
        contents.pending.push(change);
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|inner| Ok(inner.files[&self.file].now.len() as u64))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|inner| {
            let bytes = &inner.files[&self.file].now;
            let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let len = buf.len().min(bytes.len() - at);
            buf[..len].copy_from_slice(&bytes[at..at + len]);
            Ok(len)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|inner| {
            if let Err(error) = inner.operation() {
                // The write under way when the power fails may have reached the device in part.
                let part = inner.rng.random_range(0..=bytes.len());
                self.change(inner, Change::Write(at, bytes[..part].to_vec()));
                return Err(error);
            }
            let grows = (at + bytes.len()).saturating_sub(inner.files[&self.file].now.len()) as u64;
            if let Some(capacity) = inner.faults.capacity
                && inner.used() + grows > capacity
            {
                let part = bytes.len() / 2;
                self.change(inner, Change::Write(at, bytes[..part].to_vec()));
                inner.counts.writes_refused += 1;
                return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"));
            }
            self.change(inner, Change::Write(at, bytes.to_vec()));
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|inner| {
            inner.operation()?;
            self.change(inner, Change::SetLen(len));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|inner| {
            inner.operation()?;
            let SimFaults {
                sync_fails,
                sync_lies,
                ..
            } = inner.faults;
            if sync_fails > 0.0 && inner.rng.random_bool(sync_fails) {
                // What the kernel does: the dirty pages count as clean, and the next sync says "ok" without them.
                inner.counts.syncs_failed += 1;
                inner.files.entry(self.file).or_default().pending.clear();
                return Err(io::Error::other("simulated failing sync"));
            }
            inner.counts.syncs += 1;
            if sync_lies > 0.0 && inner.rng.random_bool(sync_lies) {
                inner.counts.syncs_lied += 1;
                return Ok(());
            }
            let contents = inner.files.entry(self.file).or_default();
            for change in std::mem::take(&mut contents.pending) {
                change.apply(&mut contents.durable);
            }
            Ok(())
        })
    }
}
