//! The production [`Disk`]: files in one directory, locked against a second process.
//!
//! Invariant: while a [`FileDisk`] lives, no other process holds one on the same directory. The kernel drops the
//! lock when the process dies, so a crash leaves nothing to clean up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile};
use crate::OpenError;

const LOCK: &str = "lock";

/// Files in one directory.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    // Held for its lock.
    _lock: File,
}

impl FileDisk {
    /// Opens a directory, making it when it is not there, and locks it.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it, naming that process.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let dir = dir.into();
        let name = dir.display().to_string();
        std::fs::create_dir_all(&dir).map_err(OpenError::io(format!("create {name}")))?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(OpenError::io(format!("open {name}/{LOCK}")))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // The owner is only for the message: without it the error is still right.
                let _ = (&lock).take(32).read_to_string(&mut owner);
                let owner = match owner.trim() {
                    "" => "another process".to_string(),
                    pid => format!("process {pid}"),
                };
                return Err(OpenError::InUse { dir: name, owner });
            }
            Err(TryLockError::Error(source)) => {
                return Err(OpenError::Io {
                    action: format!("lock {name}/{LOCK}"),
                    source,
                });
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(OpenError::io(format!("write {name}/{LOCK}")))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Disk for FileDisk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let path = self.path(dir);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        if create
            && let Some(parent) = path.parent()
            && !parent.exists()
        {
            std::fs::create_dir_all(parent).map_err(|error| at(parent, error))?;
            sync_path(&self.dir)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(&path)
            .map_err(|error| at(&path, error))?;
        let file = Arc::new(RealFile { file, path });
        #[cfg(all(feature = "planted", debug_assertions))]
        return Ok(super::volatile::wrap(file));
        #[cfg(not(all(feature = "planted", debug_assertions)))]
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let path = self.path(from);
        std::fs::rename(&path, self.path(to)).map_err(|error| at(&path, error))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        std::fs::remove_file(&path).map_err(|error| at(&path, error))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_path(&self.path(dir))
    }
}

/// Syncs a file or a directory by path.
pub(crate) fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| at(path, error))
}

/// Says which file an error is about: whoever reads "No space left on device" must know which device.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealFile {
    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| at(&self.path, error))
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.named(self.file.metadata())?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return self.named(result),
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.named(self.file.write_all_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.named(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.named(self.file.sync_data())
    }
}
