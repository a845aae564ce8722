//! What a running turn can ask of its node.

use std::any::{Any, TypeId};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use clinch_actor::{BoxFuture, Caller, Error, Host, ReadState, ScheduleEntry, ScheduleId, Turn, UpdateState};
use clinch_types::{ActorId, CallError, WallMs, codec};
use tokio::sync::oneshot;

use crate::shard::keys::{self, ScheduleRecord};
use crate::shard::{Internal, Provisional, ShardContext};

/// The node as seen from the turns of one shard in one epoch.
pub(crate) struct ShardHost {
    context: Arc<ShardContext>,
    provisional: Arc<Provisional>,
}

impl ShardHost {
    pub(crate) fn new(context: Arc<ShardContext>, provisional: Arc<Provisional>) -> Self {
        Self { context, provisional }
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
            let ScheduleRecord { action, args } = codec::decode(&bytes).map_err(Error::internal)?;
            entries.push(ScheduleEntry {
                id,
                due,
                action,
                args: args.into(),
            });
        }
        entries.sort_by_key(|e| (e.due, e.id));
        Ok(entries)
    }

    fn caller(&self) -> Arc<dyn Caller> {
        self.context.caller.clone()
    }

    fn data(&self, type_id: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        self.context.registry.data_of(type_id)
    }

    fn with_state(
        &self,
        actor: ActorId,
        _turn: Arc<Turn>,
        f: ReadState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        self.ask(|done| Internal::Read { actor, work: f, done })
    }

    fn update_state(
        &self,
        actor: ActorId,
        turn: Arc<Turn>,
        f: UpdateState,
    ) -> BoxFuture<'static, Result<Box<dyn Any + Send>, Error>> {
        self.ask(|done| Internal::Update {
            actor,
            turn,
            work: f,
            done,
        })
    }
}
