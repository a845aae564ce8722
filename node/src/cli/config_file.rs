//! A node's configuration: a TOML file, `CLINCH_*` variables laid over it, one check over all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use toml::{Table, Value};

use super::exit::{Outcome, ResultExt as _};
use super::terminal::print;
use crate::NodeConfig;

/// Check configurations
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a node's configuration file as `clinch start` would read it
    #[command(after_help = "Example:\n  clinch config check /etc/clinch/clinch.toml")]
    Check {
        /// The file
        file: PathBuf,
        /// Print the configuration in force, defaults included, as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args) -> Outcome {
    let ConfigCommand::Check { file, json } = &args.command;
    let config = read(file).and_then(|config| Ok(config.validate()?));
    let config = config.with_context(|| file.display().to_string()).usage()?;
    match json {
        true => print(&serde_json::to_string_pretty(&config).map_err(anyhow::Error::new)?),
        false => print(&format!("{}: sound (node {})", file.display(), config.node)),
    }
}

/// Reads `SECTION.SETTING=VALUE` of a command line, as a table of one setting.
pub(crate) fn setting(text: &str) -> Result<Table, String> {
    toml::from_str(text)
        .map_err(|error| format!("no setting like raft.heartbeat-ms=100: {}", error.message()))
}

/// Settings of a command line, later ones over earlier ones.
pub(crate) fn settings(all: &[Table]) -> Table {
    let mut table = Table::new();
    all.iter().for_each(|one| super::local::merge(&mut table, one));
    table
}

/// How a variable's text becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Flag,
    /// Separated by commas.
    List,
}

/// Settings that can come from the environment: everything that is one value. The variable of `a-b` in section `s` is
/// `CLINCH_S_A_B`.
const OVERRIDES: &[(&str, Kind)] = &[
    ("node", Kind::Number),
    ("data-dir", Kind::Text),
    ("cert-dir", Kind::Text),
    ("listen", Kind::Text),
    ("advertise", Kind::Text),
    ("gateway", Kind::List),
    ("zone", Kind::Text),
    ("region", Kind::Number),
    ("capacity", Kind::Number),
    ("code-version", Kind::Number),
    ("insecure", Kind::Flag),
    ("expose-errors", Kind::Flag),
    ("cluster.bootstrap", Kind::Flag),
    ("cluster.name", Kind::Text),
    ("cluster.expect-nodes", Kind::Number),
    ("cluster.shards", Kind::Number),
    ("cluster.replicas", Kind::Number),
    ("cluster.join", Kind::List),
    ("raft.heartbeat-ms", Kind::Number),
    ("raft.election-min-ms", Kind::Number),
    ("raft.election-max-ms", Kind::Number),
    ("proposer.batch-turns-max", Kind::Number),
    ("proposer.batch-bytes-max", Kind::Number),
    ("proposer.queue-max", Kind::Number),
    ("storage.checkpoint-ms", Kind::Number),
    ("storage.cache-mib", Kind::Number),
    ("storage.retain-mib", Kind::Number),
];

fn variable(path: &str) -> String {
    format!("CLINCH_{}", path.to_ascii_uppercase().replace(['.', '-'], "_"))
}

/// What `clinch start --help` says about variables.
pub(crate) fn variables_help() -> String {
    let mut lines = vec!["Variables that override the file (lists are separated by commas):".to_owned()];
    for row in OVERRIDES.chunks(2) {
        let cells: Vec<String> = row
            .iter()
            .map(|(path, _)| format!("{:<34}", variable(path)))
            .collect();
        lines.push(format!("  {}", cells.concat().trim_end()));
    }
    lines.join("\n")
}

/// Reads a node's configuration file and lays the `CLINCH_*` variables of this process over it. Relative folders in
/// the file are relative to the file. It is not validated yet: more may come, from flags.
///
/// # Errors
/// When the file cannot be read, is no TOML, has an unknown key or a value of the wrong type.
pub fn load(path: &Path) -> anyhow::Result<NodeConfig> {
    read(path).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> anyhow::Result<NodeConfig> {
    let text = std::fs::read_to_string(path)?;
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("CLINCH_"))
        .collect();
    let folder = std::path::absolute(path)?
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    assemble(&text, &folder, &environment)
}

/// Makes a configuration of the text of a file in this folder, and of variables.
pub(crate) fn assemble(
    text: &str,
    folder: &Path,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<NodeConfig> {
    let mut table: Table = toml::from_str(text)?;
    // Unknown keys and wrong types of the file are reported with their place in it, which a table no longer knows.
    let from_file = toml::from_str::<NodeConfig>(text);
    for name in ["data-dir", "cert-dir"] {
        if let Some(Value::String(path)) = table.get_mut(name) {
            let joined = folder.join(&*path).into_os_string().into_string();
            *path = joined.map_err(|path| anyhow::anyhow!("the path {} is not UTF-8", path.display()))?;
        }
    }
    let mut overridden = false;
    for (path, kind) in OVERRIDES {
        let name = variable(path);
        if let Some(text) = environment.get(&name) {
            set(
                &mut table,
                path,
                parse(*kind, text).with_context(|| name.clone())?,
            )
            .with_context(|| format!("{name} sets {path}"))?;
            overridden = true;
        }
    }
    if let (Err(error), false) = (from_file, overridden) {
        return Err(error.into());
    }
    Ok(table.try_into()?)
}

fn parse(kind: Kind, text: &str) -> anyhow::Result<Value> {
    Ok(match kind {
        Kind::Text => Value::String(text.to_owned()),
        Kind::Number => Value::Integer(
            text.trim()
                .parse()
                .with_context(|| format!("{text:?} is no whole number"))?,
        ),
        Kind::Flag => Value::Boolean(
            text.trim()
                .parse()
                .with_context(|| format!("{text:?} is not true or false"))?,
        ),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
    })
}

fn set(table: &mut Table, path: &str, value: Value) -> anyhow::Result<()> {
    let Some((section, name)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return Ok(());
    };
    let inner = table.entry(section).or_insert_with(|| Table::new().into());
    let inner = inner
        .as_table_mut()
        .with_context(|| format!("`{section}` in the file is no table"))?;
    inner.insert(name.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "node = 1\ndata-dir = \"data\"\ncert-dir = \"/certs\"\nlisten = \"127.0.0.1:7420\"\n\
                        [cluster]\nbootstrap = true\n";

    fn with(pairs: &[(&str, &str)]) -> anyhow::Result<NodeConfig> {
        let environment = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assemble(FILE, Path::new("/etc/clinch"), &environment)
    }

    #[test]
    fn folders_in_a_file_are_relative_to_it() {
        let config = with(&[]).unwrap();
        assert_eq!(config.data_dir, Path::new("/etc/clinch/data"));
        assert_eq!(config.cert_dir, Path::new("/certs"));
    }

    #[test]
    fn every_variable_lands_in_its_setting() {
        for (path, kind) in OVERRIDES {
            let (text, seen) = match (*path, kind) {
                ("listen", _) => ("127.0.0.1:9", "127.0.0.1:9"),
                ("gateway", _) => ("127.0.0.1:8, 127.0.0.1:9", "127.0.0.1:9"),
                (_, Kind::Flag) => ("false", "false"),
                (_, Kind::Number) => ("77", "77"),
                (_, Kind::Text | Kind::List) => ("some", "some"),
            };
            let config = with(&[(&variable(path), text)]).unwrap_or_else(|e| panic!("{path}: {e:#}"));
            let json = serde_json::to_value(&config).unwrap();
            let place = format!("/{}", path.replace('.', "/"));
            assert!(
                json.pointer(&place).unwrap().to_string().contains(seen),
                "{path}: {json}"
            );
        }
    }

    #[test]
    fn settings_of_a_command_line_are_merged() {
        let given = [
            "raft.heartbeat-ms=100",
            "raft.election-min-ms = 300",
            "zone=\"a\"",
        ];
        let table = settings(&given.map(|text| setting(text).unwrap()));
        assert_eq!(table["raft"]["heartbeat-ms"].as_integer(), Some(100));
        assert_eq!(table["raft"]["election-min-ms"].as_integer(), Some(300));
        assert_eq!(table["zone"].as_str(), Some("a"));
        assert!(setting("fast").is_err() && setting("zone=a").is_err());
    }

    #[test]
    fn a_bad_variable_is_refused_by_name() {
        let error = format!("{:#}", with(&[("CLINCH_NODE", "one")]).unwrap_err());
        assert!(
            error.contains("CLINCH_NODE") && error.contains("\"one\""),
            "{error}"
        );
        let error = format!("{:#}", with(&[("CLINCH_CLUSTER_BOOTSTRAP", "yes")]).unwrap_err());
        assert!(error.contains("CLINCH_CLUSTER_BOOTSTRAP"), "{error}");
    }

    #[test]
    fn a_mistake_in_a_file_is_shown_with_its_place() {
        let text = format!("{FILE}nonsense = 3\n");
        let error = assemble(&text, Path::new("/"), &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("nonsense") && error.contains("line"), "{error}");
    }
}
