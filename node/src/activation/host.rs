//! What a running turn can ask of its node.

use std::any::{Any, TypeId};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{
    BoxFuture, Caller, ConnSeat, Error, Host, ReadState, RunRecord, ScheduleEntry, ScheduleId, Spawn, Stored,
    Turn, UpdateState,
};
use clinch_types::{ActorId, CallError, Epoch, NodeId, WallMs, codec};
use tokio::sync::oneshot;

use super::lines::SeatTable;
use crate::shard::keys;
use crate::shard::records::{self, MessageRecord, Prefix};
use crate::shard::{Internal, Provisional, ShardContext};

/// The node as seen from the turns of one shard in one epoch.
pub(crate) struct ShardHost {
    context: Arc<ShardContext>,
    provisional: Arc<Provisional>,
    epoch: Epoch,
    seats: SeatTable,
}

impl ShardHost {
    pub(crate) fn new(context: Arc<ShardContext>, provisional: Arc<Provisional>, epoch: Epoch) -> Self {
        Self {
            context,
            provisional,
            epoch,
            seats: SeatTable::default(),
        }
    }

    pub(crate) fn seats(&self) -> &SeatTable {
        &self.seats
    }

    fn ask(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<Box<dyn Any + Send>, Error>>) -> Internal,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        let (done, answer) = oneshot::channel();
        let message = make(done);
        let internal = self.context.internal.clone();
        let shard = self.context.id;
        Box::pin(async move {
            let lost = || {
                Error::from(CallError::Unavailable {
                    shard,
                    reason: "the shard changed its owner".into(),
                })
            };
            internal.send(message).await.map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?
        })
    }
}

impl Host for ShardHost {
    #[cfg(feature = "otlp")]
    fn continue_trace(&self, span: &tracing::Span, headers: &[(String, String)]) {
        crate::otlp::continue_trace(span, headers);
    }

    fn now(&self) -> WallMs {
        self.context.clock.wall()
    }

    fn random_u128(&self) -> u128 {
        self.context.rng.u128()
    }

    fn kv_get(&self, actor: ActorId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.provisional
            .get(&keys::kv(actor, key))
            .map_err(Error::internal)
    }

    fn kv_scan(
        &self,
        actor: ActorId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        let prefix = keys::kv(actor, &[]);
        let start = match start {
            Bound::Included(key) => Bound::Included(keys::kv(actor, key)),
            Bound::Excluded(key) => Bound::Excluded(keys::kv(actor, key)),
            Bound::Unbounded => Bound::Included(prefix.clone()),
        };
        let end = match end {
            Bound::Included(key) => Bound::Included(keys::kv(actor, key)),
            Bound::Excluded(key) => Bound::Excluded(keys::kv(actor, key)),
            Bound::Unbounded => Bound::Excluded(keys::end_of(&prefix)),
        };
        let rows = self
            .provisional
            .scan(
                start.as_ref().map(Vec::as_slice),
                end.as_ref().map(Vec::as_slice),
                limit,
                reverse,
            )
            .map_err(Error::internal)?;
        Ok(rows
            .into_iter()
            .map(|(key, value)| (key[keys::KV_PREFIX..].to_vec(), value))
            .collect())
    }

    fn schedules(&self, actor: ActorId) -> Result<Vec<ScheduleEntry>, Error> {
        let prefix = keys::schedules_of_actor(actor);
        let end = keys::end_of(&prefix);
        let rows = self
            .provisional
            .scan(Bound::Included(&prefix), Bound::Excluded(&end), usize::MAX, false)
            .map_err(Error::internal)?;
        let mut entries = Vec::with_capacity(rows.len());
        for (key, due) in rows {
            let malformed = || Error::internal(format!("a schedule of actor {actor} is malformed"));
            let id = key
                .get(prefix.len()..)
                .and_then(|k| k.try_into().ok())
                .ok_or_else(malformed)?;
            let id = ScheduleId(u128::from_be_bytes(id));
            let due = WallMs(u64::from_be_bytes(due[..].try_into().map_err(|_| malformed())?));
            let Some(bytes) = self
                .provisional
                .get(&keys::schedule(due, actor, id))
                .map_err(Error::internal)?
            else {
                continue;
            };
            entries.push(records::read_schedule(due, id, &bytes).map_err(Error::internal)?);
        }
        entries.sort_by_key(|e| (e.due, e.id));
        Ok(entries)
    }

    fn queue(&self, actor: ActorId, queue: &str, committed: bool) -> Result<Vec<Stored>, Error> {
        let range = Prefix::of(records::queue_of(actor, queue));
        let rows = match committed {
            true => self
                .context
                .reader
                .scan(range.start(), range.end(), usize::MAX, false),
            false => self
                .provisional
                .scan(range.start(), range.end(), usize::MAX, false),
        };
        let mut messages = Vec::new();
        for (key, value) in rows.map_err(Error::internal)? {
            let record: MessageRecord = codec::decode(&value).map_err(Error::internal)?;
            let Some((_, id)) = records::parse_message(&key) else {
                return Err(Error::internal(format!(
                    "a queue message of actor {actor} is malformed"
                )));
            };
            messages.push(record.into_stored(queue, id));
        }
        Ok(messages)
    }

    fn schedule_history(&self, actor: ActorId, schedule: ScheduleId) -> Result<Vec<RunRecord>, Error> {
        let range = Prefix::of(records::history_of(actor, schedule));
        let rows = self
            .provisional
            .scan(range.start(), range.end(), records::HISTORY_MAX as usize, true)
            .map_err(Error::internal)?;
        rows.iter()
            .map(|(key, value)| records::read_run(key, value).map_err(Error::internal))
            .collect()
    }

    fn spawn(&self, turn: &Turn, spawn: Spawn) {
        super::beside::begin(&self.context, turn, spawn);
    }

    fn conns(&self, actor: ActorId) -> Vec<Arc<ConnSeat>> {
        self.seats.of(actor)
    }

    fn node(&self) -> NodeId {
        self.context.node
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn caller(&self) -> Arc<dyn Caller> {
        self.context.caller.clone()
    }

    fn data(&self, type_id: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        self.context.registry.data_of(type_id)
    }

    fn settled(&self, turn: &Arc<Turn>) -> BoxFuture<'static, Result<(), Error>> {
        let turn = turn.clone();
        let settled = self.ask(|done| Internal::Settled { turn, done });
        Box::pin(async { settled.await.map(drop) })
    }

    fn with_state(
        &self,
        actor: ActorId,
        turn: Arc<Turn>,
        f: ReadState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        if let Err(error) = check_chain(actor, &turn) {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.ask(|done| Internal::Read {
            actor,
            turn,
            work: f,
            done,
        })
    }

    fn update_state(
        &self,
        actor: ActorId,
        turn: Arc<Turn>,
        f: UpdateState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        if let Err(error) = check_chain(actor, &turn) {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.ask(|done| Internal::Update {
            actor,
            turn,
            work: f,
            done,
        })
    }
}

/// An action that an actor's own turn waits for cannot have the state before that turn ends.
fn check_chain(actor: ActorId, turn: &Turn) -> Result<(), Error> {
    if !turn.chain.contains(&actor) {
        return Ok(());
    }
    let chain = turn.chain.iter().copied().chain([actor]).collect();
    Err(CallError::Deadlock { chain }.into())
}
