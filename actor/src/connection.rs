//! A connection to an actor as its client holds it: actions over it, and the events subscribed to.
//!
//! Invariant: events come in the order of the actor's history, none twice, none left out before the connection ends; those
//! that an action caused are here before its answer.
//! Not here: connections as their actor sees them (`conn`), sockets of clients of the protocol (gateway).

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clinch_types::{
    ActorId, CallOp, CallReply, ConnId, ConnItem, ConnKind, ConnReply, Consistency, Door, Epoch, Polled,
    Reaction, Target, codec, group, planted,
};
use futures_util::stream::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::{
    Actor, Answered, Body, BoxFuture, Caller, EmittedBy, Error, Event, Frame, OutgoingCall, RawHandle,
};

/// How long a question for events may take: the owner answers within ten seconds, and may move meanwhile.
const POLL_MAX: Duration = Duration::from_secs(25);
/// When an answer to it is late: whoever asks how the connection is, hears of it.
const LATE: Duration = Duration::from_secs(12);
/// Pause before a failed question is asked again.
const POLL_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection outlives an owner that cannot be found.
const OWNERLESS_MAX: Duration = Duration::from_secs(60);
/// Events of one name that wait for their reader; then the connection asks for no more until it reads.
const UNREAD_MAX: usize = 1024;
/// Bytes of events that are kept for their first reader, all names together.
const UNCLAIMED_BYTES_MAX: usize = 4 << 20;

/// An open connection to an actor; dereferences to the actor's handle, whose calls then come over the connection. Dropping
/// it closes it.
///
/// It outlives the owner: the next one sends what was not received. When it has ended, for a reason told by
/// [`Connection::ended`], event streams end and calls fail; connect again.
pub struct Connection<A: Actor> {
    handle: A::Handle,
    shared: Arc<Shared>,
    _open: oneshot::Sender<()>,
}

/// Events of one type, in order, until the connection ends. Read them: a connection with 1,024 unread events of a name asks for
/// no more, and one that lags by more than the actor keeps for it is closed.
pub struct Events<E> {
    received: mpsc::Receiver<Vec<u8>>,
    event: PhantomData<fn() -> E>,
}

/// How far the connection is.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Items up to this version are with their readers.
    seen: u64,
    /// A reader does not read: answers no longer wait for what comes before them.
    stuck: bool,
    /// Why it has ended.
    ended: Option<Error>,
}

/// Who reads events, by their names.
#[derive(Default)]
struct Readers {
    of: BTreeMap<String, Vec<mpsc::Sender<Vec<u8>>>>,
    /// What the actor sent to this connection alone before anybody read that event: for the first who does.
    unclaimed: VecDeque<(String, Vec<u8>)>,
    unclaimed_bytes: usize,
}

impl Readers {
    /// A new reader, with what waits for it.
    fn add(&mut self, name: &str, reader: mpsc::Sender<Vec<u8>>) {
        let kept = &mut self.unclaimed_bytes;
        self.unclaimed.retain(|(of, args)| {
            // There is room: no more than that are kept.
            let claimed = of == name && reader.try_send(args.clone()).is_ok();
            *kept -= if claimed { args.len() } else { 0 };
            !claimed
        });
        self.of.entry(name.to_owned()).or_default().push(reader);
    }

    /// Those who read an event now; `None` if nobody has so far: then it is kept.
    fn claim(&mut self, name: &str, args: &[u8]) -> Option<Vec<mpsc::Sender<Vec<u8>>>> {
        let Some(readers) = self.of.get_mut(name) else {
            let bytes = self.unclaimed_bytes + args.len();
            if self.unclaimed.len() < UNREAD_MAX && bytes <= UNCLAIMED_BYTES_MAX {
                self.unclaimed_bytes = bytes;
                self.unclaimed.push_back((name.to_owned(), args.to_vec()));
            } else {
                tracing::debug!(name, "an event that nobody reads is left out");
            }
            return None;
        };
        readers.retain(|reader| !reader.is_closed());
        Some(readers.clone())
    }

    /// Takes the name out if nobody reads it any more.
    fn forget(&mut self, name: &str) -> bool {
        let unread = |readers: &Vec<mpsc::Sender<_>>| readers.iter().all(mpsc::Sender::is_closed);
        self.of.get(name).is_some_and(unread) && self.of.remove(name).is_some()
    }
}

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnStatus {
    /// The actor's owner answers.
    #[default]
    Connected,
    /// Nobody answers for the actor: its owner is looked for. Events that it sends meanwhile come afterwards.
    Reconnecting,
    /// It is over; [`Connection::ended`] says why.
    Ended,
}

/// What a connection and those who bring its events share.
pub(crate) struct Shared {
    caller: Arc<dyn Caller>,
    actor: ActorId,
    pub(crate) conn: ConnId,
    readers: Mutex<Readers>,
    /// Who reads the messages of a raw one.
    messages: Mutex<Option<mpsc::Sender<Frame>>>,
    /// What the connection was opened with.
    params: Option<Bytes>,
    /// Subscriptions change one after the other: calls may overtake each other.
    subscribing: tokio::sync::Mutex<()>,
    progress: watch::Sender<Progress>,
    pub(crate) status: watch::Sender<ConnStatus>,
}

impl<A: Actor> Connection<A> {
    /// Connects by way of a handle; its parameters go to the hooks of the connection. Generated handles have `connect()`.
    ///
    /// # Errors
    /// What the actor's hooks refuse with; as every call; `actor.not_supported` where calls are carried by something that
    /// has no connections (HTTP).
    pub async fn open(handle: &RawHandle) -> Result<Self, Error> {
        let (shared, open) = Shared::open(handle, ConnKind::Events, String::new(), None).await?;
        let over: Arc<dyn Caller> = Arc::new(Over(shared.clone()));
        let handle = RawHandle::new(over, Target::Id(shared.actor));
        Ok(Self {
            handle: A::Handle::from(handle),
            shared,
            _open: open,
        })
    }

    /// The connection's name, as the actor's `conn.id()` has it.
    pub fn id(&self) -> ConnId {
        self.shared.conn
    }

    /// Subscribes to an event: those of turns that commit from now on. The first reader of an event also gets those that the
    /// actor sent to this connection alone before: of all events that nobody has read so far the first 1,024, up to 4 MiB.
    ///
    /// # Errors
    /// `event.forbidden` where `can_subscribe` says no; as every call.
    pub async fn on<E: EmittedBy<A>>(&self) -> Result<Events<E>, Error> {
        let (sender, received) = mpsc::channel(UNREAD_MAX);
        let name = E::NAME.to_owned();
        let _alone = self.shared.subscribing.lock().await;
        // First: an event may come before the answer.
        self.shared.readers.lock().add(&name, sender);
        self.shared.subscribe(name, true).await?;
        Ok(Events {
            received,
            event: PhantomData,
        })
    }

    /// How it is, now and from now on.
    pub fn status(&self) -> watch::Receiver<ConnStatus> {
        self.shared.status.subscribe()
    }

    /// Waits for the end of the connection and tells its reason.
    pub async fn ended(&self) -> Error {
        self.shared.ended().await
    }
}

impl<A: Actor> Deref for Connection<A> {
    type Target = A::Handle;

    fn deref(&self) -> &A::Handle {
        &self.handle
    }
}

impl<E: Event> Events<E> {
    /// The next one; `None` when the connection has ended.
    ///
    /// # Errors
    /// `actor.invalid_request` when the event does not fit its type: the actor has another version of it.
    pub async fn next(&mut self) -> Option<Result<E, Error>> {
        StreamExt::next(self).await
    }
}

impl<E: Event> Stream for Events<E> {
    type Item = Result<E, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let args = std::task::ready!(self.received.poll_recv(cx));
        Poll::Ready(args.map(|args| E::decode_args(&args)))
    }
}

fn gone() -> Error {
    Error::new(
        group::ACTOR,
        "connection_closed",
        "the connection was closed by this side",
    )
}

impl Shared {
    /// Opens a connection and follows it until the sender is dropped.
    pub(crate) async fn open(
        handle: &RawHandle,
        kind: ConnKind,
        path: String,
        messages: Option<mpsc::Sender<Frame>>,
    ) -> Result<(Arc<Self>, oneshot::Sender<()>), Error> {
        let (caller, conn) = handle.line()?;
        let reply = handle.connect_call(CallOp::Connect { conn, kind, path }).await?;
        let shared = Arc::new(Self {
            caller,
            actor: reply.meta.actor,
            conn,
            readers: Mutex::default(),
            messages: Mutex::new(messages),
            params: handle.params().cloned(),
            subscribing: tokio::sync::Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            status: watch::Sender::default(),
        });
        let (open, closed) = oneshot::channel();
        tokio::spawn(follow(shared.clone(), closed));
        Ok((shared, open))
    }

    /// Waits for the end; its reason.
    pub(crate) async fn ended(&self) -> Error {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.ended.is_some()).await;
        ended
            .ok()
            .and_then(|progress| progress.ended.clone())
            .unwrap_or_else(gone)
    }

    pub(crate) fn call(
        &self,
        op: CallOp,
        timeout: Option<Duration>,
    ) -> BoxFuture<'static, Result<CallReply, Error>> {
        self.caller.call(OutgoingCall {
            target: Target::Id(self.actor),
            op,
            timeout,
            idempotency_key: None,
            consistency: Consistency::default(),
            if_active: false,
            chain: Vec::new(),
            params: None,
            request: None,
            door: None,
        })
    }

    async fn subscribe(&self, event: String, on: bool) -> Result<(), Error> {
        let conn = self.conn;
        self.call(CallOp::Subscribe { conn, event, on }, None)
            .await
            .map(drop)
    }

    /// Asks for the next items until there is an answer.
    async fn poll(&self, seen: u64, epoch: Epoch) -> Result<Polled, Error> {
        let begun = Instant::now();
        loop {
            let conn = self.conn;
            let mut asked = self.call(CallOp::Poll { conn, seen, epoch }, Some(POLL_MAX));
            let answer = match tokio::time::timeout(LATE, &mut asked).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.becomes(ConnStatus::Reconnecting);
                    asked.await
                }
            };
            let error = match answer {
                Ok(reply) => {
                    self.becomes(ConnStatus::Connected);
                    return codec::decode(&reply.output).map_err(Error::internal);
                }
                Err(error) => error,
            };
            if error.reaction() == Reaction::Final || begun.elapsed() > OWNERLESS_MAX {
                return Err(error);
            }
            self.becomes(ConnStatus::Reconnecting);
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    fn becomes(&self, status: ConnStatus) {
        let status_now = &self.status;
        status_now.send_if_modified(|now| std::mem::replace(now, status) != status);
    }

    /// Ends a subscription that nobody reads any more.
    async fn unsubscribe(&self, name: String) {
        let _alone = self.subscribing.lock().await;
        if self.readers.lock().forget(&name) {
            // Harmless if it fails: the events are left out here.
            let _ = self.subscribe(name, false).await;
        }
    }

    /// Hands an event to its readers.
    async fn hand_over(&self, name: String, args: Vec<u8>) {
        let Some(readers) = self.readers.lock().claim(&name, &args) else {
            return;
        };
        if readers.is_empty() {
            return self.unsubscribe(name).await;
        }
        for reader in readers {
            if let Err(mpsc::error::TrySendError::Full(args)) = reader.try_send(args.clone()) {
                self.progress.send_modify(|progress| progress.stuck = true);
                // A reader that has gone meanwhile misses nothing.
                let _ = reader.send(args).await;
                self.progress.send_modify(|progress| progress.stuck = false);
            }
        }
    }

    /// Hands a message of a raw socket to its reader.
    async fn message(&self, text: bool, data: Vec<u8>) {
        let Some(reader) = self.messages.lock().clone() else {
            return;
        };
        let frame = match text {
            // The owner has checked that it is text.
            true => Frame::Text(String::from_utf8_lossy(&data).into_owned()),
            false => Frame::Binary(data.into()),
        };
        // A reader that has gone meanwhile misses nothing.
        let _ = reader.send(frame).await;
    }

    /// Takes what an answer brought; the reason, when it was the last.
    async fn take(&self, polled: Polled, seen: &mut u64) -> Option<Error> {
        let before = *seen;
        for (version, item) in polled.items {
            // Asked again of another owner: it came before.
            if version <= before {
                continue;
            }
            *seen = version;
            match item {
                ConnItem::Event { name, args } => self.hand_over(name, args).await,
                ConnItem::Message { text, data } => self.message(text, data).await,
                ConnItem::Close { code, reason } => {
                    let closed = Error::new(group::ACTOR, "connection_closed", reason);
                    return Some(closed.with("closeCode", code));
                }
            }
        }
        let seen = *seen;
        self.progress
            .send_if_modified(|progress| std::mem::replace(&mut progress.seen, seen) != seen);
        None
    }
}

/// Brings events to their readers until the connection ends or `closed` says that nobody holds it any more.
async fn follow(shared: Arc<Shared>, mut closed: oneshot::Receiver<()>) {
    let (mut seen, mut epoch) = (0, Epoch(0));
    let ended = loop {
        let step = async {
            let polled = shared.poll(seen, epoch).await?;
            if planted!("resume-skips") && epoch != Epoch(0) && epoch != polled.epoch {
                seen = polled.items.last().map_or(seen, |(version, _)| *version);
            }
            epoch = polled.epoch;
            Ok(shared.take(polled, &mut seen).await)
        };
        tokio::select! {
            biased;
            _ = &mut closed => break None,
            taken = step => match taken {
                Ok(None) => {}
                Ok(Some(reason)) | Err(reason) => break Some(reason),
            }
        }
    };
    let tell = ended.is_none();
    shared
        .progress
        .send_modify(|progress| progress.ended = Some(ended.unwrap_or_else(gone)));
    shared.becomes(ConnStatus::Ended);
    shared.readers.lock().of.clear();
    shared.messages.lock().take();
    if tell {
        let conn = shared.conn;
        if let Err(error) = shared.call(CallOp::Disconnect { conn }, Some(POLL_MAX)).await {
            tracing::info!(%conn, %error, "the end of a connection could not be told");
        }
    }
}

/// Carries calls over a connection.
struct Over(Arc<Shared>);

impl Caller for Over {
    fn call(&self, mut call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>> {
        if !matches!(call.op, CallOp::Action { .. }) {
            return self.0.caller.call(call);
        }
        let shared = self.0.clone();
        call.door = Some(Box::new(Door {
            conn: Some(shared.conn),
            headers: Vec::new(),
        }));
        Box::pin(async move {
            let mut reply = shared.caller.call(call).await?;
            let ConnReply { after, output } = codec::decode(&reply.output).map_err(Error::internal)?;
            reply.output = output;
            let mut progress = shared.progress.subscribe();
            // The end of the connection ends the wait too: the action was done.
            let _ = progress
                .wait_for(|progress| progress.seen >= after || progress.stuck || progress.ended.is_some())
                .await;
            Ok(reply)
        })
    }

    /// A connection of its own, as long as it lasts: with the parameters of this one, for it is the same client's.
    fn exchange(
        &self,
        mut call: OutgoingCall,
        body: Option<Body>,
    ) -> BoxFuture<'static, Result<Answered, Error>> {
        call.params = call.params.or_else(|| self.0.params.clone());
        self.0.caller.exchange(call, body)
    }
}

/// Where calls are carried by something without connections.
pub(crate) fn no_connections() -> Error {
    let message = "there are no connections by this way: use a client over QUIC, or a client of the protocol";
    Error::new(group::ACTOR, "not_supported", message)
}
