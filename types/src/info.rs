//! Questions about actors that are not calls on them: what exists, and where.

use bincode::{Decode, Encode};

use crate::{ActorId, Key, RegionId, WallMs};

/// What the cluster knows about one actor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ActorInfo {
    /// Its id.
    pub id: ActorId,
    /// Its namespace.
    pub namespace: String,
    /// Its type's name.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// Its home region.
    pub region: RegionId,
    /// When it was created.
    pub created: WallMs,
    /// Whether it is in memory at its owner now.
    pub awake: bool,
}

/// How an actor is, as its owner sees it at this moment. There is none for an actor that was destroyed: that is
/// `actor.not_found`, as for one that never was. Nor is there a pending one: an actor is made where it is asked for.
///
/// The owner keeps it in memory: after a change of owner a crashed actor is told to be sleeping until it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum ActorStatus {
    /// In memory: the hooks of its creation or waking run, and calls wait for them.
    Starting,
    /// In memory, and serving calls.
    Running,
    /// In memory, on its way out: `on_sleep` or `on_destroy` runs, or work beside the turns ends before.
    Stopping,
    /// On disk only; the next call, message or schedule wakes it.
    Sleeping,
    /// On disk only, and it could not be woken the last time. The next call tries again at once.
    Crashed(Crash),
    /// In memory and serving calls, but its `run` hook failed and waits to be begun again.
    BackingOff(Crash),
}

impl ActorStatus {
    /// The status as one word, for people and programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Sleeping => "sleeping",
            Self::Crashed(_) => "crashed",
            Self::BackingOff(_) => "backing-off",
        }
    }

    /// What went wrong, if something did.
    pub fn crash(&self) -> Option<&Crash> {
        match self {
            Self::Crashed(crash) | Self::BackingOff(crash) => Some(crash),
            Self::Starting | Self::Running | Self::Stopping | Self::Sleeping => None,
        }
    }
}

/// Why an actor is not as it should be, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Crash {
    /// Group of the last error.
    pub group: String,
    /// Its code; the text and the cause are in the log of the owner.
    pub code: String,
    /// How often in a row it failed, 1 or more.
    pub failures: u32,
    /// When it failed first, of these.
    pub since: WallMs,
    /// When it is tried again without anybody's call; `None` when only a call will.
    pub next_try: Option<WallMs>,
}

/// An actor, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ActorView {
    /// Who it is.
    pub info: ActorInfo,
    /// How it is.
    pub status: ActorStatus,
}

impl From<ActorInfo> for ActorView {
    /// All that an owner of an earlier release tells: whether the actor is awake.
    fn from(info: ActorInfo) -> Self {
        let status = match info.awake {
            true => ActorStatus::Running,
            false => ActorStatus::Sleeping,
        };
        Self { info, status }
    }
}

/// Something about an actor, or a type of actors, that will hurt as the load grows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ActorWarning {
    /// For programs: `hot-actor`, `slow-turns`, `large-state` or `short-lived`.
    pub code: String,
    /// For people: the numbers, and what to do.
    pub message: String,
}

/// What an owner tells of one actor without waking it; the output of [`CallOp::Look`](crate::CallOp::Look).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ActorLook {
    /// The actor.
    pub view: ActorView,
    /// What is wrong with how it is used.
    pub warnings: Vec<ActorWarning>,
}

/// Asks one shard's owner for its actors, in order of id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ListRequest {
    /// The shard asked.
    pub shard: crate::ShardId,
    /// Only this namespace.
    pub namespace: String,
    /// Only actors of this name.
    pub name: Option<String>,
    /// Only these ids; empty means all.
    pub ids: Vec<ActorId>,
    /// Only ids above this one (the last of the previous page).
    pub after: Option<ActorId>,
    /// At most this many, 1 to [`crate::limits::LIST_MAX`].
    pub limit: u32,
}

/// One page of actors of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ListReply {
    /// The actors, in order of id.
    pub actors: Vec<ActorInfo>,
    /// Where the next page goes on (its `after`); `None` at the end. May come with an empty page: a page also ends when
    /// enough actors were looked at.
    pub next: Option<ActorId>,
}

/// As [`ListReply`], with the status of each actor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ViewReply {
    /// The actors, in order of id.
    pub actors: Vec<ActorView>,
    /// As [`ListReply::next`].
    pub next: Option<ActorId>,
    /// What is wrong with how the actor type is used that was asked for by its name.
    pub warnings: Vec<ActorWarning>,
}

impl From<ListReply> for ViewReply {
    fn from(reply: ListReply) -> Self {
        Self {
            actors: reply.actors.into_iter().map(ActorView::from).collect(),
            next: reply.next,
            warnings: Vec::new(),
        }
    }
}

impl From<ViewReply> for ListReply {
    fn from(reply: ViewReply) -> Self {
        Self {
            actors: reply.actors.into_iter().map(|view| view.info).collect(),
            next: reply.next,
        }
    }
}
