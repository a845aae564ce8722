//! `clinch doctor`: what a maintainer asks for first, of this machine, a configuration and a running node.
//!
//! Invariant: nothing secret is printed: no token, no hash of one, no key, and no text of a file that could not be read.
//! Not here: what the findings are made of (`machine`, `cluster`).

mod ask;
mod cluster;
mod machine;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clinch_transport::{CertBundle, PeerId};
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{Failure, Kind, Outcome};
use super::terminal::print;
use super::{config_file, remote};
use crate::NodeConfig;

/// Where a node is asked for when nobody says where.
const GATEWAY: &str = "http://127.0.0.1:6420";

/// Examine this machine, a configuration and a node, for a report
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clinch doctor --config /etc/clinch/clinch.toml\n\n\
                  Each finding is ok, warn or bad, and says what to do. Nothing secret is printed: the report can be \
                  sent to somebody else. Exit codes: 0 nothing is bad, 1 something is, 2 the configuration is, 3 the \
                  gateway that was given does not answer.")]
pub(crate) struct Args {
    /// A node's configuration; it says where its data and its gateway are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway of a node; else that of the configuration, or http://127.0.0.1:6420
    #[arg(long, value_name = "URL", env = "CLINCH_ENDPOINT")]
    gateway: Option<String>,
    /// A token, if the gateway wants one
    #[arg(long, value_name = "TOKEN", env = "CLINCH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Seconds to wait for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Bad,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at.
    about: &'static str,
    /// What was found, for people.
    found: String,
    /// The same for programs, where there is more to it than the text.
    #[serde(skip_serializing_if = "Value::is_null")]
    value: Value,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(about: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            about,
            found: found.into(),
            value: Value::Null,
            advice: None,
        }
    }

    fn warn(about: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            advice: Some(advice.into()),
            ..Self::ok(about, found)
        }
    }

    fn bad(about: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Bad,
            ..Self::warn(about, found, advice)
        }
    }

    fn with(self, value: Value) -> Self {
        Self { value, ..self }
    }
}

pub(crate) async fn run(args: Args) -> Outcome {
    let timeout = Duration::from_secs(args.timeout);
    let gateway = args.gateway.as_deref().map(remote::base).transpose()?;
    let gateway = gateway.as_deref().map(remote::without_credentials);
    let mut findings = machine::build();
    let (config, is_sound) = match &args.config {
        None => (None, true),
        Some(path) => {
            let (config, found) = examine_config(path);
            let is_sound = found.iter().all(|finding| finding.level != Level::Bad);
            findings.extend(found);
            (config, is_sound)
        }
    };
    findings.extend(machine::system());
    findings.extend(machine::limits(config.as_ref()));
    findings.extend(machine::disk(
        config.as_ref().map(|config| config.data_dir.as_path()),
    ));
    let is_asked_for = gateway.is_some();
    let tls_alone = config.as_ref().and_then(speaks_tls_alone);
    let node = match (gateway, tls_alone) {
        (None, Some(address)) => cluster::Examined::unasked(address),
        (gateway, _) => {
            let gateway = gateway.or_else(|| config.as_ref().and_then(gateway_of));
            let gateway = gateway.unwrap_or_else(|| GATEWAY.to_owned());
            cluster::examine(&gateway, args.token.as_deref(), timeout, is_asked_for).await
        }
    };
    let answers = node.answers;
    findings.extend(node.findings);
    print(&match args.json {
        true => as_json(&findings).to_string(),
        false => as_text(&findings),
    })?;
    let bad = findings
        .iter()
        .filter(|finding| finding.level == Level::Bad)
        .count();
    let said = match bad {
        0 => return Ok(()),
        1 => "1 finding is bad".to_owned(),
        _ => format!("{bad} findings are bad"),
    };
    let kind = match (is_sound, is_asked_for && !answers) {
        (false, _) => Kind::Usage,
        (true, true) => Kind::Unavailable,
        (true, false) => Kind::Failed,
    };
    Err(Failure {
        kind,
        error: anyhow::Error::msg(said),
    })
}

/// The gateway of a node with this configuration, if it takes plain HTTP from nobody: it does so from this machine's own
/// addresses alone.
fn speaks_tls_alone(config: &NodeConfig) -> Option<SocketAddr> {
    let address = config.gateway.first()?;
    let from_here = address.ip().is_loopback() || address.ip().is_unspecified();
    (config.http.cert.is_some() && !from_here).then_some(*address)
}

/// Where a node with this configuration is asked, if it has a gateway.
fn gateway_of(config: &NodeConfig) -> Option<String> {
    let address = config.gateway.first()?;
    let host = match address.ip().is_unspecified() {
        true if address.is_ipv4() => "127.0.0.1".to_owned(),
        true => "[::1]".to_owned(),
        false if address.is_ipv4() => address.ip().to_string(),
        false => format!("[{}]", address.ip()),
    };
    Some(format!("http://{host}:{}", address.port()))
}

/// What is in the file, as `clinch start` would read it.
fn examine_config(path: &Path) -> (Option<NodeConfig>, Vec<Finding>) {
    const ABOUT: &str = "configuration";
    let shown = path.display();
    let config = match config_file::load(path) {
        Ok(config) => config,
        Err(error) => {
            let found = format!("{shown}: {}", without_contents(&error));
            let advice = format!("`clinch config check {shown}` shows the place, with what stands there");
            return (None, vec![Finding::bad(ABOUT, found, advice)]);
        }
    };
    let mut findings = Vec::new();
    match config.clone().validate() {
        Ok(_) => {
            let found = format!(
                "{shown}: sound (node {}, {} tokens)",
                config.node,
                config.tokens.len()
            );
            findings.push(Finding::ok(ABOUT, found));
        }
        Err(error) => {
            let advice = "change the setting; `clinch config check` looks at it again";
            findings.push(Finding::bad(ABOUT, format!("{shown}: {error}"), advice));
        }
    }
    let certificates = "certificates";
    findings.push(
        match CertBundle::load(&config.cert_dir, &PeerId::Node(config.node)) {
            Ok(_) => Finding::ok(
                certificates,
                format!("{} has those of node {}", config.cert_dir.display(), config.node),
            ),
            Err(error) => Finding::bad(
                certificates,
                format!("{}: {error}", config.cert_dir.display()),
                format!("make them: `clinch cert issue --dir DIR --node {}`", config.node),
            ),
        },
    );
    (Some(config), findings)
}

/// Why a configuration could not be read, without a word of what is in it: parsers quote what they stumble over.
fn without_contents(error: &anyhow::Error) -> String {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return error.to_string();
        }
    }
    "a key that is not known, or a value that does not fit".into()
}

fn worst(findings: &[Finding]) -> Level {
    findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok)
}

fn as_json(findings: &[Finding]) -> Value {
    json!({ "worst": worst(findings), "findings": findings })
}

fn as_text(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.about.len())
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(format!(
            "{:<4}  {:<width$}  {}",
            finding.level.name(),
            finding.about,
            finding.found
        ));
        if let Some(advice) = &finding.advice {
            lines.push(format!("      {:<width$}  -> {advice}", ""));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_a_configuration_is_asked_where_this_machine_reaches_it() {
        let text = "node = 1\ndata-dir = \"d\"\ncert-dir = \"c\"\nlisten = \"127.0.0.1:7420\"\n[cluster]\nbootstrap = true\n";
        let with = |gateway: &str| NodeConfig {
            gateway: vec![gateway.parse().unwrap()],
            ..toml::from_str(text).unwrap()
        };
        for (given, asked) in [
            ("0.0.0.0:6420", "http://127.0.0.1:6420"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.7:6420", "http://10.0.0.7:6420"),
        ] {
            assert_eq!(gateway_of(&with(given)).as_deref(), Some(asked));
        }
        assert_eq!(gateway_of(&toml::from_str(text).unwrap()), None);
        for (gateway, alone) in [
            ("10.0.0.7:6420", true),
            ("0.0.0.0:6420", false),
            ("127.0.0.1:1", false),
        ] {
            let mut config = with(gateway);
            assert_eq!(speaks_tls_alone(&config), None);
            config.http.cert = Some("cert.pem".into());
            assert_eq!(speaks_tls_alone(&config).is_some(), alone, "{gateway}");
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_not_quoted() {
        assert_eq!(
            remote::without_credentials("http://shop:sesame@a:1"),
            "http://a:1"
        );
        assert_eq!(remote::without_credentials("http://a:1"), "http://a:1");
        let error = toml::from_str::<NodeConfig>("tokens = \"sesame\"").unwrap_err();
        assert!(error.to_string().contains("sesame"), "{error}");
        let told = without_contents(&anyhow::Error::new(error).context("clinch.toml"));
        assert!(!told.contains("sesame"), "{told}");
    }

    #[test]
    fn a_report_names_its_worst_finding_and_what_to_do() {
        let findings = [
            Finding::ok("disk", "fine"),
            Finding::warn("memory", "little", "buy some"),
        ];
        let json = as_json(&findings);
        assert_eq!(json["worst"], "warn");
        assert_eq!(json["findings"][1]["advice"], "buy some");
        assert_eq!(
            as_text(&findings),
            "ok    disk    fine\nwarn  memory  little\n              -> buy some"
        );
    }
}
