//! The failure detector: from heartbeats and time to who is alive. A pure step function.
//!
//! Laws:
//! - A node that was heard is suspected after `suspect_after` of silence, and any is down after `down_after`; never
//!   before.
//! - An incarnation older than the newest one seen says nothing.
//! - A node that is down comes back at once by a newer incarnation (it restarted), and by the same incarnation
//!   only when it is heard steadily for `revive_after` (a healed partition): late packets that arrive in a bunch
//!   do not revive it.
//! - Only time in which the observer was awake counts as silence: at most half of `suspect_after` per step, so a
//!   pause of this process does not bury its peers.
//!
//! Not here: sending heartbeats, and what follows from a verdict. It is a hint for people, routes and repair; Raft
//! alone decides who owns a shard.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clinch_types::{Incarnation, NodeId};

/// Times of the detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectorConfig {
    /// Silence after which a node is suspected. Default: 3 s.
    pub suspect_after: Duration,
    /// Silence after which a node is down. Default: 5 s.
    pub down_after: Duration,
    /// How long an incarnation that was down must be heard without a break before it is alive again. Default: 2 s.
    pub revive_after: Duration,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_secs(3),
            down_after: Duration::from_secs(5),
            revive_after: Duration::from_secs(2),
        }
    }
}

/// Why a [`DetectorConfig`] is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DetectorConfigError {
    /// Suspicion must take some time.
    #[error("suspect-after must be above zero")]
    Zero,
    /// Suspicion comes first.
    #[error("down-after is {down_after:?}, it must be at least suspect-after, {suspect_after:?}")]
    Order {
        /// What was given.
        suspect_after: Duration,
        /// What was given.
        down_after: Duration,
    },
}

impl DetectorConfig {
    /// Checks the relations between the times.
    ///
    /// # Errors
    /// Names both values.
    pub fn validate(self) -> Result<Self, DetectorConfigError> {
        let (suspect_after, down_after) = (self.suspect_after, self.down_after);
        if suspect_after.is_zero() {
            return Err(DetectorConfigError::Zero);
        }
        if down_after < suspect_after {
            return Err(DetectorConfigError::Order {
                suspect_after,
                down_after,
            });
        }
        Ok(self)
    }
}

/// What happens to the detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Start watching a node, as suspect until it is first heard, its silence counted from now: a new observer does
    /// not know whether it is alive, and must not undo what the last one found. Watching a newer incarnation of a
    /// watched node counts as hearing it; otherwise a watched node stays as it is.
    Watch {
        /// Which node.
        node: NodeId,
        /// Its incarnation as far as known.
        incarnation: Incarnation,
    },
    /// Stop watching: it left or was replaced.
    Forget {
        /// Which node.
        node: NodeId,
    },
    /// A sign of life. One of a node that is not watched is ignored.
    Heartbeat {
        /// Who.
        from: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// Time passed. Due at least four times per `suspect_after`.
    Tick,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Heard of lately.
    Alive,
    /// Silent for `suspect_after`, or not heard yet: prefer others.
    Suspect,
    /// Silent for `down_after`.
    Down,
}

/// A change of a node's health: what the caller must now act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Which node.
    pub node: NodeId,
    /// The newest incarnation seen of it.
    pub incarnation: Incarnation,
    /// How it is now.
    pub health: Health,
}

/// Watches a set of nodes. Its memory is bounded by the nodes watched.
#[derive(Debug, Clone)]
pub struct Detector {
    config: DetectorConfig,
    peers: BTreeMap<NodeId, Peer>,
    last_step: Option<Instant>,
    /// Time in which this process was awake, as far as the steps show.
    awake: Duration,
}

#[derive(Debug, Clone)]
struct Peer {
    incarnation: Incarnation,
    health: Health,
    /// On the scale of `Detector::awake`.
    heard_at: Duration,
    /// Since when a node that is down has been heard without a break.
    steady_since: Option<Duration>,
}

impl Detector {
    /// Watches nobody yet.
    ///
    /// # Errors
    /// As [`DetectorConfig::validate`].
    pub fn new(config: DetectorConfig) -> Result<Self, DetectorConfigError> {
        Ok(Self {
            config: config.validate()?,
            peers: BTreeMap::new(),
            last_step: None,
            awake: Duration::ZERO,
        })
    }

    /// Advances by one event and appends what changed to `out`, in order of node id. A `now` before the last one
    /// counts as the last one.
    pub fn step(&mut self, now: Instant, event: Event, out: &mut Vec<Verdict>) {
        self.advance(now);
        match event {
            Event::Watch { node, incarnation } => self.watch(node, incarnation, out),
            Event::Forget { node } => {
                self.peers.remove(&node);
            }
            Event::Heartbeat { from, incarnation } => self.heartbeat(from, incarnation, out),
            Event::Tick => self.tick(out),
        }
    }

    /// How a node is; `None` when it is not watched.
    pub fn health(&self, node: NodeId) -> Option<Health> {
        self.peers.get(&node).map(|peer| peer.health)
    }

    /// All nodes watched, in order of id.
    pub fn peers(&self) -> impl Iterator<Item = Verdict> {
        self.peers.iter().map(|(&node, peer)| Verdict {
            node,
            incarnation: peer.incarnation,
            health: peer.health,
        })
    }

    fn advance(&mut self, now: Instant) {
        let step = self
            .last_step
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.awake += step.min(self.config.suspect_after / 2);
        self.last_step = Some(self.last_step.map_or(now, |last| last.max(now)));
    }

    fn watch(&mut self, node: NodeId, incarnation: Incarnation, out: &mut Vec<Verdict>) {
        match self.peers.get(&node) {
            Some(peer) if peer.incarnation < incarnation => self.heartbeat(node, incarnation, out),
            Some(_) => {}
            None => {
                let peer = Peer {
                    incarnation,
                    health: Health::Suspect,
                    heard_at: self.awake,
                    steady_since: None,
                };
                self.peers.insert(node, peer);
            }
        }
    }

    fn heartbeat(&mut self, from: NodeId, incarnation: Incarnation, out: &mut Vec<Verdict>) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if incarnation < peer.incarnation {
            return;
        }
        let restarted = incarnation > peer.incarnation;
        let silence = self.awake - peer.heard_at;
        let alive = match peer.health {
            Health::Alive | Health::Suspect => true,
            Health::Down if restarted => true,
            Health::Down => {
                let broken = silence >= self.config.suspect_after;
                let since = match peer.steady_since {
                    Some(since) if !broken => since,
                    Some(_) | None => self.awake,
                };
                peer.steady_since = Some(since);
                self.awake - since >= self.config.revive_after
            }
        };
        peer.incarnation = incarnation;
        peer.heard_at = self.awake;
        if !alive {
            return;
        }
        peer.steady_since = None;
        if peer.health != Health::Alive || restarted {
            peer.health = Health::Alive;
            out.push(Verdict {
                node: from,
                incarnation,
                health: Health::Alive,
            });
        }
    }

    fn tick(&mut self, out: &mut Vec<Verdict>) {
        for (&node, peer) in &mut self.peers {
            let silence = self.awake - peer.heard_at;
            let health = if silence >= self.config.down_after {
                Health::Down
            } else if silence >= self.config.suspect_after {
                Health::Suspect
            } else {
                Health::Alive
            };
            // Silence only makes worse; what makes better is a heartbeat.
            if health > peer.health {
                peer.health = health;
                out.push(Verdict {
                    node,
                    incarnation: peer.incarnation,
                    health,
                });
            }
        }
    }
}
