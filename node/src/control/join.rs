//! How a node comes into a cluster: it asks any member, which passes the question to the control leader.

use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use clinch_membership::{ClusterState, Command, NodeRecord};
use clinch_transport::{Class, Inbound, PeerId, Refusal, RefusalCode, Transport};
use clinch_types::{ClusterId, codec};

use super::{Control, ControlError};
use crate::shard::{kinds, respond};

/// A node asks to be let in, or says that it is back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct JoinRequest {
    /// The cluster its data belongs to; `None` when it has none.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) record: NodeRecord,
}

/// It is in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct JoinReply {
    pub(crate) state: ClusterState,
}

/// How long one member may take to answer: it may have to wait for an election.
const ATTEMPT: Duration = Duration::from_secs(5);

impl Control {
    pub(super) async fn serve_join(&self, inbound: Inbound) {
        let request: JoinRequest = match codec::decode(&inbound.body) {
            Ok(request) => request,
            Err(error) => return inbound.refuse(Refusal::new(RefusalCode::Invalid, error.to_string())),
        };
        // A member passes on what another node asked; the node itself may only speak for itself.
        let from_member = match (&inbound.from, self.state()) {
            (PeerId::Node(node), Some(state)) => state.nodes.contains_key(node),
            _ => false,
        };
        if inbound.from != PeerId::Node(request.record.id) && !from_member {
            let text = format!("{} may not speak for node {}", inbound.from, request.record.id);
            return inbound.refuse(Refusal::new(RefusalCode::Forbidden, text));
        }
        let result = self.admit(request, &inbound.body).await;
        respond(inbound, &result);
    }

    async fn admit(&self, request: JoinRequest, body: &Bytes) -> Result<JoinReply, ControlError> {
        let Some(state) = self.state() else {
            return Err(ControlError::Unavailable(
                "this node is not part of a cluster yet".into(),
            ));
        };
        if let Some(cluster) = request.cluster
            && cluster != state.cluster
        {
            let (node, ours) = (request.record.id, state.cluster);
            let text = format!(
                "the data directory of node {node} belongs to cluster {cluster}, this is cluster {ours}"
            );
            return Err(ControlError::Rejected(text));
        }
        match self.leader() {
            Some(leader) if leader == self.inner.node => {
                self.judge(Command::Join {
                    record: request.record,
                })
                .await?;
                let state = self
                    .state()
                    .ok_or_else(|| ControlError::Unavailable("no cluster state".into()))?;
                Ok(JoinReply {
                    state: (*state).clone(),
                })
            }
            Some(leader) => {
                let answer = self
                    .forward(leader, kinds::JOIN, body.clone())
                    .await
                    .map_err(ControlError::Unavailable)?;
                codec::decode::<Result<JoinReply, ControlError>>(&answer)
                    .map_err(|e| ControlError::Unavailable(e.to_string()))?
            }
            None => Err(ControlError::Unavailable("no leader is known".into())),
        }
    }
}

/// Asks the seeds in turn until one lets the node in. Logs why it waits; ends only with an answer.
///
/// # Errors
/// When the cluster says no.
pub(crate) async fn join_by_seeds(
    transport: &Transport,
    seeds: &[String],
    request: &JoinRequest,
) -> anyhow::Result<JoinReply> {
    let body = Bytes::from(codec::encode(request)?);
    let mut pause = Duration::from_millis(50);
    let mut told = String::new();
    loop {
        for seed in seeds {
            let problem = match transport
                .call_addr(seed, Class::Control, kinds::JOIN, body.clone(), ATTEMPT)
                .await
            {
                Ok((_, answer)) => match codec::decode::<Result<JoinReply, ControlError>>(&answer)? {
                    Ok(reply) => return Ok(reply),
                    Err(ControlError::Rejected(reason)) => {
                        anyhow::bail!("the cluster at {seed} does not admit this node: {reason}")
                    }
                    Err(ControlError::Unavailable(reason)) => reason,
                },
                Err(error) => error.to_string(),
            };
            if problem != told {
                tracing::warn!(seed, problem, "not admitted yet; trying on");
                told = problem;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
