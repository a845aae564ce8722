//! `clinch namespaces`: what there is, and making one.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::exit::Outcome;
use super::remote::Remote;
use super::terminal::print;

/// List and create namespaces
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: NamespacesCommand,
}

#[derive(Debug, Subcommand)]
enum NamespacesCommand {
    /// List namespaces
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Create a namespace, if it is not there
    #[command(after_help = "Example:\n  clinch namespaces create shop")]
    Create {
        /// Its name: letters, digits, `-`, `_` and `.`, 64 at most
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    remote: Remote,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args) -> Outcome {
    match &args.command {
        NamespacesCommand::Ls { common } => {
            let answer = common
                .remote
                .client()?
                .request(Method::GET, "/namespaces", None)
                .await?;
            let names = answer["namespaces"].as_array().into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|one| one["name"].as_str()).collect();
            print(&match common.json {
                true => answer.to_string(),
                false => names.join("\n"),
            })
        }
        NamespacesCommand::Create { name, common } => {
            let body = json!({ "name": name });
            let client = common.remote.client()?;
            let answer = client.request(Method::PUT, "/namespaces", Some(&body)).await?;
            print(&match (common.json, &answer["created"]) {
                (true, _) => answer.to_string(),
                (false, Value::Bool(true)) => format!("{name} is created"),
                (false, _) => format!("{name} was there already"),
            })
        }
    }
}
