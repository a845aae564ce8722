//! A real file system of a few MiB, for tests that fill it.
//!
//! It is a `tmpfs` in a mount namespace of its own, which lives as long as a process that only waits: nothing has to be
//! unmounted, whatever becomes of the test. Others reach it through that process's `/proc/PID/root`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// The ways to a namespace: as root, and as anybody whom the kernel lets have one of users as well.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// A small file system; gone when it is dropped.
pub(crate) struct SmallDisk {
    holder: Child,
    inside: PathBuf,
    _mount_point: TempDir,
}

impl SmallDisk {
    /// # Errors
    /// When the machine lets us have no file system of our own, saying what was tried: a full disk is then not tested.
    pub(crate) fn new(mib: u32) -> anyhow::Result<Self> {
        let mount_point = tempfile::Builder::new().prefix("clinch-small-disk-").tempdir()?;
        let mut tried = Vec::new();
        for way in WAYS {
            match hold(way, mount_point.path(), mib) {
                Ok(holder) => {
                    let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
                    let inside = root.join(mount_point.path().strip_prefix("/")?);
                    let disk = Self {
                        holder,
                        inside,
                        _mount_point: mount_point,
                    };
                    ensure!(
                        disk.free()? < u64::from(mib + 1) << 20,
                        "{} is not the small file system",
                        disk.path().display()
                    );
                    return Ok(disk);
                }
                Err(error) => tried.push(format!("unshare {}: {error:#}", way.join(" "))),
            }
        }
        anyhow::bail!(
            "A FULL DISK CANNOT BE TESTED HERE: it takes the right to mount a tmpfs, as root or in a user namespace; {}",
            tried.join("; ")
        )
    }

    /// Where it is, for every process of this user.
    pub(crate) fn path(&self) -> &Path {
        &self.inside
    }

    /// Free bytes.
    pub(crate) fn free(&self) -> anyhow::Result<u64> {
        let output = Command::new("df")
            .args(["--block-size=1", "--output=avail"])
            .arg(&self.inside)
            .output()
            .context("running df")?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let free = told.lines().nth(1).and_then(|line| line.trim().parse().ok());
        free.with_context(|| format!("df said {told:?} {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Puts a file there that leaves about so many bytes free.
    pub(crate) fn leave(&self, bytes: u64) -> anyhow::Result<()> {
        let taken = self.free()?.saturating_sub(bytes);
        let file = File::create(self.ballast())?;
        std::io::copy(&mut std::io::repeat(1).take(taken), &mut &file).context("writing the ballast")?;
        Ok(())
    }

    /// Takes that file away again.
    pub(crate) fn make_room(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast()).context("removing the ballast")
    }

    fn ballast(&self) -> PathBuf {
        self.inside.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends with its input as well, when we are killed.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Starts the process that keeps the namespace, and waits until the file system is there.
fn hold(way: &[&str], mount_point: &Path, mib: u32) -> anyhow::Result<Child> {
    let script = format!(r#"mount -t tmpfs -o size={mib}m small "$1" && echo mounted && exec cat"#);
    let mut holder = Command::new("unshare")
        .args(way)
        .args(["sh", "-c", &script, "sh"])
        .arg(mount_point)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("it cannot be run")?;
    let mut said = [0; 8];
    let told = holder
        .stdout
        .as_mut()
        .context("it has an output")?
        .read_exact(&mut said);
    if told.is_err() || said != *b"mounted\n" {
        let output = holder.wait_with_output()?;
        anyhow::bail!(
            "{}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // Nobody writes to it; it ends when this end of the pipe is closed.
    holder.stdin.as_mut().context("it has an input")?.flush()?;
    Ok(holder)
}
