//! Durable queues: messages for an actor that are kept until somebody has dealt with them.
//!
//! Invariant: a message leaves its queue only in a committed turn that settles it. Whoever receives one holds a lease on
//! it: while it lasts nobody else gets the message; when it ends without a word the message comes again (at least once).
//! Settled inside the turn that changes the state, its effect on the state is exactly once.
//! Not here: storing messages, waking their actors (node).

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clinch_types::{ActorError, CallOp, WallMs, code, group, limits};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::turn::Effect;
use crate::{ActionKind, Call, Ctx, Error, RawHandle, Turn, cbor};

/// How long a received message is kept from others, unless [`Queue::lease`] says otherwise.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(60);

/// Names one message of one queue of one actor; never used twice in an actor's life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct MessageId(pub u64);

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its queue.
    pub queue: String,
    /// Its name in there.
    pub id: MessageId,
    /// When it was pushed.
    pub pushed: WallMs,
    /// Not to be received before.
    pub not_before: WallMs,
    /// How often it was given back for another try.
    pub retries: u32,
    /// CBOR of the content.
    pub body: Bytes,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// It is done; CBOR of the result for a sender that waits.
    Complete(Bytes),
    /// It cannot be done; a sender that waits gets the error.
    Reject(ActorError),
    /// It is to be received again, not before so long from now.
    Retry(Duration),
}

/// A change of the actor's queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOp {
    /// A new message at the end.
    Push {
        /// The queue.
        queue: String,
        /// CBOR of the content.
        body: Bytes,
    },
    /// A message is dealt with.
    Settle {
        /// The queue.
        queue: String,
        /// The message.
        id: MessageId,
        /// How.
        how: Settle,
    },
}

impl QueueOp {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Push { queue, body } => queue.len() + body.len() + 40,
            Self::Settle { queue, how, .. } => {
                queue.len()
                    + 16
                    + match how {
                        Settle::Complete(value) => value.len(),
                        Settle::Reject(error) => error.message.len(),
                        Settle::Retry(_) => 0,
                    }
            }
        }
    }
}

/// Who works on which message. In memory: a lease does not outlive its activation, the message does.
#[derive(Debug, Default)]
pub struct Leases {
    held: Mutex<BTreeMap<(String, MessageId), Lease>>,
    next: AtomicU64,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    token: u64,
    until: Instant,
}

impl Leases {
    /// Wakes whoever waits for a message.
    pub(crate) fn changed(&self) {
        self.changed.notify_waiters();
    }

    /// Whether a lease is in force.
    pub(crate) fn any(&self) -> bool {
        let now = Instant::now();
        let mut held = self.held.lock();
        held.retain(|_, lease| lease.until > now);
        !held.is_empty()
    }

    /// Takes one, unless another is in force.
    fn take(&self, queue: &str, id: MessageId, time: Duration) -> Option<u64> {
        let now = Instant::now();
        let mut held = self.held.lock();
        let place = (queue.to_owned(), id);
        if held.get(&place).is_some_and(|lease| lease.until > now) {
            return None;
        }
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        held.insert(
            place,
            Lease {
                token,
                until: now + time,
            },
        );
        Some(token)
    }

    /// Whether nobody works on it.
    pub fn is_free(&self, queue: &str, id: MessageId) -> bool {
        let held = self.held.lock();
        held.get(&(queue.to_owned(), id))
            .is_none_or(|lease| lease.until <= Instant::now())
    }

    fn holds(&self, queue: &str, id: MessageId, token: u64) -> bool {
        let held = self.held.lock();
        held.get(&(queue.to_owned(), id))
            .is_some_and(|lease| lease.token == token && lease.until > Instant::now())
    }

    /// Lets go of one, if it is still the one with this token.
    fn give_back(&self, queue: &str, id: MessageId, token: u64) {
        let place = (queue.to_owned(), id);
        let mut held = self.held.lock();
        if held.get(&place).is_some_and(|lease| lease.token == token) {
            held.remove(&place);
        }
        drop(held);
        self.changed();
    }

    /// When the first of them ends.
    fn next_end(&self) -> Option<Instant> {
        // Those that have ended already wake nobody again.
        let now = Instant::now();
        let held = self.held.lock();
        held.values()
            .map(|lease| lease.until)
            .filter(|until| *until > now)
            .min()
    }
}

fn check_name(queue: &str) -> Result<(), Error> {
    match queue.len() {
        1..=limits::QUEUE_NAME_MAX => Ok(()),
        len => Err(Error::new(
            group::QUEUE,
            "invalid_name",
            format!(
                "queue name has {len} bytes, it must have 1 to {}",
                limits::QUEUE_NAME_MAX
            ),
        )),
    }
}

fn encode_body<M: Serialize + ?Sized>(message: &M) -> Result<Vec<u8>, Error> {
    let body = cbor::to_vec(message)?;
    match body.len() {
        len if len <= limits::QUEUE_MESSAGE_MAX => Ok(body),
        len => Err(Error::new(
            group::QUEUE,
            code::MESSAGE_TOO_LARGE,
            format!(
                "queue message has {len} bytes, at most {} are allowed",
                limits::QUEUE_MESSAGE_MAX
            ),
        )),
    }
}

/// A queue of another actor (or of any, from outside): where messages are pushed to.
pub struct QueueHandle<M> {
    actor: RawHandle,
    queue: String,
    message: PhantomData<fn(M)>,
}

impl<M: Serialize> QueueHandle<M> {
    pub(crate) fn new(actor: RawHandle, queue: String) -> Self {
        Self {
            actor,
            queue,
            message: PhantomData,
        }
    }

    fn op(&self, message: &M, wait: bool) -> Result<CallOp, Error> {
        check_name(&self.queue)?;
        Ok(CallOp::Push {
            queue: self.queue.clone(),
            body: encode_body(message)?,
            wait,
        })
    }

    /// Adds a message at the end. Awaited, it answers when the message is durable; with [`Call::send`], inside a turn,
    /// it leaves with that turn.
    ///
    /// Fails with `queue.full` when the actor has as many messages as it may.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a message is given away: `push(job)` reads better than `push(&job)`"
    )]
    pub fn push(&self, message: M) -> Call<MessageId> {
        self.actor.call(self.op(&message, false))
    }

    /// Adds a message and waits until somebody has dealt with it: [`Message::complete`] gives the value,
    /// [`Message::reject`] the error. Survives a change of owner like every call.
    #[allow(clippy::needless_pass_by_value, reason = "as `push`")]
    pub fn push_and_wait<R>(&self, message: M) -> Call<R> {
        self.actor.call(self.op(&message, true))
    }
}

/// The queues of the actor itself, inside its code: [`Ctx::queue`].
pub struct Queue<M> {
    turn: Arc<Turn>,
    names: Vec<String>,
    lease: Duration,
    message: PhantomData<fn() -> M>,
}

impl<M> Queue<M> {
    pub(crate) fn new(turn: Arc<Turn>, name: String) -> Self {
        Self {
            turn,
            names: vec![name],
            lease: LEASE_DEFAULT,
            message: PhantomData,
        }
    }

    /// Receives from another queue too, when the ones named before have nothing: the first has precedence.
    #[must_use]
    pub fn or(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// How long a received message is kept from others. Default: 60 s. Choose it longer than the work takes.
    #[must_use]
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// How many messages wait, those being worked on included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn len(&self) -> Result<usize, Error> {
        let mut count = 0;
        for name in &self.names {
            check_name(name)?;
            count += self.turn.host.queue(self.turn.actor.id, name, false)?.len();
        }
        Ok(count)
    }

    /// Whether no message waits.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    fn leases(&self) -> &Leases {
        self.turn.life.leases()
    }

    /// The first message nobody works on; else when one that is put off may be received.
    fn look(&self, committed: bool) -> Result<Result<Stored, Option<WallMs>>, Error> {
        let now = self.turn.host.now();
        let mut soonest: Option<WallMs> = None;
        for name in &self.names {
            check_name(name)?;
            for stored in self.turn.host.queue(self.turn.actor.id, name, committed)? {
                if stored.not_before > now {
                    soonest = Some(soonest.map_or(stored.not_before, |s| s.min(stored.not_before)));
                } else if self.leases().is_free(&stored.queue, stored.id) && !self.settled_here(&stored) {
                    return Ok(Ok(stored));
                }
            }
        }
        Ok(Err(soonest))
    }

    fn settled_here(&self, stored: &Stored) -> bool {
        self.turn.peek(|effects| {
            effects.queue.iter().any(
                |op| matches!(op, QueueOp::Settle { queue, id, .. } if *id == stored.id && *queue == stored.queue),
            )
        })
    }
}

impl<M: Serialize> Queue<M> {
    /// Adds a message at the end when this turn commits.
    ///
    /// # Errors
    /// When the message is over its limit, or the turn's effects are; outside of a turn that commits.
    pub fn push(&self, message: &M) -> Result<(), Error> {
        let queue = self.names[0].clone();
        check_name(&queue)?;
        let body = encode_body(message)?.into();
        self.turn.record(Effect::Queue(QueueOp::Push { queue, body }))
    }
}

impl<M: DeserializeOwned> Queue<M> {
    /// In a `&mut self` action: takes the next message out of the queue, for good if this turn commits.
    ///
    /// # Errors
    /// When the message is no `M` (it stays where it is), the store cannot be read, or outside of such an action.
    pub fn pop(&self) -> Result<Option<M>, Error> {
        if self.turn.kind != ActionKind::Exclusive {
            let text =
                "`pop` takes a message with the turn, so it is for `&mut self` actions; elsewhere use `next`";
            return Err(Error::internal(text));
        }
        let Ok(stored) = self.look(false)? else {
            return Ok(None);
        };
        let message = cbor::decode("the queue message", &stored.body)?;
        self.turn.record(Effect::Queue(QueueOp::Settle {
            queue: stored.queue,
            id: stored.id,
            how: Settle::Complete(nothing()),
        }))?;
        Ok(Some(message))
    }

    /// The next message, under a lease; waits for one. `None` when the actor is about to stop: end the loop.
    ///
    /// For `run`, [`Ctx::spawn`] and actions without `self`. A message that is no `M` is rejected and logged.
    ///
    /// # Errors
    /// When the store cannot be read or the shard has moved.
    pub async fn next(&mut self) -> Result<Option<Message<M>>, Error> {
        self.receive(None).await
    }

    /// As [`Queue::next`], waiting no longer than `time`: `None` also when nothing came.
    ///
    /// # Errors
    /// As [`Queue::next`].
    pub async fn next_within(&mut self, time: Duration) -> Result<Option<Message<M>>, Error> {
        self.receive(Some(Instant::now() + time)).await
    }

    /// As [`Queue::next`], without waiting.
    ///
    /// # Errors
    /// As [`Queue::next`].
    pub async fn try_next(&mut self) -> Result<Option<Message<M>>, Error> {
        self.receive(Some(Instant::now())).await
    }

    /// Up to `max` messages: waits for the first, takes what else is there.
    ///
    /// # Errors
    /// As [`Queue::next`].
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message<M>>, Error> {
        let mut batch = Vec::new();
        batch.extend(self.next().await?);
        while !batch.is_empty()
            && batch.len() < max
            && let Some(message) = self.try_next().await?
        {
            batch.push(message);
        }
        Ok(batch)
    }

    async fn receive(&self, until: Option<Instant>) -> Result<Option<Message<M>>, Error> {
        if self.turn.kind != ActionKind::Interleaved {
            return Err(Error::internal(
                "waiting for a message would hold the actor: receive in `run`, `c.spawn` or an action without `self`, or `pop`",
            ));
        }
        let stop = self.turn.life.stop().clone();
        loop {
            let changed = self.leases().changed.notified();
            if stop.is_cancelled() {
                return Ok(None);
            }
            let put_off = match self.look(true)? {
                Ok(stored) => {
                    // Another receiver may have been faster since the look.
                    if let Some(token) = self.leases().take(&stored.queue, stored.id, self.lease)
                        && let Some(message) = self.deliver(stored, token).await?
                    {
                        return Ok(Some(message));
                    }
                    continue;
                }
                Err(soonest) => soonest.map(|at| {
                    Instant::now() + Duration::from_millis(at.0.saturating_sub(self.turn.host.now().0))
                }),
            };
            let wake = [until, put_off, self.leases().next_end()]
                .into_iter()
                .flatten()
                .min();
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = changed => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    async fn deliver(&self, stored: Stored, token: u64) -> Result<Option<Message<M>>, Error> {
        let message = Message {
            turn: self.turn.clone(),
            queue: stored.queue,
            id: stored.id,
            pushed: stored.pushed,
            retries: stored.retries,
            token,
            body: Arc::new(()),
        };
        match cbor::decode::<M>("the queue message", &stored.body) {
            Ok(body) => Ok(Some(message.with(body))),
            Err(error) => {
                let (actor, queue) = (self.turn.actor.id, &message.queue);
                tracing::error!(%actor, queue, id = %message.id, %error, "a queue message of another shape is rejected");
                message.reject(error).await?;
                Ok(None)
            }
        }
    }
}

/// CBOR of nothing.
fn nothing() -> Bytes {
    Bytes::from_static(&[0xf6])
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A message somebody works on. Dereferences to its content. Dropped without a word, it comes again when the lease ends.
pub struct Message<M> {
    turn: Arc<Turn>,
    queue: String,
    id: MessageId,
    pushed: WallMs,
    retries: u32,
    token: u64,
    body: Arc<M>,
}

impl<M> Clone for Message<M> {
    fn clone(&self) -> Self {
        Self {
            turn: self.turn.clone(),
            queue: self.queue.clone(),
            body: self.body.clone(),
            ..*self
        }
    }
}

impl<M> Deref for Message<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.body
    }
}

impl<M> Message<M> {
    fn with<N>(self, body: N) -> Message<N> {
        Message {
            turn: self.turn,
            queue: self.queue,
            id: self.id,
            pushed: self.pushed,
            retries: self.retries,
            token: self.token,
            body: Arc::new(body),
        }
    }

    /// Its name: the same each time it is received.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The queue it was received from.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// When it was pushed.
    pub fn pushed(&self) -> WallMs {
        self.pushed
    }

    /// How often it was given back by [`Message::retry`] before.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    fn op(&self, leases: &Leases, how: Settle) -> Result<Effect, Error> {
        if !leases.holds(&self.queue, self.id, self.token) {
            let message = format!(
                "the lease on message {} of queue {:?} has ended: somebody else may have it",
                self.id, self.queue
            );
            return Err(Error::new(group::QUEUE, "lease_lost", message));
        }
        Ok(Effect::Queue(QueueOp::Settle {
            queue: self.queue.clone(),
            id: self.id,
            how,
        }))
    }

    async fn settle(self, how: Settle) -> Result<(), Error> {
        let op = self.op(self.turn.life.leases(), how)?;
        let record = Box::new(move |_: &mut crate::StateArc, inner: &Arc<Turn>| {
            inner.record(op)?;
            Ok(Box::new(()) as Box<dyn std::any::Any + Send>)
        });
        let host = self.turn.host.clone();
        let settled = host
            .update_state(self.turn.actor.id, self.turn.clone(), record)
            .await;
        self.turn
            .life
            .leases()
            .give_back(&self.queue, self.id, self.token);
        settled.map(drop)
    }

    /// It is done: it leaves the queue, in a commit of its own.
    ///
    /// # Errors
    /// `queue.lease_lost` when the lease ended before; when the commit did not happen. Then it comes again.
    pub async fn ack(self) -> Result<(), Error> {
        self.settle(Settle::Complete(nothing())).await
    }

    /// It is done, and a sender that waits gets this value.
    ///
    /// # Errors
    /// As [`Message::ack`].
    pub async fn complete<R: Serialize>(self, value: R) -> Result<(), Error> {
        let value = crate::args::bounded_reply(&value)?;
        self.settle(Settle::Complete(value.into())).await
    }

    /// It cannot be done: it leaves the queue, and a sender that waits gets the error.
    ///
    /// # Errors
    /// As [`Message::ack`].
    pub async fn reject(self, error: Error) -> Result<(), Error> {
        self.settle(Settle::Reject(error.into_definite().to_actor_error()))
            .await
    }

    /// Not now: it is received again, not before `delay` has passed.
    ///
    /// # Errors
    /// As [`Message::ack`].
    pub async fn retry(self, delay: Duration) -> Result<(), Error> {
        self.settle(Settle::Retry(delay)).await
    }

    /// As [`Message::ack`], with the turn of `c`: the message leaves the queue in the commit of that turn's other
    /// effects, so those happen exactly once. For [`Ctx::try_update`].
    ///
    /// # Errors
    /// `queue.lease_lost` when the lease ended before: let the turn fail with it.
    pub fn ack_in<A>(&self, c: &Ctx<A>) -> Result<(), Error> {
        self.settle_in(c, Settle::Complete(nothing()))
    }

    /// As [`Message::complete`], with the turn of `c`; see [`Message::ack_in`].
    ///
    /// # Errors
    /// As [`Message::ack_in`].
    pub fn complete_in<A, R: Serialize>(&self, c: &Ctx<A>, value: R) -> Result<(), Error> {
        let value = crate::args::bounded_reply(&value)?;
        self.settle_in(c, Settle::Complete(value.into()))
    }

    fn settle_in<A>(&self, c: &Ctx<A>, how: Settle) -> Result<(), Error> {
        let turn = c.turn();
        turn.record(self.op(turn.life.leases(), how)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_excludes_others_until_it_ends_and_then_its_token_is_void() {
        let (leases, id, time) = (Leases::default(), MessageId(7), Duration::from_secs(5));
        let token = leases.take("jobs", id, time).expect("free");
        assert!(leases.take("jobs", id, time).is_none(), "taken");
        assert!(leases.take("other", id, time).is_some(), "another queue");
        assert!(leases.holds("jobs", id, token) && leases.any());
        tokio::time::advance(time).await;
        assert!(!leases.holds("jobs", id, token) && leases.is_free("jobs", id));
        let second = leases.take("jobs", id, time).expect("free again");
        leases.give_back("jobs", id, token);
        assert!(
            leases.holds("jobs", id, second),
            "the old token gives nothing back"
        );
        leases.give_back("jobs", id, second);
        assert!(!leases.any());
    }
}
