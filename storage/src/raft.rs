//! How this project uses openraft: the type configuration, and short names for its types.
//!
//! Invariant: one leader per term (`leader_id_std`), so a log id is `(term, index)` and the term is the epoch.
//! Not here: what an entry carries ([`crate::Batch`]) and how entries become bytes ([`crate::wire`]).

use openraft::type_config::alias as of;

use crate::Batch;

openraft::declare_raft_types!(
    /// The types of every raft group of a node: entries carry a [`Batch`], the answer to a proposal is empty
    /// (the proposer knows what it proposed).
    pub TypeConfig:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// A node as raft membership knows it.
pub type RaftNode = openraft::impls::BasicNode;
/// The leader a vote is for: term and node.
pub type LeaderId = of::LeaderIdOf<TypeConfig>;
/// The leader part of a log id: the term alone.
pub type CommittedLeaderId = of::CommittedLeaderIdOf<TypeConfig>;
/// A vote.
pub type Vote = of::VoteOf<TypeConfig>;
/// Term and index of an entry.
pub type LogId = of::LogIdOf<TypeConfig>;
/// One entry of the log.
pub type Entry = of::EntryOf<TypeConfig>;
/// What an entry carries: nothing, a batch, or a membership.
pub type EntryPayload = of::EntryPayloadOf<TypeConfig>;
/// A membership configuration.
pub type Membership = openraft::Membership<u64, RaftNode>;
/// A membership configuration with the log id that set it.
pub type StoredMembership = of::StoredMembershipOf<TypeConfig>;
/// Last log id and membership of a snapshot.
pub type SnapshotMeta = of::SnapshotMetaOf<TypeConfig>;
/// A snapshot: its meta data and a handle to its contents.
pub type Snapshot = of::SnapshotOf<TypeConfig, crate::SnapshotData>;
/// One raft group.
pub type Raft = openraft::Raft<TypeConfig, crate::GroupMachine>;
/// What the log calls when an append is durable.
pub type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
/// First and last id of a log.
pub type LogState = openraft::storage::LogState<TypeConfig>;

/// Builds a log id.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: committed_leader(term),
        index,
    }
}

/// The leader part of the log ids of a term.
pub fn committed_leader(term: u64) -> CommittedLeaderId {
    use openraft::vote::RaftLeaderId as _;
    // The committed form drops the node, so any will do.
    LeaderId { term, voted_for: 0 }.to_committed()
}

/// The term of a log id.
pub fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}
