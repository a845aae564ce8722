//! Records of connections and of what was told to them: where they lie (see [`super::keys`]) and how they are written.
//!
//! Invariant: what a connection may still have to be told again after a change of owner is in the records, in the order
//! of the actor's versions.

use bincode::{Decode, Encode};
use bytes::Bytes;
use clinch_actor::{Audience, ConnSeat};
use clinch_types::codec::CodecError;
use clinch_types::{ActorId, ConnId, ConnItem, ConnKind, codec};

use super::keys::with_id;

pub(crate) fn conn(id: ActorId, conn: ConnId) -> Vec<u8> {
    with_id(b'C', id, &conn.0.to_be_bytes())
}

pub(crate) fn told(id: ActorId, version: u64) -> Vec<u8> {
    with_id(b'E', id, &version.to_be_bytes())
}

/// The actor in a `C` or `E` key, and what stands behind it.
fn parse<const N: usize>(key: &[u8]) -> Option<(ActorId, [u8; N])> {
    let (id, rest) = key.get(1..)?.split_first_chunk::<16>()?;
    Some((ActorId::from_bytes(*id).ok()?, rest.try_into().ok()?))
}

pub(crate) fn parse_conn(key: &[u8]) -> Option<(ActorId, ConnId)> {
    let (id, conn) = parse::<16>(key)?;
    Some((id, ConnId(u128::from_be_bytes(conn))))
}

pub(crate) fn parse_told(key: &[u8]) -> Option<(ActorId, u64)> {
    let (id, version) = parse::<8>(key)?;
    Some((id, u64::from_be_bytes(version)))
}

/// An open connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ConnRecord {
    pub(crate) kind: ConnKind,
    pub(crate) path: String,
    pub(crate) params: Option<Vec<u8>>,
    pub(crate) state: Vec<u8>,
    /// The actor's version when it was opened.
    pub(crate) opened: u64,
    /// Names of events, each with the actor's version behind which it counts.
    pub(crate) subscriptions: Vec<(String, u64)>,
    /// How it is being ended, if it is.
    pub(crate) closing: Option<(u16, String)>,
}

impl ConnRecord {
    pub(crate) fn seat(&self, id: ConnId) -> ConnSeat {
        ConnSeat {
            id,
            kind: self.kind,
            path: self.path.clone(),
            params: self.params.clone().map(Bytes::from),
            state: self.state.clone().into(),
        }
    }
}

/// What one turn told its connections.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ToldRecord {
    pub(crate) items: Vec<ToldItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ToldItem {
    to: ToldTo,
    pub(crate) item: ConnItem,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum ToldTo {
    Everyone,
    EveryoneBut(ConnId),
    One(ConnId),
}

impl ToldItem {
    pub(crate) fn new(to: Audience, item: ConnItem) -> Self {
        let to = match to {
            Audience::Everyone => ToldTo::Everyone,
            Audience::EveryoneBut(conn) => ToldTo::EveryoneBut(conn),
            Audience::One(conn) => ToldTo::One(conn),
        };
        Self { to, item }
    }

    pub(crate) fn to(&self) -> Audience {
        match self.to {
            ToldTo::Everyone => Audience::Everyone,
            ToldTo::EveryoneBut(conn) => Audience::EveryoneBut(conn),
            ToldTo::One(conn) => Audience::One(conn),
        }
    }
}

pub(crate) fn read_told(bytes: &[u8]) -> Result<Vec<ToldItem>, CodecError> {
    codec::decode::<ToldRecord>(bytes).map(|record| record.items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinch_types::{RegionId, Slot};

    #[test]
    fn records_of_connections_read_back_and_keep_their_bytes() {
        let actor = ActorId::new(RegionId(0), Slot(3), 9);
        assert_eq!(parse_conn(&conn(actor, ConnId(7))), Some((actor, ConnId(7))));
        assert_eq!(parse_told(&told(actor, 300)), Some((actor, 300)));
        assert!(told(actor, 255) < told(actor, 256));
        assert_eq!(parse_told(b"E"), None);
        let record = ConnRecord {
            kind: ConnKind::Raw,
            path: "/p".into(),
            params: Some(vec![0xa0]),
            state: vec![0xf6],
            opened: 4,
            subscriptions: vec![("e".into(), 5)],
            closing: Some((1000, "r".into())),
        };
        let bytes = codec::encode(&record).unwrap();
        assert_eq!(
            bytes,
            b"\x01\x01\x02/p\x01\x01\xa0\x01\xf6\x04\x01\x01e\x05\x01\xfb\xe8\x03\x01r"
        );
        assert_eq!(codec::decode::<ConnRecord>(&bytes), Ok(record));
        let item = ToldItem::new(
            Audience::EveryoneBut(ConnId(2)),
            ConnItem::Message {
                text: true,
                data: vec![b'x'],
            },
        );
        let bytes = codec::encode(&ToldRecord {
            items: vec![item.clone()],
        })
        .unwrap();
        assert_eq!(bytes, b"\x01\x01\x01\x02\x01\x01\x01x");
        assert_eq!(read_told(&bytes), Ok(vec![item]));
    }
}
