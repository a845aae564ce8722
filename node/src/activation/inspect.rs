//! What an actor is made of, for those who look into it, and what they change in it by hand.
//!
//! Invariant: a change by hand is a turn like any other: alone, committed before it is answered, undone as a whole.
//! Not here: who may (gateway).

use bytes::Bytes;
use ciborium::Value;
use clinch_actor::{ActionKind, Error, MessageId, Origin, Settle, encode};
use clinch_types::{ActorError, ActorId, ConnKind, codec, group, limits};
use tokio::time::Instant;

use super::slot::{Open, Running};
use super::turns::TurnFor;
use crate::shard::Owner;
use crate::shard::records::{self, MessageRecord, Prefix};

/// Messages of queues that are shown.
const MESSAGES_MAX: usize = 100;
/// Connections that are shown.
const CONNS_MAX: usize = 1000;

fn map(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Map(
        members
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .collect(),
    )
}

/// CBOR of ours as a value. What cannot be read is shown as nothing.
fn value(bytes: &[u8]) -> Value {
    clinch_actor::decode::<clinch_actor::Any>("a stored value", bytes).map_or(Value::Null, |any| any.0)
}

impl Owner {
    /// Shows the actor as the last executed turn left it, once that is committed.
    pub(crate) fn inspect(&mut self, id: ActorId, open: Open) {
        let shown = self.encode_state(id).and_then(|state| {
            let parts = [
                ("state", value(&state)),
                ("isStateEnabled", self.has_state(id).into()),
                ("connections", self.shown_conns(id)),
                ("queue", self.shown_queue(id)?),
            ];
            let output = encode(&map(parts))?;
            match output.len() {
                len if len <= limits::REPLY_MAX => Ok(output),
                len => {
                    let max = limits::REPLY_MAX;
                    let message = format!("the actor takes {len} bytes to show, at most {max} are allowed");
                    Err(Error::new(group::MESSAGE, "outgoing_too_long", message))
                }
            }
        });
        let result = match shown {
            Ok(output) => Ok(self.reply_of(id, &open, output)),
            Err(error) => Err(self.explain(id, open.request, &error)),
        };
        // Messages come and go beside the turns: what is shown of them is committed with whatever was executed last.
        self.answer_after(self.horizon(), open, result);
    }

    fn has_state(&self, id: ActorId) -> bool {
        self.slots
            .get(&id)
            .is_some_and(|slot| slot.actor_type.has_state())
    }

    /// Puts a state that somebody wrote in the place of the actor's own.
    pub(crate) fn start_replace(&mut self, id: ActorId, open: Open, state: Bytes) {
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        let began = Instant::now();
        let deadline = began + actor_type.options().action_timeout;
        let init = TurnFor {
            what: "replace the state",
            began,
            request: open.request,
            chain: &open.chain,
            origin: Origin::Call,
            kind: ActionKind::Exclusive,
            deadline,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        let Some(old) = self.slots.get_mut(&id).and_then(|slot| slot.state.take()) else {
            return;
        };
        let future = actor_type.replace(old, turn.clone(), state);
        self.launch(id, future, Running::Action { open }, turn, deadline);
    }

    /// Takes the messages that nobody works on out of the actor's queues, in one commit. Senders that wait hear of it.
    pub(crate) fn clear_queues(&mut self, id: ActorId, open: Open) {
        let idle = self.idle_messages(id);
        let (output, messages) = match idle.and_then(|idle| Ok((encode(&idle.len())?, idle))) {
            Ok(found) => found,
            Err(error) => {
                let error = self.explain(id, open.request, &error);
                return self.answer(open, Err(error));
            }
        };
        let mut written = Vec::new();
        for (queue, number) in messages {
            let message = format!("message {number} of queue {queue:?} was taken out of it by an operator");
            let removed = ActorError::new(group::QUEUE, "removed", message);
            self.settle_message(id, &queue, number, Settle::Reject(removed), &mut written);
        }
        self.end_beside(id, written);
        let reply = self.reply_of(id, &open, output);
        self.commit_answer(id, open, reply);
    }

    /// The actor's messages without those that somebody holds a lease on.
    fn idle_messages(&self, id: ActorId) -> Result<Vec<(String, MessageId)>, Error> {
        let Some(slot) = self.slots.get(&id) else {
            return Ok(Vec::new());
        };
        let leases = slot.life.leases();
        let rows = self.message_rows(id)?;
        let messages = rows.iter().filter_map(|(key, _)| records::parse_message(key));
        let idle = messages.filter(|(queue, number)| leases.is_free(queue, *number));
        Ok(idle.map(|(queue, number)| (queue.to_owned(), number)).collect())
    }

    fn shown_conns(&self, id: ActorId) -> Value {
        let lines = self.conns.of(id).take(CONNS_MAX);
        let shown = lines.map(|line| {
            let seat = &line.seat;
            let kind = match seat.kind {
                ConnKind::Events => "events",
                ConnKind::Raw => "raw",
                ConnKind::Once => "once",
            };
            let details = map([
                ("type", kind.into()),
                ("params", seat.params.as_deref().map_or(Value::Null, value)),
                ("stateEnabled", true.into()),
                ("state", value(&seat.state)),
                (
                    "subscriptions",
                    Value::Array(
                        line.subscriptions
                            .keys()
                            .map(|name| name.as_str().into())
                            .collect(),
                    ),
                ),
                ("isHibernatable", true.into()),
            ]);
            map([
                ("type", kind.into()),
                ("id", seat.id.to_string().into()),
                ("details", details),
            ])
        });
        Value::Array(shown.collect())
    }

    fn message_rows(&self, id: ActorId) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let range = Prefix::of(crate::shard::keys::with_id(b'Q', id, &[]));
        self.provisional
            .scan(range.start(), range.end(), limits::QUEUE_MESSAGES_MAX, false)
            .map_err(Error::internal)
    }

    fn shown_queue(&self, id: ActorId) -> Result<Value, Error> {
        let rows = self.message_rows(id)?;
        let mut messages = Vec::new();
        for (key, bytes) in rows.iter().take(MESSAGES_MAX) {
            let record: MessageRecord = codec::decode(bytes).map_err(Error::internal)?;
            if let Some((name, number)) = records::parse_message(key) {
                messages.push(map([
                    ("id", number.0.to_string().into()),
                    ("name", name.into()),
                    ("createdAtMs", record.pushed.0.into()),
                ]));
            }
        }
        Ok(map([
            ("size", (rows.len() as u64).into()),
            ("maxSize", (limits::QUEUE_MESSAGES_MAX as u64).into()),
            ("truncated", (rows.len() > MESSAGES_MAX).into()),
            ("messages", Value::Array(messages)),
        ]))
    }
}
