//! The sending side of Raft between nodes, over the transport.
//!
//! Appends are sent one after the other (openraft's sequential mode): measured, a batch builds up meanwhile and the
//! cost per entry is half that of a pipelined stream on a fast network.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use clinch_storage::raft::{Snapshot, Vote};
use clinch_storage::{GroupId, SnapshotData, TypeConfig};
use clinch_transport::{Class, Transport, TransportError};
use clinch_types::{NodeId, codec};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RaftNetworkFactory, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rpc::{SnapshotHeader, kinds};
use crate::seams::NodeRng;

/// Time a snapshot may take to be installed after its last byte was sent: its receiver writes and syncs all of it.
const INSTALL_MAX: Duration = Duration::from_secs(120);

/// Time an append may take. openraft would give it one heartbeat, too little for a follower with a busy disk: its answer
/// would come after all, and the same entries would be sent again meanwhile.
const APPEND_MAX: Duration = Duration::from_secs(1);
/// Time the opening of a snapshot stream may take.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// Makes connections for one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) transport: Transport,
    pub(crate) rng: Arc<NodeRng>,
    /// Low bits of the cluster's id: keeps groups of two clusters apart, whatever their nodes are called.
    pub(crate) cluster: u64,
}

/// The way to one other replica of the group.
pub(crate) struct Peer {
    network: Network,
    target: NodeId,
    /// Heartbeats travel with votes, so that appends never delay them.
    class: Class,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer {
            network: self.clone(),
            target: NodeId(target),
            class: Class::Append,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer {
            network: self.clone(),
            target: NodeId(target),
            class: Class::Vote,
        }
    }
}

impl Peer {
    async fn ask<Answer: DeserializeOwned>(
        &self,
        class: Class,
        kind: u8,
        rpc: &impl Serialize,
        ttl: Duration,
    ) -> Result<Answer, RPCError<TypeConfig>> {
        let message = codec::encode_serde(rpc).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        let mut body = BytesMut::with_capacity(12 + message.len());
        body.put_u32_le(self.network.group.0);
        body.put_u64_le(self.network.cluster);
        body.put_slice(&message);
        let answer = self
            .network
            .transport
            .call(self.target, class, kind, body.freeze(), ttl)
            .await
            .map_err(failed)?;
        codec::decode_serde(&answer).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }

    async fn stream_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, String> {
        let token = self.network.rng.u128();
        let header = SnapshotHeader {
            group: self.network.group.0,
            token,
            vote,
            meta: snapshot.meta,
        };
        let header = Bytes::from(codec::encode_serde(&header).map_err(|e| e.to_string())?);
        let transport = &self.network.transport;
        let mut stream = transport
            .send_stream(self.target, kinds::SNAPSHOT, header, OPEN_MAX)
            .await
            .map_err(|e| e.to_string())?;
        let mut source = snapshot.snapshot.into_source().map_err(|e| e.to_string())?;
        while let Some(chunk) = source.next_chunk().map_err(|e| e.to_string())? {
            stream.write(chunk).await.map_err(|e| e.to_string())?;
        }
        stream.finish().await.map_err(|e| e.to_string())?;
        let token = Bytes::from(codec::encode_serde(&token).map_err(|e| e.to_string())?);
        let answer = transport
            .call(
                self.target,
                Class::Control,
                kinds::SNAPSHOT_DONE,
                token,
                INSTALL_MAX,
            )
            .await
            .map_err(|e| e.to_string())?;
        codec::decode_serde(&answer).map_err(|e| e.to_string())
    }
}

/// Everything that went wrong on the way: openraft tries again, slower when the peer cannot be reached at all.
fn failed(error: TransportError) -> RPCError<TypeConfig> {
    match error {
        TransportError::NotSent { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        _ => RPCError::Network(NetworkError::new(&error)),
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ttl = match self.class {
            Class::Append => APPEND_MAX.max(option.soft_ttl()),
            Class::Vote | Class::Action | Class::Control => option.soft_ttl(),
        };
        self.ask(self.class, kinds::APPEND, &rpc, ttl).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(Class::Vote, kinds::VOTE, &rpc, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(Class::Vote, kinds::PRE_VOTE, &rpc, option.soft_ttl())
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.stream_snapshot(vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(text) => Err(StreamingError::Network(NetworkError::new(&std::io::Error::other(text)))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(Class::Vote, kinds::TRANSFER, &rpc, option.soft_ttl())
            .await
    }
}
