//! The decoders, and the law of each.

use std::fmt::Display;

use bytes::Bytes;
use clinch_actor::{MissedTick, Timing};
use clinch_membership::{ClusterState, Command, NodeRecord};
use clinch_storage::wire;
use clinch_types::{
    ActorId, ActorInfo, ActorLook, CallOp, CallReply, CallRequest, ConnId, ConnItem, ConnReply, Epoch, Key,
    ListReply, ListRequest, Polled, RequestId, RouteMap, SessionId, ShardId, Target as Whom, TurnsReply,
    ViewReply, WallMs, codec,
};

use crate::Target;

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("cbor", clinch_gateway::fuzzing::cbor),
    ("cbor-rewrite", clinch_gateway::fuzzing::cbor_rewrite),
    ("cbor-of-actors", cbor_of_actors),
    ("json", clinch_gateway::fuzzing::json),
    ("bare", clinch_gateway::fuzzing::bare),
    ("frame-json", clinch_gateway::fuzzing::frame_json),
    ("frame-cbor", clinch_gateway::fuzzing::frame_cbor),
    ("frame-bare", clinch_gateway::fuzzing::frame_bare),
    ("address", clinch_gateway::fuzzing::address),
    ("sub-protocols", clinch_gateway::fuzzing::sub_protocols),
    ("percent", clinch_gateway::fuzzing::percent),
    ("manager", clinch_gateway::fuzzing::manager),
    ("trace", clinch_gateway::fuzzing::trace),
    ("cron", cron),
    ("key", key),
    ("transport-frame", clinch_transport::fuzzing::frames),
    ("call", |bytes| message::<CallRequest>(bytes)),
    ("reply", |bytes| message::<CallReply>(bytes)),
    ("polled", |bytes| message::<Polled>(bytes)),
    ("listing", listing),
    ("routes", |bytes| message::<RouteMap>(bytes)),
    ("log-entry", log_entry),
    ("log-vote", log_vote),
    ("snapshot-meta", snapshot_meta),
    ("snapshot", clinch_storage::fuzzing::snapshot),
    ("raft", clinch_storage::fuzzing::raft),
    ("cluster", cluster),
    ("conn-reply", |bytes| message::<ConnReply>(bytes)),
    ("segments", clinch_storage::fuzzing::segments),
    ("notes", clinch_storage::fuzzing::notes),
    ("rows", clinch::fuzzing::rows),
    ("config", clinch::fuzzing::config),
];

/// Inputs that are read to their end, of formats that nobody writes by hand.
pub fn samples(target: &str) -> Vec<Vec<u8>> {
    let id: ActorId = "000703ff0123456789abcdef00112233".parse().expect("an id");
    let request = |op| CallRequest {
        request: RequestId {
            session: SessionId(7),
            seq: 9,
        },
        acked_below: 8,
        long_dedup: false,
        target: Whom::Key {
            namespace: "default".into(),
            name: "counter".into(),
            key: Key::new(["a", "b"]).expect("a short key"),
            create: Some(Default::default()),
        },
        op,
        if_active: false,
        consistency: Default::default(),
        chain: vec![id],
        params: Some(vec![0xa0]),
        trace: [1; 25],
        door: None,
    };
    let written = |value: Result<Vec<u8>, codec::CodecError>| value.expect("it is small");
    match target {
        "call" => {
            let action = CallOp::Action {
                name: "add".into(),
                args: vec![0x81, 5],
            };
            let poll = CallOp::Poll {
                conn: ConnId(3),
                seen: 4,
                epoch: Epoch(5),
            };
            [action, poll, CallOp::Create, CallOp::Destroy]
                .map(|op| written(codec::encode(&request(op))))
                .into()
        }
        "polled" => {
            let event = ConnItem::Event {
                name: "said".into(),
                args: vec![0x80],
            };
            let close = ConnItem::Close {
                code: 1013,
                reason: "too slow".into(),
            };
            let polled = Polled {
                epoch: Epoch(5),
                items: vec![(6, event), (7, close)],
            };
            vec![written(codec::encode(&polled))]
        }
        "listing" => {
            let request = ListRequest {
                shard: ShardId(3),
                namespace: "default".into(),
                name: Some("counter".into()),
                ids: vec![id],
                after: Some(id),
                limit: 100,
            };
            vec![written(codec::encode(&request))]
        }
        "cluster" => {
            let command = Command::CreateNamespace {
                name: "shop".into(),
                created: WallMs(1),
            };
            vec![written(codec::encode(&command))]
        }
        "conn-reply" => {
            let reply = ConnReply {
                after: 7,
                output: vec![0xf6],
            };
            vec![written(codec::encode(&reply))]
        }
        "segments" | "notes" => clinch_storage::fuzzing::samples(target),
        "rows" | "config" => clinch::fuzzing::samples(target),
        "snapshot" => vec![small_snapshot()],
        "routes" => vec![written(codec::encode(&RouteMap::default()))],
        _ => Vec::new(),
    }
}

/// A head, one pair and a trailer.
fn small_snapshot() -> Vec<u8> {
    let meta = wire::encode_snapshot_meta(&Default::default()).expect("it is small");
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(meta.len() as u32 + 4).to_le_bytes());
    bytes.extend_from_slice(&3_u32.to_le_bytes());
    bytes.extend_from_slice(&meta);
    bytes.extend_from_slice(&[2, 1, 0, 0, 0, 2, 0, 0, 0, b'k', b'v', b'w']);
    bytes.extend_from_slice(&[3, 1]);
    bytes.extend_from_slice(&9_u64.to_le_bytes());
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    bytes
}

fn ended<T, E: Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "read".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What is read can be written, and reads as the same again.
fn message<T>(bytes: &[u8]) -> String
where
    T: codec::Decode<()> + codec::Encode + PartialEq + std::fmt::Debug,
{
    let value = codec::decode::<T>(bytes);
    if let Ok(value) = &value {
        let written = codec::encode(value).expect("what was read can be written");
        let again: T = codec::decode(&written).expect("and read again");
        assert_eq!(&again, value);
    }
    ended(value)
}

fn listing(bytes: &[u8]) -> String {
    let (asked, answered) = (message::<ListRequest>(bytes), message::<ListReply>(bytes));
    let (viewed, looked) = (message::<ViewReply>(bytes), message::<ActorLook>(bytes));
    let turns = message::<TurnsReply>(bytes);
    format!(
        "{asked}; {answered}; {}; {viewed}; {looked}; {turns}",
        message::<ActorInfo>(bytes)
    )
}

/// What nodes tell each other about the cluster: commands, a node that joins, the answer to it.
fn cluster(bytes: &[u8]) -> String {
    let (command, record) = (message::<Command>(bytes), message::<NodeRecord>(bytes));
    format!("{command}; {record}; {}", message::<ClusterState>(bytes))
}

/// A cron expression, and behind a line break its time zone. Its times go forward.
fn cron(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (expression, zone) = text.split_once('\n').unwrap_or((&text, "UTC"));
    let timing = Timing::Cron {
        expression: expression.to_owned(),
        zone: zone.to_owned(),
    };
    if let Err(error) = timing.check() {
        return error.to_string();
    }
    // Three times from one in 2026, shortly before clocks change in many places.
    let mut at = WallMs(1_774_742_000_000);
    for _ in 0..3 {
        match timing.next(at, at, MissedTick::FireAll) {
            Ok(Some(next)) => {
                assert!(next > at, "{next:?} is not behind {at:?}");
                at = next;
            }
            Ok(None) => return "ends".to_owned(),
            Err(error) => panic!("it was checked, and then: {error}"),
        }
    }
    "goes on".to_owned()
}

/// Arguments, states and parameters, as actors read them.
fn cbor_of_actors(bytes: &[u8]) -> String {
    let value = clinch_actor::decode::<serde_json::Value>("value", bytes);
    let typed = clinch_actor::decode::<(u8, Option<String>, Vec<f64>)>("value", bytes);
    format!("{}; {}", ended(value), ended(typed))
}

/// A key that is read is written as a text that reads as the same key.
fn key(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".to_owned();
    };
    let key = Key::parse(text);
    if let Ok(key) = &key {
        assert_eq!(Key::parse(&key.to_string()).as_ref(), Ok(key), "{text:?}");
    }
    ended(key)
}

fn log_entry(bytes: &[u8]) -> String {
    let entry = wire::decode_entry(Bytes::copy_from_slice(bytes));
    if let Ok(entry) = &entry {
        let mut written = Vec::new();
        wire::encode_entry(entry, &mut written).expect("what was read can be written");
        let mut again = Vec::new();
        let read = wire::decode_entry(Bytes::from(written.clone())).expect("and read again");
        wire::encode_entry(&read, &mut again).expect("and written again");
        assert_eq!(written, again);
    }
    ended(entry)
}

fn log_vote(bytes: &[u8]) -> String {
    let vote = wire::decode_vote(bytes);
    if let Ok(vote) = &vote {
        assert_eq!(
            wire::decode_vote(&wire::encode_vote(vote)).expect("and read again"),
            *vote
        );
    }
    ended(vote)
}

fn snapshot_meta(bytes: &[u8]) -> String {
    let meta = wire::decode_snapshot_meta(bytes);
    if let Ok(meta) = &meta {
        let written = wire::encode_snapshot_meta(meta).expect("what was read can be written");
        assert_eq!(
            &wire::decode_snapshot_meta(&written).expect("and read again"),
            meta
        );
    }
    ended(meta)
}
