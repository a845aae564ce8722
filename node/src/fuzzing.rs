//! The decoders of this crate for arbitrary bytes: each entry checks the laws of one, and says in a word how it ended.
//! Only for the fuzzer of the workspace; nothing here is part of the interface.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use clinch_actor::{Audience, MessageId, Registry, RunOutcome, RunRecord, ScheduleEntry, ScheduleId, Timing};
use clinch_types::{
    ActorId, CallMeta, CallOp, CallReply, ConnId, ConnItem, ConnKind, Epoch, Key, RequestId, SessionId,
    ShardId, Target, Version, WallMs, codec,
};

use crate::cli::actors;
use crate::cli::config_file::assemble;
use crate::shard::conn_records::{self, ConnRecord, ToldItem, ToldRecord};
use crate::shard::keys::{self, ActorRecord, DedupRecord};
use crate::shard::records::{self, MessageRecord, SendRecord};

fn ended<T, E: Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "read".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A configuration file; lines that begin with `CLINCH_` are variables over it. What is read can be written, and reads as the
/// same again.
pub fn config(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".to_owned();
    };
    let (variables, file): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("CLINCH_"));
    let environment: BTreeMap<String, String> = variables
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let config = match assemble(&file.join("\n"), Path::new("/etc/clinch"), &environment) {
        Ok(config) => config,
        Err(error) => return kind_of(&error.root_cause().to_string()),
    };
    let written = toml::to_string(&config).expect("what was read can be written");
    let again = assemble(&written, Path::new("/"), &BTreeMap::new()).expect("and read again");
    assert_eq!(again, config);
    ended(config.validate())
}

/// A mistake in a file without its place, and without the pieces of the file that are shown.
fn kind_of(error: &str) -> String {
    let said = error.lines().last().unwrap_or_default();
    said.split(['`', '"']).next().unwrap_or_default().to_owned()
}

/// A row of the state store as an owner reads it: a byte with the length of the key, the key, the value. What is read is
/// written, and reads as the same again.
pub fn rows(bytes: &[u8]) -> String {
    let row = bytes
        .split_first()
        .and_then(|(&len, rest)| rest.split_at_checked(len.into()));
    let Some((key, value)) = row else {
        return "no row".to_owned();
    };
    let value = Bytes::copy_from_slice(value);
    match key.first() {
        Some(b'A') => again::<ActorRecord>(&value),
        Some(b'B') => again::<u64>(&value),
        Some(b'C') => format!(
            "{}; {}",
            found(conn_records::parse_conn(key)),
            again::<ConnRecord>(&value)
        ),
        Some(b'D') => dedup(key, &value),
        Some(b'E') => format!(
            "{}; {}",
            found(conn_records::parse_told(key)),
            again::<ToldRecord>(&value)
        ),
        Some(b'H') => run(key, &value),
        Some(b'O') => format!("{}; {}", ended(records::number(key)), again::<SendRecord>(&value)),
        Some(b'Q') => format!(
            "{}; {}",
            found(records::parse_message(key)),
            again::<MessageRecord>(&value)
        ),
        Some(b'S') => state(&value),
        Some(b'T') => schedule(key, &value),
        _ => "no record".to_owned(),
    }
}

fn found<T>(what: Option<T>) -> &'static str {
    match what {
        Some(_) => "found",
        None => "none",
    }
}

fn again<T: codec::Decode<()> + codec::Encode + PartialEq + Debug>(bytes: &[u8]) -> String {
    let value = codec::decode::<T>(bytes);
    if let Ok(value) = &value {
        let written = codec::encode(value).expect("what was read can be written");
        assert_eq!(&codec::decode::<T>(&written).expect("and read again"), value);
    }
    ended(value)
}

fn dedup(key: &[u8], value: &[u8]) -> String {
    match keys::parse_dedup(key) {
        Some(request) if request.seq == 0 => again::<(u64, WallMs)>(value),
        Some(_) => again::<DedupRecord>(value),
        None => "no key".to_owned(),
    }
}

fn run(key: &[u8], value: &[u8]) -> String {
    let run = records::read_run(key, value);
    if let Ok(run) = &run {
        let written = records::write_run(run).expect("what was read can be written");
        assert_eq!(records::read_run(key, &written).as_ref(), Ok(run));
    }
    ended(run)
}

fn schedule(key: &[u8], value: &[u8]) -> String {
    let Some((due, _, id)) = keys::parse_schedule(key) else {
        return "no key".to_owned();
    };
    let entry = records::read_schedule(due, id, value);
    if let Ok(entry) = &entry {
        let written = records::write_schedule(entry).expect("what was read can be written");
        assert_eq!(records::read_schedule(due, id, &written).as_ref(), Ok(entry));
    }
    ended(entry)
}

/// A state, as the example actors read theirs.
fn state(value: &Bytes) -> String {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(actors::registry);
    let (version, code, state) = match keys::read_state(value) {
        Ok(parts) => parts,
        Err(error) => return error.to_string(),
    };
    assert_eq!(keys::write_state(version, code, &state), value[..]);
    let mut read = 0;
    for kind in REGISTRY.types() {
        let Ok(state) = kind.decode(code, &state) else {
            continue;
        };
        let mut written = Vec::new();
        kind.encode(&state, &mut written)
            .expect("what was read can be written");
        kind.decode(kind.version(), &written).expect("and read again");
        read += 1;
    }
    "s".repeat(read)
}

/// What the encoders of this crate write, for a target.
pub fn samples(target: &str) -> Vec<Vec<u8>> {
    match target {
        "config" => vec![sound_config()],
        "rows" => sound_rows()
            .into_iter()
            .map(|(key, value)| {
                let len = u8::try_from(key.len()).expect("a short key");
                [&[len][..], &key, &value].concat()
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// With all settings in it.
fn sound_config() -> Vec<u8> {
    let text = "node = 1\ndata-dir = \"data\"\ncert-dir = \"certs\"\nlisten = \"127.0.0.1:7420\"\n\
                [cluster]\nbootstrap = true\n[[tokens]]\nkind = \"secret\"\nnamespace = \"shop\"\nsha256 = \"00\"\n";
    let text = text.replace("\"00\"", &format!("\"{}\"", "0a".repeat(32)));
    let config = assemble(&text, Path::new("/etc/clinch"), &BTreeMap::new()).expect("it is sound");
    toml::to_string(&config)
        .expect("settings can be written")
        .into_bytes()
}

#[expect(clippy::too_many_lines, reason = "one of each kind of record")]
fn sound_rows() -> Vec<(Vec<u8>, Vec<u8>)> {
    fn encoded<T: codec::Encode>(value: T) -> Vec<u8> {
        codec::encode(&value).expect("it is small")
    }
    let id = ActorId::new(Default::default(), clinch_types::Slot(3), 9);
    let (due, schedule) = (WallMs(1_774_742_000_000), ScheduleId(5));
    let request = |seq| RequestId {
        session: SessionId(7),
        seq,
    };
    let action = CallOp::Action {
        name: "add".into(),
        args: vec![0x81, 5],
    };
    let entry = |timing| ScheduleEntry {
        name: Some("n".into()),
        timing,
        ..ScheduleEntry::once(schedule, due, "add".into(), Bytes::from_static(&[0x80]))
    };
    let daily = Timing::Cron {
        expression: "0 9 * * *".into(),
        zone: "UTC".into(),
    };
    let fires = |timing| records::write_schedule(&entry(timing)).expect("it is small");
    let due_at = || keys::schedule(due, id, schedule);
    let ran = RunRecord {
        run: 2,
        due,
        ended: due,
        outcome: RunOutcome::Failed("user.no".into()),
    };
    let message = MessageRecord {
        pushed: due,
        not_before: due,
        retries: 1,
        waiter: Some((request(9), true)),
        body: vec![0xf6],
    };
    let reply = CallReply {
        meta: CallMeta {
            actor: id,
            shard: ShardId(3),
            epoch: Epoch(2),
            version: Version(4),
            created: true,
        },
        output: vec![5],
    };
    let conn = ConnRecord {
        kind: ConnKind::Raw,
        path: "/p".into(),
        params: Some(vec![0xa0]),
        state: vec![0xf6],
        opened: 4,
        subscriptions: vec![("said".into(), 5)],
        closing: Some((1000, "bye".into())),
    };
    let event = ConnItem::Event {
        name: "said".into(),
        args: vec![0x80],
    };
    let told = ToldRecord {
        items: vec![ToldItem::new(Audience::EveryoneBut(ConnId(2)), event)],
    };
    let actor = ActorRecord {
        namespace: "default".into(),
        name: "counter".into(),
        key: Key::new(["a", "b"]).expect("a short key"),
        created: due,
    };
    // {"count": 5}
    let state = keys::write_state(Version(2), 1, b"\xa1\x65count\x05");
    let send = SendRecord {
        at: due,
        target: Target::Id(id),
        op: action,
    };
    let answer = DedupRecord {
        at: due,
        long: false,
        reply,
    };
    vec![
        (keys::record(id), encoded(actor)),
        (keys::kv_bytes(id), encoded(300_u64)),
        (keys::state(id), state),
        (due_at(), fires(Timing::Once)),
        (due_at(), fires(Timing::Every { ms: 1000 })),
        (due_at(), fires(daily)),
        (
            records::history(id, schedule, 2),
            records::write_run(&ran).expect("it is small"),
        ),
        (records::message(id, "jobs", MessageId(8)), encoded(message)),
        (records::send(id, 6), encoded(send)),
        (keys::dedup(request(0)), encoded((8_u64, due))),
        (keys::dedup(request(9)), encoded(answer)),
        (conn_records::conn(id, ConnId(2)), encoded(conn)),
        (conn_records::told(id, 4), encoded(told)),
    ]
}
