//! Raw HTTP: requests as the `http` crate has them, taken from the wire and put back.
//!
//! Invariant: nothing leaves before it is committed. The head of an answer waits for the turn that made it, and each piece
//! of a body that is streamed for everything its actor had executed when the piece was made.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_types::{HttpBody, HttpReply, HttpRequest, codec, limits};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::actor::RequestFn;
use crate::{Actor, Body, BodySender, BoxError, Ctx, Error, Spawn, Turn};

/// How long a streamed answer may pause once its actor was told to stop; one that flows has `background_timeout`.
const LULL: Duration = Duration::from_millis(500);

/// Answers one request; `body` is the one that is streamed, if it is.
pub(crate) async fn answer<A: Actor>(
    hook: Option<RequestFn<A>>,
    actor: &mut A,
    c: Ctx<A>,
    request: HttpRequest,
    body: Option<Body>,
) -> Result<Vec<u8>, Error> {
    let Some(hook) = hook else {
        let message = "the actor has no handler for raw requests";
        return Err(Error::new("handler", "request_not_defined", message));
    };
    let turn = c.turn().clone();
    let max = turn.life.actor_type().options().request_body_max;
    let request = read(request, body, c.headers(), max)?;
    let asked = format!("{} {}", request.method(), request.uri().path());
    let Some(response) = hook(actor, c, request).await? else {
        let message = format!("the actor does not answer {asked}");
        return Err(Error::new("handler", "request_not_defined", message));
    };
    write(&turn, response).await
}

fn read(
    request: HttpRequest,
    streamed: Option<Body>,
    headers: &[(String, String)],
    max: usize,
) -> Result<http::Request<Body>, Error> {
    let mut built = http::Request::builder()
        .method(request.method.as_str())
        .uri(&request.uri);
    for (name, value) in headers {
        built = built.header(name, value);
    }
    let body = match (request.body, streamed) {
        (HttpBody::Whole(body), _) => Body::from(body),
        (HttpBody::Streamed { .. }, Some(body)) => body,
        (HttpBody::Streamed { .. }, None) => {
            return Err(Error::invalid_request("a streamed body needs an exchange"));
        }
    };
    built
        .body(body.limited(max)?)
        .map_err(|error| Error::invalid_request(format!("the request: {error}")))
}

/// The answer as it travels. A body whose end is near is taken into the turn: such an answer is remembered, so that a
/// repeat of its request gets it again. Any other is streamed, beside the turns.
async fn write(turn: &Arc<Turn>, response: http::Response<Body>) -> Result<Vec<u8>, Error> {
    let (parts, body) = response.into_parts();
    let length = body.length();
    let body = match length {
        Some(len) if len <= limits::REPLY_MAX as u64 => {
            HttpBody::Whole(body.whole(limits::REPLY_MAX).await?.into())
        }
        _ => {
            stream(turn, body);
            HttpBody::Streamed { length }
        }
    };
    let headers = parts.headers.iter();
    let reply = HttpReply {
        status: parts.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
        body,
    };
    codec::encode(&reply).map_err(Error::internal)
}

/// Lets a body begin when the turn has committed. The actor stays awake as long as it flows.
fn stream(turn: &Arc<Turn>, body: Body) {
    let (sender, answer) = Body::channel();
    if let Some(visit) = turn.visit() {
        visit.set_answer(answer);
    }
    turn.spawn(Spawn {
        keep_awake: true,
        start: Box::new(move |turn| Box::pin(pump(turn, body, sender))),
    });
}

/// Hands a body on, piece by piece, until it ends, its reader goes, or its actor stops here. Whatever cuts it short drops
/// the sender, which breaks the body off.
async fn pump(turn: Arc<Turn>, mut body: Body, to: BodySender) {
    let lost = turn.life.lost().clone();
    let flow = async {
        while let Some(piece) = in_time(turn.life.stop(), body.next()).await? {
            let mut piece = piece.map_err(|error| {
                let cause = error.internal_cause();
                tracing::warn!(actor = %turn.actor.id, %error, ?cause, "a streamed answer failed");
            })?;
            while !piece.is_empty() {
                let next = piece.split_to(piece.len().min(limits::HTTP_PIECE_MAX));
                turn.host.settled(&turn).await.map_err(drop)?;
                to.send(next).await.map_err(drop)?;
            }
        }
        turn.host.settled(&turn).await.map_err(drop)
    };
    let ended = tokio::select! {
        biased;
        () = to.closed() => return,
        () = lost.cancelled() => return,
        ended = flow => ended,
    };
    if ended.is_ok() {
        to.finish().await;
    }
}

/// The next piece. Once the actor is to stop, one that keeps it waiting is given up.
async fn in_time<T>(stop: &CancellationToken, next: impl Future<Output = T>) -> Result<T, ()> {
    let lull = async {
        stop.cancelled().await;
        tokio::time::sleep(LULL).await;
    };
    tokio::select! {
        biased;
        next = next => Ok(next),
        () = lull => Err(()),
    }
}

/// What `on_request` may take: a request whose body is read as it comes ([`Body`]), or one whose body is read whole before
/// (`Bytes`, at most [`limits::HTTP_WHOLE_MAX`] bytes).
#[diagnostic::on_unimplemented(
    message = "`on_request` cannot take `{Self}`",
    label = "not a request",
    note = "take `http::Request<Body>`, or `http::Request<Bytes>` to have its body whole"
)]
pub trait HttpAsked: Sized + Send {
    /// The request in this form.
    ///
    /// # Errors
    /// What the body cannot be read for.
    fn asked(request: http::Request<Body>) -> impl Future<Output = Result<Self, Error>> + Send;
}

impl HttpAsked for http::Request<Body> {
    async fn asked(request: http::Request<Body>) -> Result<Self, Error> {
        Ok(request)
    }
}

impl HttpAsked for http::Request<Bytes> {
    async fn asked(request: http::Request<Body>) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let body = body.limited(limits::HTTP_WHOLE_MAX)?;
        let body = body.whole(limits::HTTP_WHOLE_MAX).await?;
        Ok(http::Request::from_parts(parts, body))
    }
}

/// What `on_request` may return: a response, or `None` for a request that the actor does not answer (its client is told
/// `handler.request_not_defined`, 404).
#[diagnostic::on_unimplemented(
    message = "`on_request` cannot return `{Self}`",
    label = "not a response",
    note = "return `http::Response<B>` where `B` becomes a `Body` (text, bytes), an `Option` of it, or a `Result` of either"
)]
pub trait HttpAnswer {
    /// The response, if there is one.
    fn answer(self) -> Option<http::Response<Body>>;
}

impl<B: Into<Body>> HttpAnswer for http::Response<B> {
    fn answer(self) -> Option<http::Response<Body>> {
        Some(self.map(Into::into))
    }
}

impl<B: Into<Body>> HttpAnswer for Option<http::Response<B>> {
    fn answer(self) -> Option<http::Response<Body>> {
        self.map(|response| response.map(Into::into))
    }
}

/// Lets a service answer a request of `on_request`: a router with the paths of the actor, say. Bodies are streamed both
/// ways.
///
/// # Errors
/// What the service fails with, as an internal error.
pub async fn serve_request<S, B>(
    mut service: S,
    request: http::Request<impl Into<Body>>,
) -> Result<http::Response<Body>, Error>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: std::fmt::Display,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let failed = |error: &dyn std::fmt::Display| Error::internal(format!("the service: {error}"));
    poll_fn(|task| service.poll_ready(task))
        .await
        .map_err(|error| failed(&error))?;
    let response = service.call(request.map(Into::into)).await;
    Ok(response.map_err(|error| failed(&error))?.map(Body::new))
}
