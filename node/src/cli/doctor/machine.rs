//! What the program runs on: its build, the system, its limits, and the disk its data lie on.

use std::ffi::CString;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use clinch_transport::UdpSockets;
use serde_json::json;
use tokio::time::Instant;

use super::Finding;
use crate::{NodeConfig, handles};

const MIB: u64 = 1 << 20;
/// Memory below which a node is warned about, and below which it cannot do.
const MEMORY: (u64, u64) = (512 * MIB, 128 * MIB);
/// The same of the disk. The log alone keeps segments of 64 MiB.
const DISK: (u64, u64) = (4096 * MIB, 512 * MIB);
/// Times a block is written and synced.
const SYNCS: usize = 9;
/// Size of that block, in bytes.
const BLOCK: usize = 4096;
/// How long a sync may take before it is remarked upon, and before it is bad: each answer waits for one.
const SYNC: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// The program itself.
pub(super) fn build() -> Vec<Finding> {
    let profile = match cfg!(debug_assertions) {
        true => "debug",
        false => "release",
    };
    let allocator = match cfg!(feature = "mimalloc") {
        true => "mimalloc",
        false => "the system's allocator",
    };
    let version = env!("CARGO_PKG_VERSION");
    let found = format!("{version}, {profile} build, {allocator}");
    let finding = match cfg!(debug_assertions) {
        true => Finding::warn(
            "program",
            found,
            "build it with --release: this one checks itself and is slower",
        ),
        false => Finding::ok("program", found),
    };
    vec![finding.with(json!({ "version": version, "profile": profile, "allocator": allocator }))]
}

/// The system: kernel, processors, memory, clock.
pub(super) fn system() -> Vec<Finding> {
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let release = read("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map_or(std::env::consts::OS, |name| name.trim_matches('"'));
    let arch = std::env::consts::ARCH;
    let found = format!("{name}, kernel {kernel}, {arch}");
    let system = Finding::ok("system", found).with(json!({ "name": name, "kernel": kernel, "arch": arch }));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let processors = match cpus {
        0 => Finding::ok("processors", "their number is not known"),
        1 => Finding::warn(
            "processors",
            "1",
            "give it two: log, network and actors share one now",
        ),
        _ => Finding::ok("processors", cpus.to_string()),
    };
    vec![system, processors.with(json!(cpus)), memory(), clock()]
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A number as people read it: MiB, or GiB with one digit.
fn size(bytes: u64) -> String {
    match bytes < 10 * 1024 * MIB {
        true => format!("{} MiB", bytes / MIB),
        false => format!("{:.1} GiB", bytes as f64 / (1024.0 * MIB as f64)),
    }
}

fn memory() -> Finding {
    const ABOUT: &str = "memory";
    let table = read("/proc/meminfo").unwrap_or_default();
    let (Some(total), Some(free)) = (meminfo(&table, "MemTotal:"), meminfo(&table, "MemAvailable:")) else {
        return Finding::ok(ABOUT, "it is not known");
    };
    // The container's, if it has less than the machine.
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.parse::<u64>().ok());
    let limit = group.filter(|limit| *limit < total);
    let used = read("/sys/fs/cgroup/memory.current").and_then(|text| text.parse::<u64>().ok());
    let free = match (limit, used) {
        (Some(limit), Some(used)) => free.min(limit.saturating_sub(used)),
        _ => free,
    };
    let found = match limit {
        Some(limit) => format!("{} free, this process may have {}", size(free), size(limit)),
        None => format!("{} free of {}", size(free), size(total)),
    };
    let advice = "a node needs some hundred MiB and what its awake actors hold; `sleep_after` decides how many are awake";
    grade(ABOUT, free, MEMORY, found, advice).with(json!({ "free": free, "total": total, "limit": limit }))
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A finding about something of which there should be this much at least, or at the very least.
fn grade(
    about: &'static str,
    have: u64,
    (enough, least): (u64, u64),
    found: String,
    advice: &str,
) -> Finding {
    if have >= enough {
        Finding::ok(about, found)
    } else if have >= least {
        Finding::warn(about, found, advice)
    } else {
        Finding::bad(about, found, advice)
    }
}

/// Whether the kernel's clock follows others.
#[cfg(not(target_os = "linux"))]
fn clock() -> Finding {
    Finding::ok("clock", "whether it is synchronised is not known")
}

/// Whether the kernel's clock follows others.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the kernel's clock has no safe interface")]
fn clock() -> Finding {
    const ABOUT: &str = "clock";
    let mut clock = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeroes is a valid `timex` and asks for nothing to be changed; the kernel fills in the one it is given.
    let state = unsafe { libc::adjtimex(clock.as_mut_ptr()) };
    let finding = match state {
        -1 => Finding::ok(ABOUT, "whether it is synchronised is not known"),
        libc::TIME_ERROR => Finding::warn(
            ABOUT,
            "the kernel says that nothing synchronises it",
            "run chrony or systemd-timesyncd: schedules fire by it, and leases rest on its rate",
        ),
        _ => Finding::ok(ABOUT, "it is synchronised"),
    };
    let synchronised = (state != -1).then_some(state != libc::TIME_ERROR);
    finding.with(json!({ "synchronised": synchronised }))
}

/// What the system lets the program have.
pub(super) fn limits(config: Option<&NodeConfig>) -> Vec<Finding> {
    vec![
        files(config),
        udp("rmem_max", "receiving"),
        udp("wmem_max", "sending"),
    ]
}

fn files(config: Option<&NodeConfig>) -> Finding {
    const ABOUT: &str = "open files";
    let http = config.map(|config| config.http.clone()).unwrap_or_default();
    let needed = handles::needed_for((http.max_connections + http.max_sockets) as u64);
    match handles::limits() {
        Ok((now, most)) => {
            let found =
                format!("{now}, and the program may raise that to {most}; full gateways take {needed}");
            let finding = match most >= needed {
                true => Finding::ok(ABOUT, found),
                false => Finding::warn(
                    ABOUT,
                    found,
                    "raise the hard limit (`ulimit -Hn`, `LimitNOFILE=`), or lower http.max-connections and http.max-sockets",
                ),
            };
            finding.with(json!({ "now": now, "most": most, "needed": needed }))
        }
        Err(error) => Finding::warn(
            ABOUT,
            format!("the limit cannot be read: {error}"),
            "ask the system's operator",
        ),
    }
}

/// The largest UDP buffer the system grants, against what the transport asks for.
fn udp(name: &str, what: &str) -> Finding {
    const ABOUT: &str = "UDP buffers";
    let wanted = UdpSockets::default().buffer_bytes as u64;
    let Some(granted) = read(&format!("/proc/sys/net/core/{name}")).and_then(|text| text.parse::<u64>().ok())
    else {
        return Finding::ok(ABOUT, format!("net.core.{name} is not known"));
    };
    let found = format!("net.core.{name} = {granted} for {what}; {wanted} are asked for");
    let finding = match granted >= wanted {
        true => Finding::ok(ABOUT, found),
        false => {
            let advice = format!(
                "sysctl -w net.core.{name}={wanted}: bursts between nodes are lost in smaller ones and sent again"
            );
            Finding::warn(ABOUT, found, advice)
        }
    };
    finding.with(json!({ "name": name, "granted": granted, "wanted": wanted }))
}

/// The disk of the data folder, or of the current one when there is no configuration.
pub(super) fn disk(data: Option<&Path>) -> Vec<Finding> {
    const ABOUT: &str = "data folder";
    let wanted = data.unwrap_or_else(|| Path::new("."));
    // A node makes its folder: until then the one above tells.
    let Some(folder) = wanted.ancestors().find(|folder| folder.is_dir()) else {
        let found = format!("there is no {}", wanted.display());
        return vec![Finding::bad(ABOUT, found, "make it, or change data-dir")];
    };
    vec![room(folder), syncs(folder)]
}

#[expect(
    unsafe_code,
    reason = "file systems have no safe interface in the standard library"
)]
#[expect(
    clippy::unnecessary_cast,
    reason = "the fields have other types on other systems"
)]
fn room(folder: &Path) -> Finding {
    const ABOUT: &str = "free disk";
    let shown = folder.display();
    let unknown = |error: std::io::Error| {
        let found = format!("{shown}: {error}");
        Finding::warn(ABOUT, found, "see that the folder can be read")
    };
    let Ok(path) = CString::new(folder.as_os_str().as_bytes()) else {
        return unknown(std::io::ErrorKind::InvalidInput.into());
    };
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in a zero byte, and the kernel writes one `statvfs` to the place it is given.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return unknown(std::io::Error::last_os_error());
    }
    // SAFETY: all zeroes would be a valid `statvfs`, and it has been filled in.
    let stat = unsafe { stat.assume_init() };
    let block = stat.f_frsize as u64;
    let (free, total) = (stat.f_bavail as u64 * block, stat.f_blocks as u64 * block);
    let found = format!("{} of {} at {shown}", size(free), size(total));
    let advice = "make room: a node whose disk is full stops, and the others go on without it";
    grade(ABOUT, free, DISK, found, advice).with(json!({ "free": free, "total": total }))
}

fn syncs(folder: &Path) -> Finding {
    const ABOUT: &str = "fdatasync";
    match time_syncs(folder) {
        Ok(times) => {
            let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
            let found = format!(
                "{middle:.1?} for 4 KiB, at most {most:.1?} of {}, at {}",
                times.len(),
                folder.display()
            );
            let advice = "each answer waits for one on a majority of the replicas: use a disk of its own, or a faster one";
            let finding = match middle {
                _ if middle > SYNC.1 => Finding::bad(ABOUT, found, advice),
                _ if middle > SYNC.0 => Finding::warn(ABOUT, found, advice),
                _ => Finding::ok(ABOUT, found),
            };
            finding
                .with(json!({ "median_us": middle.as_micros() as u64, "most_us": most.as_micros() as u64 }))
        }
        Err(error) => Finding::bad(
            ABOUT,
            format!("nothing can be written to {}: {error}", folder.display()),
            "let the node's user write there",
        ),
    }
}

/// Writes to a file without a name and syncs it, several times; in order of time.
fn time_syncs(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0x5a; BLOCK])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn memory_and_disk_are_graded_by_what_is_left() {
        let level = |have| grade("x", have, (100, 10), String::new(), "").level;
        assert_eq!(
            [100, 99, 10, 9].map(level),
            [Level::Ok, Level::Warn, Level::Warn, Level::Bad]
        );
        assert_eq!(
            meminfo("MemTotal:  2048 kB\nMemFree: 1 kB", "MemTotal:"),
            Some(2 * MIB)
        );
        assert_eq!(meminfo("MemTotal:  2048 kB", "MemAvailable:"), None);
        assert_eq!([size(3 * MIB), size(20 * 1024 * MIB)], ["3 MiB", "20.0 GiB"]);
    }

    #[test]
    fn the_disk_is_measured_and_nothing_is_left_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let found = disk(Some(&dir.path().join("not").join("there")));
        assert_eq!(found.len(), 2);
        assert!(found[0].value["free"].as_u64().unwrap() > 0, "{found:?}");
        assert!(found[1].value["median_us"].as_u64().unwrap() > 0, "{found:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
