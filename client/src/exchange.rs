//! A raw HTTP request on its way to its actor, with its body, and the answer with its own.
//!
//! The request is asked on an exchange of its own. Its body follows only when the other side says that it is being read: until
//! then nothing of it is used, and the request may be asked again elsewhere. The answer comes in frames: `GO` (begin to
//! send), `HEAD` or `HEAD_ALONE` (the outcome of the call), `DATA` (the body, in pieces).
//! Invariant: a body that did not come to its end is an error, never a short body.
//! Not here: who is asked, and when again (`router`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clinch_actor::{Answered, Body, Error};
use clinch_transport::{InStream, OutStream};
use clinch_types::{CallError, CallReply, codec, limits};
use http_body::{Body as HttpBody, Frame as BodyFrame, SizeHint};
use parking_lot::Mutex;

/// A frame of the answering half, as the owner's node writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The body of the request is being read.
    Go,
    /// The outcome of the call, through [`codec`]; the body follows.
    Head(Bytes),
    /// The outcome of the call, through [`codec`]; nothing follows.
    HeadAlone(Bytes),
    /// A piece of the body.
    Data(Bytes),
}

/// Tag and length.
const FRAME_HEAD: usize = 5;
/// Longest outcome, in bytes.
const HEAD_MAX: usize = 8 << 20;

impl Frame {
    fn tag(&self) -> (u8, &[u8]) {
        match self {
            Self::Go => (1, &[]),
            Self::Head(bytes) => (2, bytes),
            Self::HeadAlone(bytes) => (3, bytes),
            Self::Data(bytes) => (4, bytes),
        }
    }

    /// Its bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let (tag, content) = self.tag();
        let mut bytes = BytesMut::with_capacity(FRAME_HEAD + content.len());
        bytes.put_u8(tag);
        bytes.put_u32_le(content.len() as u32);
        bytes.put_slice(content);
        bytes.freeze()
    }

    /// Takes the first frame off the buffer, if it is there whole.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn take(buffer: &mut BytesMut) -> Result<Option<Self>, String> {
        let Some([tag, length @ ..]) = buffer.first_chunk::<FRAME_HEAD>() else {
            return Ok(None);
        };
        let (tag, len) = (*tag, u32::from_le_bytes(*length) as usize);
        let max = match tag {
            1 => 0,
            2 | 3 => HEAD_MAX,
            4 => limits::HTTP_PIECE_MAX,
            other => return Err(format!("frame of unknown kind {other}")),
        };
        if len > max {
            return Err(format!("frame of {len} bytes, at most {max} are allowed"));
        }
        if buffer.len() < FRAME_HEAD + len {
            return Ok(None);
        }
        buffer.advance(FRAME_HEAD);
        let content = buffer.split_to(len).freeze();
        Ok(Some(match tag {
            1 => Self::Go,
            2 => Self::Head(content),
            3 => Self::HeadAlone(content),
            _ => Self::Data(content),
        }))
    }
}

/// A body that is offered to one node after the other, until one of them reads of it.
#[derive(Clone)]
pub(crate) struct Offer {
    body: Arc<Mutex<Body>>,
    touched: Arc<AtomicBool>,
}

impl Offer {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body: Arc::new(Mutex::new(body)),
            touched: Arc::default(),
        }
    }

    /// Whether anybody has read of it: then it cannot be offered again.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// The body, for one attempt.
    pub(crate) fn body(&self) -> Body {
        Body::new(self.clone())
    }
}

impl HttpBody for Offer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Error>>> {
        self.touched.store(true, Ordering::Release);
        Pin::new(&mut *self.body.lock()).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().size_hint()
    }
}

/// How far the body of the request is.
enum Upload {
    /// Nobody has asked for it.
    Offered(OutStream, Option<Offer>),
    Flowing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Over,
}

/// The asking end of an exchange whose header has left.
pub(crate) struct Wire {
    input: InStream,
    buffer: BytesMut,
    upload: Upload,
}

impl Wire {
    pub(crate) fn new(out: OutStream, input: InStream, offer: Option<Offer>) -> Self {
        Self {
            input,
            buffer: BytesMut::new(),
            upload: Upload::Offered(out, offer),
        }
    }

    /// Waits for the outcome of the call. The body of the request flows meanwhile, if it is asked for.
    ///
    /// # Errors
    /// Why none came.
    pub(crate) async fn head(mut self) -> Result<Result<Answered, CallError>, String> {
        loop {
            let (bytes, more) = match self.frame().await? {
                Some(Frame::Head(bytes)) => (bytes, true),
                Some(Frame::HeadAlone(bytes)) => (bytes, false),
                Some(Frame::Go) => {
                    self.go();
                    continue;
                }
                Some(Frame::Data(_)) => return Err("a body came before its head".into()),
                None => return Err("it ended before its answer".into()),
            };
            let outcome: Result<CallReply, CallError> =
                codec::decode(&bytes).map_err(|error| format!("an answer that cannot be read: {error}"))?;
            return Ok(outcome.map(|reply| (reply, more.then(|| self.into_body()))));
        }
    }

    /// What follows the head.
    fn into_body(self) -> Body {
        Body::from_stream(futures_util::stream::unfold(Some(self), |wire| async {
            let mut wire = wire?;
            match wire.piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(wire))),
                Ok(None) => None,
                Err(reason) => Some((Err(reason), None)),
            }
        }))
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.frame().await? {
                Some(Frame::Data(piece)) => return Ok(Some(piece)),
                Some(Frame::Go) => self.go(),
                Some(Frame::Head(_) | Frame::HeadAlone(_)) => return Err("a second head".into()),
                None => return Ok(None),
            }
        }
    }

    /// The next frame; `None` where the answer ends.
    async fn frame(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            let read = tokio::select! {
                biased;
                read = self.input.read() => read,
                () = flow(&mut self.upload) => continue,
            };
            match read.map_err(|error| error.to_string())? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err("it ended inside a frame".into()),
            }
        }
    }

    fn go(&mut self) {
        self.upload = match std::mem::replace(&mut self.upload, Upload::Over) {
            Upload::Offered(out, offer) => Upload::Flowing(Box::pin(upload(out, offer))),
            other => other,
        };
    }
}

/// Drives the body of the request on; ends when that is over, never if there is nothing to do.
async fn flow(upload: &mut Upload) {
    match upload {
        Upload::Offered(..) | Upload::Over => std::future::pending().await,
        Upload::Flowing(flowing) => flowing.await,
    }
    *upload = Upload::Over;
}

/// Sends a body. If it breaks off, so does the stream; if its reader wants no more, that is its right.
async fn upload(mut out: OutStream, offer: Option<Offer>) {
    if let Some(offer) = offer {
        let mut body = offer.body();
        while let Some(piece) = body.next().await {
            let Ok(mut piece) = piece else { return };
            while !piece.is_empty() {
                let next = piece.split_to(piece.len().min(limits::HTTP_PIECE_MAX));
                if out.write(next).await.is_err() {
                    return;
                }
            }
        }
    }
    // Whoever reads it hears of its end; that it was lost, by the answer.
    let _ended = out.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_bytes_and_wrong_ones_are_refused() {
        let frames = [
            Frame::Go,
            Frame::Head(Bytes::from_static(b"h")),
            Frame::HeadAlone(Bytes::from_static(b"")),
            Frame::Data(Bytes::from_static(b"data")),
        ];
        let mut buffer = BytesMut::new();
        for frame in &frames {
            buffer.extend_from_slice(&frame.encode());
        }
        assert_eq!(
            &buffer[..],
            b"\x01\0\0\0\0\x02\x01\0\0\0h\x03\0\0\0\0\x04\x04\0\0\0data"
        );
        let cut = buffer.len() - 1;
        let mut part = buffer.clone();
        part.truncate(cut);
        for frame in &frames {
            assert_eq!(Frame::take(&mut buffer), Ok(Some(frame.clone())));
        }
        assert_eq!(Frame::take(&mut buffer), Ok(None));
        for _ in 0..3 {
            assert!(Frame::take(&mut part).unwrap().is_some());
        }
        assert_eq!(Frame::take(&mut part), Ok(None), "the last one is not whole");
        let mut unknown = BytesMut::from(&b"\x09\0\0\0\0"[..]);
        assert!(Frame::take(&mut unknown).unwrap_err().contains("unknown kind 9"));
        let long = (limits::HTTP_PIECE_MAX as u32 + 1).to_le_bytes();
        let mut long = BytesMut::from(&[&[4], &long[..]].concat()[..]);
        let error = Frame::take(&mut long).unwrap_err();
        assert!(error.contains("65537 bytes, at most 65536"), "{error}");
    }

    #[tokio::test]
    async fn an_offer_is_good_until_somebody_reads_of_it() {
        let offer = Offer::new(Body::from("ab"));
        assert_eq!(offer.body().length(), Some(2));
        assert!(!offer.is_touched());
        assert_eq!(offer.body().next().await.unwrap().unwrap(), "ab");
        assert!(offer.is_touched());
    }
}
