//! A `Backend` with one table of actors and no cluster.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciborium::Value;
use clinch_gateway::{Backend, BoxFuture, GatewayCall, ListQuery, Listing, Scope, StreamBody};
use clinch_types::{
    ActorError, ActorId, ActorInfo, ActorLook, ActorView, CallError, CallMeta, CallOp, CallReply, ConnId,
    ConnItem, ConnReply, CreateSpec, Epoch, HttpBody, HttpReply, Key, Polled, RegionId, ShardId, Target,
    TurnsReply, Version, WallMs, code, codec, group, slot_of,
};
use futures_util::StreamExt as _;

use super::actors::{self, Outcome, Turn};

/// The namespaces there are.
pub(crate) const NAMESPACES: [&str; 2] = ["default", "other"];
/// The only token known to a backend made with [`Memory::guarded`]; it allows all in `default` but administration.
pub(crate) const TOKEN: &str = "secret-token";

/// The head of an answer whose body is streamed.
fn streamed(length: Option<u64>) -> Vec<u8> {
    let reply = HttpReply {
        status: 200,
        headers: Vec::new(),
        body: HttpBody::Streamed { length },
    };
    codec::encode(&reply).expect("a short reply")
}

/// Longest request body it takes.
pub(crate) const REQUEST_MAX: usize = 6 << 20;

struct Record {
    info: ActorInfo,
    state: Value,
    version: u64,
}

#[derive(Default)]
struct Table {
    actors: BTreeMap<ActorId, Record>,
    keys: BTreeMap<(String, String, Key), ActorId>,
    made: u128,
}

/// The backend.
#[derive(Default)]
pub(crate) struct Memory {
    table: Mutex<Table>,
    guarded: bool,
    /// The calls that came, newest last; tests look at what reached the backend.
    pub(crate) calls: Mutex<Vec<GatewayCall>>,
    record: bool,
    /// What connections are told.
    pub(crate) told: Mutex<Told>,
    /// Namespaces made beside [`NAMESPACES`].
    made: Mutex<Vec<String>>,
}

/// What every connection is told with its first question, and which questions came.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) items: Vec<(u64, ConnItem)>,
    /// What answers of actions over connections have to wait for.
    pub(crate) after: u64,
    pub(crate) polled: Vec<(ConnId, u64)>,
}

impl Memory {
    /// One that records calls.
    pub(crate) fn recording() -> Self {
        Self {
            record: true,
            ..Self::default()
        }
    }

    /// One that asks for [`TOKEN`].
    pub(crate) fn guarded() -> Self {
        Self {
            guarded: true,
            ..Self::recording()
        }
    }

    /// The newest call, taken out.
    pub(crate) fn last_call(&self) -> GatewayCall {
        lock(&self.calls).pop().expect("a call reached the backend")
    }

    #[expect(clippy::too_many_lines, reason = "an arm for each kind of call")]
    fn run(&self, call: GatewayCall) -> Result<(CallReply, Duration), CallError> {
        let over = call.door.as_ref().is_some_and(|door| door.conn.is_some());
        let mut table = lock(&self.table);
        let (id, created) = table.find(&call)?;
        let Some(record) = table.actors.get_mut(&id) else {
            return Err(missing().into());
        };
        let mut wait_time = Duration::ZERO;
        let output = match call.op {
            CallOp::Resolve | CallOp::Create => {
                codec::encode(&record.info).expect("an actor's facts fit a frame")
            }
            CallOp::Look => codec::encode(&ActorLook {
                view: record.info.clone().into(),
                warnings: Vec::new(),
            })
            .expect("an actor's facts fit a frame"),
            CallOp::Turns { .. } => codec::encode(&TurnsReply::default()).expect("nothing fits a frame"),
            CallOp::Destroy => {
                table.remove(id);
                return Ok((reply(id, 0, false, Vec::new()), wait_time));
            }
            // Dealt with at once in `done`, never in any other queue.
            CallOp::Push { queue, wait, body } => match (wait, queue.as_str()) {
                (true, "done") => body,
                (true, _) => {
                    wait_time = Duration::from_secs(3600);
                    Vec::new()
                }
                (false, _) => vec![1],
            },
            CallOp::Connect { path, .. } if path.contains("no-entry") => {
                return Err(ActorError::new(group::USER, "forbidden", "not you").into());
            }
            CallOp::Connect { .. } | CallOp::Subscribe { .. } | CallOp::Disconnect { .. } => Vec::new(),
            CallOp::Poll { conn, seen, .. } => {
                let mut told = lock(&self.told);
                let items: Vec<(u64, ConnItem)> = match seen {
                    0 => std::mem::take(&mut told.items),
                    _ => Vec::new(),
                };
                told.polled.push((conn, seen));
                if items.is_empty() {
                    wait_time = Duration::from_millis(200);
                }
                codec::encode(&Polled {
                    epoch: Epoch(1),
                    items,
                })
                .expect("items fit a frame")
            }
            // What came goes back with the next question.
            CallOp::Message { text, data, .. } => {
                lock(&self.told).items.push((1, ConnItem::Message { text, data }));
                Vec::new()
            }
            CallOp::Inspect => {
                let parts = [
                    ("state", record.state.clone()),
                    ("isStateEnabled", true.into()),
                    ("connections", Value::Array(Vec::new())),
                    ("queue", Value::Map(vec![("size".into(), 0.into())])),
                ];
                actors::cbor(&Value::Map(
                    parts.map(|(name, value)| (name.into(), value)).into(),
                ))
            }
            CallOp::ReplaceState { state } => {
                record.state = ciborium::from_reader(&state[..])
                    .map_err(|e| ActorError::new(group::ACTOR, code::INVALID_REQUEST, e.to_string()))?;
                record.version += 1;
                Vec::new()
            }
            // There are always two.
            CallOp::ClearQueues => vec![2],
            CallOp::Http(request) => {
                let headers = call.door.map(|door| door.headers).unwrap_or_default();
                let text = format!("{} {} {}", request.method, request.uri, headers.len());
                let headers = vec![
                    ("x-answer".to_owned(), b"yes".to_vec()),
                    ("connection".to_owned(), b"close".to_vec()),
                ];
                let reply = HttpReply {
                    status: 418,
                    headers,
                    body: HttpBody::Whole(text.into_bytes()),
                };
                codec::encode(&reply).expect("it fits a frame")
            }
            CallOp::Action { name, args } => {
                let args: Value = ciborium::from_reader(&args[..])
                    .map_err(|e| ActorError::new(group::ACTOR, code::INVALID_REQUEST, e.to_string()))?;
                let params = call
                    .params
                    .map(|params| ciborium::from_reader(&params[..]).expect("the gateway made it"));
                let turn = Turn {
                    info: &record.info,
                    state: &mut record.state,
                    args: args.into_array().expect("the gateway passes arrays"),
                    params,
                };
                let output = match actors::run(turn, &name)? {
                    Outcome::Value(value) => value,
                    Outcome::Later(delay, value) => {
                        wait_time = delay;
                        value
                    }
                    Outcome::Destroy => {
                        table.remove(id);
                        return Ok((reply(id, 0, false, vec![0xf7]), wait_time));
                    }
                };
                record.version += 1;
                match over {
                    true => codec::encode(&ConnReply {
                        after: lock(&self.told).after,
                        output: output.bytes(),
                    })
                    .expect("it fits"),
                    false => output.bytes(),
                }
            }
        };
        let version = record.version;
        Ok((reply(id, version, created, output), wait_time))
    }
}

impl Table {
    /// Finds the actor of a call, and makes it when the call says so.
    fn find(&mut self, call: &GatewayCall) -> Result<(ActorId, bool), CallError> {
        let (namespace, name, key, create) = match &call.target {
            Target::Id(id) => return Ok((*id, false)),
            Target::Key {
                namespace,
                name,
                key,
                create,
            } => (namespace, name, key, create),
        };
        if !actors::NAMES.contains(&name.as_str()) {
            return Err(ActorError::new(
                group::ACTOR,
                code::NOT_REGISTERED,
                format!("no actor type {name}"),
            )
            .into());
        }
        let place = (namespace.clone(), name.clone(), key.clone());
        if let Some(&id) = self.keys.get(&place) {
            if call.op == CallOp::Create {
                return Err(taken(id, key).into());
            }
            return Ok((id, false));
        }
        let Some(spec) = create.as_ref().filter(|_| !call.op.is_look()) else {
            return Err(missing().into());
        };
        Ok((self.insert(place, spec), true))
    }

    fn insert(&mut self, place: (String, String, Key), spec: &CreateSpec) -> ActorId {
        self.made += 1;
        let (namespace, name, key) = place.clone();
        let id = ActorId::new(RegionId(0), slot_of(&namespace, &name, &key), self.made);
        let input = spec
            .input
            .as_ref()
            .map(|input| ciborium::from_reader(&input[..]).expect("the gateway checked it"));
        let state = actors::create(&name, input);
        let info = ActorInfo {
            id,
            namespace,
            name,
            key,
            region: RegionId(0),
            created: now(),
            awake: true,
        };
        let record = Record {
            info,
            state,
            version: 0,
        };
        self.actors.insert(id, record);
        self.keys.insert(place, id);
        id
    }

    fn remove(&mut self, id: ActorId) {
        self.actors.remove(&id);
        self.keys.retain(|_, other| *other != id);
    }
}

impl Backend for Memory {
    fn call(&self, call: GatewayCall) -> BoxFuture<'_, Result<CallReply, CallError>> {
        if self.record {
            lock(&self.calls).push(call.clone());
        }
        let timeout = call.timeout;
        Box::pin(async move {
            let (reply, wait) = self.run(call)?;
            if wait > timeout {
                tokio::time::sleep(timeout).await;
                return Err(CallError::Perhaps {
                    reason: "out of time".into(),
                });
            }
            // Even a sleep of nothing takes a millisecond.
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            Ok(reply)
        })
    }

    /// Counts what comes, and sends as much back.
    fn exchange(
        &self,
        call: GatewayCall,
        body: Option<StreamBody>,
    ) -> BoxFuture<'_, Result<(CallReply, Option<StreamBody>), CallError>> {
        Box::pin(async move {
            let uri = match &call.op {
                CallOp::Http(request) => request.uri.clone(),
                _ => String::new(),
            };
            let mut answered = self.call(call).await?;
            let Some(body) = body else {
                let endless =
                    || StreamBody::from_stream(futures_util::stream::pending::<Result<&str, ActorError>>());
                let answer = (uri == "/endless").then(endless);
                if uri == "/lost" || answer.is_some() {
                    answered.output = streamed(None);
                }
                return Ok((answered, answer));
            };
            let mut pieces = body.into_data_stream();
            let mut read = 0;
            while let Some(piece) = pieces.next().await {
                read += piece
                    .map_err(|error| ActorError::new("message", "broken_off", error.to_string()))?
                    .len();
                if read > REQUEST_MAX {
                    let message = format!("at least {read} bytes, at most {REQUEST_MAX} are allowed");
                    return Err(ActorError::new("guard", "request_body_too_large", message).into());
                }
            }
            let output = streamed(Some(read as u64));
            let pieces = (0..read)
                .step_by(1 << 16)
                .map(|_| Ok::<_, ActorError>("x".repeat(1 << 16)));
            let answer = StreamBody::from_stream(futures_util::stream::iter(pieces));
            Ok((CallReply { output, ..answered }, Some(answer)))
        })
    }

    fn draw(&self) -> u128 {
        let mut table = lock(&self.table);
        table.made += 1;
        table.made
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, CallError>> {
        let after: Option<ActorId> = query.cursor.as_deref().and_then(|cursor| cursor.parse().ok());
        let limit = query.limit as usize;
        let mut actors: Vec<ActorView> = lock(&self.table)
            .actors
            .values()
            .map(|record| record.info.clone())
            .filter(|info| info.namespace == query.namespace)
            .filter(|info| query.name.as_ref().is_none_or(|name| *name == info.name))
            .filter(|info| query.ids.is_empty() || query.ids.contains(&info.id))
            .filter(|info| after.is_none_or(|after| info.id > after))
            .take(limit + 1)
            .map(ActorView::from)
            .collect();
        let more = actors.len() > limit;
        actors.truncate(limit);
        let cursor = actors
            .last()
            .filter(|_| more)
            .map(|view| view.info.id.to_string());
        let warnings = Vec::new();
        Box::pin(async move {
            Ok(Listing {
                actors,
                cursor,
                warnings,
            })
        })
    }

    fn actor_names(&self) -> Vec<String> {
        actors::NAMES.iter().map(ToString::to_string).collect()
    }

    fn actions(&self, actor: &str) -> Vec<String> {
        match actor {
            "counter" => vec!["increment".to_owned()],
            _ => Vec::new(),
        }
    }

    fn namespaces(&self) -> Vec<String> {
        let mut all: Vec<String> = NAMESPACES.map(str::to_owned).into();
        all.extend(lock(&self.made).iter().cloned());
        all
    }

    fn create_namespace(&self, name: String) -> BoxFuture<'_, Result<bool, ActorError>> {
        let new = !self.namespace_exists(&name);
        if new {
            lock(&self.made).push(name);
        }
        Box::pin(async move { Ok(new) })
    }

    fn namespace_exists(&self, namespace: &str) -> bool {
        self.namespaces().iter().any(|known| known == namespace)
    }

    fn authorize(
        &self,
        token: Option<&str>,
        scope: Scope,
        namespace: Option<&str>,
    ) -> Result<(), ActorError> {
        if !self.guarded {
            return Ok(());
        }
        let allowed = scope <= Scope::Secret && namespace.is_none_or(|namespace| namespace == "default");
        match token {
            Some(TOKEN) if allowed => Ok(()),
            Some(TOKEN) => Err(ActorError::new(
                "api",
                "forbidden",
                "The token does not allow this.",
            )),
            _ => Err(ActorError::new("api", "unauthorized", "A token is needed.")),
        }
    }

    fn inspector_token(&self, actor: ActorId) -> BoxFuture<'_, Result<[u8; 32], ActorError>> {
        Box::pin(async move { Ok(token_of(actor)) })
    }

    fn opens_inspector(&self, actor: ActorId, token: &[u8; 32]) -> bool {
        *token == token_of(actor)
    }

    fn ready(&self) -> Result<(), String> {
        if self.guarded {
            return Err("shard 12 has no quorum: nodes 2, 3 are down".to_owned());
        }
        Ok(())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({"nodes": [{"id": 1, "state": "up"}]})
    }

    fn metrics(&self) -> String {
        "# TYPE up gauge\nup 1\n".to_owned()
    }
}

/// No secret, and different for each actor.
fn token_of(actor: ActorId) -> [u8; 32] {
    let mut token = [0xfb; 32];
    token[16..].copy_from_slice(actor.as_bytes());
    token
}

fn reply(actor: ActorId, version: u64, created: bool, output: Vec<u8>) -> CallReply {
    CallReply {
        meta: CallMeta {
            actor,
            shard: ShardId(u32::from(actor.slot().0) % 16),
            epoch: Epoch(1),
            version: Version(version),
            created,
        },
        output,
    }
}

fn missing() -> ActorError {
    ActorError::new(group::ACTOR, code::NOT_FOUND, "The actor does not exist.")
}

fn taken(id: ActorId, key: &Key) -> ActorError {
    let metadata = Value::Map(vec![
        ("existing_actor_id".into(), id.to_string().into()),
        ("key".into(), key.to_string().into()),
    ]);
    ActorError {
        metadata: Some(actors::cbor(&metadata)),
        ..ActorError::new(group::ACTOR, code::DUPLICATE_KEY, "The key is taken.")
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "no simulator drives this table")]
fn now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs::default().after(since)
}
