//! Durable queues of the shard's actors: messages added, dealt with, and senders that wait for that.
//!
//! Invariant: a message is removed in the batch of the turn that settles it, together with the answer to a sender that
//! waits. A sender that asks again finds its message, not a second one: the message carries its request.
//! Not here: who works on which message (`clinch_actor::Leases`).

use std::collections::BTreeMap;

use clinch_actor::{Error, MessageId, QueueOp, Settle};
use clinch_types::{ActorId, CallError, CallReply, RequestId, Version, code, codec, group, limits, planted};

use super::slot::Open;
use crate::shard::records::{self, MessageRecord, Prefix};
use crate::shard::{Owner, Release, TurnEnd};

/// Low bits of a message's number that count within a millisecond. Together with 41 bits of time they stay below 2^53,
/// what JavaScript counts exactly.
const COUNT_BITS: u32 = 10;

/// What an awake actor's queues hold. Loaded when first needed.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// In all queues.
    pub(crate) messages: usize,
    /// The last number, by queue.
    tails: BTreeMap<String, u64>,
    /// Messages whose sender waits.
    waiters: BTreeMap<RequestId, (String, MessageId)>,
}

impl Owner {
    /// What the actor's queues hold. `None` when it is not awake or the store fails, which ends the ownership.
    pub(crate) fn stock(&mut self, id: ActorId) -> Option<&mut Stock> {
        if self.slots.get(&id)?.stock.is_none() {
            let stock = match self.load_stock(id) {
                Ok(stock) => stock,
                Err(error) => {
                    self.fail(format!("the queues of actor {id} cannot be read: {error}"));
                    return None;
                }
            };
            self.slots.get_mut(&id)?.stock = Some(Box::new(stock));
        }
        self.slots.get_mut(&id)?.stock.as_deref_mut()
    }

    fn load_stock(&self, id: ActorId) -> std::io::Result<Stock> {
        let range = Prefix::of(crate::shard::keys::with_id(b'Q', id, &[]));
        let mut stock = Stock::default();
        for (key, value) in self
            .provisional
            .scan(range.start(), range.end(), usize::MAX, false)?
        {
            let record: MessageRecord = codec::decode(&value).map_err(std::io::Error::other)?;
            let Some((queue, number)) = records::parse_message(&key) else {
                return Err(std::io::Error::other("malformed key"));
            };
            stock.messages += 1;
            stock.tails.insert(queue.to_owned(), number.0);
            if let Some((request, _)) = record.waiter {
                stock.waiters.insert(request, (queue.to_owned(), number));
            }
        }
        Ok(stock)
    }

    /// Whether a further `pushes` messages are within the limit.
    pub(crate) fn check_room(&mut self, id: ActorId, pushes: usize) -> Result<(), Error> {
        if pushes == 0 {
            return Ok(());
        }
        let have = self.stock(id).map_or(0, |stock| stock.messages);
        if have + pushes <= limits::QUEUE_MESSAGES_MAX {
            return Ok(());
        }
        let message = format!(
            "the queues of actor {id} hold {have} messages, at most {} are allowed",
            limits::QUEUE_MESSAGES_MAX
        );
        Err(Error::new(group::QUEUE, code::FULL, message))
    }

    /// Refuses a turn that settles a message which another turn has taken meanwhile: what it did would be done twice.
    pub(crate) fn check_settled(&self, id: ActorId, ops: &[QueueOp]) -> Result<(), Error> {
        for op in ops {
            let QueueOp::Settle {
                queue, id: number, ..
            } = op
            else {
                continue;
            };
            let there = self.provisional.get(&records::message(id, queue, *number));
            if there.map_err(Error::internal)?.is_none() && !planted!("settled-twice") {
                let message =
                    format!("message {number} of queue {queue:?} was settled by another turn meanwhile");
                return Err(Error::new(group::QUEUE, "lease_lost", message));
            }
        }
        Ok(())
    }

    /// A message from outside of the actor.
    pub(crate) fn push(&mut self, id: ActorId, open: Open, queue: &str, body: Vec<u8>, wait: bool) {
        let request = open.request;
        if wait {
            if request.seq == 0 {
                let error = Error::new(
                    group::QUEUE,
                    "no_request_id",
                    "a sender that waits needs a request id",
                );
                return self.answer(open, Err(error.into_call_error("")));
            }
            if open.chain.contains(&id) {
                // Settling the message takes a turn, and the actor's turn waits for that.
                let chain = open.chain.iter().copied().chain([id]).collect();
                return self.answer(open, Err(CallError::Deadlock { chain }));
            }
            if self
                .stock(id)
                .is_some_and(|stock| stock.waiters.contains_key(&request))
            {
                // Asked again, after a change of owner: the message is there, and its sender waits on.
                self.beside.waiting.insert(request, (id, open));
                return;
            }
        }
        if let Err(error) = self.check_room(id, 1) {
            let error = self.explain(id, request, &error);
            return self.answer(open, Err(error));
        }
        let mut written = Vec::new();
        let waiter = wait.then_some((request, open.long_dedup));
        let number = self.push_message(id, queue, body, waiter, &mut written);
        let release = if wait {
            self.beside.waiting.insert(request, (id, open));
            None
        } else {
            let output = match clinch_actor::encode(&number) {
                Ok(output) => output,
                Err(error) => return self.fail(format!("a message's number cannot be encoded: {error}")),
            };
            let reply = CallReply {
                meta: self.call_meta(id, self.version_of(id), open.created),
                output,
            };
            if !planted!("push-again") {
                self.record_answer(request, open.long_dedup, &reply);
            }
            Some(Release::Call {
                request,
                reply: open.reply,
                result: Ok(reply),
            })
        };
        self.pipeline.turn(TurnEnd {
            actor: id,
            release,
            events: None,
            provisional: written,
        });
    }

    pub(crate) fn version_of(&self, id: ActorId) -> Version {
        self.slots.get(&id).map_or_else(Version::default, |s| s.version)
    }

    /// Writes a message at the end of a queue.
    pub(crate) fn push_message(
        &mut self,
        id: ActorId,
        queue: &str,
        body: Vec<u8>,
        waiter: Option<(RequestId, bool)>,
        written: &mut Vec<Vec<u8>>,
    ) -> MessageId {
        let now = self.context.clock.wall();
        let Some(stock) = self.stock(id) else {
            return MessageId::default();
        };
        let tail = stock.tails.entry(queue.to_owned()).or_default();
        *tail = (*tail + 1).max(now.0 << COUNT_BITS);
        let number = MessageId(*tail);
        stock.messages += 1;
        if let Some((request, _)) = waiter {
            stock.waiters.insert(request, (queue.to_owned(), number));
        }
        let record = MessageRecord {
            pushed: now,
            not_before: now,
            retries: 0,
            waiter,
            body,
        };
        self.put_message(id, queue, number, &record, written);
        number
    }

    fn put_message(
        &mut self,
        id: ActorId,
        queue: &str,
        number: MessageId,
        record: &MessageRecord,
        written: &mut Vec<Vec<u8>>,
    ) {
        match codec::encode(record) {
            Ok(bytes) => self.put(written, records::message(id, queue, number), bytes.into()),
            Err(error) => self.fail(format!("a queue message cannot be encoded: {error}")),
        }
    }

    /// A turn has dealt with a message. One that is gone already is left alone.
    pub(crate) fn settle_message(
        &mut self,
        id: ActorId,
        queue: &str,
        number: MessageId,
        how: Settle,
        written: &mut Vec<Vec<u8>>,
    ) {
        let key = records::message(id, queue, number);
        let record = match self.provisional.get(&key) {
            Ok(Some(bytes)) => codec::decode::<MessageRecord>(&bytes),
            Ok(None) => return,
            Err(error) => return self.fail(format!("the store cannot be read: {error}")),
        };
        let mut record = match record {
            Ok(record) => record,
            Err(error) => {
                return self.fail(format!("message {number} of actor {id} cannot be read: {error}"));
            }
        };
        let result = match how {
            Settle::Retry(delay) => {
                record.not_before = self.context.clock.wall().after(delay);
                record.retries = record.retries.saturating_add(1);
                return self.put_message(id, queue, number, &record, written);
            }
            Settle::Complete(value) => Ok(value),
            Settle::Reject(error) => Err(error),
        };
        // Mostly: one that never went would be missed by nobody who looks for loss.
        if !(planted!("settled-stays") && number.0.is_multiple_of(4)) {
            self.delete(written, key);
        }
        if let Some(stock) = self.stock(id) {
            stock.messages = stock.messages.saturating_sub(1);
            if let Some((request, _)) = &record.waiter {
                stock.waiters.remove(request);
            }
        }
        let Some((request, long)) = record.waiter else {
            return;
        };
        let result = match result {
            Ok(value) => {
                let reply = CallReply {
                    meta: self.call_meta(id, self.version_of(id), false),
                    output: Vec::from(value),
                };
                self.record_answer(request, long, &reply);
                Ok(reply)
            }
            Err(error) => Err(CallError::Failed(error)),
        };
        // Without an open call the sender has not found this owner yet; it will ask, and find the answer.
        if let Some((_, open)) = self.beside.waiting.remove(&request) {
            let release = Release::Call {
                request,
                reply: open.reply,
                result,
            };
            self.pipeline.turn(TurnEnd {
                actor: id,
                release: Some(release),
                events: None,
                provisional: Vec::new(),
            });
        }
    }

    /// The actor is gone: nobody will deal with its messages any more.
    pub(crate) fn dismiss_senders(&mut self, id: ActorId, seq: u64) {
        let gone: Vec<RequestId> = self
            .beside
            .waiting
            .iter()
            .filter(|(_, (actor, _))| *actor == id)
            .map(|(request, _)| *request)
            .collect();
        for request in gone {
            if let Some((_, open)) = self.beside.waiting.remove(&request) {
                let message = format!("actor {id} was destroyed before it dealt with the message");
                let error = Error::new(group::ACTOR, code::NOT_FOUND, message);
                self.answer_after(seq, open, Err(error.into_call_error("")));
            }
        }
    }
}
