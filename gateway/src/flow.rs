//! Bodies that flow through the gateway: what they hold, and for how long they may stand still.
//!
//! Invariant: a body that is cut short ends with an error, so that neither side takes it for whole.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::backend::StreamBody;

/// How much of an unread body is read and dropped behind an answer. A client that still sends when the connection closes
/// sees a reset instead of the answer.
pub(crate) const DRAIN_MAX: usize = 1 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why a body was cut short.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("nothing came for {0:?}")]
    StoodStill(Duration),
    #[error(transparent)]
    Broke(#[from] axum::Error),
}

/// A body, what it holds while it flows, and its limit.
pub(crate) struct Flow {
    body: StreamBody,
    length: Option<u64>,
    /// Longest time without a piece.
    patience: Duration,
    /// From when on that counts; at once without it.
    since: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    still: Pin<Box<Sleep>>,
    /// Somebody waits for a piece: time counts. What nobody asks for cannot be late.
    waited_for: bool,
    _held: Held,
}

/// Permits and the like, given back when a body has ended.
pub(crate) type Held = Box<dyn Any + Send + Sync>;

impl Flow {
    /// A body of which a piece must come every `patience`, counted from `since` on if that is given.
    pub(crate) fn new(
        body: StreamBody,
        length: Option<u64>,
        patience: Duration,
        since: Option<WaitForCancellationFutureOwned>,
        held: Held,
    ) -> Self {
        Self {
            body,
            length,
            patience,
            since: since.map(Box::pin),
            still: Box::pin(tokio::time::sleep(patience)),
            waited_for: false,
            _held: held,
        }
    }

    fn rest(&mut self) {
        let until = Instant::now() + self.patience;
        self.still.as_mut().reset(until);
    }
}

impl HttpBody for Flow {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waited_for = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Cut::from)));
        }
        if let Some(since) = &mut self.since {
            std::task::ready!(since.as_mut().poll(cx));
            self.since = None;
            self.waited_for = false;
        }
        if !std::mem::replace(&mut self.waited_for, true) {
            self.rest();
        }
        std::task::ready!(self.still.as_mut().poll(cx));
        Poll::Ready(Some(Err(Cut::StoodStill(self.patience))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// The body of a request, shared with whoever reads it: what that leaves is drained.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<Flow>>);

impl Upload {
    pub(crate) fn new(body: Flow) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Reads on for a moment, and drops what comes.
    pub(crate) async fn drain(mut self) {
        let drain = async {
            let mut left = DRAIN_MAX;
            while let Some(Ok(frame)) = self.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        // In time or not: the answer goes out now.
        let _drained = tokio::time::timeout(DRAIN_TIME, drain).await;
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    fn flow(body: StreamBody, since: Option<WaitForCancellationFutureOwned>) -> Flow {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Flow::new(body, None, Duration::from_secs(3), since, Box::new(permit))
    }

    fn waiting() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, StreamBody) {
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let pieces =
            futures_util::stream::poll_fn(move |cx| rx.poll_recv(cx).map(|p| p.map(Ok::<_, axum::Error>)));
        (tx, StreamBody::from_stream(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_cut_and_one_that_flows_is_not() {
        let (tx, body) = waiting();
        let mut body = flow(body, None);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            tx.send(Bytes::from_static(b"x")).unwrap();
            assert!(body.frame().await.unwrap().is_ok());
        }
        let begun = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("3s"), "{error}");
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_stand_still_until_the_gateway_stops() {
        let (_tx, body) = waiting();
        let stop = CancellationToken::new();
        let mut body = flow(body, Some(stop.clone().cancelled_owned()));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, body.frame()).await.is_err());
        stop.cancel();
        let begun = Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }
}
