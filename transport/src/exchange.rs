//! Exchanges: a bidirectional stream for one request with a body of any length, and for its answer.
//!
//! What is asked stands in a header; after it, each half is a byte stream with QUIC's own flow control: a reader that is
//! slow holds its sender back after [`TransportConfig::stream_window`](crate::TransportConfig::stream_window) bytes, and
//! nobody else. A half that is dropped before its end tells the other side so.
//! Not here: what the halves carry (`client` speaks, `node` answers).

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::{Instant, sleep};

use crate::lane::STREAM_VERSION;
use crate::link::Link;
use crate::stream::broke;
use crate::{InStream, OutStream, PeerId, StreamError};

/// Longest header of an exchange, in bytes: an input of a new actor, and what stands around it.
pub const EXCHANGE_HEADER_MAX: usize = 8 << 20;

/// Second byte of the stream, where that of a class has its index.
pub(crate) const EXCHANGE: u8 = 16;
/// Kind, deadline in ms, length of the header.
const PREAMBLE_BYTES: usize = 9;

/// The dialler's end of an exchange.
#[derive(Debug)]
pub struct Exchange {
    /// Towards the peer.
    pub out: OutStream,
    /// From the peer.
    pub input: InStream,
    link: Arc<Link>,
    silence_max: Duration,
}

impl Exchange {
    pub(crate) fn new(out: OutStream, input: InStream, link: Arc<Link>, silence_max: Duration) -> Self {
        Self {
            out,
            input,
            link,
            silence_max,
        }
    }

    /// Returns when the peer has shown no sign of life for long (`silence_max`): whoever waits for the beginning of an
    /// answer may ask elsewhere. Cancel-safe.
    pub fn silence(&self) -> impl Future<Output = ()> + Send + 'static {
        let (link, max) = (self.link.clone(), self.silence_max);
        async move {
            while link.silent_for() < max {
                sleep(max / 2).await;
            }
        }
    }

    /// Its two halves.
    pub fn split(self) -> (OutStream, InStream) {
        (self.out, self.input)
    }
}

/// An exchange that a peer began.
#[derive(Debug)]
pub struct InboundExchange {
    /// Who asks.
    pub from: PeerId,
    /// Which service is meant.
    pub kind: u8,
    /// What is asked.
    pub header: Bytes,
    /// When the caller stops waiting for the beginning of the answer.
    pub deadline: Instant,
    /// Towards the caller. Dropped before its end, it tells the caller that the answer broke off.
    pub out: OutStream,
    /// From the caller. Dropped before its end, it stops the caller's sending.
    pub input: InStream,
}

/// What stands before the bodies.
pub(crate) fn preamble(kind: u8, deadline: Duration, header: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(2 + PREAMBLE_BYTES + header.len());
    bytes.put_slice(&[STREAM_VERSION, EXCHANGE, kind]);
    bytes.put_u32_le(u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX));
    bytes.put_u32_le(header.len() as u32);
    bytes.put_slice(header);
    bytes.freeze()
}

/// Reads what [`preamble`] wrote, behind its first two bytes.
pub(crate) async fn accept(
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    from: PeerId,
) -> Result<InboundExchange, StreamError> {
    let out = OutStream::over(send, from.clone());
    let mut input = InStream::over(receive, from.clone());
    let mut preamble = [0; PREAMBLE_BYTES];
    input.read_exact(&mut preamble).await?;
    let [kind, rest @ ..] = preamble;
    let [d0, d1, d2, d3, length @ ..] = rest;
    let len = u32::from_le_bytes(length) as usize;
    if len > EXCHANGE_HEADER_MAX {
        let reason = format!("exchange header of {len} bytes, at most {EXCHANGE_HEADER_MAX} are allowed");
        return Err(broke(&from, reason));
    }
    let header = input.read_header(len).await?;
    let left = Duration::from_millis(u64::from(u32::from_le_bytes([d0, d1, d2, d3])));
    Ok(InboundExchange {
        from,
        kind,
        header,
        deadline: Instant::now() + left,
        out,
        input,
    })
}
