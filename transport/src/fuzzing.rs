//! The decoder of this crate for arbitrary bytes. Only for the fuzzer of the workspace; no part of the interface.

use bytes::Bytes;

use crate::frame::{Decoder, decode_refusal};

/// A stream is cut into the same frames, wherever its chunks end.
pub fn frames(bytes: &[u8]) -> String {
    let whole = cut(bytes, bytes.len().max(1));
    for len in [1, 7] {
        assert_eq!(cut(bytes, len), whole, "in chunks of {len}");
    }
    let _total = decode_refusal(Bytes::copy_from_slice(bytes));
    whole.last().cloned().unwrap_or_default()
}

/// All frames of chunks of this length, and the error that ended them.
fn cut(bytes: &[u8], len: usize) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for chunk in bytes.chunks(len) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next() {
                Ok(Some(frame)) => found.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }
    found
}
