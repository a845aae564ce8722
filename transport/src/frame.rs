//! Frames: how one request or answer looks on a stream.
//!
//! ```text
//! u32 length of the rest | u8 version | u8 type | u8 service kind | u8 flags | u64 correlation | u32 deadline ms
//! [ 25 bytes trace, if flag 1 ] | body                                            all numbers little-endian
//! ```
//! Invariant: a length is checked against the limit before anything is allocated for it, and decoding never panics.
//! Not here: what the correlation means (`lane`), what the body means (the caller).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clinch_types::limits::FRAME_MAX;

use crate::inbound::Trace;
use crate::{Refusal, RefusalCode};

/// The version this release writes and reads.
pub(crate) const VERSION: u8 = 1;
/// Bytes of the length field.
const LEN_BYTES: usize = 4;
/// Bytes from the version to the deadline.
const HEAD_BYTES: usize = 16;
/// Bytes of a frame around its body, without trace.
pub(crate) const OVERHEAD: usize = LEN_BYTES + HEAD_BYTES;
const TRACE_BYTES: usize = size_of::<Trace>();
const FLAG_TRACE: u8 = 1;
/// Longest rest after the length field.
const REST_MAX: usize = HEAD_BYTES + TRACE_BYTES + FRAME_MAX;
/// How much more is reserved at once for a frame whose bytes have not arrived: its length is only a claim.
const RESERVE_MAX: usize = 64 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameType {
    Request,
    Reply,
    Refusal,
    /// Of a later release.
    Unknown(u8),
}

impl FrameType {
    fn to_wire(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Refusal => 3,
            Self::Unknown(number) => number,
        }
    }

    fn from_wire(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Refusal,
            other => Self::Unknown(other),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameType,
    /// The caller-defined kind.
    pub(crate) service: u8,
    /// Pairs an answer with its request, within one stream.
    pub(crate) correlation: u64,
    /// Time left for the answer, in ms; 0 is no limit.
    pub(crate) deadline_ms: u32,
    pub(crate) trace: Option<Trace>,
    /// At most [`FRAME_MAX`] bytes; senders check.
    pub(crate) body: Bytes,
}

/// Why bytes are no frame. The stream has lost its place: the connection must go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame of {len} bytes, at most {REST_MAX} are allowed")]
    TooLong { len: usize },
    #[error("frame of {len} bytes is shorter than its header")]
    TooShort { len: usize },
    #[error("frame version {version}, this release reads {VERSION}")]
    Version { version: u8 },
}

impl Frame {
    /// Bytes on the wire.
    pub(crate) fn wire_len(&self) -> usize {
        OVERHEAD + self.trace.map_or(0, |_| TRACE_BYTES) + self.body.len()
    }

    /// Writes everything before the body.
    pub(crate) fn encode_head(&self, out: &mut BytesMut) {
        // Bodies are at most FRAME_MAX, far below 4 GiB.
        out.put_u32_le((self.wire_len() - LEN_BYTES) as u32);
        out.put_u8(VERSION);
        out.put_u8(self.kind.to_wire());
        out.put_u8(self.service);
        out.put_u8(if self.trace.is_some() { FLAG_TRACE } else { 0 });
        out.put_u64_le(self.correlation);
        out.put_u32_le(self.deadline_ms);
        if let Some(trace) = &self.trace {
            out.put_slice(trace);
        }
    }

    /// Reads a frame of which the length field has been cut off and checked.
    fn parse(mut rest: Bytes) -> Result<Self, FrameError> {
        let short = FrameError::TooShort { len: rest.len() };
        if rest.len() < HEAD_BYTES {
            return Err(short);
        }
        let version = rest.get_u8();
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        let kind = FrameType::from_wire(rest.get_u8());
        let service = rest.get_u8();
        // Flags of later releases are ignored: one that changes the layout comes with a new version.
        let flags = rest.get_u8();
        let correlation = rest.get_u64_le();
        let deadline_ms = rest.get_u32_le();
        let trace = if flags & FLAG_TRACE == 0 {
            None
        } else if rest.len() < TRACE_BYTES {
            return Err(short);
        } else {
            let mut trace = [0; TRACE_BYTES];
            rest.copy_to_slice(&mut trace);
            Some(trace)
        };
        Ok(Self {
            kind,
            service,
            correlation,
            deadline_ms,
            trace,
            body: rest,
        })
    }
}

/// The body of a refusal: u16 code, message.
pub(crate) fn encode_refusal(refusal: &Refusal) -> Bytes {
    let mut end = refusal.message.len().min(Refusal::MESSAGE_MAX);
    while !refusal.message.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = BytesMut::with_capacity(2 + end);
    out.put_u16_le(refusal.code.to_wire());
    out.put_slice(&refusal.message.as_bytes()[..end]);
    out.freeze()
}

/// Reads [`encode_refusal`] back; total, because a refusal must never be lost to its own form.
pub(crate) fn decode_refusal(mut body: Bytes) -> Refusal {
    let code = body.try_get_u16_le().unwrap_or_default();
    body.truncate(Refusal::MESSAGE_MAX);
    Refusal::new(RefusalCode::from_wire(code), String::from_utf8_lossy(&body))
}

/// Cuts a stream of chunks into frames, without copying those that lie within one chunk.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// What arrived and is not cut yet.
    chunk: Bytes,
    /// The beginning of a frame that spans chunks.
    partial: BytesMut,
}

impl Decoder {
    /// Takes the next chunk. The last one must have been cut to its end.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "next() was not called until None");
        self.chunk = chunk;
    }

    /// The next frame; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty() {
            if let Some(len) = claimed(&self.chunk)?
                && self.chunk.len() >= LEN_BYTES + len
            {
                self.chunk.advance(LEN_BYTES);
                return Frame::parse(self.chunk.split_to(len)).map(Some);
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
        }
        self.fill_to(LEN_BYTES);
        let Some(len) = claimed(&self.partial)? else {
            return Ok(None);
        };
        if !self.fill_to(LEN_BYTES + len) {
            return Ok(None);
        }
        let mut whole = self.partial.split().freeze();
        whole.advance(LEN_BYTES);
        Frame::parse(whole).map(Some)
    }

    /// Moves bytes of the chunk until the partial frame has `want`; says whether it has.
    fn fill_to(&mut self, want: usize) -> bool {
        let missing = want.saturating_sub(self.partial.len()).min(self.chunk.len());
        if missing > 0 {
            if self.partial.capacity() < want {
                // Grow with what has arrived, not with what is claimed.
                let room = self.partial.len().max(RESERVE_MAX).max(missing);
                self.partial.reserve(room.min(want - self.partial.len()));
            }
            self.partial.extend_from_slice(&self.chunk.split_to(missing));
        }
        self.partial.len() >= want
    }
}

/// The length a frame claims for its rest, checked; `None` when not even that has arrived.
fn claimed(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(field) = bytes.first_chunk::<LEN_BYTES>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(*field) as usize;
    if len > REST_MAX {
        return Err(FrameError::TooLong { len });
    }
    if len < HEAD_BYTES {
        return Err(FrameError::TooShort { len });
    }
    Ok(Some(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(frames: &[Frame]) -> Bytes {
        let mut out = BytesMut::new();
        for frame in frames {
            frame.encode_head(&mut out);
            out.put_slice(&frame.body);
        }
        out.freeze()
    }

    fn decode(bytes: &Bytes, cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut frames, mut from) = (Decoder::default(), vec![], 0);
        for end in cuts.iter().map(|c| c % (bytes.len() + 1)).chain([bytes.len()]) {
            if end > from {
                decoder.push(bytes.slice(from..end));
                from = end;
                while let Some(frame) = decoder.next()? {
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let trace = prop::option::of(prop::array::uniform25(any::<u8>()));
        let body = prop::collection::vec(any::<u8>(), 0..400);
        let frame = (any::<u8>(), any::<u8>(), any::<u64>(), any::<u32>(), trace, body).prop_map(
            |(kind, service, correlation, deadline_ms, trace, body)| Frame {
                kind: FrameType::from_wire(kind),
                service,
                correlation,
                deadline_ms,
                trace,
                body: body.into(),
            },
        );
        prop::collection::vec(frame, 0..8)
    }

    /// Bytes other releases read: a change here needs a new frame version.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let body = Bytes::from_static(b"hi");
        let frame = Frame {
            kind: FrameType::Request,
            service: 9,
            correlation: 0x0102_0304,
            deadline_ms: 500,
            trace: None,
            body,
        };
        let golden = [
            18, 0, 0, 0, 1, 1, 9, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0xf4, 1, 0, 0, b'h', b'i',
        ];
        assert_eq!(encode(std::slice::from_ref(&frame))[..], golden);
        let traced = encode(&[Frame {
            trace: Some([7; 25]),
            ..frame
        }]);
        assert_eq!((traced[0], traced[7], &traced[20..45]), (43, 1, &[7; 25][..]));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let mut decoder = Decoder::default();
        decoder.push(Bytes::copy_from_slice(&(REST_MAX as u32 + 1).to_le_bytes()));
        assert_eq!(decoder.next(), Err(FrameError::TooLong { len: REST_MAX + 1 }));
        assert_eq!(decoder.partial.capacity(), 0);
        let mut decoder = Decoder::default();
        decoder.push(Bytes::copy_from_slice(&(REST_MAX as u32).to_le_bytes()));
        assert_eq!(decoder.next(), Ok(None));
        assert!(
            decoder.partial.capacity() <= RESERVE_MAX,
            "a claim alone reserves little"
        );
    }

    #[test]
    fn a_refusal_keeps_its_code_and_cuts_its_message_between_characters() {
        let long = Refusal::new(RefusalCode::Other(900), "ü".repeat(600));
        let back = decode_refusal(encode_refusal(&long));
        assert_eq!((back.code, back.message.len()), (RefusalCode::Other(900), 1024));
        assert_eq!(decode_refusal(Bytes::new()).code, RefusalCode::Other(0));
    }

    proptest! {
        /// However the network cuts the bytes, the same frames come out.
        #[test]
        fn frames_survive_any_cut(frames in frames(), mut cuts in prop::collection::vec(any::<usize>(), 0..12)) {
            let bytes = encode(&frames);
            for cut in &mut cuts { *cut %= bytes.len() + 1; }
            cuts.sort_unstable();
            prop_assert_eq!(decode(&bytes, &cuts), Ok(frames));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in any::<usize>()) {
            let _ = decode(&bytes.into(), &[cut]);
        }

        #[test]
        fn refusals_survive_the_wire(code in any::<u16>(), message in ".{0,100}") {
            let refusal = Refusal::new(RefusalCode::from_wire(code), message);
            prop_assert_eq!(decode_refusal(encode_refusal(&refusal)), refusal);
        }
    }
}
