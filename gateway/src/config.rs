//! Settings of the gateway, checked once where they are read.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GatewayConfig {
    /// Where clients are sent after their first request, once and for all; a base URL. Default: none, they stay.
    pub client_endpoint: Option<String>,
    /// Origins whose pages may read answers in a browser. Default: empty, which allows all.
    pub allowed_origins: Vec<String>,
    /// How long a call may take, all retries inside the cluster included. Default: 75,000, above the 60 s an action
    /// may run, so that the actor's own answer wins.
    pub call_timeout_ms: u64,
    /// How long a client may take for the headers of a request, and how long an idle connection stays open.
    /// Default: 30,000.
    pub header_read_timeout_ms: u64,
    /// How long a client may take for the body of a request; of one that is streamed, for each piece. Default: 30,000.
    pub body_read_timeout_ms: u64,
    /// How long requests in flight may take to end once the gateway stops. Default: 10,000.
    pub drain_timeout_ms: u64,
    /// Connections open at a time; further ones are answered 503 and closed. Default: 10,000.
    pub max_connections: usize,
    /// Requests in flight at a time over all connections; further ones are answered `actor.overloaded`.
    /// Default: 8,192 (times 64 KiB of body: 512 MiB at worst).
    pub max_in_flight: usize,
    /// WebSockets and streamed answers open at a time; further ones are refused. Default: 10,000.
    pub max_sockets: usize,
    /// How often a WebSocket is pinged. Default: 5,000.
    pub socket_ping_ms: u64,
    /// Silence after which a WebSocket counts as lost; at least twice `socket-ping-ms`. Default: 15,000.
    pub socket_silence_ms: u64,
    /// Bodies above 64 KiB, or of unknown length, coming in at a time; further ones are answered `actor.overloaded`.
    /// Default: 64 (times 6 MiB).
    pub max_large_bodies: usize,
    /// Greatest size of all headers of a request, in bytes. Default: 65,536.
    pub max_header_bytes: usize,
    /// Connections of one address open at a time (of IPv6: of one /64); further ones are answered 503 and closed.
    /// Default: 0, no limit: behind a proxy everybody has the same address.
    pub max_connections_per_address: usize,
    /// Requests and frames of one connection a second; further requests are answered `guard.rate_limit`, frames wait.
    /// Default: 0, no limit.
    pub max_requests_per_second_per_connection: u32,
    /// The same for all connections of one address. Default: 0, no limit.
    pub max_requests_per_second_per_address: u32,
    /// Requests and frames of one address to one actor a second; further requests are answered `guard.rate_limit`, frames
    /// wait. Default: 0, no limit: a backend of one's own asks for everybody, and has one address.
    pub max_requests_per_second_per_actor: u32,
    /// Requests of one address to one actor in flight at a time, connections being opened included; further ones are
    /// answered `guard.rate_limit`. Default: 0, no limit, for the same reason.
    pub max_in_flight_per_actor: u32,
    /// Certificates for TLS in PEM, the server's own first. Default: none, plain HTTP.
    pub cert: Option<PathBuf>,
    /// The private key of the first of them, in PEM. Default: none.
    pub key: Option<PathBuf>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            client_endpoint: None,
            allowed_origins: Vec::new(),
            call_timeout_ms: 75_000,
            header_read_timeout_ms: 30_000,
            body_read_timeout_ms: 30_000,
            drain_timeout_ms: 10_000,
            max_connections: 10_000,
            max_in_flight: 8_192,
            max_sockets: 10_000,
            socket_ping_ms: 5_000,
            socket_silence_ms: 15_000,
            max_large_bodies: 64,
            max_header_bytes: 64 << 10,
            max_connections_per_address: 0,
            max_requests_per_second_per_connection: 0,
            max_requests_per_second_per_address: 0,
            max_requests_per_second_per_actor: 0,
            max_in_flight_per_actor: 0,
            cert: None,
            key: None,
        }
    }
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A bound of zero would refuse everything.
    #[error("gateway setting {setting} must not be 0")]
    Zero {
        /// Which one.
        setting: &'static str,
    },
    /// Below what the HTTP library can work with.
    #[error("gateway setting max-header-bytes is {value}, at least {MIN_HEADER_BYTES} are needed")]
    HeaderBytes {
        /// What was given.
        value: usize,
    },
    /// One of the two alone is of no use, and plain HTTP instead would be no answer.
    #[error("gateway settings cert and key go together: {missing} is missing")]
    HalfOfTls {
        /// Which one.
        missing: &'static str,
    },
    /// One lost ping would cost the socket.
    #[error(
        "gateway setting socket-silence-ms is {silence}, it must be at least twice socket-ping-ms, which is {ping}"
    )]
    Silence {
        /// The time between pings.
        ping: u64,
        /// The silence allowed.
        silence: u64,
    },
    /// Clients would fail on it, for ever.
    #[error("gateway setting client-endpoint is {value:?}, it must begin with http:// or https://")]
    Endpoint {
        /// What was given.
        value: String,
    },
}

/// hyper panics on a smaller read buffer.
const MIN_HEADER_BYTES: usize = 8192;

impl GatewayConfig {
    /// Called where the settings are read; past it, every `GatewayConfig` is sound.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(self) -> Result<Self, ConfigError> {
        for (setting, zero) in [
            ("call-timeout-ms", self.call_timeout_ms == 0),
            ("header-read-timeout-ms", self.header_read_timeout_ms == 0),
            ("body-read-timeout-ms", self.body_read_timeout_ms == 0),
            ("max-connections", self.max_connections == 0),
            ("max-in-flight", self.max_in_flight == 0),
            ("max-sockets", self.max_sockets == 0),
            ("socket-ping-ms", self.socket_ping_ms == 0),
            ("max-large-bodies", self.max_large_bodies == 0),
        ] {
            if zero {
                return Err(ConfigError::Zero { setting });
            }
        }
        // One lost ping must not cost the socket.
        let (ping, silence) = (self.socket_ping_ms, self.socket_silence_ms);
        if silence < ping.saturating_mul(2) {
            return Err(ConfigError::Silence { ping, silence });
        }
        if self.max_header_bytes < MIN_HEADER_BYTES {
            return Err(ConfigError::HeaderBytes {
                value: self.max_header_bytes,
            });
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => return Err(ConfigError::HalfOfTls { missing: "key" }),
            (None, Some(_)) => return Err(ConfigError::HalfOfTls { missing: "cert" }),
            _ => {}
        }
        match self.client_endpoint {
            Some(value) if !value.starts_with("http://") && !value.starts_with("https://") => {
                Err(ConfigError::Endpoint { value })
            }
            _ => Ok(self),
        }
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    pub(crate) fn header_read_timeout(&self) -> Duration {
        Duration::from_millis(self.header_read_timeout_ms)
    }

    pub(crate) fn body_read_timeout(&self) -> Duration {
        Duration::from_millis(self.body_read_timeout_ms)
    }

    pub(crate) fn socket_ping(&self) -> Duration {
        Duration::from_millis(self.socket_ping_ms)
    }

    pub(crate) fn socket_silence(&self) -> Duration {
        Duration::from_millis(self.socket_silence_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_settings_that_refuse_everything_are_not() {
        assert!(GatewayConfig::default().validate().is_ok());
        let none = GatewayConfig {
            max_connections: 0,
            ..GatewayConfig::default()
        };
        assert_eq!(
            none.validate(),
            Err(ConfigError::Zero {
                setting: "max-connections"
            })
        );
        let silence = GatewayConfig {
            socket_silence_ms: 9_999,
            ..GatewayConfig::default()
        };
        let error = silence.validate().unwrap_err();
        assert!(
            error.to_string().contains("9999") && error.to_string().contains("5000"),
            "{error}"
        );
        let endpoint = GatewayConfig {
            client_endpoint: Some("node-1:6420".into()),
            ..GatewayConfig::default()
        };
        assert!(matches!(endpoint.validate(), Err(ConfigError::Endpoint { .. })));
        let half = GatewayConfig {
            cert: Some("cert.pem".into()),
            ..GatewayConfig::default()
        };
        assert_eq!(half.validate(), Err(ConfigError::HalfOfTls { missing: "key" }));
        let headers = GatewayConfig {
            max_header_bytes: 100,
            ..GatewayConfig::default()
        };
        assert_eq!(headers.validate(), Err(ConfigError::HeaderBytes { value: 100 }));
    }

    #[test]
    fn every_bound_is_checked_at_its_edge_and_named() {
        let with = |settings: serde_json::Value| {
            serde_json::from_value::<GatewayConfig>(settings)
                .unwrap()
                .validate()
        };
        for setting in [
            "call-timeout-ms",
            "header-read-timeout-ms",
            "body-read-timeout-ms",
            "max-connections",
            "max-in-flight",
            "max-sockets",
            "max-large-bodies",
            "socket-ping-ms",
        ] {
            let error = with(serde_json::json!({ setting: 0 })).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("gateway setting {setting} must not be 0")
            );
            assert!(with(serde_json::json!({ setting: 1 })).is_ok(), "{setting}");
        }
        let pings = |silence| {
            with(serde_json::json!({ "socket-ping-ms": 5, "socket-silence-ms": silence })).map(|_| ())
        };
        assert_eq!(pings(10), Ok(()));
        assert_eq!(pings(9), Err(ConfigError::Silence { ping: 5, silence: 9 }));
        let headers = |bytes| with(serde_json::json!({ "max-header-bytes": bytes })).map(|_| ());
        assert_eq!(headers(MIN_HEADER_BYTES), Ok(()));
        assert_eq!(
            headers(MIN_HEADER_BYTES - 1),
            Err(ConfigError::HeaderBytes {
                value: MIN_HEADER_BYTES - 1
            })
        );
    }
}
