//! The owner's side of exchanges: raw HTTP requests from other nodes, whose bodies travel beside them, and their answers.
//!
//! Not here: the requests themselves (`activation`), the asking side (`clinch_client`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use clinch_actor::{Body, Error};
use clinch_client::{Answered, ExchangeFrame as Frame};
use clinch_transport::{InStream, InboundExchange, OutStream};
use clinch_types::{CallError, CallOp, CallRequest, HttpBody, code, codec, group};
use http_body::{Frame as BodyFrame, SizeHint};
use tokio::sync::{Notify, oneshot};

use crate::desk::Desk;
use crate::shard::{HttpSeat, ReplyTo};

/// Serves an exchange to its end. Dropping it breaks both directions off.
pub(crate) async fn serve(desk: Arc<Desk>, inbound: InboundExchange) {
    let InboundExchange {
        from,
        header,
        deadline,
        mut out,
        input,
        ..
    } = inbound;
    let request: CallRequest = match codec::decode(&header) {
        Ok(request) => request,
        Err(error) => return tracing::warn!(%from, %error, "a raw request that cannot be read"),
    };
    let wanted = Arc::new(Notify::new());
    let body = announced(&request).map(|length| incoming(input, length, wanted.clone()));
    let (seat, outcome) = HttpSeat::new(body);
    desk.route(Box::new(request), deadline, ReplyTo::Exchange(Box::new(seat)));
    if let Err(reason) = answer(&mut out, outcome, &wanted).await {
        return tracing::debug!(%from, reason, "an exchange broke off");
    }
    // All of it has left; that its reader may be gone does not matter any more.
    let _ended = out.finish().await;
}

/// Writes the outcome and the body of the answer. An error leaves the stream without an end.
async fn answer(
    out: &mut OutStream,
    outcome: oneshot::Receiver<Result<Answered, CallError>>,
    wanted: &Notify,
) -> Result<(), String> {
    let mut outcome = std::pin::pin!(outcome);
    let mut gone = std::pin::pin!(out.refused());
    let answered = loop {
        tokio::select! {
            biased;
            answered = &mut outcome => break answered,
            () = wanted.notified() => write(out, Frame::Go).await?,
            // What the request does goes on; nobody waits for its answer.
            () = &mut gone => return Err("the caller went away before its answer".into()),
        }
    };
    // The shard always answers, unless its node stops.
    let (outcome, body) = match answered.map_err(|_| "the node is stopping")? {
        Ok((reply, body)) => (Ok(reply), body),
        Err(error) => (Err(error), None),
    };
    let head = Bytes::from(codec::encode(&outcome).map_err(|error| error.to_string())?);
    let Some(mut body) = body else {
        return write(out, Frame::HeadAlone(head)).await;
    };
    write(out, Frame::Head(head)).await?;
    loop {
        tokio::select! {
            biased;
            () = &mut gone => return Err("the caller went away".into()),
            () = wanted.notified() => write(out, Frame::Go).await?,
            piece = body.next() => match piece {
                Some(piece) => write(out, Frame::Data(piece.map_err(|error| error.to_string())?)).await?,
                None => return Ok(()),
            }
        }
    }
}

async fn write(out: &mut OutStream, frame: Frame) -> Result<(), String> {
    out.write(frame.encode()).await.map_err(|error| error.reason)
}

/// The length that a request gives of its streamed body; `None` when it announces none.
fn announced(request: &CallRequest) -> Option<Option<u64>> {
    match &request.op {
        CallOp::Http(http) => match http.body {
            HttpBody::Streamed { length } => Some(length),
            HttpBody::Whole(_) => None,
        },
        _ => None,
    }
}

/// The body of the request: asked for when it is first read.
fn incoming(input: InStream, length: Option<u64>, wanted: Arc<Notify>) -> Body {
    let pieces = futures_util::stream::unfold(Some(input), |input| async {
        let mut input = input?;
        match input.read().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(input))),
            Ok(None) => None,
            Err(_) => {
                let reason = "its client went away";
                Some((Err(Error::new(group::MESSAGE, code::BROKEN_OFF, reason)), None))
            }
        }
    });
    Body::new(Asking {
        body: Body::from_stream(pieces),
        length,
        wanted: Some(wanted),
    })
}

/// Lets its sender begin when the first piece is asked for.
struct Asking {
    body: Body,
    length: Option<u64>,
    wanted: Option<Arc<Notify>>,
}

impl http_body::Body for Asking {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Error>>> {
        if let Some(wanted) = self.wanted.take() {
            wanted.notify_one();
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
