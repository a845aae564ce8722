//! The receiving side of Raft between nodes: finds the group a message is for and lets it answer.
//!
//! Messages are a group number (4 bytes, little-endian), the low half of the cluster's id (8 bytes) and the message
//! through the codec. Only nodes of the cluster may send them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clinch_storage::raft::{Snapshot, SnapshotMeta, Vote};
use clinch_storage::{GroupId, SnapshotSink, Storage};
use clinch_transport::{Inbound, InboundStream, PeerId, Refusal, RefusalCode};
use clinch_types::{ClusterId, codec, planted};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Raft;
use super::vigil::Heard;
use crate::tasks::Tasks;

/// Kinds of request between nodes (see [`clinch_types::kind`] for the others).
pub(crate) mod kinds {
    /// Append entries, and heartbeats.
    pub(crate) const APPEND: u8 = 32;
    /// Ask for a vote.
    pub(crate) const VOTE: u8 = 33;
    /// Ask whether a vote would be given.
    pub(crate) const PRE_VOTE: u8 = 34;
    /// Hand the leadership over.
    pub(crate) const TRANSFER: u8 = 35;
    /// A stream with a snapshot.
    pub(crate) const SNAPSHOT: u8 = 36;
    /// What became of a snapshot.
    pub(crate) const SNAPSHOT_DONE: u8 = 37;
    /// A node asks to join, or comes back.
    pub(crate) const JOIN: u8 = 40;
    /// A command for the control group.
    pub(crate) const COMMAND: u8 = 41;
    /// How the node is.
    pub(crate) const STATUS: u8 = 42;
    /// The node that asks is about to stop.
    pub(crate) const LEAVING: u8 = 43;
}

/// What stands before the bytes of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) group: u32,
    pub(crate) token: u128,
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

/// How far a snapshot is.
#[derive(Debug, Clone)]
enum Arrival {
    /// Its sender asks for it; its stream has not come so far.
    Awaited,
    /// It is being read and installed.
    Begun,
    Ended(Result<Vote, String>),
}

/// Time a stream may come later than the question for its outcome: they travel side by side.
const OVERTAKEN_MAX: Duration = Duration::from_secs(2);
/// Time an outcome is kept for a sender that has not asked.
const OUTCOME_KEPT: Duration = Duration::from_secs(60);

/// Where Raft messages arrive. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RaftDesk {
    inner: Arc<Inner>,
}

struct Inner {
    groups: RwLock<BTreeMap<u32, Raft>>,
    snapshots: Mutex<HashMap<u128, watch::Sender<Arrival>>>,
    storage: Storage,
    tasks: Tasks,
    cluster: OnceLock<u64>,
    heard: Heard,
}

impl RaftDesk {
    pub(crate) fn new(storage: Storage, tasks: Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                groups: RwLock::new(BTreeMap::new()),
                snapshots: Mutex::new(HashMap::new()),
                storage,
                tasks,
                cluster: OnceLock::new(),
                heard: Heard::default(),
            }),
        }
    }

    /// Which cluster's messages are taken; known before the first group is opened.
    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        // Set twice only to the same value: a node never changes its cluster.
        let _known = self.inner.cluster.set(cluster.0 as u64);
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.inner.cluster.get().copied().unwrap_or_default()
    }

    pub(crate) fn open(&self, group: GroupId, raft: Raft) {
        self.inner.groups.write().insert(group.0, raft);
    }

    /// The open groups, in order.
    pub(crate) fn groups(&self) -> Vec<(u32, Raft)> {
        let groups = self.inner.groups.read();
        groups.iter().map(|(id, raft)| (*id, raft.clone())).collect()
    }

    /// When each node was last heard.
    pub(crate) fn heard(&self) -> &Heard {
        &self.inner.heard
    }

    pub(crate) fn close_all(&self) -> Vec<Raft> {
        std::mem::take(&mut *self.inner.groups.write())
            .into_values()
            .collect()
    }

    /// Whether this desk handles the kind.
    pub(crate) fn handles(kind: u8) -> bool {
        (kinds::APPEND..=kinds::SNAPSHOT_DONE).contains(&kind)
    }

    pub(crate) fn request(&self, inbound: Inbound) {
        let PeerId::Node(node) = inbound.from else {
            let text = format!("{} is not a node", inbound.from);
            return inbound.refuse(Refusal::new(RefusalCode::Forbidden, text));
        };
        if inbound.kind == kinds::SNAPSHOT_DONE {
            return self.snapshot_done(inbound);
        }
        let Some((group, cluster, body)) = split(&inbound.body) else {
            return inbound.refuse(Refusal::new(
                RefusalCode::Invalid,
                "a raft message of less than 12 bytes",
            ));
        };
        if cluster != self.cluster() {
            let text = format!("{} belongs to another cluster", inbound.from);
            return inbound.refuse(Refusal::new(RefusalCode::Forbidden, text));
        }
        self.inner.heard.note(node);
        let Some(raft) = self.inner.groups.read().get(&group).cloned() else {
            let text = format!("this node has no replica of {}", GroupId(group));
            return inbound.refuse(Refusal::new(RefusalCode::Stopping, text));
        };
        self.inner.tasks.spawn_until_stop(async move {
            let answer = match inbound.kind {
                kinds::APPEND => answer(&body, |rpc| raft.append_entries(rpc)).await,
                kinds::VOTE => answer(&body, |rpc| raft.vote(rpc)).await,
                kinds::PRE_VOTE => answer(&body, |rpc| raft.pre_vote(rpc)).await,
                _ => answer(&body, |rpc| raft.handle_transfer_leader(rpc)).await,
            };
            match answer {
                Ok(bytes) => inbound.respond(bytes.into()),
                Err(text) => inbound.refuse(Refusal::new(RefusalCode::Invalid, text)),
            }
        });
    }

    /// A snapshot arrives.
    pub(crate) fn stream(&self, inbound: InboundStream) {
        let header: SnapshotHeader = match codec::decode_serde(&inbound.header) {
            Ok(header) => header,
            Err(error) => {
                return tracing::warn!(from = %inbound.from, %error, "a snapshot with an unreadable header");
            }
        };
        let desk = self.clone();
        self.inner.tasks.spawn_until_stop(async move {
            let token = header.token;
            let group = GroupId(header.group);
            let from = inbound.from.to_string();
            let arrival = desk.arrival(token);
            arrival.send_replace(Arrival::Begun);
            let outcome = desk.receive(header, inbound).await;
            match &outcome {
                Ok(_) => tracing::info!(%group, from, "snapshot installed"),
                Err(error) => tracing::warn!(%group, from, error, "snapshot not installed"),
            }
            arrival.send_replace(Arrival::Ended(outcome));
            tokio::time::sleep(OUTCOME_KEPT).await;
            desk.inner.snapshots.lock().remove(&token);
        });
    }

    async fn receive(&self, header: SnapshotHeader, mut inbound: InboundStream) -> Result<Vote, String> {
        let group = GroupId(header.group);
        let raft = self.inner.groups.read().get(&header.group).cloned();
        let raft = raft.ok_or_else(|| format!("this node has no replica of {group}"))?;
        let mut sink = SnapshotSink::begin(&self.inner.storage, group, header.meta.clone())
            .map_err(|e| e.to_string())?;
        while let Some(bytes) = inbound.stream.read().await.map_err(|e| e.to_string())? {
            let taken = match planted!("snapshot-by-packet") {
                true => sink.write_chunk(bytes),
                false => sink.write(&bytes),
            };
            taken.map_err(|e| e.to_string())?;
        }
        let snapshot = sink.finish().map_err(|e| e.to_string())?;
        let snapshot = Snapshot {
            meta: header.meta,
            snapshot,
        };
        let response = raft
            .install_full_snapshot(header.vote, snapshot)
            .await
            .map_err(|e| e.to_string())?;
        Ok(response.vote)
    }

    fn arrival(&self, token: u128) -> watch::Sender<Arrival> {
        self.inner
            .snapshots
            .lock()
            .entry(token)
            .or_insert_with(|| watch::channel(Arrival::Awaited).0)
            .clone()
    }

    /// The sender asks what became of its snapshot.
    fn snapshot_done(&self, inbound: Inbound) {
        let Ok(token) = codec::decode_serde::<u128>(&inbound.body) else {
            return inbound.refuse(Refusal::new(
                RefusalCode::Invalid,
                "a snapshot token that cannot be read",
            ));
        };
        let desk = self.clone();
        self.inner.tasks.spawn_until_stop(async move {
            let deadline = inbound.deadline;
            let outcome = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, desk.ended(token)).await.ok(),
                None => Some(desk.ended(token).await),
            };
            desk.inner.snapshots.lock().remove(&token);
            let refuse = |text| Refusal::new(RefusalCode::Invalid, text);
            match outcome
                .map(|vote| vote.and_then(|vote| codec::encode_serde(&vote).map_err(|e| e.to_string())))
            {
                Some(Ok(bytes)) => inbound.respond(Bytes::from(bytes)),
                Some(Err(text)) => inbound.refuse(refuse(text)),
                None => drop(inbound),
            }
        });
    }

    /// Waits for the outcome of a snapshot. One whose stream does not come was lost, as with a node that restarts between
    /// the two: waiting longer would keep its sender from sending it again.
    async fn ended(&self, token: u128) -> Result<Vote, String> {
        let mut arrival = self.arrival(token).subscribe();
        if !planted!("snapshot-awaited") {
            let begun = arrival.wait_for(|a| !matches!(a, Arrival::Awaited));
            if tokio::time::timeout(OVERTAKEN_MAX, begun).await.is_err() {
                return Err("the snapshot has not arrived: send it again".into());
            }
        }
        let ended = arrival.wait_for(|a| matches!(a, Arrival::Ended(_))).await;
        match ended.as_deref() {
            Ok(Arrival::Ended(outcome)) => outcome.clone(),
            _ => Err("the node is stopping".into()),
        }
    }
}

fn split(body: &Bytes) -> Option<(u32, u64, Bytes)> {
    let (group, rest) = body.split_first_chunk::<4>()?;
    let (cluster, _) = rest.split_first_chunk::<8>()?;
    Some((
        u32::from_le_bytes(*group),
        u64::from_le_bytes(*cluster),
        body.slice(12..),
    ))
}

async fn answer<Rpc, Answer, Error, F>(body: &[u8], call: impl FnOnce(Rpc) -> F) -> Result<Vec<u8>, String>
where
    Rpc: serde::de::DeserializeOwned,
    Answer: Serialize,
    Error: std::fmt::Display,
    F: Future<Output = Result<Answer, Error>>,
{
    let rpc = codec::decode_serde(body).map_err(|e| e.to_string())?;
    let answer = call(rpc).await.map_err(|e| e.to_string())?;
    codec::encode_serde(&answer).map_err(|e| e.to_string())
}
