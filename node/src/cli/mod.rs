//! The `clinch` program: arguments in, exit code out.
//!
//! Exit codes: 0 done, 1 failed (or a verification failed), 2 wrong usage or configuration, 3 the cluster cannot be
//! reached. Data goes to stdout, everything said about it to stderr.
//! Not here: what a node is (`node`), what a client does (`clinch-client`).

mod actor_commands;
pub mod actors;
mod cert;
mod cluster_commands;
pub(crate) mod config_file;
mod demo;
mod dev;
mod doctor;
mod exit;
pub mod local;
mod namespace_commands;
mod observe;
mod remote;
mod start;
mod terminal;
#[cfg(feature = "typescript")]
mod typescript;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clinch_actor::Registry;

pub use config_file::load as load_config;
use exit::{Outcome, ResultExt as _};

/// Durable, addressable actors: your binary is the cluster.
#[derive(Debug, Parser)]
#[command(
    name = "clinch",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  clinch demo              a cluster, a load, kill -9, and proof that nothing was lost\n  \
                  clinch dev               one node with example actors on http://127.0.0.1:6420\n  \
                  clinch up --nodes 3      a local cluster of three processes\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 cluster not reachable.\n\
                  CLINCH_LOG sets what is logged (error, warn, info, debug, trace, or per part: info,openraft=debug)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Up(up::Args),
    Demo(demo::Args),
    Start(start::Args),
    Config(config_file::Args),
    Status(cluster_commands::StatusArgs),
    Shards(cluster_commands::ShardsArgs),
    Actors(actor_commands::Args),
    Namespaces(namespace_commands::Args),
    Cert(cert::Args),
    Doctor(doctor::Args),
    #[cfg(feature = "typescript")]
    Typescript(typescript::Args),
}

/// Runs the program with the arguments of this process and the example actors.
pub fn main() -> ExitCode {
    main_with(actors::registry())
}

/// Runs a program of one's own: all commands of `clinch`, with the actors of `registry` where those serve any (`dev`, `up`,
/// `start`). `demo` proves what it proves with its own counter. An unsound registry ends it with code 2.
///
/// ```no_run
/// # use clinch::prelude::*;
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(i64);
/// # #[clinch::actor]
/// # impl Counter {}
/// fn main() -> std::process::ExitCode {
///     clinch::cli::main_with(Registry::new().actor::<Counter>())
/// }
/// ```
pub fn main_with(registry: Registry) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap knows where they go and with what code.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match registry
        .check()
        .map_err(anyhow::Error::new)
        .usage()
        .and_then(|()| run(cli.command, registry))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("clinch: {:#}", failure.error);
            failure.kind.into()
        }
    }
}

fn run(command: Command, registry: Registry) -> Outcome {
    let spans = observe::begin(match &command {
        Command::Start(_) => "info,openraft=warn",
        Command::Dev(args) if args.verbose => "info,openraft=warn",
        _ => "warn,openraft=error",
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Everything below runs on this thread, which lives to the end: children die with the thread that started them.
    let outcome = runtime.block_on(spans.around(async {
        match command {
            Command::Dev(args) => Box::pin(dev::run(args, registry)).await,
            Command::Up(args) => Box::pin(up::run(args)).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Start(args) => Box::pin(start::run(args, registry)).await,
            Command::Config(args) => config_file::run(&args),
            Command::Status(args) => cluster_commands::status(&args).await,
            Command::Shards(args) => cluster_commands::shards(&args).await,
            Command::Actors(args) => actor_commands::run(&args).await,
            Command::Namespaces(args) => namespace_commands::run(&args).await,
            Command::Cert(args) => cert::run(&args),
            Command::Doctor(args) => doctor::run(args).await,
            #[cfg(feature = "typescript")]
            Command::Typescript(args) => typescript::run(&args, &registry),
        }
    }));
    // What is left (a name being resolved, a peer being told goodbye) must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

/// Ends when the process is asked to: Ctrl-C or SIGTERM.
async fn asked_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
