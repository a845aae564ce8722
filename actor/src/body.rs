//! Bodies of raw HTTP: whole, or piece by piece.
//!
//! Invariant: a body that broke off never looks whole. Its reader gets an error instead of the end, whoever lost it: the
//! client, the network, the actor.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use clinch_types::{code, group};
use futures_util::{Stream, TryStreamExt as _};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;

use crate::{BoxError, Error};

/// Pieces between a [`BodySender`] and whoever reads the body.
const PIECES: usize = 8;

/// The body of a raw HTTP request, or of the answer to one.
///
/// Text and bytes become a body with `into()`. One that is made piece by piece comes from a [stream](Body::from_stream), any
/// [`http_body::Body`](Body::new), or a [`channel`](Body::channel); nothing of it is kept longer than its reader needs.
#[derive(Default)]
pub struct Body(Inner);

enum Inner {
    Whole(Bytes),
    Pieces(UnsyncBoxBody<Bytes, Error>),
}

impl Default for Inner {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Pieces(body) => write!(f, "Body({:?} in pieces)", body.size_hint()),
        }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self(Inner::Whole(bytes.into()))
    }
}

impl Body {
    /// One without bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Around the body of another library, such as axum's.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Inner::Pieces(
            body.map_err(|error| broken(error.into())).boxed_unsync(),
        ))
    }

    /// The pieces of a stream. An error of it breaks the body off.
    pub fn from_stream<S, B, E>(pieces: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<BoxError>,
    {
        let frames = pieces.map_ok(|piece| Frame::data(piece.into()));
        Self::new(StreamBody::new(frames.map_err(|error| broken(error.into()))))
    }

    /// A body that is written by whoever holds the sender. Few pieces wait between the two: a sender waits for its reader.
    pub fn channel() -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let ended = false;
        (BodySender { sender }, Self::new(Channel { receiver, ended }))
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// `message.broken_off` when the other side went away, `guard.request_body_too_large` when a request has more bytes than
    /// the actor's `request_body_max`, or what the body was made to fail with.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.frame().await? {
                Ok(frame) => {
                    // Anything else is trailers, which nobody asks for.
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Its bytes, if they are in memory and no more than `max`: nobody has to be waited for.
    pub(crate) fn at_hand(self, max: usize) -> Result<Bytes, Self> {
        match self.0 {
            Inner::Whole(bytes) if bytes.len() <= max => Ok(bytes),
            other => Err(Self(other)),
        }
    }

    /// All of it, at most `max` bytes.
    ///
    /// # Errors
    /// `message.incoming_too_long` above `max`; otherwise as [`Body::next`].
    pub async fn whole(mut self, max: usize) -> Result<Bytes, Error> {
        if let Some(len) = self.length().filter(|len| *len > max as u64) {
            return Err(too_long(len, "", max));
        }
        let mut all = Vec::new();
        let mut first = Bytes::new();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            let len = first.len() + all.len() + piece.len();
            if len > max {
                return Err(too_long(len as u64, "at least ", max));
            }
            // Most are one piece: it is handed on without a copy.
            if first.is_empty() && all.is_empty() {
                first = piece;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    /// Its length in bytes, if that is known before it is read.
    pub fn length(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Refuses what is over `max` bytes: at once if its length is known, else with the byte that is too much.
    ///
    /// # Errors
    /// `guard.request_body_too_large`.
    pub(crate) fn limited(self, max: usize) -> Result<Self, Error> {
        match self.length() {
            Some(len) if len > max as u64 => Err(over(len, "", max)),
            Some(_) => Ok(self),
            None => Ok(Self(Inner::Pieces(
                Limited {
                    body: self,
                    read: 0,
                    max,
                }
                .boxed_unsync(),
            ))),
        }
    }
}

fn too_long(len: u64, at_least: &str, max: usize) -> Error {
    let message = format!("the body has {at_least}{len} bytes, at most {max} are read whole");
    Error::new(group::MESSAGE, code::INCOMING_TOO_LONG, message)
}

fn over(len: u64, at_least: &str, max: usize) -> Error {
    let message = format!("the body has {at_least}{len} bytes, at most {max} are allowed");
    Error::new(group::GUARD, code::REQUEST_BODY_TOO_LARGE, message)
}

/// An error of a body: our own passes through, another one says that the body broke off.
fn broken(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::new(
            group::MESSAGE,
            code::BROKEN_OFF,
            format!("the body broke off: {other}"),
        ),
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Pieces(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Pieces(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Pieces(body) => body.size_hint(),
        }
    }
}

/// Counts what is read of a body whose length nobody has said.
struct Limited {
    body: Body,
    read: usize,
    max: usize,
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.read += frame.data_ref().map_or(0, Bytes::len);
            if self.read > self.max {
                return Poll::Ready(Some(Err(over(self.read as u64, "at least ", self.max))));
            }
        }
        polled
    }
}

/// Writes a body. Dropped before [`BodySender::finish`], it breaks the body off: its reader gets an error.
#[derive(Debug)]
pub struct BodySender {
    sender: mpsc::Sender<Sent>,
}

#[derive(Debug)]
enum Sent {
    Piece(Bytes),
    End,
}

impl BodySender {
    /// Hands a piece on; waits while the reader is behind.
    ///
    /// # Errors
    /// `message.broken_off` when nobody reads any more.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Error> {
        let sent = self.sender.send(Sent::Piece(piece.into())).await;
        sent.map_err(|_| broken("nobody reads it any more".into()))
    }

    /// Ends the body.
    pub async fn finish(self) {
        // The reader may be gone: then there is nobody to tell.
        drop(self.sender.send(Sent::End).await);
    }

    /// Returns when nobody reads any more: the client has gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// The reader's end of a [`BodySender`].
struct Channel {
    receiver: mpsc::Receiver<Sent>,
    ended: bool,
}

impl HttpBody for Channel {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let received = std::task::ready!(self.receiver.poll_recv(cx));
        self.ended = !matches!(received, Some(Sent::Piece(_)));
        Poll::Ready(match received {
            Some(Sent::Piece(piece)) => Some(Ok(Frame::data(piece))),
            Some(Sent::End) => None,
            None => Some(Err(broken("its sender let it go before its end".into()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_in_pieces_or_whole() {
        let mut body = Body::from_stream(futures_util::stream::iter([Ok::<_, Error>("ab"), Ok("c")]));
        assert_eq!(body.length(), None);
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        assert_eq!(body.whole(1).await.unwrap(), "c");
        assert_eq!(Body::from("abc").length(), Some(3));
        assert!(Body::empty().next().await.is_none());
        let error = Body::from("abc").whole(2).await.unwrap_err();
        assert!(error.is("message", "incoming_too_long"), "{error}");
        assert!(error.message().contains("3 bytes, at most 2"), "{error}");
        let pieces = Body::from_stream(futures_util::stream::iter([Ok::<_, Error>("ab"), Ok("c")]));
        let error = pieces.whole(2).await.unwrap_err();
        assert!(error.message().contains("at least 3 bytes, at most 2"), "{error}");
    }

    #[tokio::test]
    async fn a_sender_that_is_dropped_breaks_the_body_off_and_one_that_finishes_does_not() {
        let (sender, mut body) = Body::channel();
        sender.send("a").await.unwrap();
        sender.finish().await;
        assert_eq!(body.next().await.unwrap().unwrap(), "a");
        assert!(body.next().await.is_none());
        let (sender, mut body) = Body::channel();
        drop(sender);
        assert!(
            body.next()
                .await
                .unwrap()
                .unwrap_err()
                .is("message", "broken_off")
        );
        assert!(body.next().await.is_none());
        let (sender, body) = Body::channel();
        drop(body);
        sender.closed().await;
        assert!(sender.send("b").await.unwrap_err().is("message", "broken_off"));
    }

    #[tokio::test]
    async fn a_limit_holds_whether_the_length_is_known_or_not() {
        assert_eq!(
            Body::from("abc").limited(3).unwrap().whole(9).await.unwrap(),
            "abc"
        );
        let error = Body::from("abcd").limited(3).unwrap_err();
        assert!(error.is("guard", "request_body_too_large"), "{error}");
        assert!(error.message().contains("4 bytes, at most 3"), "{error}");
        let pieces = |texts: &'static [&'static str]| {
            Body::from_stream(futures_util::stream::iter(
                texts.iter().map(|t| Ok::<_, Error>(*t)),
            ))
        };
        assert_eq!(
            pieces(&["ab", "c"]).limited(3).unwrap().whole(9).await.unwrap(),
            "abc"
        );
        let mut over = pieces(&["ab", "cd"]).limited(3).unwrap();
        assert_eq!(over.next().await.unwrap().unwrap(), "ab");
        let error = over.next().await.unwrap().unwrap_err();
        assert!(error.message().contains("at least 4 bytes, at most 3"), "{error}");
    }
}
