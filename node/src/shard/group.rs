//! Opening one Raft group on this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use clinch_storage::{GroupId, GroupReader, Storage};
use clinch_transport::Transport;
use clinch_types::NodeId;
use openraft::{BasicNode, SnapshotPolicy};

use super::network::Network;
use super::rpc::RaftDesk;
use crate::config::RaftConfig;
use crate::seams::NodeRng;

/// One Raft group of this node.
pub(crate) type Raft = clinch_storage::raft::Raft;

/// What every group of a node is opened with.
#[derive(Clone)]
pub(crate) struct GroupParts {
    pub(crate) node: NodeId,
    pub(crate) config: RaftConfig,
    pub(crate) storage: Storage,
    pub(crate) transport: Transport,
    pub(crate) rng: Arc<NodeRng>,
    pub(crate) desk: RaftDesk,
}

/// An open group.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) raft: Raft,
    pub(crate) reader: GroupReader,
}

/// Opens a group and lets other nodes reach it.
///
/// # Errors
/// What openraft or the storage said.
pub(crate) async fn open_group(parts: &GroupParts, id: GroupId) -> anyhow::Result<Group> {
    let (log, machine, reader) = parts.storage.group(id)?;
    let config = openraft::Config {
        cluster_name: id.to_string(),
        heartbeat_interval: parts.config.heartbeat_ms,
        election_timeout_min: parts.config.election_min_ms,
        election_timeout_max: parts.config.election_max_ms,
        // Entries are batches already.
        max_payload_entries: 64,
        // Checkpoints make snapshots, and decide what of the log may go (see `checkpoint`).
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A restarted leader must not take up an ownership that others may have taken over.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    let config = Arc::new(config.validate()?);
    let network = Network {
        group: id,
        transport: parts.transport.clone(),
        rng: parts.rng.clone(),
        cluster: parts.desk.cluster(),
    };
    let raft = Raft::new(parts.node.0, config, network, log, machine).await?;
    parts.desk.open(id, raft.clone());
    Ok(Group { id, raft, reader })
}

impl Group {
    /// Makes a new group with these voters. Does nothing if it was made before, by whomever.
    ///
    /// # Errors
    /// What openraft said.
    pub(crate) async fn initialize(&self, voters: &[NodeId]) -> anyhow::Result<()> {
        if self.raft.is_initialized().await? {
            return Ok(());
        }
        let members: BTreeMap<u64, BasicNode> = voters.iter().map(|n| (n.0, BasicNode::default())).collect();
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Another replica was faster, and its first entry has arrived meanwhile.
            Err(_) if self.raft.is_initialized().await? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
