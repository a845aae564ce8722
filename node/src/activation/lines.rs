//! What an owner knows of each connection, and of the connections of each actor.
//!
//! Not here: what is done with it (`conns` for turns, `told` for gateways).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use clinch_actor::{Audience, ConnSeat};
use clinch_types::{ActorId, ConnId, ConnItem};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::slot::Open;
use crate::shard::conn_records::ConnRecord;

/// What an item counts for beside its content.
const ITEM_BYTES: usize = 64;
/// Bytes handed out in one answer; a turn that is larger goes out alone.
const ANSWER_BYTES: usize = 256 << 10;

/// The open connections by their actor, as turns see them.
#[derive(Default)]
pub(crate) struct SeatTable(Mutex<HashMap<ActorId, BTreeMap<ConnId, Arc<ConnSeat>>>>);

impl SeatTable {
    pub(crate) fn of(&self, actor: ActorId) -> Vec<Arc<ConnSeat>> {
        let table = self.0.lock();
        table
            .get(&actor)
            .map_or_else(Vec::new, |seats| seats.values().cloned().collect())
    }

    pub(crate) fn get(&self, actor: ActorId, conn: ConnId) -> Option<Arc<ConnSeat>> {
        self.0.lock().get(&actor)?.get(&conn).cloned()
    }

    pub(super) fn put(&self, actor: ActorId, seat: Arc<ConnSeat>) {
        self.0.lock().entry(actor).or_default().insert(seat.id, seat);
    }

    pub(super) fn remove(&self, actor: ActorId, conn: ConnId) {
        let mut table = self.0.lock();
        if let Some(seats) = table.get_mut(&actor) {
            seats.remove(&conn);
            if seats.is_empty() {
                table.remove(&actor);
            }
        }
    }
}

/// The owner's part of this.
#[derive(Default)]
pub(crate) struct Conns {
    pub(super) lines: BTreeMap<ConnId, Line>,
    pub(super) rooms: HashMap<ActorId, Room>,
    /// When something is to be done about a line: its question answered, or the line given up.
    pub(super) due: BTreeSet<(Instant, ConnId)>,
    /// Connections whose end is to be made a turn.
    pub(super) leaving: Vec<ConnId>,
}

impl Conns {
    /// The open connections of an actor.
    pub(super) fn of(&self, actor: ActorId) -> impl Iterator<Item = &Line> {
        let conns = self.rooms.get(&actor).into_iter().flat_map(|room| &room.conns);
        conns
            .filter_map(|conn| self.lines.get(conn))
            .filter(|line| line.is_open())
    }
}

/// One connection.
pub(super) struct Line {
    pub(super) actor: ActorId,
    pub(super) seat: Arc<ConnSeat>,
    /// The actor's version when it was opened.
    pub(super) opened: u64,
    pub(super) subscriptions: BTreeMap<String, u64>,
    /// What its gateway has not said to have.
    pub(super) waiting: VecDeque<(u64, Arc<ConnItem>)>,
    pub(super) bytes: usize,
    /// The version of the last item.
    pub(super) last: u64,
    /// The gateway's question.
    pub(super) poll: Option<Open>,
    pub(super) due: Instant,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Its end is told; the turn that makes it is still to come.
    Closing(u16, String),
    /// Ended, and not in the store any more; kept until the gateway knows.
    Gone,
}

/// The connections of one actor.
#[derive(Default)]
pub(super) struct Room {
    pub(super) conns: BTreeSet<ConnId>,
    /// Versions whose items are in the store, with their size.
    pub(super) told: VecDeque<(u64, usize)>,
    pub(super) told_bytes: usize,
    /// Items up to this version have been put into the lines.
    pub(super) delivered: u64,
}

/// Items of a committed turn on their way into the lines.
pub(crate) struct Deliveries {
    pub(super) actor: ActorId,
    pub(super) version: u64,
    pub(super) items: Vec<(Arc<ConnItem>, Vec<ConnId>)>,
}

impl Line {
    /// Whether nothing may come behind what waits: it was cut, or its actor is gone.
    pub(super) fn is_told_its_end(&self) -> bool {
        self.waiting
            .back()
            .is_some_and(|(version, _)| *version == u64::MAX)
    }

    /// Whether it is among its actor's connections.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn new(actor: ActorId, seat: Arc<ConnSeat>, opened: u64, due: Instant) -> Self {
        Self {
            actor,
            seat,
            opened,
            subscriptions: BTreeMap::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            last: 0,
            poll: None,
            due,
            phase: Phase::Open,
        }
    }

    pub(super) fn push(&mut self, version: u64, item: Arc<ConnItem>) {
        self.bytes += size_of_item(&item);
        self.last = self.last.max(version);
        self.waiting.push_back((version, item));
    }

    /// The gateway has everything up to `seen`.
    pub(super) fn forget(&mut self, seen: u64) {
        while self.waiting.front().is_some_and(|(version, _)| *version <= seen) {
            if let Some((_, item)) = self.waiting.pop_front() {
                self.bytes = self.bytes.saturating_sub(size_of_item(&item));
            }
        }
    }

    pub(super) fn hears(&self, to: Audience, item: &ConnItem, version: u64) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let listens = || match item {
            ConnItem::Event { name, .. } => {
                self.subscriptions.get(name).is_some_and(|since| version > *since)
            }
            ConnItem::Message { .. } | ConnItem::Close { .. } => false,
        };
        match to {
            Audience::One(conn) => conn == self.seat.id && version >= self.opened,
            Audience::Everyone => listens(),
            Audience::EveryoneBut(conn) => conn != self.seat.id && listens(),
        }
    }

    /// Whole turns from the front, as many as one answer may hold.
    pub(super) fn page(&self) -> Vec<(u64, ConnItem)> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        let mut last = 0;
        for (version, item) in &self.waiting {
            if *version != last && bytes > ANSWER_BYTES {
                break;
            }
            last = *version;
            bytes += size_of_item(item);
            page.push((*version, ConnItem::clone(item)));
        }
        page
    }

    pub(super) fn record(&self) -> ConnRecord {
        let seat = &self.seat;
        ConnRecord {
            kind: seat.kind,
            path: seat.path.clone(),
            params: seat.params.as_ref().map(|params| params.to_vec()),
            state: seat.state.to_vec(),
            opened: self.opened,
            subscriptions: self.subscriptions.iter().map(|(n, v)| (n.clone(), *v)).collect(),
            closing: match &self.phase {
                Phase::Closing(code, reason) => Some((*code, reason.clone())),
                Phase::Open | Phase::Gone => None,
            },
        }
    }
}

pub(super) fn size_of_item(item: &ConnItem) -> usize {
    ITEM_BYTES
        + match item {
            ConnItem::Event { name, args } => name.len() + args.len(),
            ConnItem::Message { data, .. } => data.len(),
            ConnItem::Close { reason, .. } => reason.len(),
        }
}
