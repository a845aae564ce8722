//! Arbitrary bytes for every decoder of what comes from outside: clients, other nodes, disks.
//!
//! A target takes bytes, checks the laws of its decoder (whatever was decoded can be written and read again; text stays
//! text), and says in a word how it ended. Inputs are mutated from a corpus that is kept in `corpus/`; an input that ends
//! in a way not seen before joins it. Invariant: no input makes a target panic, or keeps it for longer than
//! [`SLOW`]. Everything follows from a seed, so a finding is repeated by its seed or from its file.

mod mutate;
mod targets;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use targets::{TARGETS, samples};

/// A decoder under test: what it made of the bytes, in a word.
pub type Target = fn(&[u8]) -> String;

/// No input is worth so much time: what takes longer is a way to keep a node busy.
pub const SLOW: Duration = Duration::from_secs(1);
/// Longest input. Limits of single decoders lie above; their own tests are about those.
const LEN_MAX: usize = 16 << 10;
/// Inputs between two looks at the clock.
const ROUND: usize = 256;
/// Inputs in memory at most, beside those from disk.
const POOL_MAX: usize = 4096;

/// What a run has shown.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs tried.
    pub tried: u64,
    /// Inputs that ended in a new way, beside those of the corpus.
    pub found: Vec<Vec<u8>>,
    /// Inputs that broke a law, with what was said.
    pub broken: Vec<(Vec<u8>, String)>,
    /// The slowest of all.
    pub slowest: Duration,
}

/// Where the corpus of a target is kept.
pub fn corpus_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The kept inputs of a target in order of their names, and samples of what is written by programs only.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn corpus(target: &str) -> Result<Vec<Vec<u8>>> {
    let dir = corpus_dir(target);
    let mut inputs = samples(target);
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return Ok(inputs);
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in &paths {
        inputs.push(std::fs::read(path).with_context(|| path.display().to_string())?);
    }
    Ok(inputs)
}

/// Keeps an input; its name follows from its bytes.
///
/// # Errors
/// When it cannot be written.
pub fn keep(target: &str, input: &[u8]) -> Result<PathBuf> {
    let dir = corpus_dir(target);
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{:016x}", hash_of(&input)));
    std::fs::write(&path, input).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Runs a target on its corpus, then on mutations of it until they have had `time` of a processor: a machine that is busy
/// with something else makes the run longer, not smaller.
pub fn run(target: Target, corpus: &[Vec<u8>], seed: u64, time: Duration) -> Report {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut report = Report::default();
    let mut ways = HashSet::new();
    let mut pool: Vec<Vec<u8>> = vec![Vec::new()];
    for input in corpus {
        if let Some(way) = attempt(target, input, &mut report) {
            ways.insert(way);
        }
        pool.push(input.clone());
    }
    let end = processor_time() + time;
    // A finding is enough: what follows from the same fault would bury it.
    while processor_time() < end && report.broken.is_empty() {
        for _ in 0..ROUND {
            let mut input = pool[rng.random_range(0..pool.len())].clone();
            mutate::mutate(&mut input, &pool, &mut rng);
            input.truncate(LEN_MAX);
            let Some(way) = attempt(target, &input, &mut report) else {
                break;
            };
            if ways.insert(way) && pool.len() < POOL_MAX {
                report.found.push(input.clone());
                pool.push(input);
            }
        }
    }
    report
}

/// What this thread has had of a processor since it began; where the kernel does not count, the time that has passed.
#[expect(clippy::disallowed_methods, reason = "as below")]
fn processor_time() -> Duration {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let begun = BEGUN.get_or_init(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|first| first.parse().ok());
    match nanos {
        Some(nanos @ 1..) => Duration::from_nanos(nanos),
        _ => begun.elapsed(),
    }
}

/// How a target ended on an input; `None` when it broke a law.
#[expect(
    clippy::disallowed_methods,
    reason = "a bench beside the product: its time is the machine's"
)]
fn attempt(target: Target, input: &[u8], report: &mut Report) -> Option<u64> {
    report.tried += 1;
    let once = || catch_unwind(AssertUnwindSafe(|| target(input)));
    let begun = Instant::now();
    let mut ended = once();
    let mut took = begun.elapsed();
    if took > SLOW {
        // What is slow is slow again, on a processor of its own; a machine that had no time for us was slow once.
        let begun = processor_time();
        ended = once();
        took = processor_time() - begun;
    }
    report.slowest = report.slowest.max(took);
    let said = match ended {
        Ok(way) if took <= SLOW => return Some(hash_of(&plain(&way))),
        Ok(_) => format!("it took {took:?}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default()
        }
    };
    report.broken.push((input.to_vec(), said));
    None
}

/// Without the numbers and the pieces of the input that errors repeat: two inputs that differ in those alone end alike.
fn plain(way: &str) -> String {
    let mut quoted = false;
    way.chars()
        .filter(|c| {
            quoted ^= *c == '"' || *c == '`';
            !quoted && c.is_ascii() && !c.is_ascii_digit()
        })
        .take(80)
        .collect()
}

fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
