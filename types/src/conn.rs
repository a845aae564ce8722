//! Connections as gateways and owners speak of them.
//!
//! The socket lives at its gateway; what it stands for (parameters, state, subscriptions) lives with the actor. The
//! gateway names the connection, so that a call about it may be repeated, and fetches what the actor has for it with
//! [`CallOp::Poll`](crate::CallOp::Poll): the items of committed turns, each under the actor's version, until the gateway
//! has said that it has them.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ActorError, Epoch, limits};

/// Names one connection. Drawn at random by its gateway; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct ConnId(pub u128);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no connection id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a connection id is 32 hexadecimal digits")]
pub struct ConnIdError;

impl FromStr for ConnId {
    type Err = ConnIdError;

    fn from_str(text: &str) -> Result<Self, ConnIdError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ConnIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ConnIdError)
    }
}

impl Serialize for ConnId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConnId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What travels over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ConnKind {
    /// Actions and the events subscribed to.
    Events,
    /// Messages as the client and the actor make them: a raw WebSocket.
    Raw,
    /// One call without a socket, which is a connection as long as it lasts.
    Once,
}

/// How a call came in from outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Door {
    /// The open connection it came over.
    pub conn: Option<ConnId>,
    /// Headers of the request, names in lower case, without the platform's token.
    pub headers: Vec<(String, String)>,
}

impl Door {
    /// Checks what came from outside against the limits.
    ///
    /// # Errors
    /// `actor.invalid_request`, naming value and limit.
    pub fn check(&self) -> Result<(), ActorError> {
        let bytes: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > limits::HEADERS_MAX {
            return Err(ActorError::too_long("headers", bytes, limits::HEADERS_MAX));
        }
        Ok(())
    }
}

/// A raw HTTP request for an actor. Its headers are in the [`Door`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// Path and query inside the actor; begins with `/`.
    pub uri: String,
    /// The body.
    pub body: HttpBody,
}

/// A body, or the announcement of one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum HttpBody {
    /// All of it.
    Whole(Vec<u8>),
    /// It travels beside, on an exchange ([`kind::HTTP`](crate::kind::HTTP)), and can be had once.
    Streamed {
        /// Its length in bytes, if that is known before.
        length: Option<u64>,
    },
}

/// An actor's answer to a raw HTTP request: the output of [`CallOp::Http`](crate::CallOp::Http), as
/// [`codec`](crate::codec) writes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// Headers, in order; values may be any bytes that HTTP allows.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: HttpBody,
}

/// Something for the client at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ConnItem {
    /// An event it has subscribed to, or that was sent to it alone.
    Event {
        /// The event's name on the wire.
        name: String,
        /// CBOR array of the arguments.
        args: Vec<u8>,
    },
    /// A message of a raw WebSocket.
    Message {
        /// Whether the bytes are text.
        text: bool,
        /// The content.
        data: Vec<u8>,
    },
    /// The connection is over. Always the last.
    Close {
        /// The WebSocket close code.
        code: u16,
        /// For the client; at most 123 bytes.
        reason: String,
    },
}

/// The answer to [`CallOp::Poll`](crate::CallOp::Poll).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Polled {
    /// The ownership epoch that answered.
    pub epoch: Epoch,
    /// What is there, in order, each under the version of the actor that its turn made. All items of one version are here
    /// or none.
    pub items: Vec<(u64, ConnItem)>,
}

/// The output of an action that was called over a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConnReply {
    /// Items of the connection up to this version are to reach the client before the answer.
    pub after: u64,
    /// CBOR of the action's result.
    pub output: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn what_travels_keeps_its_bytes() {
        let polled = Polled {
            epoch: Epoch(2),
            items: vec![
                (
                    7,
                    ConnItem::Event {
                        name: "e".into(),
                        args: vec![0x80],
                    },
                ),
                (
                    8,
                    ConnItem::Message {
                        text: true,
                        data: b"x".to_vec(),
                    },
                ),
                (
                    9,
                    ConnItem::Close {
                        code: 10,
                        reason: "r".into(),
                    },
                ),
            ],
        };
        let bytes = codec::encode(&polled).unwrap();
        assert_eq!(
            bytes,
            b"\x01\x02\x03\x07\x00\x01e\x01\x80\x08\x01\x01\x01x\x09\x02\x0a\x01r"
        );
        assert_eq!(codec::decode::<Polled>(&bytes), Ok(polled));
        let reply = HttpReply {
            status: 200,
            headers: Vec::new(),
            body: HttpBody::Streamed { length: Some(5) },
        };
        let bytes = codec::encode(&reply).unwrap();
        assert_eq!(bytes, [1, 200, 0, 1, 1, 5]);
        assert_eq!(codec::decode::<HttpReply>(&bytes), Ok(reply));
        let whole = codec::encode(&HttpBody::Whole(vec![7])).unwrap();
        assert_eq!(whole, [1, 0, 1, 7]);
        let reply = ConnReply {
            after: 3,
            output: vec![1],
        };
        let bytes = codec::encode(&reply).unwrap();
        assert_eq!(bytes, [1, 3, 1, 1]);
        assert_eq!(codec::decode::<ConnReply>(&bytes), Ok(reply));
    }

    #[test]
    fn connection_ids_are_32_digits() {
        let id = ConnId(0x1f);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("1f".parse::<ConnId>(), Err(ConnIdError));
        assert_eq!(
            "+0000000000000000000000000000001".parse::<ConnId>(),
            Err(ConnIdError)
        );
    }

    #[test]
    fn headers_over_their_limit_are_refused_with_value_and_limit() {
        let door = Door {
            conn: None,
            headers: vec![("x".into(), "y".repeat(limits::HEADERS_MAX))],
        };
        let error = door.check().unwrap_err();
        assert!(
            error.message.contains("16385") && error.message.contains("16384"),
            "{error}"
        );
    }
}
