//! The Disk seam: named files that can be written in place and synced.
//!
//! Invariant: everything the log and the snapshots persist goes through here, so the simulator can lose, tear and
//! rot it. Names are relative, `/`-separated, at most one directory deep. A new, renamed or removed name is
//! durable only after [`Disk::sync_dir`].
//! Not here: what the bytes mean.

mod file;
#[cfg(any(test, feature = "test-util"))]
mod sim;
#[cfg(all(feature = "planted", debug_assertions))]
mod volatile;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use clinch_types::fp;

pub use file::FileDisk;
#[cfg(any(test, feature = "test-util"))]
pub use sim::{SimCounts, SimDisk, SimFaults};

/// A directory of files. All calls may block.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// The names in a directory (`""` is the root), in ascending order, without the directory's own name. A
    /// directory that does not exist is empty.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; with `create`, makes it (and its directory) when it is not there.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file a new name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// How long a sync takes in simulated time; a real disk takes its time by itself.
    fn sync_latency(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file. All calls may block.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes at an offset; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes at an offset; a gap before it reads as zeros.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when everything written before is durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// Reads a whole file.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let read = file.read_at(at as u64, &mut bytes[at..])?;
        if read == 0 {
            bytes.truncate(at);
            break;
        }
        at += read;
    }
    Ok(bytes)
}

/// Reads exactly `buf.len()` bytes.
pub(crate) fn read_exact_at(file: &dyn DiskFile, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        let read = file.read_at(offset, buf)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += read as u64;
        buf = &mut buf[read..];
    }
    Ok(())
}

/// Replaces a small file in one step: after a crash it has the old bytes or the new ones.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let tmp = format!("{name}.tmp");
    let file = disk.open(&tmp, true)?;
    file.set_len(0)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    fp!("replace.before_rename");
    disk.rename(&tmp, name)?;
    fp!("replace.after_rename");
    disk.sync_dir(dir_of(name))
}

/// The directory part of a name.
pub(crate) fn dir_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}
