//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::caller::Via;
use crate::endpoint::Endpoint;
use crate::load::{Pace, Plan};
use crate::report::Shape;
use crate::targets::SPREAD;

/// Callers of an open loop unless told otherwise: enough that a due operation finds a free one.
const OPEN_CALLERS: usize = 256;
/// Longest window or warm-up, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// Measures a local Clinch cluster of real processes.
#[derive(Debug, Parser)]
#[command(
    name = "clinch-bench",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  clinch-bench W2 --callers 1,64 --via quic --seconds 5 --out results.jsonl\n\n\
                  Each run writes one line of JSON to stdout (and --out) and one for people to stderr. The exit code \
                  is 0 when all runs were made and nothing acknowledged was lost, whether targets were met or not."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What this program does beside measuring.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node that serves the bench's actors; what the measured clusters are made of.
    #[command(hide = true)]
    Start {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Calls counters of a server that runs already, over HTTP: `peers/` compares with other systems
    Endpoint(Endpoint),
}

/// A set of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Durable increments, one node
    #[value(name = "W1", alias = "w1")]
    W1,
    /// Durable increments, three nodes
    #[value(name = "W2", alias = "w2")]
    W2,
    /// Reads at the owner and through another node
    #[value(name = "W3", alias = "w3")]
    W3,
    /// Cold start: new keys, create and first reply
    #[value(name = "W4", alias = "w4")]
    W4,
    /// Memory by idle actor, one node
    #[value(name = "W5", alias = "w5")]
    W5,
    /// Events of one actor to many WebSockets
    #[value(name = "W6", alias = "w6")]
    W6,
    /// Timers due within five seconds, and how late they fire
    #[value(name = "W7", alias = "w7")]
    W7,
    /// Failover: kill -9 of owners under load, three nodes
    #[value(name = "W8", alias = "w8")]
    W8,
}

/// What is measured, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Workloads, in order.
    #[arg(value_enum, required_unless_present = "smoke")]
    pub(crate) workloads: Vec<Workload>,
    /// Length of each run, without its warm-up.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) seconds: Duration,
    /// Load before each run that is not counted.
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) warmup: Duration,
    /// Callers at a time, one run each [default: 1,16,64,256; W3 1,64,256; W4 1,64; W5 256; W6 1,8; W8 32; open loop 256].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N,..")]
    pub(crate) callers: Option<Vec<u32>>,
    /// Ways to the cluster.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "quic,http")]
    pub(crate) via: Vec<Via>,
    /// Actors called by W1, W2 and W3: hot, spread.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hot,spread")]
    pub(crate) shape: Vec<Shape>,
    /// Actors of a spread run; targets are meant for 10,000.
    #[arg(long, default_value_t = SPREAD as u32, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) actors: u32,
    /// Open loop: operations due a second over all callers [default: closed loop].
    #[arg(long, value_parser = rate)]
    pub(crate) open_rate: Option<f64>,
    /// Nodes for W3, W4, W6 and W7: 1 or 3.
    #[arg(long, default_value = "3", value_parser = nodes)]
    pub(crate) nodes: u32,
    /// Idle actors of W5, one measurement each, ascending.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100000,1000000",
        value_name = "N,.."
    )]
    pub(crate) memory: Vec<u64>,
    /// Timers of W7, each in an actor of its own.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) timers: u32,
    /// Connections of W6. All in one process: `ulimit -n` must allow as many for the bench.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Owners killed by W8.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) kills: u32,
    /// File to which the lines of JSON are appended as well.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Where the clusters' folders are made and removed; must be on a disk [default: the system's temporary folder].
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Run all workloads (or those named) at a small size, and fail unless each had answers and no error.
    #[arg(long)]
    pub(crate) smoke: bool,
}

impl Options {
    /// The options as given, or cut down to what a smoke test needs.
    pub(crate) fn resolved(self) -> Self {
        if !self.smoke {
            return self;
        }
        let all = Workload::value_variants().to_vec();
        Self {
            workloads: if self.workloads.is_empty() {
                all
            } else {
                self.workloads
            },
            seconds: Duration::from_millis(500),
            warmup: Duration::from_millis(200),
            callers: Some(self.callers.unwrap_or_else(|| vec![8])),
            actors: 200,
            memory: vec![500, 2000],
            timers: 100,
            connections: 20,
            kills: 1,
            ..self
        }
    }

    /// How many callers each run has.
    pub(crate) fn callers_or(&self, default: &[usize]) -> Vec<usize> {
        match (&self.callers, self.open_rate) {
            (Some(callers), _) => callers.iter().map(|&n| n as usize).collect(),
            (None, Some(_)) => vec![OPEN_CALLERS],
            (None, None) => default.to_vec(),
        }
    }

    /// When operations begin and how long a run takes.
    pub(crate) fn plan(&self) -> Plan {
        let pace = self.open_rate.map_or(Pace::Closed, Pace::Open);
        Plan {
            pace,
            warmup: self.warmup,
            window: self.seconds,
        }
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    match seconds > 0.0 && seconds <= SECONDS_MAX {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("must be more than 0 and at most {SECONDS_MAX}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|e| format!("{e}"))?;
    match (0.01..=10_000_000.0).contains(&rate) {
        true => Ok(rate),
        false => Err("must be from 0.01 to 10,000,000 operations a second".into()),
    }
}

fn nodes(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("must be 1 or 3".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let cli = Cli::try_parse_from(std::iter::once("clinch-bench").chain(arguments.iter().copied()))?;
        Ok(cli.options.resolved())
    }

    #[test]
    fn lists_and_defaults_are_read() {
        let options = parse(&[
            "W1",
            "w2",
            "--callers",
            "1,64",
            "--via",
            "http",
            "--seconds",
            "0.5",
        ])
        .unwrap();
        assert_eq!(options.workloads, [Workload::W1, Workload::W2]);
        assert_eq!(options.callers_or(&[7]), [1, 64]);
        assert_eq!((options.via.as_slice(), options.nodes), (&[Via::Http][..], 3));
        assert_eq!(parse(&["W1"]).unwrap().callers_or(&[7]), [7]);
        let open = parse(&["W1", "--open-rate", "100"]).unwrap();
        assert_eq!(
            (open.callers_or(&[7]), open.plan().pace),
            (vec![OPEN_CALLERS], Pace::Open(100.0))
        );
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let refused: [&[&str]; 7] = [
            &[],
            &["W9"],
            &["W1", "--callers", "0"],
            &["W1", "--seconds", "0"],
            &["W1", "--seconds", "nan"],
            &["W1", "--open-rate", "-1"],
            &["W3", "--nodes", "2"],
        ];
        for arguments in refused {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_smoke_test_runs_everything_and_a_node_needs_no_workload() {
        assert_eq!(
            parse(&["--smoke"]).unwrap().workloads.len(),
            Workload::value_variants().len()
        );
        let cli = Cli::try_parse_from(["clinch-bench", "start", "--config", "x.toml"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Start { .. })));
    }
}
