//! `typescript`: the types of this program's actors, for programs that call them from JavaScript.

use clinch_actor::{Registry, WideIntegers};

use super::exit::{Outcome, ResultExt as _};
use super::terminal::print;

/// Write the types of this program's actors for the npm client
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  shop typescript > web/actors.d.ts")]
pub(super) struct Args {
    /// Call 64-bit and 128-bit integers `number | bigint`: they are `bigint` from 2^53 on
    #[arg(long)]
    bigint: bool,
}

pub(super) fn run(args: &Args, registry: &Registry) -> Outcome {
    let wide = if args.bigint {
        WideIntegers::NumberOrBigInt
    } else {
        WideIntegers::Number
    };
    let text = registry
        .typescript_with(wide)
        .map_err(anyhow::Error::new)
        .usage()?;
    print(text.trim_end())
}
