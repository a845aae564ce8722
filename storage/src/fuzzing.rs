//! The decoders of this crate that are not public, for arbitrary bytes. Only for the fuzzer of the workspace; no part of the
//! interface.

use openraft::raft;

use crate::TypeConfig;
use crate::snapshot::records_of;

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

/// What Raft says between nodes.
pub fn raft(bytes: &[u8]) -> String {
    fn read<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> String {
        match clinch_types::codec::decode_serde::<T>(bytes) {
            Ok(message) => {
                let written =
                    clinch_types::codec::encode_serde(&message).expect("what was read can be written");
                clinch_types::codec::decode_serde::<T>(&written).expect("and read again");
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
