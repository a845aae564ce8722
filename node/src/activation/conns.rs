//! Connections of the shard's actors: who is there, and what turns do with them.
//!
//! Invariant (G6, G8): an item is handed to a gateway only after its turn has committed, in the order of the actor's
//! versions, and is kept until the gateway says that it has it. What may have to be told again is in the store, so a new
//! owner goes on where the old one ended; a connection that cannot be told everything is ended, never passed over.
//! Connections neither wake their actor nor keep it awake.
//! Not here: the turns that open, use and end them (`visits`), gateways that ask (`told`), sockets (gateway).

use std::collections::BTreeSet;
use std::sync::Arc;

use clinch_actor::{Audience, ConnOp, ConnSeat, EventOut};
use clinch_types::{
    ActorError, ActorId, CallReply, ConnId, ConnItem, Version, codec, group, limits, planted,
};
use tokio::time::Instant;

use super::lines::{Deliveries, Line, Phase};
use super::slot::Open;
use super::told::LOST;
use crate::shard::conn_records::{self, ConnRecord, ToldItem, ToldRecord};
use crate::shard::{Owner, keys};

/// Bytes that may wait for one connection when a further turn has something for it; beyond, its reader is too slow.
pub(super) const WAITING_MAX: usize = 4 << 20;
/// Turns of one actor that are kept to be told again.
const TOLD_MAX: usize = 1024;
/// Turns after which it is worth looking which are still needed.
const TOLD_MIN: usize = 16;
/// The close code of a connection whose reader is too slow.
const TOO_SLOW: u16 = 1013;

/// What there is to say about a connection that nobody here knows.
pub(super) fn unknown(conn: ConnId) -> ActorError {
    let message = format!("there is no connection {conn}, it has ended");
    ActorError::new(group::ACTOR, "connection_ended", message)
}

impl Owner {
    /// Reads the connections that earlier owners left.
    pub(crate) fn load_conns(&mut self) -> std::io::Result<()> {
        let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        let due = Instant::now() + LOST;
        for (key, value) in self.provisional.scan_all(b"C")? {
            let (actor, conn) = conn_records::parse_conn(&key).ok_or_else(|| bad("key of a connection"))?;
            let record: ConnRecord =
                codec::decode(&value).map_err(|e| bad(&format!("record of connection {conn}: {e}")))?;
            let mut line = Line::new(actor, Arc::new(record.seat(conn)), record.opened, due);
            line.subscriptions = record.subscriptions.into_iter().collect();
            match record.closing {
                Some((code, reason)) => {
                    line.phase = Phase::Closing(code, reason);
                    self.conns.leaving.push(conn);
                }
                None => self.host.seats().put(actor, line.seat.clone()),
            }
            self.conns.rooms.entry(actor).or_default().conns.insert(conn);
            self.conns.due.insert((due, conn));
            self.conns.lines.insert(conn, line);
        }
        if self.conns.lines.is_empty() || planted!("told-forgotten") {
            return Ok(());
        }
        for (key, value) in self.provisional.scan_all(b"E")? {
            let (actor, version) = conn_records::parse_told(&key).ok_or_else(|| bad("key of an event"))?;
            let Some(room) = self.conns.rooms.get_mut(&actor) else {
                continue;
            };
            let items =
                conn_records::read_told(&value).map_err(|e| bad(&format!("events of {actor}: {e}")))?;
            room.told.push_back((version, value.len()));
            room.told_bytes += value.len();
            room.delivered = version;
            for told in items {
                let (to, item) = (told.to(), Arc::new(told.item));
                for conn in &room.conns {
                    if let Some(line) = self.conns.lines.get_mut(conn)
                        && line.hears(to, &item, version)
                    {
                        line.push(version, item.clone());
                    }
                }
            }
        }
        for line in self.conns.lines.values_mut() {
            if let Phase::Closing(code, reason) = line.phase.clone() {
                line.push(u64::MAX, Arc::new(ConnItem::Close { code, reason }));
            }
        }
        Ok(())
    }

    /// Whether an actor has as many connections as it may.
    pub(crate) fn check_conns(&self, actor: ActorId) -> Result<(), clinch_actor::Error> {
        let open = self.conns.rooms.get(&actor).map_or(0, |room| room.conns.len());
        if open < limits::CONNS_MAX {
            return Ok(());
        }
        let max = limits::CONNS_MAX;
        let message = format!("actor {actor} has {open} open connections, at most {max} are allowed");
        Err(clinch_actor::Error::new(
            group::ACTOR,
            "too_many_connections",
            message,
        ))
    }

    /// A connection is opened by the turn that is being written.
    pub(crate) fn open_conn(&mut self, actor: ActorId, seat: ConnSeat, written: &mut Vec<Vec<u8>>) {
        let opened = self.slots.get(&actor).map_or(0, |slot| slot.version.0 + 1);
        let (conn, due) = (seat.id, Instant::now() + LOST);
        let seat = Arc::new(seat);
        self.host.seats().put(actor, seat.clone());
        self.conns.rooms.entry(actor).or_default().conns.insert(conn);
        self.conns.due.insert((due, conn));
        self.conns.lines.insert(conn, Line::new(actor, seat, opened, due));
        self.put_conn(conn, written);
    }

    fn put_conn(&mut self, conn: ConnId, written: &mut Vec<Vec<u8>>) {
        let Some(line) = self.conns.lines.get(&conn) else {
            return;
        };
        let key = conn_records::conn(line.actor, conn);
        match codec::encode(&line.record()) {
            Ok(bytes) => self.put(written, key, bytes.into()),
            Err(error) => self.fail(format!("a connection cannot be encoded: {error}")),
        }
    }

    /// What an executed turn has for its connections: the writes now, the items when it is committed. `durable` is
    /// whether the turn is written at all.
    pub(crate) fn tell_conns(
        &mut self,
        actor: ActorId,
        version: Version,
        events: &[EventOut],
        ops: Vec<ConnOp>,
        durable: Option<&mut Vec<Vec<u8>>>,
    ) -> Option<Deliveries> {
        if !self.conns.rooms.contains_key(&actor) || (events.is_empty() && ops.is_empty()) {
            return None;
        }
        let mut nothing = Vec::new();
        let is_durable = durable.is_some();
        let written = durable.unwrap_or(&mut nothing);
        let mut told: Vec<ToldItem> = events
            .iter()
            .map(|event| {
                let (name, args) = (event.name.clone(), event.args.to_vec());
                ToldItem::new(event.to, ConnItem::Event { name, args })
            })
            .collect();
        let mut closed = Vec::new();
        for op in ops {
            match op {
                ConnOp::State { conn, state } => self.set_conn_state(actor, conn, state, written),
                ConnOp::Message { conn, text, data } => {
                    let data = data.into();
                    told.push(ToldItem::new(
                        Audience::One(conn),
                        ConnItem::Message { text, data },
                    ));
                }
                ConnOp::Close { conn, code, reason } => closed.push((conn, code, reason)),
            }
        }
        let mut items = self.addressed(actor, version.0, &told);
        // Nobody else can ever need it: a subscription counts for later turns.
        let mut heard = items.iter().map(|(_, conns)| !conns.is_empty());
        told.retain(|_| heard.next().unwrap_or(false));
        items.retain(|(_, conns)| !conns.is_empty());
        if is_durable && !told.is_empty() {
            self.keep_told(actor, version.0, told, written);
        }
        for (conn, code, reason) in closed {
            if self.begin_close(conn, code, &reason, written) {
                items.push((Arc::new(ConnItem::Close { code, reason }), vec![conn]));
            }
        }
        let version = version.0;
        (!items.is_empty()).then_some(Deliveries {
            actor,
            version,
            items,
        })
    }

    fn set_conn_state(
        &mut self,
        actor: ActorId,
        conn: ConnId,
        state: bytes::Bytes,
        written: &mut Vec<Vec<u8>>,
    ) {
        // A call without a socket is a connection that nothing is kept of.
        let Some(line) = self.conns.lines.get_mut(&conn).filter(|line| line.actor == actor) else {
            return;
        };
        line.seat = Arc::new(ConnSeat {
            state,
            ..ConnSeat::clone(&line.seat)
        });
        if line.phase == Phase::Open {
            self.host.seats().put(actor, line.seat.clone());
            self.put_conn(conn, written);
        }
    }

    /// Who hears what. Decided by the subscriptions at the turn's place in the actor's history.
    fn addressed(
        &self,
        actor: ActorId,
        version: u64,
        told: &[ToldItem],
    ) -> Vec<(Arc<ConnItem>, Vec<ConnId>)> {
        let Some(room) = self.conns.rooms.get(&actor) else {
            return Vec::new();
        };
        let hears = |conn: &ConnId, to, item: &ConnItem| {
            let line = self.conns.lines.get(conn);
            line.is_some_and(|line| line.hears(to, item, version))
        };
        told.iter()
            .map(|told| {
                let item = Arc::new(told.item.clone());
                let to = told.to();
                let heard = match to {
                    Audience::One(conn) => Vec::from_iter(room.conns.contains(&conn).then_some(conn)),
                    Audience::Everyone | Audience::EveryoneBut(_) => room
                        .conns
                        .iter()
                        .copied()
                        .filter(|conn| hears(conn, to, &item))
                        .collect(),
                };
                (item, heard)
            })
            .collect()
    }

    /// Writes what a turn told, and lets go of what no connection needs any more.
    fn keep_told(&mut self, actor: ActorId, version: u64, items: Vec<ToldItem>, written: &mut Vec<Vec<u8>>) {
        let bytes = match codec::encode(&ToldRecord { items }) {
            Ok(bytes) => bytes,
            Err(error) => return self.fail(format!("events cannot be encoded: {error}")),
        };
        let Some(room) = self.conns.rooms.get_mut(&actor) else {
            return;
        };
        room.told.push_back((version, bytes.len()));
        room.told_bytes += bytes.len();
        self.put(written, conn_records::told(actor, version), bytes.into());
        let Some(room) = self.conns.rooms.get(&actor) else {
            return;
        };
        if room.told.len() < TOLD_MIN && room.told_bytes < WAITING_MAX {
            return;
        }
        let needed = |conn: &ConnId| self.conns.lines.get(conn)?.waiting.front().map(|(v, _)| *v);
        let needed = room.conns.iter().filter_map(needed).min().unwrap_or(u64::MAX);
        let mut slow = BTreeSet::new();
        loop {
            let Some(room) = self.conns.rooms.get_mut(&actor) else {
                return;
            };
            let Some(&(oldest, len)) = room.told.front() else {
                break;
            };
            let full = room.told.len() > TOLD_MAX || room.told_bytes > WAITING_MAX;
            // What is not in the lines yet may still have to be told by a later owner.
            if oldest > room.delivered || (oldest >= needed && !full) {
                break;
            }
            room.told.pop_front();
            room.told_bytes -= len;
            self.delete(written, conn_records::told(actor, oldest));
            let room = self.conns.rooms.get(&actor);
            let behind = |conn: &&ConnId| {
                let line = self.conns.lines.get(conn);
                line.and_then(|line| line.waiting.front())
                    .is_some_and(|(v, _)| *v <= oldest)
            };
            if oldest >= needed {
                slow.extend(
                    room.into_iter()
                        .flat_map(|room| room.conns.iter().filter(behind).copied()),
                );
            }
        }
        for conn in slow {
            self.cut(conn, written);
        }
    }

    /// A turn ends a connection. `false` when it is ending already.
    pub(super) fn begin_close(
        &mut self,
        conn: ConnId,
        code: u16,
        reason: &str,
        written: &mut Vec<Vec<u8>>,
    ) -> bool {
        let Some(line) = self
            .conns
            .lines
            .get_mut(&conn)
            .filter(|line| line.phase == Phase::Open)
        else {
            return false;
        };
        line.phase = Phase::Closing(code, reason.to_owned());
        let actor = line.actor;
        self.host.seats().remove(actor, conn);
        self.put_conn(conn, written);
        self.conns.leaving.push(conn);
        true
    }

    /// Ends a connection whose reader is too slow: what waits for it is let go.
    pub(super) fn cut(&mut self, conn: ConnId, written: &mut Vec<Vec<u8>>) {
        let reason = "too slow: too many events were waiting";
        if self.begin_close(conn, TOO_SLOW, reason, written)
            && let Some(line) = self.conns.lines.get_mut(&conn)
        {
            tracing::info!(%conn, actor = %line.actor, bytes = line.bytes, "a connection reads too slowly and is ended");
            line.waiting.clear();
            line.bytes = 0;
            let (code, reason) = (TOO_SLOW, reason.to_owned());
            line.push(u64::MAX, Arc::new(ConnItem::Close { code, reason }));
            self.answer_poll(conn);
        }
    }

    /// The type of an actor that may be asleep.
    pub(crate) fn type_of(&mut self, actor: ActorId) -> Option<Arc<dyn clinch_actor::ActorType>> {
        if let Some(slot) = self.slots.get(&actor) {
            return Some(slot.actor_type.clone());
        }
        let bytes = match self.provisional.get(&keys::record(actor)) {
            Ok(bytes) => bytes?,
            Err(error) => {
                self.fail(format!("the store cannot be read: {error}"));
                return None;
            }
        };
        let record: keys::ActorRecord = codec::decode(&bytes).ok()?;
        self.actor_type(&record.name)
    }

    /// Connections whose end is to be made a turn.
    pub(crate) fn take_leaving(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.conns.leaving)
    }

    /// The actor of a connection that has not ended.
    pub(crate) fn actor_of(&self, conn: ConnId) -> Option<ActorId> {
        let line = self.conns.lines.get(&conn);
        line.filter(|line| line.phase != Phase::Gone)
            .map(|line| line.actor)
    }

    /// From here on the connection is not among its actor's any more.
    pub(crate) fn unlist_conn(&mut self, conn: ConnId) -> Option<Arc<ConnSeat>> {
        let line = self
            .conns
            .lines
            .get(&conn)
            .filter(|line| line.phase != Phase::Gone)?;
        self.host.seats().remove(line.actor, conn);
        Some(line.seat.clone())
    }

    /// Ends a connection for good: nothing of it stays in the store.
    pub(crate) fn drop_conn(&mut self, conn: ConnId, written: &mut Vec<Vec<u8>>) {
        let Some(line) = self.conns.lines.get_mut(&conn) else {
            return;
        };
        let actor = line.actor;
        let told = matches!(
            std::mem::replace(&mut line.phase, Phase::Gone),
            Phase::Closing(..)
        );
        self.host.seats().remove(actor, conn);
        if !told {
            // Its gateway has ended it, or is lost.
            self.remove_line(conn);
        }
        if !planted!("leaves-again") {
            self.delete(written, conn_records::conn(actor, conn));
        }
        let Some(room) = self.conns.rooms.get_mut(&actor) else {
            return;
        };
        room.conns.remove(&conn);
        if room.conns.is_empty()
            && let Some(room) = self.conns.rooms.remove(&actor)
        {
            for (version, _) in room.told {
                self.delete(written, conn_records::told(actor, version));
            }
        }
    }

    /// The actor is destroyed: its connections end with it. What they were told is deleted with the rest of the actor.
    pub(crate) fn drop_conns_of(&mut self, actor: ActorId, written: &mut Vec<Vec<u8>>) -> Option<Deliveries> {
        let room = self.conns.rooms.remove(&actor)?;
        let conns: Vec<ConnId> = room.conns.into_iter().collect();
        for conn in &conns {
            self.host.seats().remove(actor, *conn);
            self.delete(written, conn_records::conn(actor, *conn));
            if let Some(line) = self.conns.lines.get_mut(conn) {
                line.phase = Phase::Gone;
            }
        }
        let (code, reason) = (1000, String::new());
        Some(Deliveries {
            actor,
            version: u64::MAX,
            items: vec![(Arc::new(ConnItem::Close { code, reason }), conns)],
        })
    }

    pub(super) fn remove_line(&mut self, conn: ConnId) {
        if let Some(line) = self.conns.lines.remove(&conn) {
            self.conns.due.remove(&(line.due, conn));
            if let Some(open) = line.poll {
                self.answer(open, Err(unknown(conn).into()));
            }
        }
    }

    /// Begins or ends a subscription; it counts for turns that begin later.
    pub(crate) fn subscribe(&mut self, conn: ConnId, event: String, on: bool, open: Open) {
        let known = self
            .conns
            .lines
            .get(&conn)
            .filter(|line| line.phase == Phase::Open);
        let Some(actor) = known.map(|line| line.actor) else {
            return self.answer_after(self.horizon(), open, Err(unknown(conn).into()));
        };
        let version = match self.version_now(actor) {
            Ok(version) => version,
            Err(error) => return self.fail(format!("the store cannot be read: {error}")),
        };
        let Some(line) = self.conns.lines.get_mut(&conn) else {
            return;
        };
        if on
            && line.subscriptions.len() >= limits::SUBSCRIPTIONS_MAX
            && !line.subscriptions.contains_key(&event)
        {
            let (have, max) = (line.subscriptions.len(), limits::SUBSCRIPTIONS_MAX);
            let message = format!("this connection has {have} subscriptions, at most {max} are allowed");
            let error = ActorError::new(group::ACTOR, "too_many_subscriptions", message);
            return self.answer(open, Err(error.into()));
        }
        let changed = match on {
            true => line.subscriptions.entry(event).or_insert(version) == &version,
            false => line.subscriptions.remove(&event).is_some(),
        };
        let mut written = Vec::new();
        if changed {
            self.put_conn(conn, &mut written);
        }
        self.end_beside(actor, written);
        let meta = self.call_meta(actor, Version(version), false);
        let output = Vec::new();
        self.answer_after(self.horizon(), open, Ok(CallReply { meta, output }));
    }

    /// The version of an actor that may be asleep, executed turns included.
    fn version_now(&self, actor: ActorId) -> std::io::Result<u64> {
        if let Some(slot) = self.slots.get(&actor) {
            return Ok(slot.version.0);
        }
        let stored = self.provisional.get(&keys::state(actor))?;
        let read = |bytes| keys::read_state(&bytes).map_err(std::io::Error::other);
        Ok(stored
            .map(read)
            .transpose()?
            .map_or(0, |(version, _, _)| version.0))
    }
}
