//! What a turn asks for: collected while user code runs, taken by the node when the turn ended well, dropped
//! otherwise.
//!
//! Invariant: effects are absolute writes. Nothing here depends on what else happens before they are applied.
//! Not here: applying them (node), their bytes in the log (node).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use clinch_types::{CallOp, ConnId, Target, WallMs};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{MissedTick, QueueOp, Timing};

/// Most bytes of names, keys and values in the effects of one turn, the state not counted: what fits one large
/// log entry.
pub const EFFECTS_MAX: usize = 4 << 20;

/// Names one schedule of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ScheduleId(pub u128);

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no schedule id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a schedule id is 32 hexadecimal digits")]
pub struct ScheduleIdError;

impl FromStr for ScheduleId {
    type Err = ScheduleIdError;

    fn from_str(text: &str) -> Result<Self, ScheduleIdError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ScheduleIdError);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| ScheduleIdError)
    }
}

impl Serialize for ScheduleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScheduleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An action to run later, on this actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// Its name.
    pub id: ScheduleId,
    /// Not before this time.
    pub due: WallMs,
    /// The action's name on the wire.
    pub action: String,
    /// CBOR array of the arguments.
    pub args: Bytes,
    /// Its name, of a repeated one: unique per actor.
    pub name: Option<String>,
    /// How it repeats.
    pub timing: Timing,
    /// What it does about ticks that nobody could fire in time.
    pub missed: MissedTick,
    /// How often it has fired.
    pub runs: u64,
}

impl ScheduleEntry {
    /// One that fires once.
    pub fn once(id: ScheduleId, due: WallMs, action: String, args: Bytes) -> Self {
        Self {
            id,
            due,
            action,
            args,
            name: None,
            timing: Timing::Once,
            missed: MissedTick::default(),
            runs: 0,
        }
    }
}

impl ScheduleId {
    /// The id of the repeated schedule with this name: the same in every turn, so setting it again replaces it.
    pub fn of_name(name: &str) -> Self {
        Self(clinch_types::hash_128(&[b"schedule-name", name.as_bytes()]))
    }
}

/// Which firing a turn is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireInfo {
    /// The schedule.
    pub id: ScheduleId,
    /// Its name, of a repeated one.
    pub name: Option<String>,
    /// When it was due.
    pub due: WallMs,
    /// When it fired: never before `due`.
    pub fired: WallMs,
    /// Which firing of the schedule this is, from 1.
    pub run: u64,
    /// Later ticks that had passed as well and get no firing of their own.
    pub missed: u64,
}

/// How one firing of a repeated schedule went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Which firing, from 1.
    pub run: u64,
    /// When it was due.
    pub due: WallMs,
    /// When it was over.
    pub ended: WallMs,
    /// What became of it.
    pub outcome: RunOutcome,
}

/// What became of a firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// It took effect.
    Done,
    /// The action failed, with this `group.code`; it left no trace.
    Failed(String),
    /// Its time had passed, and its schedule skips such ticks.
    Skipped,
}

/// A change of the actor's schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleOp {
    /// Add, or replace the one with this id.
    Put(ScheduleEntry),
    /// Remove, if it is there.
    Cancel(ScheduleId),
}

/// An event for the actor's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventOut {
    /// Its name on the wire.
    pub name: String,
    /// CBOR array of the arguments.
    pub args: Bytes,
    /// For whom.
    pub to: Audience,
}

/// For which connections an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// All that listen.
    #[default]
    Everyone,
    /// All that listen but this one.
    EveryoneBut(ConnId),
    /// This one, whether it listens or not.
    One(ConnId),
}

/// What a turn does with one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnOp {
    /// Replace its state.
    State {
        /// The connection.
        conn: ConnId,
        /// CBOR of the state.
        state: Bytes,
    },
    /// Send a message over a raw WebSocket.
    Message {
        /// The connection.
        conn: ConnId,
        /// Whether the bytes are text.
        text: bool,
        /// The content.
        data: Bytes,
    },
    /// End it.
    Close {
        /// The connection.
        conn: ConnId,
        /// The WebSocket close code.
        code: u16,
        /// For the client.
        reason: String,
    },
}

/// A one-way call to another actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOut {
    /// To whom.
    pub target: Target,
    /// An action, or a message for a queue.
    pub op: CallOp,
}

/// What one turn asked for, the state aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// KV writes: a value, or `None` to delete.
    pub kv: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// Changes of schedules, in the order they were asked for.
    pub schedules: Vec<ScheduleOp>,
    /// Events, in order.
    pub events: Vec<EventOut>,
    /// One-way calls, in order.
    pub sends: Vec<SendOut>,
    /// Changes of durable queues, in order.
    pub queue: Vec<QueueOp>,
    /// What is done with single connections, in order.
    pub conns: Vec<ConnOp>,
    /// The state is to be durable before the answer leaves, whatever the actor's durability.
    pub save: bool,
    /// The actor is to be destroyed.
    pub destroy: bool,
    /// The actor asks to go to sleep.
    pub sleep: bool,
}

impl Effects {
    /// Whether nothing is to be made durable. Asking for sleep alone leaves no trace.
    pub fn is_empty(&self) -> bool {
        self.kv.is_empty()
            && self.schedules.is_empty()
            && self.events.is_empty()
            && self.sends.is_empty()
            && self.queue.is_empty()
            && self.conns.is_empty()
            && !self.save
            && !self.destroy
    }
}
