//! The ways into a cluster. Clients that run away from a sick node hide what it does wrong, so two of the three do not.
//!
//! Invariant: an outcome is `Fail` only when the cluster (or the connection that was never made) says for certain that
//! there was no effect; in every doubt it is `Unknown`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clinch::cli::actors::Counter;
use clinch::cli::local::{CLIENT, LocalCluster};
use clinch_client::{Cluster, percent_encode};
use clinch_transport::{
    CertBundle, Class, PeerId, RefuseAll, Sockets, Transport, TransportConfig, UdpSockets,
};
use clinch_types::{
    CallError, CallOp, CallReply, CallRequest, Consistency, CreateSpec, Key, NodeId, Reaction, RequestId,
    SessionId, Target, codec, kind,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::actors::Told;
use crate::history::{Answer, Meta, Op};

/// Largest HTTP answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// How one client reaches the cluster.
#[derive(Clone)]
pub enum Door {
    /// The Rust client: finds the owner, and repeats a call under its request id until it is answered.
    Roaming(Cluster),
    /// HTTP to the gateway of one node, which does the same.
    Gateway(Box<Gateway>),
    /// QUIC to one node, and no other: what it answers is the answer.
    Direct(Direct),
}

impl Door {
    /// Its name in histories.
    pub fn name(&self) -> String {
        match self {
            Self::Roaming(_) => "roaming".into(),
            Self::Gateway(gateway) => format!("gateway-{}", gateway.node),
            Self::Direct(direct) => format!("direct-{}", direct.node),
        }
    }

    /// Calls a counter.
    pub async fn call(&self, key: &str, op: Op, timeout: Duration) -> Answer {
        match self {
            Self::Roaming(cluster) => roam(cluster, key, op, timeout).await,
            Self::Gateway(gateway) => gateway.call(key, op, timeout).await,
            Self::Direct(direct) => {
                let request = direct.request(key, op);
                direct
                    .send(&request, timeout)
                    .await
                    .unwrap_or_else(|no| Answer::error(no.perhaps, no.text))
            }
        }
    }
}

async fn roam(cluster: &Cluster, key: &str, op: Op, timeout: Duration) -> Answer {
    let counter = cluster.get::<Counter>(key);
    let reply = match op {
        Op::Increment(by) => counter.increment(Some(by)).timeout(timeout).meta().await,
        Op::Read => counter.get_count().timeout(timeout).meta().await,
        Op::Push(job) => {
            let push = cluster.raw("worker", key).queue::<i64>(JOBS).push(job);
            return match push.timeout(timeout).meta().await {
                Ok((id, meta)) => Answer::ok(i64::try_from(id.0).unwrap_or(i64::MAX), meta.into()),
                Err(error) => Answer::error(error.is_perhaps(), error.to_string()),
            };
        }
        other => {
            let (actor, action, args) = wire(key, other);
            let call = cluster.raw(actor, key).action::<Told>(action, args);
            return match call.timeout(timeout).meta().await {
                Ok((told, meta)) => Answer::told(told, meta.into()),
                Err(error) => Answer::error(error.is_perhaps(), error.to_string()),
            };
        }
    };
    match reply {
        Ok((value, meta)) => Answer::ok(value, meta.into()),
        Err(error) => Answer::error(error.is_perhaps(), error.to_string()),
    }
}

/// The queue of workers.
const JOBS: &str = "jobs";

/// What is called, and with what. What several types of actors have in common depends on the key.
fn wire(key: &str, op: Op) -> (&'static str, &'static str, Vec<i64>) {
    let (action, args) = match op {
        Op::Increment(by) => return ("counter", "increment", vec![by]),
        Op::Read => return ("counter", "getCount", Vec::new()),
        Op::Write(value) => ("write", vec![value]),
        Op::Cas(from, to) => ("cas", vec![from, to]),
        Op::Get => ("get", Vec::new()),
        Op::Append(value) => ("append", vec![value]),
        Op::List => ("list", Vec::new()),
        Op::Spoil(value) => ("spoil", vec![value]),
        Op::Stamp(value) => ("stamp", vec![value]),
        Op::Stamps => ("stamps", Vec::new()),
        Op::Remind(number, after_ms) => (
            "remind",
            vec![number, i64::try_from(after_ms).unwrap_or(i64::MAX)],
        ),
        Op::Fired => ("fired", Vec::new()),
        Op::Add(by) => ("add", vec![by]),
        Op::Sum => ("sum", Vec::new()),
        Op::End => ("end", Vec::new()),
        Op::Pay(amount, to) => ("pay", vec![amount, to]),
        Op::Account => ("account", Vec::new()),
        // From outside it is no action; see [`Direct::request`].
        Op::Push(job) | Op::Enqueue(job) => ("add", vec![job]),
        Op::Pop => ("pop", Vec::new()),
        Op::Work(how) => ("work", vec![how]),
        Op::Works => ("works", Vec::new()),
        Op::Begin(number) => ("begin", vec![number]),
        Op::Ticks => ("ticks", Vec::new()),
        Op::Tell(value) => ("tell", vec![value]),
        Op::Visits => ("visits", Vec::new()),
        Op::Buy(number) => ("buy", vec![number]),
        Op::Bought => ("bought", Vec::new()),
        Op::Till => ("list", Vec::new()),
        // Nobody calls these: listeners and visitors write them down.
        Op::Heard(place, number) | Op::Got(place, number) => ("heard", vec![place, number]),
        Op::Enter(number) | Op::Hark(number) => ("enter", vec![number]),
        Op::Relay(value, to) => ("relay", vec![value, to]),
    };
    let actor = match key.as_bytes().first() {
        Some(b'b') => "account",
        Some(b'q') => "worker",
        Some(b'c') => "ticker",
        Some(b'h') => "hall",
        Some(b'w') => "buyer",
        _ => "subject",
    };
    (actor, action, args)
}

/// A client of one node's gateway. It does not repeat anything.
#[derive(Clone)]
pub struct Gateway {
    node: NodeId,
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Gateway {
    /// A client of this node's gateway.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn new(cluster: &LocalCluster, node: NodeId) -> anyhow::Result<Self> {
        let base = cluster
            .gateways()
            .remove(&node)
            .with_context(|| format!("there is no node {node}"))?;
        let client = Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .build_http();
        Ok(Self { node, base, client })
    }

    async fn call(&self, key: &str, op: Op, timeout: Duration) -> Answer {
        let (actor, action, args) = wire(key, op);
        let uri = format!(
            "{}/gateway/{actor}/action/{action}?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key={}",
            self.base,
            percent_encode(key)
        );
        let body = Full::new(Bytes::from(json!({ "args": args }).to_string()));
        let request = match Request::post(uri)
            .header("content-type", "application/json")
            .body(body)
        {
            Ok(request) => request,
            Err(error) => return Answer::error(false, format!("no request: {error}")),
        };
        let exchange = async {
            let response = match self.client.request(request).await {
                Ok(response) => response,
                Err(error) => return Answer::error(!error.is_connect(), format!("no answer: {error}")),
            };
            let (head, body) = response.into_parts();
            match Limited::new(body, ANSWER_MAX).collect().await {
                Ok(body) => judge(head.status, &head.headers, &body.to_bytes()),
                Err(error) => Answer::error(true, format!("half an answer: {error}")),
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Answer::error(true, format!("no answer within {timeout:?}")),
        }
    }
}

/// What a gateway's answer means.
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if status.is_success() {
        let meta = headers
            .get("x-clinch-turn")
            .and_then(|turn| turn.to_str().ok())
            .and_then(turn);
        return match (body.get("output").and_then(Value::as_i64), meta) {
            (Some(value), Some(meta)) => Answer::ok(value, meta),
            _ => Answer::error(
                true,
                format!("an answer without a number or a turn: {body} {headers:?}"),
            ),
        };
    }
    let text = |name: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (group, code) = (text("group"), text("code"));
    // Whatever does not bear the mark of the cluster says nothing about the effect.
    let perhaps = group.is_empty() || (group == "guard" && code == "request_timeout");
    Answer::error(perhaps, format!("{status} {group}.{code}: {}", text("message")))
}

/// Reads `actor=..;shard=..;epoch=..;version=..;created=..`.
fn turn(text: &str) -> Option<Meta> {
    let field = |name: &str| {
        text.split(';')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    Some(Meta {
        incarnation: field("actor")?.to_owned(),
        epoch: field("epoch")?.parse().ok()?,
        version: field("version")?.parse().ok()?,
    })
}

/// The transport that direct clients share.
#[derive(Clone)]
pub struct Wire {
    transport: Transport,
    /// Ends the connections with the last client.
    _stop: Arc<DropGuard>,
}

impl Wire {
    /// Opens a socket with the cluster's client certificate.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn new(cluster: &LocalCluster) -> anyhow::Result<Self> {
        let identity = CertBundle::load(&cluster.cert_dir(), &PeerId::Client(CLIENT.into()))?;
        Self::on(
            TransportConfig::default(),
            identity,
            Arc::new(UdpSockets::default()),
        )
    }

    /// Opens a socket of that kind with that certificate; called inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn on(
        config: TransportConfig,
        identity: CertBundle,
        sockets: Arc<dyn Sockets>,
    ) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let transport = Transport::start(
            config,
            identity,
            sockets,
            None,
            Arc::new(RefuseAll),
            TaskTracker::new(),
            stop.clone(),
        )?;
        Ok(Self {
            transport,
            _stop: Arc::new(stop.drop_guard()),
        })
    }
}

/// A client that asks one node, with request ids of its own making.
#[derive(Clone)]
pub struct Direct {
    node: NodeId,
    address: String,
    wire: Wire,
    session: SessionId,
    seq: Arc<AtomicU64>,
}

/// Why a direct call has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    /// Whether it may have had an effect.
    pub perhaps: bool,
    /// What was said.
    pub text: String,
}

impl Direct {
    /// A client of this node. The session must not be in use elsewhere.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn new(
        cluster: &LocalCluster,
        wire: &Wire,
        node: NodeId,
        session: SessionId,
    ) -> anyhow::Result<Self> {
        let address = cluster
            .addresses()
            .remove(&node)
            .with_context(|| format!("there is no node {node}"))?;
        Ok(Self::to(node, address, wire.clone(), session))
    }

    /// A client of the node at this address.
    pub fn to(node: NodeId, address: String, wire: Wire, session: SessionId) -> Self {
        Self {
            node,
            address,
            wire,
            session,
            seq: Arc::default(),
        }
    }

    /// The same session at the node of this address.
    pub fn turned_to(&self, node: NodeId, address: String) -> Self {
        Self {
            node,
            address,
            ..self.clone()
        }
    }

    /// The same session at another node: what it sends again is a repetition.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn at(&self, cluster: &LocalCluster, node: NodeId) -> anyhow::Result<Self> {
        let address = cluster
            .addresses()
            .remove(&node)
            .with_context(|| format!("there is no node {node}"))?;
        Ok(self.turned_to(node, address))
    }

    /// A new request. It says that all earlier ones of this session are settled: make one when they are.
    pub fn request(&self, key: &str, op: Op) -> CallRequest {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        self.request_keeping(key, op, seq, seq)
    }

    /// A new request that settles nothing: the answers of all earlier ones may still be asked for.
    pub fn request_to_repeat(&self, key: &str, op: Op) -> CallRequest {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        self.request_keeping(key, op, seq, 1)
    }

    fn request_keeping(&self, key: &str, op: Op, seq: u64, acked_below: u64) -> CallRequest {
        let (actor, name, args) = wire(key, op);
        let mut bytes = Vec::new();
        let op = match op {
            Op::Push(job) => {
                ciborium::into_writer(&job, &mut bytes).expect("a number is written to memory");
                CallOp::Push {
                    queue: JOBS.into(),
                    body: bytes,
                    wait: false,
                }
            }
            _ => {
                ciborium::into_writer(&args, &mut bytes).expect("a list of numbers is written to memory");
                CallOp::Action {
                    name: name.into(),
                    args: bytes,
                }
            }
        };
        CallRequest {
            request: RequestId {
                session: self.session,
                seq,
            },
            acked_below,
            long_dedup: false,
            target: Target::Key {
                namespace: "default".into(),
                name: actor.into(),
                key: Key::new([key]).expect("keys of tests are short"),
                create: Some(CreateSpec::default()),
            },
            op,
            if_active: false,
            consistency: Consistency::Linearizable,
            chain: Vec::new(),
            params: None,
            trace: [0; 25],
            door: None,
        }
    }

    /// Sends a request, for the first time or again.
    ///
    /// # Errors
    /// What the node or the way to it says.
    pub async fn send(&self, request: &CallRequest, timeout: Duration) -> Result<Answer, No> {
        let body = codec::encode(request).map_err(|e| No {
            perhaps: false,
            text: e.to_string(),
        })?;
        let transport = &self.wire.transport;
        let answer = transport
            .call_addr(&self.address, Class::Action, kind::CALL, body.into(), timeout)
            .await;
        let (_, answer) = answer.map_err(|e| No {
            perhaps: e.perhaps_done(),
            text: e.to_string(),
        })?;
        let reply: Result<CallReply, CallError> = codec::decode(&answer).map_err(|e| No {
            perhaps: true,
            text: format!("an unreadable answer: {e}"),
        })?;
        let reply = reply.map_err(|e| No {
            perhaps: e.reaction() == Reaction::SameRequest,
            text: e.to_string(),
        })?;
        let told: Told = ciborium::from_reader::<i64, _>(&reply.output[..])
            .map(|value| (value, Vec::new()))
            .or_else(|_| ciborium::from_reader(&reply.output[..]))
            .map_err(|e| No {
                perhaps: true,
                text: format!("an answer that is no number: {e}"),
            })?;
        Ok(Answer::told(told, reply.meta.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    #[test]
    fn a_gateway_is_believed_only_when_it_says_that_nothing_was_done() {
        let error = |status, body: &str| judge(status, &HeaderMap::new(), body.as_bytes()).outcome;
        let body = r#"{"group":"guard","code":"service_unavailable","message":"no quorum"}"#;
        assert_eq!(error(StatusCode::SERVICE_UNAVAILABLE, body), Outcome::Fail);
        let body = r#"{"group":"guard","code":"request_timeout","message":"perhaps done"}"#;
        assert_eq!(error(StatusCode::GATEWAY_TIMEOUT, body), Outcome::Unknown);
        assert_eq!(error(StatusCode::BAD_GATEWAY, "<html>"), Outcome::Unknown);
        assert_eq!(error(StatusCode::OK, r#"{"output":5}"#), Outcome::Unknown);
    }

    #[test]
    fn the_turn_of_an_answer_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-clinch-turn",
            "actor=0a;shard=3;epoch=7;version=9;created=false"
                .parse()
                .unwrap(),
        );
        let answer = judge(StatusCode::OK, &headers, br#"{"output":5}"#);
        assert_eq!(
            answer,
            Answer::ok(
                5,
                Meta {
                    incarnation: "0a".into(),
                    epoch: 7,
                    version: 9
                }
            )
        );
        assert_eq!(turn("actor=0a;epoch=7"), None);
    }
}
