//! One connection as its gateway asks about it: the calls that open, use and end it.

use std::sync::Arc;
use std::time::Duration;

use clinch_types::{
    ActorError, ActorId, CallError, CallOp, CallReply, ConnId, ConnItem, ConnKind, Door, Epoch, Polled,
    Target, codec, group, planted,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::OPEN_MAX;
use crate::backend::GatewayCall;
use crate::service::Gateway;

/// How long a question for items may take: the owner answers within ten seconds, and may move meanwhile.
const POLL_MAX: Duration = Duration::from_secs(25);
/// Pause before a failed question is asked again.
const POLL_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection outlives an owner that cannot be found.
const OWNERLESS_MAX: Duration = Duration::from_secs(60);
/// How long the end of a connection is tried to be told. Beyond, the owner finds out by itself.
const LEAVE_MAX: Duration = Duration::from_secs(20);

/// An open connection.
pub(super) struct Line {
    gateway: Arc<Gateway>,
    pub(super) actor: ActorId,
    pub(super) conn: ConnId,
    /// Items up to this version have come.
    pub(super) seen: u64,
    epoch: Epoch,
}

/// What a question for items brought.
pub(super) type Answer = Result<Polled, CallError>;

impl Line {
    /// Opens it.
    ///
    /// # Errors
    /// Why the actor does not let the client in, or cannot be reached.
    pub(super) async fn open(gateway: &Arc<Gateway>, opening: Opening) -> Result<Self, CallError> {
        let conn = ConnId(gateway.backend.draw());
        let Opening {
            target,
            token,
            kind,
            path,
            params,
            headers,
        } = opening;
        let call = GatewayCall {
            params,
            token,
            door: Some(Box::new(Door { conn: None, headers })),
            ..GatewayCall::new(target, CallOp::Connect { conn, kind, path }, OPEN_MAX)
        };
        let reply = gateway.backend.call(call).await?;
        Ok(Self {
            gateway: gateway.clone(),
            actor: reply.meta.actor,
            conn,
            seen: 0,
            epoch: Epoch(0),
        })
    }

    fn call(&self, op: CallOp, timeout: Duration) -> GatewayCall {
        GatewayCall::new(Target::Id(self.actor), op, timeout)
    }

    /// Asks for the next items until there is an answer; `Err` when the connection has ended or its owner stays away.
    pub(super) fn poll(&self) -> BoxFuture<'static, Answer> {
        let (conn, seen, epoch) = (self.conn, self.seen, self.epoch);
        let call = self.call(CallOp::Poll { conn, seen, epoch }, POLL_MAX);
        let gateway = self.gateway.clone();
        async move {
            let begun = tokio::time::Instant::now();
            loop {
                let error = match gateway.backend.call(call.clone()).await {
                    Ok(reply) => match codec::decode(&reply.output) {
                        Ok(polled) => return Ok(polled),
                        Err(error) => {
                            tracing::error!(%error, "items of a connection cannot be read");
                            let message = "items of the connection cannot be read";
                            return Err(ActorError::new(group::INTERNAL, "internal_error", message).into());
                        }
                    },
                    Err(error) => error,
                };
                if !super::is_passing(&error) || begun.elapsed() > OWNERLESS_MAX {
                    return Err(error);
                }
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
        .boxed()
    }

    /// Takes what an answer brought. Items that came before are left out.
    pub(super) fn take(&mut self, polled: Polled) -> Vec<ConnItem> {
        self.epoch = polled.epoch;
        let seen = self.seen;
        let items = polled
            .items
            .into_iter()
            .filter(|(version, _)| *version > seen || planted!("told-again"));
        let mut new = Vec::new();
        for (version, item) in items {
            self.seen = version;
            new.push(item);
        }
        new
    }

    /// Calls an action over the connection. Asked in the order of the calls of this method.
    pub(super) fn act(
        &self,
        name: String,
        args: Vec<u8>,
    ) -> BoxFuture<'static, Result<CallReply, CallError>> {
        let door = Door {
            conn: Some(self.conn),
            headers: Vec::new(),
        };
        let call = GatewayCall {
            door: Some(Box::new(door)),
            ..self.call(CallOp::Action { name, args }, self.gateway.config.call_timeout())
        };
        self.ask(call)
    }

    /// Any other call about it.
    pub(super) fn ask_op(&self, op: CallOp) -> BoxFuture<'static, Result<CallReply, CallError>> {
        self.ask(self.call(op, self.gateway.config.call_timeout()))
    }

    fn ask(&self, call: GatewayCall) -> BoxFuture<'static, Result<CallReply, CallError>> {
        let gateway = self.gateway.clone();
        async move { gateway.backend.call(call).await }.boxed()
    }

    /// Tells the owner that the client has gone.
    pub(super) async fn leave(self) {
        let call = self.call(CallOp::Disconnect { conn: self.conn }, LEAVE_MAX);
        if let Err(error) = self.gateway.backend.call(call).await {
            tracing::info!(conn = %self.conn, %error, "the end of a connection could not be told");
        }
    }
}

/// What a client asks for.
pub(super) struct Opening {
    pub(super) target: Target,
    pub(super) token: Option<String>,
    pub(super) kind: ConnKind,
    pub(super) path: String,
    pub(super) params: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, String)>,
}
