//! One awake actor in memory: its state, and a mailbox only while it is busy.
//!
//! Invariant: `state` is `None` exactly while an exclusive turn (or a hook) holds it. An idle actor is a map entry, its
//! facts and its state: no task, no channel (DESIGN §5 rule 8).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{
    ActorMeta, ActorType, ConnSeat, Durability, Error, Frame, Hook, Life, ReadState, ScheduleEntry,
    ScheduleId, StateArc, Turn, UpdateState,
};
use clinch_types::{CallRequest, ConnId, Door, HttpRequest, RequestId, Version, WallMs};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queues::Stock;
use crate::shard::ReplyTo;

/// A call that has been admitted.
pub(crate) struct Open {
    pub(crate) request: RequestId,
    pub(crate) long_dedup: bool,
    pub(crate) chain: Vec<clinch_types::ActorId>,
    pub(crate) deadline: Instant,
    /// When it came to the shard.
    pub(crate) arrived: Instant,
    /// W3C trace context, of a call with one.
    pub(crate) trace: Option<Box<[u8; 25]>>,
    pub(crate) reply: ReplyTo,
    /// This call created the actor.
    pub(crate) created: bool,
    /// Who calls, of a call from outside that has not been let in yet.
    pub(crate) caller: Option<Box<Caller>>,
}

/// Who calls from outside of the cluster.
#[derive(Default)]
pub(crate) struct Caller {
    pub(crate) door: Door,
    /// CBOR of the connection parameters.
    pub(crate) params: Option<Bytes>,
    /// Its connection, of one that has been let in.
    pub(crate) seat: Option<Arc<ConnSeat>>,
}

/// What begins once a visitor has been let in.
pub(crate) enum Guarded {
    Action {
        index: usize,
        args: Bytes,
    },
    Push {
        queue: String,
        body: Vec<u8>,
        wait: bool,
    },
}

/// Something the actor must do, in order of arrival.
pub(crate) enum Work {
    /// An action somebody called.
    Action { open: Open, index: usize, args: Bytes },
    /// Show what the actor is made of.
    Inspect { open: Open },
    /// Put a state that somebody wrote in the place of its own.
    ReplaceState { open: Open, state: Bytes },
    /// Empty its queues.
    ClearQueues { open: Open },
    /// Find out who the actor is (it is awake, so it exists).
    Resolve { open: Open },
    /// Destroy it.
    Destroy { open: Open },
    /// A schedule is due.
    Fire { id: ScheduleId, due: WallMs },
    /// A message for one of its queues.
    Push {
        open: Open,
        queue: String,
        body: Vec<u8>,
        wait: bool,
    },
    /// A client connects.
    Connect { open: Open, seat: Box<ConnSeat> },
    /// A message of a raw WebSocket.
    Message { open: Open, conn: ConnId, frame: Frame },
    /// A connection that needs leave to subscribe.
    Subscribe { open: Open, conn: ConnId, event: String },
    /// A connection ends.
    Disconnect { open: Option<Open>, conn: ConnId },
    /// A raw HTTP request.
    Request { open: Open, request: Box<HttpRequest> },
    /// An action without `self` has ended well and asked for something: committed as a turn, with its answer.
    Settle {
        open: Open,
        turn: Arc<Turn>,
        output: Vec<u8>,
        /// Its number among the recent turns.
        noted: u64,
    },
    /// An interleaved action reads.
    Read {
        work: ReadState,
        done: oneshot::Sender<Result<Box<dyn std::any::Any + Send>, Error>>,
    },
    /// An interleaved action writes.
    Update {
        turn: Arc<Turn>,
        work: UpdateState,
        done: oneshot::Sender<Result<Box<dyn std::any::Any + Send>, Error>>,
    },
    /// Idle for long enough, or asked to: go to sleep.
    Sleep,
}

impl Work {
    /// Who waits for it until it has begun and ended, if somebody does.
    pub(crate) fn caller(&self) -> Option<&Open> {
        match self {
            Self::Action { open, .. }
            | Self::Inspect { open }
            | Self::ReplaceState { open, .. }
            | Self::ClearQueues { open }
            | Self::Resolve { open }
            | Self::Destroy { open }
            | Self::Push { open, .. }
            | Self::Connect { open, .. }
            | Self::Message { open, .. }
            | Self::Subscribe { open, .. }
            | Self::Request { open, .. } => Some(open),
            Self::Disconnect { open, .. } => open.as_ref(),
            Self::Fire { .. }
            | Self::Settle { .. }
            | Self::Read { .. }
            | Self::Update { .. }
            | Self::Sleep => None,
        }
    }

    /// As [`Work::caller`], for what is not done.
    pub(crate) fn into_caller(self) -> Option<Open> {
        match self {
            Self::Action { open, .. }
            | Self::Inspect { open }
            | Self::ReplaceState { open, .. }
            | Self::ClearQueues { open }
            | Self::Resolve { open }
            | Self::Destroy { open }
            | Self::Push { open, .. }
            | Self::Connect { open, .. }
            | Self::Message { open, .. }
            | Self::Subscribe { open, .. }
            | Self::Request { open, .. } => Some(open),
            Self::Disconnect { open, .. } => open,
            Self::Fire { .. }
            | Self::Settle { .. }
            | Self::Read { .. }
            | Self::Update { .. }
            | Self::Sleep => None,
        }
    }
}

/// What an exclusive turn in progress is for.
pub(crate) enum Running {
    /// `create` (first of all) or the hooks before the actor serves.
    Start {
        created: bool,
    },
    Action {
        open: Open,
    },
    Fire {
        entry: Box<ScheduleEntry>,
    },
    Connect {
        open: Open,
        seat: Box<ConnSeat>,
    },
    Disconnect {
        open: Option<Open>,
        conn: ConnId,
    },
    /// A raw HTTP request, whose answer has a limit of its own.
    Request {
        open: Open,
    },
    /// A visitor is let in, for what begins then.
    Guard {
        open: Open,
        then: Guarded,
    },
    /// `on_destroy`, after the turn (or call) that asked for it.
    Destroy {
        open: Option<Open>,
        output: Vec<u8>,
    },
    Sleep,
}

/// The part of an actor that exists only while it is busy.
#[derive(Default)]
pub(crate) struct Busy {
    pub(crate) queue: VecDeque<Work>,
    /// An exclusive turn that has the state, with the number that its end must carry.
    pub(crate) running: Option<(u64, Running, Arc<Turn>)>,
    /// Shared turns that have not ended.
    pub(crate) readers: u32,
    /// Interleaved turns that have not ended.
    pub(crate) interleaved: u32,
    /// The encoded state after the last executed turn, while a batch with it is not yet applied.
    pub(crate) base: Option<Bytes>,
    /// Set by a turn that asked for sleep.
    pub(crate) sleep: bool,
    /// Falling asleep: only what work beside the turns still asks for is let through.
    pub(crate) stopping: bool,
    /// `on_sleep` has run: out of memory as soon as its writes are committed.
    pub(crate) asleep: bool,
}

/// One awake actor.
pub(crate) struct Slot {
    pub(crate) meta: Arc<ActorMeta>,
    pub(crate) actor_type: Arc<dyn ActorType>,
    pub(crate) life: Arc<Life>,
    /// What its queues hold, once that was needed.
    pub(crate) stock: Option<Box<Stock>>,
    /// The state in memory is newer than the stored one.
    pub(crate) unsaved: bool,
    /// How often in a row the `run` hook failed.
    pub(crate) run_failures: u32,
    pub(crate) state: Option<StateArc>,
    pub(crate) version: Version,
    /// The last batch that carries a write of this actor; 0 for none in this epoch.
    pub(crate) last_seq: u64,
    /// Place of its state in that batch, good while the batch is being filled.
    pub(crate) state_at: u32,
    /// Seconds of the shard's clock when it was last used.
    pub(crate) used: u32,
    pub(crate) busy: Option<Box<Busy>>,
}

impl Running {
    /// The caller who waits for this turn, if any.
    pub(crate) fn open(&self) -> Option<&Open> {
        match self {
            Self::Action { open }
            | Self::Connect { open, .. }
            | Self::Request { open }
            | Self::Guard { open, .. } => Some(open),
            Self::Destroy { open, .. } | Self::Disconnect { open, .. } => open.as_ref(),
            Self::Start { .. } | Self::Fire { .. } | Self::Sleep => None,
        }
    }
}

impl Slot {
    pub(crate) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Whether anything runs or waits.
    pub(crate) fn idle(&self) -> bool {
        self.busy
            .as_ref()
            .is_none_or(|b| b.queue.is_empty() && b.running.is_none() && b.readers == 0 && b.interleaved == 0)
    }

    /// Whether this action may start at once, without a place in the queue: nothing runs and nothing waits.
    pub(crate) fn is_free_for(&self, work: &Work) -> bool {
        matches!(work, Work::Action { .. })
            && self.idle()
            && self.busy.as_ref().is_none_or(|b| !b.stopping && !b.asleep)
    }

    /// Whether the state in memory must be written before the actor leaves it.
    pub(crate) fn must_save(&self) -> bool {
        self.unsaved && self.actor_type.options().durability != Durability::MayLoseEverything
    }

    /// Whether it is made, awake and to stay so: then a message may be added, whatever turn is running.
    pub(crate) fn takes_messages(&self) -> bool {
        self.busy.as_ref().is_none_or(|busy| {
            let coming_or_going = matches!(
                busy.running,
                Some((
                    _,
                    Running::Start { .. } | Running::Destroy { .. } | Running::Sleep,
                    _
                ))
            );
            !(coming_or_going || busy.stopping || busy.asleep)
        })
    }

    /// Whether it falls asleep already, or is told to next.
    pub(crate) fn falls_asleep(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| {
            let runs = busy.running.as_ref().map(|(_, running, _)| running);
            let is_queued = busy.queue.iter().any(|work| matches!(work, Work::Sleep));
            is_queued || busy.stopping || busy.asleep || matches!(runs, Some(Running::Sleep))
        })
    }

    /// Whether something is to be done before the node stops.
    pub(crate) fn has_last_words(&self) -> bool {
        self.must_save() || self.actor_type.has_hook(Hook::OnSleep) || self.life.has_tasks()
    }

    /// Gives the mailbox back when nothing runs, waits or is in flight.
    pub(crate) fn settle(&mut self, committed: u64) {
        if self.last_seq <= committed
            && self.idle()
            && !self.unsaved
            && !self
                .busy
                .as_ref()
                .is_some_and(|b| b.sleep || b.asleep || b.stopping)
        {
            self.busy = None;
        }
    }
}

impl Open {
    /// Whether it comes from outside, over no connection that has been let in.
    pub(crate) fn is_outside(&self) -> bool {
        self.caller
            .as_ref()
            .is_some_and(|caller| caller.seat.is_none() && caller.door.conn.is_none())
    }

    /// Takes out of a call who makes it.
    pub(crate) fn of(
        mut request: CallRequest,
        arrived: Instant,
        deadline: Instant,
        reply: ReplyTo,
    ) -> (CallRequest, Self) {
        let (door, params) = (request.door.take(), request.params.take());
        // Calls of other actors and of programs with a certificate of the cluster come in without any of these.
        let caller = (door.is_some() || params.is_some()).then(|| {
            Box::new(Caller {
                door: door.map(|door| *door).unwrap_or_default(),
                params: params.map(Bytes::from),
                seat: None,
            })
        });
        let open = Self {
            caller,
            request: request.request,
            long_dedup: request.long_dedup,
            chain: request.chain.clone(),
            deadline,
            arrived,
            trace: (request.trace != [0; 25]).then(|| Box::new(request.trace)),
            reply,
            created: false,
        };
        (request, open)
    }
}
