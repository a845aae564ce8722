//! What a process has used: CPU time and resident memory, read from `/proc`.
//!
//! Not here: what a process did with it (the metrics it serves, `scrape`).

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// `/proc/PID/stat` counts in ticks of `USER_HZ`, which Linux fixes at 100 for every architecture we build for.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process since it started, in steps of 10 ms.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    ticks(&stat)
        .map(|ticks| TICK * ticks)
        .with_context(|| format!("{path} has an unknown form"))
}

fn ticks(stat: &str) -> Option<u32> {
    // The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u32>);
    Some(times.next()?.ok()?.saturating_add(times.next()?.ok()?))
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Resident {
    /// All of it.
    pub(crate) total: u64,
    /// Its own pages, without those that mirror files (its program, the store's file).
    pub(crate) own: u64,
}

/// What a process holds in memory now.
///
/// # Errors
/// When there is no such process.
pub(crate) fn resident(pid: u32) -> anyhow::Result<Resident> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| kib(&status, name).map(|kib| kib << 10);
    let read = || {
        Some(Resident {
            total: field("VmRSS:")?,
            own: field("RssAnon:")?,
        })
    };
    read().with_context(|| format!("{path} names no resident memory"))
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Processes waiting for or using a CPU, averaged over the last minute; what else the machine was doing.
pub(crate) fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

/// The file system a folder lies on: where it is memory, a sync costs nothing and proves nothing.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mount_of(&mounts, &folder).map(str::to_owned)
}

fn mount_of<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounted = |line: &'a str| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    };
    let above = mounts
        .lines()
        .filter_map(mounted)
        .filter(|(at, _)| folder.starts_with(at));
    // Of two mounts on one place the later one is seen.
    above
        .max_by_key(|(at, _)| at.components().count())
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 10 11";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (x"), None);
    }

    #[test]
    fn this_process_uses_memory_and_lies_on_a_file_system() {
        let own = resident(std::process::id()).unwrap();
        assert!(own.own > 0 && own.own <= own.total, "{own:?}");
        assert!(cpu(std::process::id()).is_ok());
        assert!(file_system(Path::new(".")).is_some());
        assert!(cpu(u32::MAX).is_err());
    }

    #[test]
    fn the_deepest_mount_above_a_folder_counts() {
        let mounts = "d / ext4 rw\ntmp /tmp tmpfs rw\nx /tmp/deep xfs rw\n";
        assert_eq!(mount_of(mounts, Path::new("/tmp/a")), Some("tmpfs"));
        assert_eq!(mount_of(mounts, Path::new("/tmp/deep/a")), Some("xfs"));
        assert_eq!(mount_of(mounts, Path::new("/tmpfoo")), Some("ext4"));
    }
}
