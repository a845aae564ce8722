//! Settings of a node, checked once where they are read; the check knows how they relate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clinch_types::{NodeId, RegionId};
use serde::{Deserialize, Serialize};

/// Everything a node needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeConfig {
    /// Who this node is; must be the one its certificate names, and must never have been used by another node.
    pub node: NodeId,
    /// Where its data lies. Nothing else may use this folder.
    pub data_dir: PathBuf,
    /// Certificates: the folder with `ca.pem`, `node-<id>.pem` and `node-<id>.key`.
    pub cert_dir: PathBuf,
    /// Where other nodes and Rust clients reach it (QUIC, UDP).
    pub listen: SocketAddr,
    /// What others are told to dial; default: `listen`.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Where its gateway listens (HTTP); none: no gateway.
    #[serde(default)]
    pub gateway: Vec<SocketAddr>,
    /// A label for a group of nodes that may fail together. Replicas go to different zones where possible.
    #[serde(default)]
    pub zone: String,
    /// The region it is in. Default: 0.
    #[serde(default)]
    pub region: RegionId,
    /// Share of replicas relative to other nodes. 1 is an ordinary node, 0 holds no shards. Default: 1.
    #[serde(default = "default_capacity")]
    pub capacity: u32,
    /// Version of the application's code; a shard never moves from a newer to an older one. Default: 0.
    #[serde(default)]
    pub code_version: u32,
    /// How it comes into a cluster.
    #[serde(default)]
    pub cluster: ClusterConfig,
    /// Raft timings.
    #[serde(default)]
    pub raft: RaftConfig,
    /// How effects are packed into entries.
    #[serde(default)]
    pub proposer: Arc<ProposerConfig>,
    /// The store of this node.
    #[serde(default)]
    pub storage: StorageConfig,
    /// Who may use the gateway. Empty: everybody, so the gateway then listens on loopback only.
    #[serde(default)]
    pub tokens: Vec<TokenConfig>,
    /// Limits and timeouts of the gateway.
    #[serde(default)]
    pub http: clinch_gateway::GatewayConfig,
    /// Serve the gateway without tokens on addresses that are not loopback. Default: false.
    #[serde(default)]
    pub insecure: bool,
    /// Tell callers the causes of internal errors, which otherwise only the log has: for development. Default: false.
    #[serde(default)]
    pub expose_errors: bool,
}

fn default_capacity() -> u32 {
    1
}

/// How a node comes into its cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterConfig {
    /// Create the cluster if this node has no data: for exactly one node, once. Default: false.
    pub bootstrap: bool,
    /// Name of a new cluster. Default: `clinch`.
    pub name: String,
    /// Nodes to wait for before shards are placed for the first time (only read when bootstrapping). Default: 1.
    pub expect_nodes: u32,
    /// Shards of a new cluster (only read when bootstrapping). Default: 16.
    pub shards: u32,
    /// Replicas of each shard (only read when bootstrapping). Default: 3.
    pub replicas: u8,
    /// Nodes to ask for admission, `host:port`.
    pub join: Vec<String>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            bootstrap: false,
            name: "clinch".into(),
            expect_nodes: 1,
            shards: 16,
            replicas: 3,
            join: Vec::new(),
        }
    }
}

/// Raft timings of all groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RaftConfig {
    /// How often an idle leader speaks, in ms: shorter finds a dead one sooner, costs packets. Default: 80.
    pub heartbeat_ms: u64,
    /// Least silence after which a follower stands for election, counted from the end of the lease, in ms. Default: 200.
    pub election_min_ms: u64,
    /// Most of that, and the length of the leader's lease, in ms. Default: 400: short
    /// enough to serve again within a second of an owner's death, long enough not to elect on a busy machine.
    pub election_max_ms: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 80,
            election_min_ms: 200,
            election_max_ms: 400,
        }
    }
}

impl RaftConfig {
    /// The lease: how long a follower that has heard from a leader votes for nobody else.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }

    /// The part of the lease in which reads are answered; the rest allows for clocks that run at different rates.
    pub fn lease_trusted(&self) -> Duration {
        self.lease() * 8 / 10
    }
}

/// How effects are packed into entries (DESIGN §18).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProposerConfig {
    /// Turns in one entry at most. Default: 512.
    pub batch_turns_max: usize,
    /// Bytes at which an entry counts as full; one large turn may exceed it. Default: 256 KiB.
    pub batch_bytes_max: usize,
    /// Calls that may wait in front of a shard. Default: 16,384.
    pub queue_max: usize,
}

impl Default for ProposerConfig {
    fn default() -> Self {
        Self {
            batch_turns_max: 512,
            batch_bytes_max: 256 << 10,
            queue_max: 16_384,
        }
    }
}

/// The store of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StorageConfig {
    /// Time between two checkpoints, in ms; one is taken earlier when 64 k keys or 32 MiB wait. Actors that change often
    /// are written once for each, and a start replays what came after the last. Default: 5,000.
    pub checkpoint_ms: u64,
    /// Cache of the state store, in MiB as sled counts it: it takes about three times as much memory. Values of sleeping
    /// actors that are not in it come from the kernel's cache. Default: 4.
    pub cache_mib: u64,
    /// Log kept per shard for replicas that lag behind, in MiB. Default: 16.
    pub retain_mib: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            checkpoint_ms: 5000,
            cache_mib: 4,
            retain_mib: 16,
        }
    }
}

/// One token that the gateway accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenConfig {
    /// What it allows.
    pub kind: TokenKind,
    /// The only namespace it is good for; default: all.
    #[serde(default)]
    pub namespace: Option<String>,
    /// SHA-256 of the token, as 64 hexadecimal digits; the token itself is kept by its users alone.
    pub sha256: Sha256,
}

/// What a token allows; each kind allows what the ones before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// Calls on actors; may be given to browsers.
    Publishable,
    /// And listing and destroying them.
    Secret,
    /// And the cluster itself.
    Admin,
}

impl TokenKind {
    pub(crate) fn scope(self) -> clinch_gateway::Scope {
        match self {
            Self::Publishable => clinch_gateway::Scope::Publishable,
            Self::Secret => clinch_gateway::Scope::Secret,
            Self::Admin => clinch_gateway::Scope::Admin,
        }
    }
}

/// A SHA-256 hash, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
        // The text is not shown: somebody may have put the token itself there.
        let bad = || {
            serde::de::Error::custom(format!(
                "a sha256 has 64 hexadecimal digits and nothing else, got {} characters with {digits} such digits",
                text.chars().count()
            ))
        };
        if (text.len(), digits) != (64, 64) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two lost heartbeats must not cost an election.
    #[error(
        "raft.election-min-ms ({election_min_ms}) must be at least twice raft.heartbeat-ms ({heartbeat_ms}), which must not be 0"
    )]
    Heartbeat {
        /// As given.
        heartbeat_ms: u64,
        /// As given.
        election_min_ms: u64,
    },
    /// The range of the random timeout must not be empty.
    #[error(
        "raft.election-max-ms ({election_max_ms}) must be greater than raft.election-min-ms ({election_min_ms})"
    )]
    Election {
        /// As given.
        election_min_ms: u64,
        /// As given.
        election_max_ms: u64,
    },
    /// A number outside its range.
    #[error("{name} is {value}, it must be between {min} and {max}")]
    Range {
        /// The setting.
        name: &'static str,
        /// As given.
        value: u64,
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
    },
    /// Anybody who reaches the port could do anything.
    #[error(
        "gateway address {address} is not loopback and there are no tokens: give [[tokens]], bind 127.0.0.1, or say insecure = true"
    )]
    OpenGateway {
        /// The address.
        address: SocketAddr,
    },
    /// A gateway setting.
    #[error("http: {0}")]
    Gateway(clinch_gateway::ConfigError),
    /// There is no way into a cluster.
    #[error(
        "a node needs either cluster.bootstrap = true (the first one) or cluster.join = [\"host:port\"] (every other)"
    )]
    NoWayIn,
    /// Both ways at once.
    #[error(
        "cluster.bootstrap and cluster.join exclude each other: only the first node of a cluster bootstraps it"
    )]
    TwoWaysIn,
}

impl NodeConfig {
    /// Passes a sound configuration through.
    ///
    /// # Errors
    /// Names the setting, its value and what it must relate to.
    pub fn validate(self) -> Result<Self, ConfigError> {
        let RaftConfig {
            heartbeat_ms,
            election_min_ms,
            election_max_ms,
        } = self.raft;
        if heartbeat_ms == 0 || election_min_ms < 2 * heartbeat_ms {
            return Err(ConfigError::Heartbeat {
                heartbeat_ms,
                election_min_ms,
            });
        }
        if election_max_ms <= election_min_ms {
            return Err(ConfigError::Election {
                election_min_ms,
                election_max_ms,
            });
        }
        let proposer = &self.proposer;
        let ranges = [
            ("cluster.shards", u64::from(self.cluster.shards), 1, 1024),
            ("cluster.replicas", u64::from(self.cluster.replicas), 1, 7),
            (
                "cluster.expect-nodes",
                u64::from(self.cluster.expect_nodes),
                1,
                1000,
            ),
            ("capacity", u64::from(self.capacity), 0, 1_000),
            (
                "proposer.batch-turns-max",
                proposer.batch_turns_max as u64,
                1,
                65_536,
            ),
            (
                "proposer.batch-bytes-max",
                proposer.batch_bytes_max as u64,
                1024,
                4 << 20,
            ),
            ("proposer.queue-max", proposer.queue_max as u64, 1, 1 << 20),
            ("storage.checkpoint-ms", self.storage.checkpoint_ms, 10, 60_000),
            ("storage.cache-mib", self.storage.cache_mib, 1, 1 << 20),
            ("storage.retain-mib", self.storage.retain_mib, 1, 1 << 16),
        ];
        for (name, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range {
                    name,
                    value,
                    min,
                    max,
                });
            }
        }
        if let Some(&address) = self.gateway.iter().find(|a| !a.ip().is_loopback())
            && !self.insecure
            && self.tokens.is_empty()
        {
            return Err(ConfigError::OpenGateway { address });
        }
        self.http.clone().validate().map_err(ConfigError::Gateway)?;
        match (self.cluster.bootstrap, self.cluster.join.is_empty()) {
            (false, true) => Err(ConfigError::NoWayIn),
            (true, false) => Err(ConfigError::TwoWaysIn),
            _ => Ok(self),
        }
    }

    /// What others are told to dial.
    pub fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> NodeConfig {
        let text = r#"
            node = 1
            data-dir = "d"
            cert-dir = "c"
            listen = "127.0.0.1:7420"
            [cluster]
            bootstrap = true
        "#;
        toml::from_str(text).unwrap()
    }

    #[test]
    fn relations_between_settings_are_checked_and_named() {
        assert!(sound().validate().is_ok());
        let mut config = sound();
        config.raft.election_min_ms = 100;
        assert_eq!(
            config.validate(),
            Err(ConfigError::Heartbeat {
                heartbeat_ms: 80,
                election_min_ms: 100
            })
        );
        let mut config = sound();
        config.cluster.join = vec!["a:1".into()];
        assert_eq!(config.validate(), Err(ConfigError::TwoWaysIn));
        let mut config = sound();
        config.gateway = vec!["0.0.0.0:6420".parse().unwrap()];
        assert!(matches!(config.validate(), Err(ConfigError::OpenGateway { .. })));
        let mut config = sound();
        config.cluster.shards = 2000;
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "cluster.shards is 2000, it must be between 1 and 1024");
    }

    #[test]
    fn every_number_is_checked_at_both_ends_and_named_with_its_limits() {
        for (name, min, max) in [
            ("cluster.shards", 1, 1024),
            ("cluster.replicas", 1, 7),
            ("cluster.expect-nodes", 1, 1000),
            ("capacity", 0, 1000),
            ("proposer.batch-turns-max", 1, 65_536),
            ("proposer.batch-bytes-max", 1024, 4 << 20),
            ("proposer.queue-max", 1, 1 << 20),
            ("storage.checkpoint-ms", 10, 60_000),
            ("storage.cache-mib", 1, 1 << 20),
            ("storage.retain-mib", 1, 1 << 16),
        ] {
            let with = |value: i64| {
                let mut table = toml::Table::try_from(sound()).unwrap();
                let mut place = &mut table;
                let (sections, setting) = name.rsplit_once('.').unwrap_or(("", name));
                if !sections.is_empty() {
                    place = place[sections].as_table_mut().unwrap();
                }
                assert!(place.insert(setting.to_owned(), value.into()).is_some(), "{name}");
                table.try_into::<NodeConfig>().unwrap().validate()
            };
            for value in [min, max] {
                assert!(with(value).is_ok(), "{name} = {value}");
            }
            for value in [min - 1, max + 1].into_iter().filter(|value| *value >= 0) {
                let error = with(value).unwrap_err().to_string();
                assert_eq!(
                    error,
                    format!("{name} is {value}, it must be between {min} and {max}")
                );
            }
        }
        let mut config = sound();
        config.raft.election_min_ms = 2 * config.raft.heartbeat_ms;
        config.raft.election_max_ms = config.raft.election_min_ms;
        let error = config.clone().validate().unwrap_err().to_string();
        assert_eq!(
            error,
            "raft.election-max-ms (160) must be greater than raft.election-min-ms (160)"
        );
        config.raft.election_max_ms += 1;
        assert!(config.validate().is_ok());
    }

    #[test]
    fn a_hash_of_a_token_is_made_of_digits() {
        let read = |text: &str| serde_json::from_value::<Sha256>(text.into());
        let sound = "0f".repeat(32);
        assert_eq!(serde_json::to_value(read(&sound).unwrap()).unwrap(), sound);
        for (text, got) in [
            ("+f".repeat(32), "64 characters with 32"),
            ("0f".repeat(31), "62 characters with 62"),
            ("é".repeat(32), "32 characters with 0"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(got) && !error.contains(&text), "{error}");
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = toml::from_str::<NodeConfig>("nod = 1").unwrap_err().to_string();
        assert!(error.contains("nod"), "{error}");
    }
}
