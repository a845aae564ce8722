//! Frames of an actor connection, in three encodings: what clients send, taken apart, and what they get, put together.
//!
//! Invariant: whatever the bytes, decoding ends in bounded time with a frame or an error; values are passed on as one
//! CBOR item each, as an actor reads and writes them.
//! Not here: sockets, and what frames do (`socket`).

use std::borrow::Cow;

use clinch_types::ActorError;

use crate::bare::{self, BareError, Reader};
use crate::cbor::rewrite::{arguments, inbound, outbound};
use crate::cbor::{self, CborError, Head, NULL, TAG, TEXT, UNDEFINED, UNSIGNED, from_json, tag};

/// How the values of a request or a connection are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Cbor,
    Bare,
}

/// What a client sends over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Action {
        id: u64,
        name: String,
        /// CBOR array.
        args: Vec<u8>,
    },
    Subscribe {
        event: String,
        on: bool,
    },
}

/// What a client gets over a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outgoing<'a> {
    Init {
        actor: &'a str,
        conn: &'a str,
    },
    Error {
        error: &'a ActorError,
        /// The action it answers; none when it concerns the connection.
        action: Option<u64>,
    },
    Response {
        id: u64,
        /// CBOR; empty for nothing.
        output: &'a [u8],
    },
    Event {
        name: &'a str,
        /// CBOR array.
        args: &'a [u8],
    },
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Bare(#[from] BareError),
    #[error(transparent)]
    Cbor(#[from] CborError),
    #[error("no JSON: {0}")]
    Json(String),
    #[error("the frame has no {what}")]
    Missing { what: &'static str },
}

/// How a connection speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) encoding: Encoding,
    /// The protocol version in BARE frames: the client's, once it has sent one.
    pub(crate) version: u16,
    /// Whether the client undoes markers in CBOR.
    pub(crate) modern: bool,
}

impl Dialect {
    /// Before the client has said anything.
    pub(crate) fn new(encoding: Encoding, modern: bool) -> Self {
        Self {
            encoding,
            version: bare::VERSION_MIN,
            modern,
        }
    }

    /// Takes a frame apart, and learns from it what the client speaks.
    pub(crate) fn read(&mut self, frame: &[u8]) -> Result<Incoming, FrameError> {
        match self.encoding {
            Encoding::Json => {
                let converted = from_json::convert(frame).map_err(|e| FrameError::Json(e.to_string()))?;
                let frame = inbound(&converted, true)?;
                read_map(&frame, true)
            }
            Encoding::Cbor => {
                cbor::whole(frame)?;
                read_map(frame, false)
            }
            Encoding::Bare => {
                let (version, frame) = read_bare(frame)?;
                self.version = version;
                Ok(frame)
            }
        }
    }

    /// Puts a frame together.
    ///
    /// # Errors
    /// When a value of ours is no CBOR.
    pub(crate) fn write(&self, frame: Outgoing<'_>) -> Result<Vec<u8>, CborError> {
        match self.encoding {
            Encoding::Json => write_json(frame),
            Encoding::Cbor => write_cbor(frame, self.modern),
            Encoding::Bare => write_bare(frame, self.version),
        }
    }
}

fn read_bare(frame: &[u8]) -> Result<(u16, Incoming), FrameError> {
    let (version, mut reader) = Reader::versioned(frame)?;
    let frame = match reader.uint()? {
        0 => {
            let (id, name, args) = (reader.uint()?, reader.text()?, reader.data()?);
            let args = inbound(args, version >= bare::VERSION_MARKERS_READ)?;
            let args = arguments(args).into_owned();
            let name = name.to_owned();
            Incoming::Action { id, name, args }
        }
        1 => Incoming::Subscribe {
            event: reader.text()?.to_owned(),
            on: reader.bool()?,
        },
        tag => return Err(BareError::Tag { tag }.into()),
    };
    reader.end()?;
    Ok((version, frame))
}

/// A member of a map.
fn member<'a>(map: &'a [u8], name: &'static str) -> Result<&'a [u8], FrameError> {
    let range = cbor::field(map, name)?.ok_or(FrameError::Missing { what: name })?;
    Ok(&map[range])
}

/// Reads `{body:{tag,val:{..}}}`. `clean`: the values have been made fit for an actor.
fn read_map(frame: &[u8], clean: bool) -> Result<Incoming, FrameError> {
    let body = member(frame, "body")?;
    let value = member(body, "val")?;
    match text_of(member(body, "tag")?, "tag")? {
        "ActionRequest" => {
            let id = number_of(member(value, "id")?).ok_or(FrameError::Missing { what: "id" })?;
            let name = text_of(member(value, "name")?, "name")?.to_owned();
            let args = cbor::field(value, "args")?.map_or(&[][..], |range| &value[range]);
            let args = match clean || args.is_empty() {
                true => Cow::Borrowed(args),
                false => inbound(args, false)?,
            };
            let args = arguments(args).into_owned();
            Ok(Incoming::Action { id, name, args })
        }
        "SubscriptionRequest" => {
            let on = match member(value, "subscribe")? {
                [0xf5] => true,
                [0xf4] => false,
                _ => return Err(FrameError::Missing { what: "subscribe" }),
            };
            let event = text_of(member(value, "eventName")?, "eventName")?.to_owned();
            Ok(Incoming::Subscribe { event, on })
        }
        _ => Err(FrameError::Missing { what: "known tag" }),
    }
}

/// The text that an item is.
pub(crate) fn text_of<'a>(item: &'a [u8], what: &'static str) -> Result<&'a str, FrameError> {
    let head = Head::read(item, 0)?;
    if head.major != TEXT || head.indefinite() {
        return Err(FrameError::Missing { what });
    }
    std::str::from_utf8(head.content(item)).map_err(|_| CborError::Utf8 { at: 0 }.into())
}

/// The number that an item is: an integer of any width, or a bignum that fits.
pub(crate) fn number_of(item: &[u8]) -> Option<u64> {
    let head = Head::read(item, 0).ok()?;
    match head.major {
        UNSIGNED => Some(head.argument),
        TAG if head.argument == tag::BIGNUM => {
            let inner = Head::read(item, head.next).ok()?;
            let bytes = inner.content(item);
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
            let digits = &bytes[first..];
            (digits.len() <= 8).then(|| digits.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        }
        _ => None,
    }
}

/// What stands for no result.
fn present(output: &[u8]) -> &[u8] {
    match output.is_empty() {
        true => &[UNDEFINED],
        false => output,
    }
}

fn write_json(frame: Outgoing<'_>) -> Result<Vec<u8>, CborError> {
    let mut out = Vec::with_capacity(96);
    let begin = |out: &mut Vec<u8>, tag: &str| {
        out.extend_from_slice(b"{\"body\":{\"tag\":\"");
        out.extend_from_slice(tag.as_bytes());
        out.extend_from_slice(b"\",\"val\":{");
    };
    let number = |out: &mut Vec<u8>, id: u64| {
        out.extend_from_slice(format!("[\"$BigInt\",\"{id}\"]").as_bytes());
    };
    let member = |out: &mut Vec<u8>, name: &str, text: &str| {
        out.extend_from_slice(format!("\"{name}\":").as_bytes());
        cbor::json::string(text, out);
        out.push(b',');
    };
    match frame {
        Outgoing::Init { actor, conn } => {
            begin(&mut out, "Init");
            member(&mut out, "actorId", actor);
            member(&mut out, "connectionId", conn);
            out.pop();
        }
        Outgoing::Error { error, action } => {
            begin(&mut out, "Error");
            member(&mut out, "group", &error.group);
            member(&mut out, "code", &error.code);
            member(&mut out, "message", &error.message);
            if let Some(metadata) = &error.metadata {
                out.extend_from_slice(b"\"metadata\":");
                cbor::json::write(metadata, &mut out)?;
                out.push(b',');
            }
            out.extend_from_slice(b"\"actionId\":");
            match action {
                Some(id) => number(&mut out, id),
                None => out.extend_from_slice(b"null"),
            }
        }
        Outgoing::Response { id, output } => {
            begin(&mut out, "ActionResponse");
            out.extend_from_slice(b"\"id\":");
            number(&mut out, id);
            out.extend_from_slice(b",\"output\":");
            cbor::json::write(present(output), &mut out)?;
        }
        Outgoing::Event { name, args } => {
            begin(&mut out, "Event");
            member(&mut out, "name", name);
            out.extend_from_slice(b"\"args\":");
            cbor::json::write(args, &mut out)?;
        }
    }
    out.extend_from_slice(b"}}}");
    Ok(out)
}

fn write_cbor(frame: Outgoing<'_>, escape: bool) -> Result<Vec<u8>, CborError> {
    let mut out = Vec::with_capacity(96);
    let begin = |out: &mut Vec<u8>, tag: &str, members: u64| {
        cbor::head(out, cbor::MAP, 1);
        cbor::text(out, "body");
        cbor::head(out, cbor::MAP, 2);
        cbor::text(out, "tag");
        cbor::text(out, tag);
        cbor::text(out, "val");
        cbor::head(out, cbor::MAP, members);
    };
    // Always eight bytes: anything shorter arrives as a number, where the client wants a BigInt.
    let number = |out: &mut Vec<u8>, id: u64| {
        out.push(0x1b);
        out.extend_from_slice(&id.to_be_bytes());
    };
    let member = |out: &mut Vec<u8>, name: &str, text: &str| {
        cbor::text(out, name);
        cbor::text(out, text);
    };
    match frame {
        Outgoing::Init { actor, conn } => {
            begin(&mut out, "Init", 2);
            member(&mut out, "actorId", actor);
            member(&mut out, "connectionId", conn);
        }
        Outgoing::Error { error, action } => {
            begin(&mut out, "Error", 4 + u64::from(error.metadata.is_some()));
            member(&mut out, "group", &error.group);
            member(&mut out, "code", &error.code);
            member(&mut out, "message", &error.message);
            if let Some(metadata) = &error.metadata {
                cbor::text(&mut out, "metadata");
                out.extend_from_slice(&outbound(metadata, escape)?);
            }
            cbor::text(&mut out, "actionId");
            match action {
                Some(id) => number(&mut out, id),
                None => out.push(NULL),
            }
        }
        Outgoing::Response { id, output } => {
            begin(&mut out, "ActionResponse", 2);
            cbor::text(&mut out, "id");
            number(&mut out, id);
            cbor::text(&mut out, "output");
            out.extend_from_slice(&outbound(present(output), escape)?);
        }
        Outgoing::Event { name, args } => {
            begin(&mut out, "Event", 2);
            member(&mut out, "name", name);
            cbor::text(&mut out, "args");
            out.extend_from_slice(&outbound(args, escape)?);
        }
    }
    Ok(out)
}

fn write_bare(frame: Outgoing<'_>, version: u16) -> Result<Vec<u8>, CborError> {
    let escape = version >= bare::VERSION_MARKERS_WRITTEN;
    let mut out = version.to_le_bytes().to_vec();
    match frame {
        Outgoing::Init { actor, conn } => {
            out.push(0);
            bare::write_data(&mut out, actor.as_bytes());
            bare::write_data(&mut out, conn.as_bytes());
        }
        Outgoing::Error { error, action } => {
            out.push(1);
            for text in [&error.group, &error.code, &error.message] {
                bare::write_data(&mut out, text.as_bytes());
            }
            out.push(u8::from(error.metadata.is_some()));
            if let Some(metadata) = &error.metadata {
                bare::write_data(&mut out, &outbound(metadata, escape)?);
            }
            out.push(u8::from(action.is_some()));
            if let Some(id) = action {
                bare::write_uint(&mut out, id);
            }
            if version >= bare::VERSION_ACTOR_IN_ERRORS {
                out.push(0);
            }
        }
        Outgoing::Response { id, output } => {
            out.push(2);
            bare::write_uint(&mut out, id);
            bare::write_data(&mut out, &outbound(present(output), escape)?);
        }
        Outgoing::Event { name, args } => {
            out.push(3);
            bare::write_data(&mut out, name.as_bytes());
            bare::write_data(&mut out, &outbound(args, escape)?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(encoding: Encoding, frame: &[u8]) -> Result<Incoming, FrameError> {
        Dialect::new(encoding, true).read(frame)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter_map(|b| char::from(b).to_digit(16).map(|digit| digit as u8))
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn action(id: u64, name: &str, args: &[u8]) -> Incoming {
        Incoming::Action {
            id,
            name: name.into(),
            args: args.to_vec(),
        }
    }

    fn subscribe(event: &str, on: bool) -> Incoming {
        Incoming::Subscribe {
            event: event.into(),
            on,
        }
    }

    #[test]
    fn recorded_bare_frames_are_read() {
        let frame = hex("0200 01 08 6e6577436f756e74 01");
        assert_eq!(read(Encoding::Bare, &frame), Ok(subscribe("newCount", true)));
        let frame = hex("0200 00 00 09 696e6372656d656e74 02 8105");
        assert_eq!(
            read(Encoding::Bare, &frame),
            Ok(action(0, "increment", &[0x81, 5]))
        );
        let frame = hex("0400 00 ac02 08 616e6e6f756e6365 09 826161b90001616201");
        assert_eq!(
            read(Encoding::Bare, &frame),
            Ok(action(300, "announce", &hex("826161b90001616201")))
        );
        let mut dialect = Dialect::new(Encoding::Bare, true);
        dialect.read(&frame).unwrap();
        assert_eq!(dialect.version, 4, "the client's version is answered in");
    }

    #[test]
    fn recorded_json_and_cbor_frames_are_read() {
        let json =
            br#"{"body":{"tag":"SubscriptionRequest","val":{"eventName":"newCount","subscribe":false}}}"#;
        assert_eq!(read(Encoding::Json, json), Ok(subscribe("newCount", false)));
        let json =
            br#"{"body":{"tag":"ActionRequest","val":{"id":["$BigInt","7"],"name":"increment","args":[5]}}}"#;
        assert_eq!(read(Encoding::Json, json), Ok(action(7, "increment", &[0x81, 5])));
        let request = |id: &str| {
            hex(&format!(
                "b90001 64626f6479 b90002 63746167 6d416374696f6e52657175657374 6376616c \
                 b90003 626964 {id} 646e616d65 69696e6372656d656e74 6461726773 8105"
            ))
        };
        for (id, number) in [("1b0000000000000003", 3), ("03", 3), ("c240", 0), ("c24101", 1)] {
            assert_eq!(
                read(Encoding::Cbor, &request(id)),
                Ok(action(number, "increment", &[0x81, 5])),
                "{id}"
            );
        }
        assert!(read(Encoding::Cbor, &request("20")).is_err(), "a negative id");
    }

    #[test]
    fn frames_are_written_as_they_were_recorded() {
        let bare = |version| Dialect {
            encoding: Encoding::Bare,
            version,
            modern: true,
        };
        let response = Outgoing::Response {
            id: 0,
            output: b"\x64fine",
        };
        assert_eq!(bare(4).write(response).unwrap(), hex("0400 02 00 05 6466696e65"));
        let event = Outgoing::Event {
            name: "newCount",
            args: &[0x81, 5],
        };
        assert_eq!(
            bare(2).write(event).unwrap(),
            hex("0200 03 08 6e6577436f756e74 02 8105")
        );
        let mut error = ActorError::new("user", "forbidden", "Forbidden");
        error.metadata = Some(hex("a166726561736f6e6962616420746f6b656e"));
        let rejected = Outgoing::Error {
            error: &error,
            action: None,
        };
        assert_eq!(
            bare(4).write(rejected).unwrap(),
            hex("0400 01 0475736572 09666f7262696464656e 09466f7262696464656e \
                 01 12 a166726561736f6e6962616420746f6b656e 00 00")
        );
        let json = Dialect::new(Encoding::Json, true);
        assert_eq!(
            String::from_utf8(json.write(event).unwrap()).unwrap(),
            r#"{"body":{"tag":"Event","val":{"name":"newCount","args":[5]}}}"#
        );
        assert_eq!(
            String::from_utf8(json.write(rejected).unwrap()).unwrap(),
            r#"{"body":{"tag":"Error","val":{"group":"user","code":"forbidden","message":"Forbidden","metadata":{"reason":"bad token"},"actionId":null}}}"#
        );
        let nothing = Outgoing::Response { id: 2, output: &[] };
        assert_eq!(
            String::from_utf8(json.write(nothing).unwrap()).unwrap(),
            r#"{"body":{"tag":"ActionResponse","val":{"id":["$BigInt","2"],"output":null}}}"#
        );
        let cbor = Dialect::new(Encoding::Cbor, false);
        let five = Outgoing::Response { id: 0, output: &[5] };
        assert_eq!(
            cbor.write(five).unwrap(),
            hex("a164626f6479a2637461676e416374696f6e526573706f6e73656376616c \
                 a26269641b0000000000000000666f757470757405")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(frame in prop::collection::vec(any::<u8>(), 0..120), tag in 0u8..3) {
            for encoding in [Encoding::Json, Encoding::Cbor, Encoding::Bare] {
                let _ = read(encoding, &frame);
            }
            let _ = read(Encoding::Bare, &[&[2, 0, tag][..], &frame].concat());
        }

        #[test]
        fn events_read_back_in_every_encoding(name in "[a-z]{1,9}", count in any::<u32>()) {
            let mut args = vec![0x81];
            cbor::head(&mut args, cbor::UNSIGNED, u64::from(count));
            let event = Outgoing::Event { name: &name, args: &args };
            let json: serde_json::Value =
                serde_json::from_slice(&Dialect::new(Encoding::Json, true).write(event).unwrap()).unwrap();
            prop_assert_eq!(&json["body"]["val"]["args"][0], &serde_json::json!(count));
            let frame = Dialect::new(Encoding::Cbor, true).write(event).unwrap();
            prop_assert!(cbor::whole(&frame).is_ok());
        }
    }
}
