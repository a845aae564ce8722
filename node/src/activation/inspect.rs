//! What an actor is made of, for those who look into it.
//!
//! Not here: who may (gateway).

use ciborium::Value;
use clinch_actor::{Error, encode};
use clinch_types::{ActorId, CallReply, ConnKind, codec, limits};

use super::slot::Open;
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
                ("connections", self.shown_conns(id)),
                ("queue", self.shown_queue(id)?),
            ];
            let output = encode(&map(parts))?;
            match output.len() {
                len if len <= limits::REPLY_MAX => Ok(output),
                len => {
                    let max = limits::REPLY_MAX;
                    let message = format!("the actor takes {len} bytes to show, at most {max} are allowed");
                    Err(Error::new(
                        clinch_types::group::MESSAGE,
                        "outgoing_too_long",
                        message,
                    ))
                }
            }
        });
        let (version, seq) = self
            .slots
            .get(&id)
            .map_or_else(Default::default, |slot| (slot.version, slot.last_seq));
        let result = match shown {
            Ok(output) => Ok(CallReply {
                meta: self.call_meta(id, version, open.created),
                output,
            }),
            Err(error) => Err(self.explain(id, open.request, &error)),
        };
        self.answer_after(seq, open, result);
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

    fn shown_queue(&self, id: ActorId) -> Result<Value, Error> {
        let range = Prefix::of(crate::shard::keys::with_id(b'Q', id, &[]));
        let rows = self
            .provisional
            .scan(range.start(), range.end(), limits::QUEUE_MESSAGES_MAX, false)
            .map_err(Error::internal)?;
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
