//! A session of runs: what they share, where their lines go, and whether anything was wrong with them.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::bed::{Bed, Wanted};
use crate::options::Options;
use crate::report::Record;
use crate::scrape::Retries;
use crate::targets::judge;

/// How long each floor is measured; in a smoke test a fifth of it.
const FLOOR_TIME: Duration = Duration::from_secs(1);

/// What all runs share.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) retries: Retries,
    out: Option<File>,
    dir: PathBuf,
    problems: Vec<String>,
}

impl Bench {
    /// # Errors
    /// When the file for the results cannot be opened.
    pub(crate) fn new(options: Options) -> anyhow::Result<Self> {
        let out = match &options.out {
            None => None,
            Some(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)
                        .with_context(|| format!("folder {}", folder.display()))?;
                }
                let file = File::options().create(true).append(true).open(path);
                Some(file.with_context(|| format!("results file {}", path.display()))?)
            }
        };
        let dir = options.dir.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Self {
            options,
            retries: Retries::install()?,
            out,
            dir,
            problems: Vec::new(),
        })
    }

    /// A cluster for one workload.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub(crate) async fn bed(&self, nodes: u32) -> anyhow::Result<Bed> {
        let smoke = self.options.smoke;
        let floor_time = if smoke { FLOOR_TIME / 5 } else { FLOOR_TIME };
        let bed = Bed::start(Wanted {
            nodes,
            dir: &self.dir,
            floor_time,
            patient: smoke,
        })
        .await?;
        eprintln!(
            "{nodes} node(s) on {}; floors: fdatasync {:.0} us, QUIC round trip {:.0} us (p50)",
            bed.file_system.as_deref().unwrap_or("an unknown file system"),
            bed.floors.fdatasync_p50_us,
            bed.floors.quic_p50_us
        );
        if bed.file_system.as_deref() == Some("tmpfs") {
            eprintln!(
                "WARNING: the data lies in memory, so nothing is durable: give a folder on a disk with --dir"
            );
        }
        Ok(bed)
    }

    /// Judges a run and writes its lines.
    ///
    /// # Errors
    /// When a line cannot be written.
    pub(crate) fn report(&mut self, mut record: Record) -> anyhow::Result<()> {
        // Targets are meant for optimized code and whole runs.
        if !self.options.smoke && !cfg!(debug_assertions) {
            record.targets = judge(&record);
        }
        let name = format!(
            "{} {:?} {:?} {} callers",
            record.workload, record.shape, record.via, record.callers
        );
        if record.verified.is_some_and(|v| !v.holds()) {
            self.problems.push(format!("{name}: {:?}", record.verified));
        }
        // Who was connected to a node that is killed loses a connection, not an acknowledgement.
        if self.options.smoke && record.errors > 0 && record.failover.is_none() {
            self.problems.push(format!(
                "{name}: {} errors: {:?}",
                record.errors, record.error_kinds
            ));
        }
        if self.options.smoke && record.ops == 0 {
            self.problems.push(format!("{name}: no operation was answered"));
        }
        eprintln!("{}", record.line());
        let mut line = serde_json::to_string(&record)?;
        line.push('\n');
        std::io::stdout().write_all(line.as_bytes())?;
        if let Some(out) = &mut self.out {
            out.write_all(line.as_bytes())
                .context("writing the results file")?;
        }
        Ok(())
    }

    /// What must not have been.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }
}
