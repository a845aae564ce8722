//! Items on their way from committed turns to the gateways that ask for them.
//!
//! Invariant: a gateway gets items only of committed turns, in the order of the actor's versions, and again until it says
//! that it has them.
//! Not here: what turns have for connections (`conns`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clinch_actor::Durability;
use clinch_types::{ActorId, CallReply, ConnId, ConnItem, ConnReply, Epoch, Polled, Version, codec, planted};
use tokio::time::Instant;

use super::conns::{WAITING_MAX, unknown};
use super::lines::{Deliveries, Phase};
use super::slot::Open;
use crate::shard::Owner;

/// How long a gateway's question waits for an item before it is answered with none.
const HOLD: Duration = Duration::from_secs(10);
/// Silence of its gateway after which a connection counts as lost.
pub(super) const LOST: Duration = Duration::from_secs(15);
/// The close code of a connection that its client should open again.
const AGAIN: u16 = 1012;

impl Owner {
    /// Items of a committed turn: into the lines, and out to the gateways that wait.
    pub(crate) fn deliver(&mut self, deliveries: Deliveries) {
        let Deliveries {
            actor,
            version,
            items,
        } = deliveries;
        if let Some(room) = self.conns.rooms.get_mut(&actor) {
            room.delivered = room.delivered.max(version);
        }
        let (mut touched, mut slow) = (BTreeSet::new(), BTreeSet::new());
        for (item, conns) in items {
            for conn in conns {
                let Some(line) = self.conns.lines.get_mut(&conn) else {
                    continue;
                };
                if line.is_told_its_end() {
                    continue;
                }
                if !touched.contains(&conn) && line.bytes > WAITING_MAX && line.phase == Phase::Open {
                    slow.insert(conn);
                }
                touched.insert(conn);
                line.push(version, item.clone());
            }
        }
        for conn in touched {
            match slow.contains(&conn) {
                true => {
                    let mut written = Vec::new();
                    self.cut(conn, &mut written);
                    self.end_beside(actor, written);
                }
                false => self.answer_poll(conn),
            }
        }
    }

    /// Answers a gateway that waits, if there is something for it.
    pub(super) fn answer_poll(&mut self, conn: ConnId) {
        let Some(line) = self
            .conns
            .lines
            .get_mut(&conn)
            .filter(|line| !line.waiting.is_empty())
        else {
            return;
        };
        let Some(open) = line.poll.take() else { return };
        let (actor, items) = (line.actor, line.page());
        if planted!("told-once") {
            line.forget(items.last().map_or(0, |(version, _)| *version));
        }
        self.set_due(conn, Instant::now() + LOST);
        self.answer_polled(actor, open, items);
    }

    fn answer_polled(&mut self, actor: ActorId, open: Open, items: Vec<(u64, ConnItem)>) {
        let epoch = self.epoch;
        match codec::encode(&Polled { epoch, items }) {
            Ok(output) => {
                let meta = self.call_meta(actor, Version::default(), false);
                self.answer(open, Ok(CallReply { meta, output }));
            }
            Err(error) => self.fail(format!("items of a connection cannot be encoded: {error}")),
        }
    }

    /// A gateway asks what there is for a connection, and says what it has.
    pub(crate) fn poll(&mut self, conn: ConnId, seen: u64, epoch: Epoch, open: Open) {
        let Some(line) = self.conns.lines.get(&conn) else {
            // Waits for the lease: an owner that has been deposed must not say so.
            let error = unknown(conn).into();
            return self.answer_after(self.horizon(), open, Err(error));
        };
        let (actor, gone) = (line.actor, line.phase == Phase::Gone);
        if epoch != Epoch(0) && epoch != self.epoch && line.phase == Phase::Open && self.may_have_lost(actor)
        {
            let (mut written, reason) = (Vec::new(), "events may have been lost");
            if self.begin_close(conn, AGAIN, reason, &mut written)
                && let Some(line) = self.conns.lines.get_mut(&conn)
            {
                line.waiting.clear();
                let (code, reason) = (AGAIN, reason.to_owned());
                line.push(u64::MAX, Arc::new(ConnItem::Close { code, reason }));
                self.end_beside(actor, written);
            }
        }
        let Some(line) = self.conns.lines.get_mut(&conn) else {
            return;
        };
        let is_new = epoch != Epoch(0) && epoch != self.epoch;
        if !(planted!("told-again") && is_new) {
            line.forget(seen);
        }
        if gone && line.waiting.is_empty() {
            self.remove_line(conn);
            return self.answer(open, Err(unknown(conn).into()));
        }
        // An older question is one whose answer its gateway does not wait for any more.
        let older = line.poll.replace(open);
        if let Some(older) = older {
            self.answer_polled(actor, older, Vec::new());
        }
        self.set_due(conn, Instant::now() + HOLD);
        self.answer_poll(conn);
    }

    /// Whether events of the last owner may be gone with it: the actor chose a durability that allows that.
    fn may_have_lost(&mut self, actor: ActorId) -> bool {
        let kind = self.type_of(actor);
        kind.is_some_and(|kind| kind.options().durability != Durability::Replicated)
    }

    fn set_due(&mut self, conn: ConnId, at: Instant) {
        let Some(line) = self.conns.lines.get_mut(&conn) else {
            return;
        };
        self.conns.due.remove(&(line.due, conn));
        line.due = at;
        self.conns.due.insert((at, conn));
    }

    /// Answers questions that have waited for long, and ends connections whose gateway is silent.
    pub(crate) fn tick_conns(&mut self) {
        let now = Instant::now();
        while let Some(&(at, conn)) = self.conns.due.first()
            && at <= now
        {
            // Set anew, so that a line whose end cannot be made now is looked at again.
            self.set_due(conn, now + LOST);
            let Some(line) = self.conns.lines.get_mut(&conn) else {
                self.conns.due.pop_first();
                continue;
            };
            let actor = line.actor;
            match (line.poll.take(), &line.phase) {
                (Some(open), _) => self.answer_polled(actor, open, Vec::new()),
                (None, Phase::Gone) => self.remove_line(conn),
                (None, Phase::Open | Phase::Closing(..)) => {
                    tracing::info!(%conn, %actor, "the gateway of a connection is silent; the connection is ended");
                    self.conns.leaving.push(conn);
                }
            }
        }
    }

    /// Questions that nobody here can answer any more.
    pub(crate) fn take_polls(&mut self) -> Vec<Open> {
        self.conns
            .lines
            .values_mut()
            .filter_map(|line| line.poll.take())
            .collect()
    }

    /// An answer to what came over a connection: what the connection is to be told first goes along as a number.
    pub(crate) fn over_conn(&self, conn: ConnId, reply: CallReply) -> CallReply {
        let CallReply { meta, output } = reply;
        let line = self.conns.lines.get(&conn);
        // The close of a connection comes after all answers.
        let after = line.map_or(0, |line| line.last).min(meta.version.0);
        match codec::encode(&ConnReply { after, output }) {
            Ok(output) => CallReply { meta, output },
            // Outputs are bounded far below the limit of a frame.
            Err(error) => {
                tracing::error!(%conn, %error, "an answer cannot be encoded");
                CallReply {
                    meta,
                    output: Vec::new(),
                }
            }
        }
    }
}
