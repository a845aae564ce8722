//! Turns that clients begin from outside: connections opened, used and ended, raw requests, and calls that pass the
//! hooks of connections first.
//!
//! Invariant: nothing of a client happens before its actor's `before_connect` has let it in. A call without a socket is a
//! connection that begins and ends in the turn of the call: its hooks and the call commit together or not at all.
//! Not here: what a connection is told (`conns`), the hooks in their order (`clinch_actor`).

use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{
    Access, ActionKind, ActorType, BoxFuture, ConnSeat, Error, Frame, Origin, StateArc, Turn, Visit,
};
use clinch_types::{
    ActorError, ActorId, CallError, CallOp, CallReply, ConnId, ConnKind, Door, HttpRequest, RequestId, code,
    group,
};
use tokio::time::Instant;

use super::conns::unknown;
use super::hooks::in_time;
use super::run::Exclusive;
use super::slot::{Caller, Guarded, Open, Running, Work};
use super::turns::TurnFor;
use crate::shard::{Owner, ReplyTo};

/// CBOR null: the state of connections that nothing is kept of.
const NULL: &[u8] = &[0xf6];

/// What a visitor does once it is in.
type Inside = Box<dyn FnOnce(StateArc, Arc<Turn>) -> BoxFuture<'static, Exclusive> + Send>;

/// That, and what it is called.
struct Inner {
    what: &'static str,
    run: Inside,
}

/// A connection that lasts as long as its call.
fn passing(open: &Open, caller: &Caller) -> ConnSeat {
    let RequestId { session, seq } = open.request;
    ConnSeat {
        id: ConnId(session.0.wrapping_add(u128::from(seq))),
        kind: ConnKind::Once,
        path: String::new(),
        params: caller.params.clone(),
        state: Bytes::from_static(NULL),
    }
}

/// Lets a visitor in, does what it came for, and lets it out.
async fn visit(
    actor_type: Arc<dyn ActorType>,
    turn: Arc<Turn>,
    state: StateArc,
    seat: ConnSeat,
    inner: Inner,
) -> Exclusive {
    let limits = (
        actor_type.options().connect_timeout,
        actor_type.options().disconnect_timeout,
    );
    let (state, made) = timed("connect", limits.0, actor_type.connect(state, turn.clone(), seat)).await;
    if let Err(error) = made {
        return (state, Err(error));
    }
    let (state, output) = match (inner.run)(state, turn.clone()).await {
        (state, Ok(output)) => (state, output),
        failed => return failed,
    };
    let (state, ended) = timed("on_disconnect", limits.1, actor_type.disconnect(state, turn)).await;
    (state, ended.map(|_| output))
}

/// Runs hooks within their time; what overruns it has the state no more.
async fn timed(
    name: &'static str,
    limit: std::time::Duration,
    hook: BoxFuture<'static, Exclusive>,
) -> Exclusive {
    let ran = in_time(name, limit, Box::pin(async { Ok(hook.await) })).await;
    ran.unwrap_or_else(|error| (Arc::new(()) as StateArc, Err(error)))
}

impl Owner {
    /// A turn for what came in from outside.
    fn turn_of(
        &self,
        id: ActorId,
        open: &Open,
        what: &'static str,
        visit: Visit,
        deadline: Instant,
    ) -> Option<Arc<Turn>> {
        let init = TurnFor {
            what,
            began: Instant::now(),
            request: open.request,
            chain: &open.chain,
            origin: Origin::Call,
            kind: ActionKind::Exclusive,
            deadline,
            input: None,
            fire: None,
        };
        let turn = self.turn(id, init)?;
        turn.set_visit(visit);
        Some(turn)
    }

    /// Says who came in with an action, or runs the action inside of a visit: `None` when that has been seen to.
    pub(crate) fn admit_visitor(
        &mut self,
        id: ActorId,
        mut open: Open,
        index: usize,
        args: Bytes,
    ) -> Option<Visited> {
        let visited = |open, args, visit| {
            Some(Visited {
                open,
                index,
                args,
                visit,
            })
        };
        let Some(mut caller) = open.caller.take() else {
            return visited(open, args, None);
        };
        if let Some(seat) = caller.seat.take() {
            return visited(open, args, Some(Visit::new(caller.door, Some(seat))));
        }
        if let Some(conn) = caller.door.conn {
            let Some(seat) = self.host.seats().get(id, conn) else {
                self.conn_ended(open, conn);
                return None;
            };
            return visited(open, args, Some(Visit::new(caller.door, Some(seat))));
        }
        let actor_type = self.slots.get(&id)?.actor_type.clone();
        let seat = passing(&open, &caller);
        if !actor_type.conn_hooks().any {
            let visit = Visit::new(caller.door, Some(Arc::new(seat)));
            return visited(open, args, Some(visit));
        }
        let visit = Visit::new(caller.door, None);
        let (kind, what) = (actor_type.actions()[index].kind, actor_type.actions()[index].name);
        let run: Inside = match kind {
            ActionKind::Exclusive => {
                let actor_type = actor_type.clone();
                Box::new(move |state, turn| actor_type.exclusive(index, state, turn, args))
            }
            ActionKind::Shared => {
                let actor_type = actor_type.clone();
                Box::new(move |state, turn| {
                    Box::pin(async move {
                        let result = actor_type.shared(index, state.clone(), turn, args).await;
                        (state, result)
                    })
                })
            }
            ActionKind::Interleaved => {
                let then = Guarded::Action { index, args };
                let run: Inside = Box::new(|state, _| Box::pin(async { (state, Ok(Vec::new())) }));
                let inner = Inner { what: "connect", run };
                self.launch_visit(id, open, visit, seat, inner, |open| Running::Guard { open, then });
                return None;
            }
        };
        let inner = Inner { what, run };
        self.launch_visit(id, open, visit, seat, inner, |open| Running::Action { open });
        None
    }

    fn launch_visit(
        &mut self,
        id: ActorId,
        open: Open,
        visitor: Visit,
        seat: ConnSeat,
        inner: Inner,
        running: impl FnOnce(Open) -> Running,
    ) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let actor_type = slot.actor_type.clone();
        let options = actor_type.options();
        let limit = options.connect_timeout + options.action_timeout + options.disconnect_timeout;
        let deadline = Instant::now() + limit;
        let Some(turn) = self.turn_of(id, &open, inner.what, visitor, deadline) else {
            return;
        };
        let Some(state) = self.slots.get_mut(&id).and_then(|slot| slot.state.take()) else {
            return;
        };
        let future = Box::pin(visit(actor_type, turn.clone(), state, seat, inner));
        self.launch(id, future, running(open), turn, deadline);
    }

    /// Opens a connection.
    pub(crate) fn start_connect(&mut self, id: ActorId, mut open: Open, seat: ConnSeat) {
        if let Err(error) = self.check_conns(id) {
            let error = self.explain(id, open.request, &error);
            return self.answer(open, Err(error));
        }
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        let limit = actor_type.options().connect_timeout;
        // The hooks have their own limit; this one ends what ignores it.
        let deadline = Instant::now() + limit * 2;
        let door = open.caller.take().map(|caller| caller.door).unwrap_or_default();
        let Some(turn) = self.turn_of(id, &open, "connect", Visit::new(door, None), deadline) else {
            return;
        };
        let Some(state) = self.slots.get_mut(&id).and_then(|slot| slot.state.take()) else {
            return;
        };
        let hooks = actor_type.connect(state, turn.clone(), seat.clone());
        let future = Box::pin(timed("connect", limit, hooks));
        self.launch(
            id,
            future,
            Running::Connect {
                open,
                seat: Box::new(seat),
            },
            turn,
            deadline,
        );
    }

    /// Hands a message of a raw WebSocket to its actor.
    pub(crate) fn start_message(&mut self, id: ActorId, open: Open, conn: ConnId, frame: Frame) {
        let Some(seat) = self.host.seats().get(id, conn) else {
            return self.conn_ended(open, conn);
        };
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        let deadline = Instant::now() + actor_type.options().action_timeout;
        let visit = Visit::new(Door::default(), Some(seat));
        let Some(turn) = self.turn_of(id, &open, "on_message", visit, deadline) else {
            return;
        };
        let Some(state) = self.slots.get_mut(&id).and_then(|slot| slot.state.take()) else {
            return;
        };
        let future = actor_type.message(state, turn.clone(), frame);
        self.launch(id, future, Running::Action { open }, turn, deadline);
    }

    /// Runs `on_request`.
    pub(crate) fn start_request(&mut self, id: ActorId, mut open: Open, request: HttpRequest) {
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        let caller = open.caller.take().unwrap_or_default();
        let seat = passing(&open, &caller);
        let body = open.reply.take_body();
        let run: Inside = Box::new(move |state, turn| actor_type.request(state, turn, request, body));
        let inner = Inner {
            what: "on_request",
            run,
        };
        let visit = Visit::new(caller.door, None);
        self.launch_visit(id, open, visit, seat, inner, |open| Running::Request { open });
    }

    /// Asks whether a caller may add to a queue, before the message is added.
    pub(crate) fn start_publish(
        &mut self,
        id: ActorId,
        mut open: Open,
        queue: String,
        body: Vec<u8>,
        wait: bool,
    ) {
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        let caller = open.caller.take().unwrap_or_default();
        let seat = passing(&open, &caller);
        let name = queue.clone();
        let run: Inside = Box::new(move |state, turn| {
            let allowed = actor_type.allows(&state, &turn, Access::Publish(&name));
            Box::pin(std::future::ready((state, allowed.map(|()| Vec::new()))))
        });
        let inner = Inner {
            what: "can_publish",
            run,
        };
        let visit = Visit::new(caller.door, None);
        let then = Guarded::Push { queue, body, wait };
        self.launch_visit(id, open, visit, seat, inner, |open| Running::Guard { open, then });
    }

    /// A visitor has been let in and out: what it came for begins.
    pub(crate) fn pass_guard(&mut self, id: ActorId, mut open: Open, then: Guarded, turn: &Arc<Turn>) {
        match then {
            Guarded::Push { queue, body, wait } => self.push(id, open, &queue, body, wait),
            Guarded::Action { index, args } => {
                let seat = turn.visit().and_then(Visit::seat);
                let door = Door::default();
                open.caller = Some(Box::new(Caller {
                    door,
                    params: None,
                    seat,
                }));
                self.start_action(id, open, index, args);
            }
        }
    }

    /// Asks whether a connection may subscribe, and subscribes it.
    pub(crate) fn start_subscribe(&mut self, id: ActorId, open: Open, conn: ConnId, event: String) {
        let Some(seat) = self.host.seats().get(id, conn) else {
            return self.conn_ended(open, conn);
        };
        let deadline = Instant::now();
        let visit = Visit::new(Door::default(), Some(seat));
        let Some(turn) = self.turn_of(id, &open, "can_subscribe", visit, deadline) else {
            return;
        };
        let Some(slot) = self.slots.get(&id) else { return };
        let Some(state) = slot.state.clone() else { return };
        let actor_type = slot.actor_type.clone();
        let ask =
            std::panic::AssertUnwindSafe(|| actor_type.allows(&state, &turn, Access::Subscribe(&event)));
        let allowed = std::panic::catch_unwind(ask)
            .unwrap_or_else(|_| Err(Error::internal("`can_subscribe` panicked")));
        match allowed {
            Ok(()) => self.subscribe(conn, event, true, open),
            Err(error) => {
                let seq = self.slots.get(&id).map_or(0, |slot| slot.last_seq);
                let error = self.explain(id, open.request, &error);
                self.answer_after(seq, open, Err(error));
            }
        }
    }

    /// The end of a connection: its hook, if there is one, then nothing of it is left.
    pub(crate) fn start_disconnect(&mut self, id: ActorId, open: Option<Open>, conn: ConnId) {
        let Some(seat) = self.unlist_conn(conn) else {
            return self.disconnected(id, open);
        };
        let Some(slot) = self.slots.get(&id) else { return };
        let actor_type = slot.actor_type.clone();
        if !actor_type.conn_hooks().disconnect {
            return self.end_conn(id, open, conn);
        }
        let limit = actor_type.options().disconnect_timeout;
        let began = Instant::now();
        let deadline = began + limit;
        let init = TurnFor {
            what: "on_disconnect",
            began,
            request: open.as_ref().map_or_else(RequestId::default, |open| open.request),
            chain: &[],
            origin: Origin::Hook,
            kind: ActionKind::Exclusive,
            deadline,
            input: None,
            fire: None,
        };
        let Some(turn) = self.turn(id, init) else { return };
        turn.set_visit(Visit::new(Door::default(), Some(seat)));
        let Some(state) = self.slots.get_mut(&id).and_then(|slot| slot.state.take()) else {
            return;
        };
        let hook = actor_type.disconnect(state, turn.clone());
        let future = Box::pin(timed("on_disconnect", limit, hook));
        self.launch(
            id,
            future,
            Running::Disconnect { open, conn },
            turn,
            deadline + limit,
        );
    }

    /// Ends a connection without a hook, or whose hook failed.
    pub(crate) fn end_conn(&mut self, id: ActorId, open: Option<Open>, conn: ConnId) {
        let mut written = Vec::new();
        self.drop_conn(conn, &mut written);
        self.end_beside(id, written);
        self.disconnected(id, open);
    }

    fn disconnected(&mut self, id: ActorId, open: Option<Open>) {
        let Some(open) = open else { return };
        let version = self
            .slots
            .get(&id)
            .map_or_else(Default::default, |slot| slot.version);
        let meta = self.call_meta(id, version, false);
        let output = Vec::new();
        self.answer_after(self.horizon(), open, Ok(CallReply { meta, output }));
    }

    fn conn_ended(&mut self, open: Open, conn: ConnId) {
        self.answer_after(self.horizon(), open, Err(unknown(conn).into()));
    }

    /// A client has gone: its actor is told, and woken for that if need be.
    pub(crate) fn begin_disconnect(&mut self, conn: ConnId, open: Option<Open>) -> std::io::Result<()> {
        let Some(id) = self.actor_of(conn) else {
            if let Some(open) = open {
                self.disconnected(ActorId::default(), Some(open));
            }
            return Ok(());
        };
        let hook = self.type_of(id).is_some_and(|kind| kind.conn_hooks().disconnect);
        if !hook {
            self.unlist_conn(conn);
            self.end_conn(id, open, conn);
            return Ok(());
        }
        if !self.slots.contains_key(&id) && !self.wake_by_id(id, false)? {
            self.end_conn(id, open, conn);
            return Ok(());
        }
        if self.slots.contains_key(&id) {
            self.enqueue(id, Work::Disconnect { open, conn });
        } else if let Some(open) = open {
            // Waking failed; it is tried again as long as the connection is there.
            let (shard, reason) = (self.context.id, format!("actor {id} cannot be woken"));
            self.answer(open, Err(CallError::Unavailable { shard, reason }));
        }
        Ok(())
    }

    /// Whether a message from outside needs leave.
    pub(crate) fn guards_queues(&self, id: ActorId) -> bool {
        let hooks = self.slots.get(&id).map(|slot| slot.actor_type.conn_hooks());
        hooks.is_some_and(|hooks| hooks.any || hooks.can_publish)
    }

    /// Takes what concerns a connection without its actor; gives the rest back.
    pub(crate) fn give_conns(&mut self, op: CallOp, open: Open) -> std::io::Result<Option<(CallOp, Open)>> {
        match op {
            CallOp::Poll { conn, seen, epoch } => self.poll(conn, seen, epoch, open),
            CallOp::Disconnect { conn } => self.begin_disconnect(conn, Some(open))?,
            CallOp::Subscribe { conn, event, on } => {
                let actor = self.actor_of(conn).filter(|_| on);
                let asks = actor
                    .and_then(|id| self.type_of(id))
                    .is_some_and(|kind| kind.conn_hooks().can_subscribe);
                if asks {
                    return Ok(Some((CallOp::Subscribe { conn, event, on }, open)));
                }
                self.subscribe(conn, event, on, open);
            }
            other => return Ok(Some((other, open))),
        }
        Ok(None)
    }

    /// The work behind a call that may be a visitor's; `None` when it is seen to already.
    pub(crate) fn visit_of(&mut self, id: ActorId, op: CallOp, open: Open) -> Option<Work> {
        match op {
            CallOp::Push { queue, body, wait } => {
                let guarded = open.caller.is_some() && self.guards_queues(id);
                // A message waits for no turn, only for the actor to be there.
                let there = self.slots.get(&id).is_some_and(|slot| slot.takes_messages());
                if there && !self.pipeline.full() && !guarded {
                    self.push(id, open, &queue, body, wait);
                    return None;
                }
                Some(Work::Push {
                    open,
                    queue,
                    body,
                    wait,
                })
            }
            CallOp::Connect { conn, kind, path } => {
                let params = open.caller.as_ref().and_then(|caller| caller.params.clone());
                let seat = Box::new(ConnSeat {
                    id: conn,
                    kind,
                    path,
                    params,
                    state: Bytes::from_static(NULL),
                });
                Some(Work::Connect { open, seat })
            }
            CallOp::Message { conn, text, data } => match frame(text, data) {
                Ok(frame) => Some(Work::Message { open, conn, frame }),
                Err(error) => {
                    self.answer(open, Err(error.into()));
                    None
                }
            },
            CallOp::Subscribe { conn, event, .. } => Some(Work::Subscribe { open, conn, event }),
            CallOp::Http(request) => {
                let handled = self
                    .slots
                    .get(&id)
                    .is_some_and(|slot| slot.actor_type.conn_hooks().request);
                if handled {
                    return Some(Work::Request { open, request });
                }
                let message = "the actor has no handler for raw requests";
                self.answer(
                    open,
                    Err(ActorError::new("handler", "request_not_defined", message).into()),
                );
                None
            }
            CallOp::Inspect => Some(Work::Inspect { open }),
            CallOp::ReplaceState { state } => {
                let state = Bytes::from(state);
                Some(Work::ReplaceState { open, state })
            }
            CallOp::ClearQueues => Some(Work::ClearQueues { open }),
            // Seen to before.
            _ => None,
        }
    }

    /// Gives an answer to whoever waits for it.
    pub(crate) fn hand_out(&self, to: ReplyTo, result: Result<CallReply, CallError>) {
        match to {
            ReplyTo::Conn(conn, inner) => inner.send(result.map(|reply| self.over_conn(conn, reply))),
            other => other.send(result),
        }
    }

    /// Makes the ends of connections turns that actors or silence have ended.
    pub(crate) fn see_off(&mut self) {
        for conn in self.take_leaving() {
            if let Err(error) = self.begin_disconnect(conn, None) {
                self.fail(format!("the store cannot be read: {error}"));
            }
        }
    }
}

/// An action that may begin, and who asked for it.
pub(crate) struct Visited {
    pub(crate) open: Open,
    pub(crate) index: usize,
    pub(crate) args: Bytes,
    pub(crate) visit: Option<Visit>,
}

/// The text or bytes of a message.
///
/// # Errors
/// When it is said to be text, and is not UTF-8.
pub(crate) fn frame(text: bool, data: Vec<u8>) -> Result<Frame, ActorError> {
    if !text {
        return Ok(Frame::Binary(data.into()));
    }
    String::from_utf8(data).map(Frame::Text).map_err(|error| {
        let message = format!("the message is no UTF-8: {error}");
        ActorError::new(group::ACTOR, code::INVALID_REQUEST, message)
    })
}
