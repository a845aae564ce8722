//! The decoders of this crate for arbitrary bytes: each entry checks the laws of one, and says in a word how it ended.
//! Only for the fuzzer of the workspace; nothing here is part of the interface.

use std::fmt::Display;

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use crate::cbor::{self, CborError, from_json, json, rewrite};
use crate::frames::{Dialect, Encoding};
use crate::{action, address, manager, percent, socket};

fn ended<T, E: Display>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => "read".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What is CBOR can be shown as JSON or is refused, and the JSON is JSON.
pub fn cbor(bytes: &[u8]) -> String {
    let whole = cbor::whole(bytes);
    let mut out = Vec::new();
    let shown = json::write(bytes, &mut out);
    if whole.is_ok() && shown.is_ok() {
        serde_json::from_slice::<serde::de::IgnoredAny>(&out).expect("what is shown is JSON");
    }
    let field = cbor::field(bytes, "args");
    if let Ok(Some(range)) = &field {
        assert!(range.end <= bytes.len());
    }
    format!("{}; {}; {}", ended(&whole), ended(&shown), ended(&field))
}

/// What is rewritten is CBOR again.
pub fn cbor_rewrite(bytes: &[u8]) -> String {
    let mut said = String::new();
    for flag in [false, true] {
        for result in [rewrite::inbound(bytes, flag), rewrite::outbound(bytes, flag)] {
            if let Ok(item) = &result {
                cbor::whole(item).expect("what was rewritten is CBOR");
                // A lone value becomes an array around it, which may be the one level too many: its actor refuses that.
                match cbor::whole(&rewrite::arguments(item.clone())) {
                    Ok(_) | Err(CborError::Depth { .. }) => {}
                    Err(error) => panic!("arguments are no CBOR: {error}"),
                }
            }
            said += &ended(&result);
        }
    }
    said
}

/// What is JSON becomes CBOR, which can be shown again.
pub fn json(bytes: &[u8]) -> String {
    let converted = from_json::convert(bytes);
    if let Ok(item) = &converted {
        cbor::whole(item).expect("JSON becomes CBOR");
        json::write(item, &mut Vec::new()).expect("and JSON again");
    }
    if let Ok(Some(item)) = &from_json::convert_member(bytes, "args") {
        cbor::whole(item).expect("a member becomes CBOR");
    }
    ended(&converted)
}

/// Requests and frames in BARE.
pub fn bare(bytes: &[u8]) -> String {
    let action = crate::bare::action_request(bytes);
    let queue = crate::bare::queue_request(bytes).map(drop);
    format!("{}; {}", ended(&action), ended(&queue))
}

fn frame(encoding: Encoding, bytes: &[u8]) -> String {
    let mut said = String::new();
    for modern in [false, true] {
        said += &ended(&Dialect::new(encoding, modern).read(bytes).map(drop));
    }
    said
}

/// Frames of a connection in JSON.
pub fn frame_json(bytes: &[u8]) -> String {
    frame(Encoding::Json, bytes)
}

/// Frames of a connection in CBOR.
pub fn frame_cbor(bytes: &[u8]) -> String {
    frame(Encoding::Cbor, bytes)
}

/// Frames of a connection in BARE.
pub fn frame_bare(bytes: &[u8]) -> String {
    frame(Encoding::Bare, bytes)
}

/// Paths and queries that address an actor, with tokens in them.
pub fn address(bytes: &[u8]) -> String {
    let Ok(uri) = http::Uri::try_from(bytes) else {
        return "no address".to_owned();
    };
    match address::parse(&uri, &HeaderMap::new()) {
        Ok(found) => format!("{}", found.is_some()),
        Err(error) => format!("{}.{}", error.error().group, error.error().code),
    }
}

/// What clients put into the sub-protocols of an upgrade.
pub fn sub_protocols(bytes: &[u8]) -> String {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return "no header".to_owned();
    };
    let headers = HeaderMap::from_iter([(SEC_WEBSOCKET_PROTOCOL, value)]);
    socket::read_offer(&headers)
}

/// Percent encodings of paths and of queries.
pub fn percent(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".to_owned();
    };
    let (path, form) = (percent::path(text), percent::form(text));
    format!("{}; {}", ended(&path), ended(&form))
}

/// What the manager API is asked: the first line is a query, the rest a body.
pub fn manager(bytes: &[u8]) -> String {
    let (query, body) = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    manager::read(&String::from_utf8_lossy(query), body)
}

/// A trace context is of no use, or goes on as it came.
pub fn trace(bytes: &[u8]) -> String {
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return "no header".to_owned();
    };
    headers.insert("traceparent", value);
    let trace = action::trace(&headers);
    if trace == [0; 25] {
        return "none".to_owned();
    }
    let hex: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
    let came = String::from_utf8_lossy(bytes).replace('-', "");
    assert!(came.contains(&hex), "{came} became {hex}");
    "read".to_owned()
}
