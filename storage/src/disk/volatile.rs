//! Real files whose unsynced bytes die with the process: what a power failure does, for processes that are killed.
//!
//! After `kill -9` the kernel still has what was written and not synced, so killing processes proves nothing about
//! syncs. A program built to be broken on purpose keeps such bytes in its own memory instead (`PLANTED_BUG` is
//! `volatile-disk`: nothing wrong with the program; `no-sync`: it does not sync either).
//! Not here: the state store, which is not behind the Disk seam.

use std::io;
use std::sync::Arc;

use clinch_types::planted;
use parking_lot::Mutex;

use super::DiskFile;

/// Wraps a file of the production disk, when this process is to lose what it has not synced.
pub(super) fn wrap(file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
    match planted!("volatile-disk") || planted!("no-sync") {
        true => Arc::new(Volatile {
            file,
            unsynced: Mutex::default(),
        }),
        false => file,
    }
}

#[derive(Debug)]
struct Volatile {
    file: Arc<dyn DiskFile>,
    /// Writes the file does not have yet, oldest first.
    unsynced: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl DiskFile for Volatile {
    fn len(&self) -> io::Result<u64> {
        let unsynced = self.unsynced.lock();
        let ends = unsynced.iter().map(|(at, bytes)| at + bytes.len() as u64);
        Ok(ends.fold(self.file.len()?, u64::max))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.len()?.saturating_sub(offset);
        let wanted = buf.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        let buf = &mut buf[..wanted];
        buf.fill(0);
        let mut read = 0;
        while read < wanted {
            match self.file.read_at(offset + read as u64, &mut buf[read..])? {
                0 => break,
                more => read += more,
            }
        }
        for (at, bytes) in &*self.unsynced.lock() {
            for (place, byte) in (*at..).zip(bytes) {
                if let Some(slot) = place.checked_sub(offset).and_then(|i| buf.get_mut(i as usize)) {
                    *slot = *byte;
                }
            }
        }
        Ok(wanted)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.unsynced.lock().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.flush()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

impl Volatile {
    fn flush(&self) -> io::Result<()> {
        for (at, bytes) in self.unsynced.lock().drain(..) {
            self.file.write_at(at, &bytes)?;
        }
        Ok(())
    }
}
