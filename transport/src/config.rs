//! Settings of the transport, checked once; the check knows how they relate.

use std::sync::Arc;
use std::time::Duration;

use clinch_types::Clock;

/// Settings of one transport. [`TransportConfig::validate`] is called by `Transport::start`.
#[derive(Clone)]
pub struct TransportConfig {
    /// How often an idle connection says it is alive: shorter notices a restarted peer sooner. Default: 1 s.
    pub keep_alive: Duration,
    /// Silence after which a connection counts as lost. Default: 5 s. Both ends take the shorter of their two.
    pub idle_timeout: Duration,
    /// Silence of a peer, while an action waits there, after which its answer counts as lost ([`crate::TransportError`]
    /// says `Perhaps`). A living peer acknowledges packets within milliseconds, however long its action takes. Seen
    /// within half of it more. At least 100 ms. Default: 200 ms.
    pub silence_max: Duration,
    /// How long one attempt to connect may take, name resolution included. Default: 2 s.
    pub dial_timeout: Duration,
    /// Pause after the first failed attempt; doubles up to [`Self::backoff_max`]. Default: 50 ms.
    pub backoff_min: Duration,
    /// Longest pause between two attempts. Default: 1 s.
    pub backoff_max: Duration,
    /// Request bytes that may queue per connection and class before callers wait. Default: 256 KiB.
    pub queue_bytes: usize,
    /// Callers that may wait for room per connection and class. Default: 1024.
    pub waiting_max: usize,
    /// Requests without an answer yet, per connection and class, at the dialler. Default: 16,384.
    pub pending_max: usize,
    /// Requests handed to the handler and not answered yet, per connection and class. Default: 16,384.
    pub inbound_max: usize,
    /// Bytes under way and not read by the receiver, per stream. Default: 256 KiB: more overflows UDP buffers on a
    /// fast network; a long one needs bandwidth × round trip.
    pub stream_window: u32,
    /// Snapshot streams one peer may have open towards us. Default: 8.
    pub uni_streams_max: u32,
    /// Exchanges one peer may have open towards us: raw HTTP requests being answered, server-sent events among them.
    /// Further ones wait. Each may hold [`Self::stream_window`] bytes per direction. Default: 1024.
    pub exchanges_max: u32,
    /// Connections accepted at the same time. Default: 4096.
    pub connections_max: usize,
    /// Segmentation offload (GSO): cheaper, but its bursts can be lost behind rate limiters. Default: on.
    pub segmentation_offload: bool,
    /// Largest packet tried by MTU discovery, in bytes; `None` stays at 1200. Default: 1452.
    pub mtu_upper_bound: Option<u16>,
    /// Seed of QUIC's and the back-off's randomness; `None` draws one from the system. Give each start of a process
    /// another one: the names of connections come from it, and must not repeat those of the former life.
    pub rng_seed: Option<[u8; 32]>,
    /// Clock that certificates are judged by; `None` is the system's.
    pub certificate_clock: Option<Arc<dyn Clock>>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            silence_max: Duration::from_millis(200),
            dial_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            queue_bytes: 256 << 10,
            waiting_max: 1024,
            pending_max: 16_384,
            inbound_max: 16_384,
            stream_window: 256 << 10,
            uni_streams_max: 8,
            exchanges_max: 1024,
            connections_max: 4096,
            segmentation_offload: true,
            mtu_upper_bound: Some(1452),
            rng_seed: None,
            certificate_clock: None,
        }
    }
}

impl std::fmt::Debug for TransportConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransportConfig")
            .field("keep_alive", &self.keep_alive)
            .field("idle_timeout", &self.idle_timeout)
            .field("queue_bytes", &self.queue_bytes)
            .field("stream_window", &self.stream_window)
            .finish_non_exhaustive()
    }
}

/// A setting, or two together, that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One lost keep-alive must not cost the connection.
    #[error(
        "idle-timeout {idle_timeout:?} must be at least twice keep-alive {keep_alive:?}, and keep-alive above zero"
    )]
    IdleTimeout {
        /// The keep-alive interval.
        keep_alive: Duration,
        /// The idle timeout.
        idle_timeout: Duration,
    },
    /// QUIC counts the idle timeout in milliseconds below 2^62.
    #[error("idle-timeout {idle_timeout:?} is out of range")]
    IdleRange {
        /// The idle timeout.
        idle_timeout: Duration,
    },
    /// The pause only grows.
    #[error("backoff-min {min:?} must be above zero and not above backoff-max {max:?}")]
    Backoff {
        /// The first pause.
        min: Duration,
        /// The longest pause.
        max: Duration,
    },
    /// A bound outside its range.
    #[error("{name} is {value}, must be {min} to {max}")]
    Range {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Smallest that works.
        min: u64,
        /// Largest that works.
        max: u64,
    },
}

impl TransportConfig {
    /// Checks every setting and how they relate.
    ///
    /// # Errors
    /// The first setting that cannot work, with its value and what would.
    pub fn validate(self) -> Result<Self, ConfigError> {
        let (keep_alive, idle_timeout) = (self.keep_alive, self.idle_timeout);
        if keep_alive.is_zero() || idle_timeout < keep_alive.saturating_mul(2) {
            return Err(ConfigError::IdleTimeout {
                keep_alive,
                idle_timeout,
            });
        }
        // A look every half of it, and an acknowledgement that may be 25 ms late.
        if self.silence_max < Duration::from_millis(100) {
            return Err(ConfigError::Range {
                name: "silence-max in ms",
                value: self.silence_max.as_millis() as u64,
                min: 100,
                max: u64::MAX,
            });
        }
        if quinn::IdleTimeout::try_from(idle_timeout).is_err() {
            return Err(ConfigError::IdleRange { idle_timeout });
        }
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            return Err(ConfigError::Backoff {
                min: self.backoff_min,
                max: self.backoff_max,
            });
        }
        let dial_ms = u64::try_from(self.dial_timeout.as_millis()).unwrap_or(u64::MAX);
        // The queue's semaphore counts bytes in a u32; a packet below 1200 bytes is no QUIC packet.
        let ranges: [(&'static str, u64, u64, u64); 9] = [
            ("dial-timeout (ms)", dial_ms, 1, 600_000),
            ("queue-bytes", self.queue_bytes as u64, 4 << 10, 1 << 30),
            ("waiting-max", self.waiting_max as u64, 1, 1 << 20),
            ("pending-max", self.pending_max as u64, 1, 1 << 20),
            ("inbound-max", self.inbound_max as u64, 1, 1 << 20),
            ("stream-window", u64::from(self.stream_window), 16 << 10, 1 << 30),
            ("exchanges-max", u64::from(self.exchanges_max), 1, 1 << 16),
            ("connections-max", self.connections_max as u64, 1, 1 << 20),
            (
                "mtu-upper-bound",
                u64::from(self.mtu_upper_bound.unwrap_or(1200)),
                1200,
                65_527,
            ),
        ];
        for (name, value, min, max) in ranges {
            if value < min || value > max {
                return Err(ConfigError::Range {
                    name,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused_with_both_values() {
        assert!(TransportConfig::default().validate().is_ok());
        let second = Duration::from_secs(1);
        let config = TransportConfig {
            keep_alive: second,
            idle_timeout: second,
            ..Default::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            error,
            ConfigError::IdleTimeout {
                keep_alive: second,
                idle_timeout: second
            }
        );
        let config = TransportConfig {
            backoff_min: second * 2,
            ..Default::default()
        };
        assert!(matches!(config.validate(), Err(ConfigError::Backoff { .. })));
        let config = TransportConfig {
            queue_bytes: 0,
            ..Default::default()
        };
        assert!(matches!(
            config.validate(),
            Err(ConfigError::Range {
                name: "queue-bytes",
                value: 0,
                ..
            })
        ));
    }
}
