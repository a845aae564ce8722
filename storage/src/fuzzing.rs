//! The decoders of this crate that are not public, for arbitrary bytes. Only for the fuzzer of the workspace; no part of the
//! interface.

use clinch_types::codec;
use openraft::raft;

use crate::disk::SimDisk;
use crate::machine::applied::Applied;
use crate::node_meta::NodeMeta;
use crate::raft::{StoredMembership, log_id};
use crate::snapshot::{read_marker, records_of, write_marker};
use crate::wire::WireError;
use crate::{TypeConfig, log};

/// A snapshot on its way: chunks that arrived whole, of contents that mean harm. The same records are read and the same is
/// refused, wherever they were cut.
pub fn snapshot(bytes: &[u8]) -> String {
    let (records, error) = records_of(bytes, bytes.len().max(1));
    for len in [1, 7] {
        let (again, refused) = records_of(bytes, len);
        assert_eq!(again, records, "in chunks of {len}");
        assert_eq!(
            refused.is_some(),
            error.is_some(),
            "in chunks of {len}: {refused:?} and {error:?}"
        );
    }
    format!("{}; {}", records.len().min(3), error.unwrap_or_default())
}

/// The files of the log, see `log::fuzzing`.
pub fn segments(bytes: &[u8]) -> String {
    log::fuzzing::segments(bytes)
}

/// What a node keeps beside log and snapshots: how far a group is, the marker of an install, facts about the node itself.
/// What is read is written, and reads as the same again.
pub fn notes(bytes: &[u8]) -> String {
    let ended = |result: Result<(), WireError>| match result {
        Ok(()) => "read".to_owned(),
        Err(error) => error.to_string(),
    };
    let applied = Applied::decode(bytes).map(|applied| {
        let written = applied.encode().expect("what was read can be written");
        assert_eq!(Applied::decode(&written).expect("and read again"), applied);
    });
    let marker = read_marker(bytes).map(|(file, meta)| {
        let written = write_marker(&file, &meta).expect("what was read can be written");
        assert_eq!(read_marker(&written).expect("and read again"), (file, meta));
    });
    format!("{}; {}; {}", ended(applied), ended(marker), node_meta(bytes))
}

/// Facts with a sound checksum: nothing that was mutated would get past that.
fn node_meta(body: &[u8]) -> String {
    let disk = SimDisk::new(0);
    let file = [&crc32c::crc32c(body).to_le_bytes()[..], body].concat();
    disk.overwrite(crate::node_meta::NAME, file);
    let disk = disk.mount();
    let mut meta = match NodeMeta::open(&*disk) {
        Ok(meta) => meta,
        Err(error) => return error.to_string(),
    };
    meta.put(&*disk, "seen", b"yes").expect("a sound disk");
    let again = NodeMeta::open(&*disk).expect("what was read can be written, and read again");
    assert_eq!(format!("{again:?}"), format!("{meta:?}"));
    "read".to_owned()
}

/// What the encoders of this crate write, for a target.
pub fn samples(target: &str) -> Vec<Vec<u8>> {
    match target {
        "segments" => vec![log::fuzzing::sample()],
        "notes" => {
            let applied = Applied {
                log_id: Some(log_id(2, 7)),
                membership: StoredMembership::default(),
                fuzzy_end: Some(9),
            };
            let disk = SimDisk::new(0).mount();
            let mut meta = NodeMeta::default();
            meta.put(&*disk, "incarnation", &[3]).expect("a sound disk");
            let file = disk.open(crate::node_meta::NAME, false).expect("it is there");
            let facts = crate::disk::read_all(&*file).expect("a sound disk");
            vec![
                applied.encode().expect("a short record"),
                write_marker("snap/7-1", &Default::default()).expect("a short marker"),
                facts[4..].to_vec(),
            ]
        }
        _ => Vec::new(),
    }
}

/// What Raft says between nodes.
pub fn raft(bytes: &[u8]) -> String {
    fn read<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> String {
        match codec::decode_serde::<T>(bytes) {
            Ok(message) => {
                let written = codec::encode_serde(&message).expect("what was read can be written");
                codec::decode_serde::<T>(&written).expect("and read again");
                "read".to_owned()
            }
            Err(error) => error.to_string(),
        }
    }
    [
        read::<raft::AppendEntriesRequest<TypeConfig>>(bytes),
        read::<raft::AppendEntriesResponse<TypeConfig>>(bytes),
        read::<raft::VoteRequest<TypeConfig>>(bytes),
        read::<raft::VoteResponse<TypeConfig>>(bytes),
        read::<raft::TransferLeaderRequest<TypeConfig>>(bytes),
    ]
    .join("; ")
}
