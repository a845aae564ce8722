//! The control group on one node: the replicated cluster state, who may change it, and how nodes come in.
//!
//! Invariant: the state is one record, written whole by the leader of the control group under its term; a command is
//! judged (`ClusterState::apply`) against the last applied state, one at a time. The data path never waits for it: it
//! works from the last state this node has seen.
//! Not here: the rules (`membership`), opening shards (`node`).

mod join;
mod leader;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_membership::{ClusterState, Command, NodeRecord};
use clinch_storage::BatchBuilder;
use clinch_transport::{Class, Inbound, PeerId, Refusal, RefusalCode, Transport};
use clinch_types::{NodeId, codec};
use openraft::async_runtime::WatchReceiver;
use openraft::impls::ProgressResponder;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use join::{JoinRequest, join_by_seeds};

use crate::shard::{Group, kinds, respond};
use crate::tasks::Tasks;

/// Where the cluster state lies in the control group's store.
const STATE_KEY: &[u8] = b"state";
/// How long one attempt to reach the control leader may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Why a command did not take effect, or perhaps did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, bincode::Encode, bincode::Decode)]
pub(crate) enum ControlError {
    /// The rules say no.
    #[error("{0}")]
    Rejected(String),
    /// No leader could be reached.
    #[error("the control group has no leader that can be reached: {0}")]
    Unavailable(String),
}

/// The control group as the rest of the node sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    group: Group,
    transport: Transport,
    tasks: Tasks,
    state: watch::Sender<Option<Arc<ClusterState>>>,
    /// Commands are judged one at a time.
    judging: tokio::sync::Mutex<()>,
}

impl Control {
    pub(crate) fn new(node: NodeId, group: Group, transport: Transport, tasks: Tasks) -> Self {
        let (state, _) = watch::channel(None);
        let judging = tokio::sync::Mutex::default();
        let control = Self {
            inner: Arc::new(Inner {
                node,
                group,
                transport,
                tasks,
                state,
                judging,
            }),
        };
        control.refresh();
        control
    }

    /// Follows the group until the node stops: publishes each new state, and leads when it is this node's turn.
    pub(crate) fn start(&self) {
        let control = self.clone();
        self.inner.tasks.spawn_until_stop(async move {
            let mut data = control.inner.group.raft.data_metrics();
            loop {
                control.refresh();
                if data.changed().await.is_err() {
                    return;
                }
            }
        });
        let control = self.clone();
        self.inner
            .tasks
            .spawn_until_stop(async move { control.lead().await });
    }

    /// The last state seen, and every later one.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<ClusterState>>> {
        self.inner.state.subscribe()
    }

    /// The last state seen; `None` before the node is part of a cluster.
    pub(crate) fn state(&self) -> Option<Arc<ClusterState>> {
        self.inner.state.borrow().clone()
    }

    pub(crate) fn group(&self) -> &Group {
        &self.inner.group
    }

    /// Reads the applied state and publishes it if it is new.
    fn refresh(&self) {
        match self.read() {
            Ok(Some(state)) => {
                self.inner.state.send_if_modified(|known| {
                    let newer = known.as_ref().is_none_or(|k| k.version < state.version);
                    if newer {
                        *known = Some(Arc::new(state));
                    }
                    newer
                });
            }
            Ok(None) => {}
            Err(error) => tracing::error!(error, "the cluster state cannot be read"),
        }
    }

    fn read(&self) -> Result<Option<ClusterState>, String> {
        let bytes = self
            .inner
            .group
            .reader
            .get(STATE_KEY)
            .map_err(|e| e.to_string())?;
        bytes
            .map(|b| codec::decode(&b).map_err(|e| e.to_string()))
            .transpose()
    }

    /// Makes the cluster: the first state, with this node in it. Only on the node that bootstraps, only once.
    pub(crate) async fn bootstrap(&self, state: ClusterState) -> anyhow::Result<()> {
        self.inner.group.initialize(&[self.inner.node]).await?;
        let _judging = self.inner.judging.lock().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            self.refresh();
            if self.state().is_some() {
                return Ok(());
            }
            if let Err(error) = self.write(&state).await {
                anyhow::ensure!(
                    Instant::now() < deadline,
                    "the cluster could not be created: {error}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Changes the cluster state, here or through whichever node leads.
    pub(crate) async fn propose(&self, command: Command, timeout: Duration) -> Result<(), ControlError> {
        let deadline = Instant::now() + timeout;
        let body = codec::encode(&command).map_err(|e| ControlError::Rejected(e.to_string()))?;
        let body = Bytes::from(body);
        loop {
            let problem = match self.leader() {
                Some(leader) if leader == self.inner.node => match self.judge(command.clone()).await {
                    Err(ControlError::Unavailable(problem)) => problem,
                    decided => return decided,
                },
                Some(leader) => match self.forward(leader, kinds::COMMAND, body.clone()).await {
                    Ok(answer) => match codec::decode::<Result<(), ControlError>>(&answer) {
                        Ok(Err(ControlError::Unavailable(problem))) => problem,
                        Ok(decided) => return decided,
                        Err(error) => error.to_string(),
                    },
                    Err(problem) => problem,
                },
                None => "no leader is known".to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(ControlError::Unavailable(problem));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Tells the cluster that this node, known to it, has started again. For the node without seeds to ask.
    ///
    /// # Errors
    /// When the cluster says no.
    pub(crate) async fn rejoin(&self, record: NodeRecord) -> anyhow::Result<()> {
        let command = Command::Join { record };
        loop {
            match self.propose(command.clone(), Duration::from_secs(5)).await {
                Ok(()) => return Ok(()),
                Err(ControlError::Rejected(reason)) => {
                    anyhow::bail!("the cluster does not take this node back: {reason}")
                }
                Err(ControlError::Unavailable(reason)) => {
                    tracing::warn!(reason, "the cluster has not heard yet that this node is back");
                }
            }
        }
    }

    fn leader(&self) -> Option<NodeId> {
        self.inner
            .group
            .raft
            .server_metrics()
            .borrow_watched()
            .current_leader
            .map(NodeId)
    }

    async fn forward(&self, leader: NodeId, kind: u8, body: Bytes) -> Result<Bytes, String> {
        self.inner
            .transport
            .call(leader, Class::Control, kind, body, ATTEMPT)
            .await
            .map_err(|e| e.to_string())
    }

    /// Judges a command against the applied state and commits the result. Only on the leader.
    async fn judge(&self, command: Command) -> Result<(), ControlError> {
        let unavailable = |e: String| ControlError::Unavailable(e);
        let _judging = self.inner.judging.lock().await;
        self.inner
            .group
            .raft
            .ensure_linearizable(openraft::ReadPolicy::ReadIndex)
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let state = self.read().map_err(unavailable)?;
        let state = state.ok_or_else(|| unavailable("the cluster is not formed yet".into()))?;
        let next = state
            .apply(command)
            .map_err(|e| ControlError::Rejected(e.to_string()))?;
        if next.version == state.version {
            return Ok(());
        }
        self.write(&next).await.map_err(unavailable)?;
        self.refresh();
        Ok(())
    }

    /// Commits a whole state under the current term.
    async fn write(&self, state: &ClusterState) -> Result<(), String> {
        let raft = &self.inner.group.raft;
        let leader = raft
            .as_leader()
            .map_err(|e| e.to_string())?
            .to_committed_leader_id();
        let mut batch = BatchBuilder::default();
        batch.put(STATE_KEY, &codec::encode(state).map_err(|e| e.to_string())?);
        let (responder, receipt) = ProgressResponder::complete_only();
        raft.write(batch.finish())
            .with_leader(leader)
            .responder(responder)
            .await
            .map_err(|e| e.to_string())?;
        receipt
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    /// A node or a client asks something of the control group.
    pub(crate) fn request(&self, inbound: Inbound) {
        let PeerId::Node(_) = inbound.from else {
            let text = format!("{} is not a node", inbound.from);
            return inbound.refuse(Refusal::new(RefusalCode::Forbidden, text));
        };
        let control = self.clone();
        self.inner.tasks.spawn_until_stop(async move {
            match inbound.kind {
                kinds::COMMAND => match codec::decode::<Command>(&inbound.body) {
                    Ok(command) => {
                        let result = control.judge(command).await;
                        respond(inbound, &result);
                    }
                    Err(error) => inbound.refuse(Refusal::new(RefusalCode::Invalid, error.to_string())),
                },
                kinds::JOIN => control.serve_join(inbound).await,
                kind => {
                    let text = format!("no control service for kind {kind}");
                    inbound.refuse(Refusal::new(RefusalCode::UnknownKind, text));
                }
            }
        });
    }
}
