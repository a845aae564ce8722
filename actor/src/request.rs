//! Raw HTTP: requests as the `http` crate has them, taken from the wire and put back.

use std::future::poll_fn;

use bytes::Bytes;
use clinch_types::{HttpReply, HttpRequest, code, codec, group, limits};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use crate::actor::RequestFn;
use crate::{Actor, Ctx, Error};

/// Answers one request.
pub(crate) async fn answer<A: Actor>(
    hook: Option<RequestFn<A>>,
    actor: &mut A,
    c: Ctx<A>,
    request: HttpRequest,
) -> Result<Vec<u8>, Error> {
    let Some(hook) = hook else {
        let message = "the actor has no handler for raw requests";
        return Err(Error::new("handler", "request_not_defined", message));
    };
    let request = read(request, c.headers())?;
    let asked = format!("{} {}", request.method(), request.uri().path());
    let Some(response) = hook(actor, c, request).await? else {
        let message = format!("the actor does not answer {asked}");
        return Err(Error::new("handler", "request_not_defined", message));
    };
    write(response)
}

fn read(request: HttpRequest, headers: &[(String, String)]) -> Result<http::Request<Bytes>, Error> {
    let mut built = http::Request::builder()
        .method(request.method.as_str())
        .uri(&request.uri);
    for (name, value) in headers {
        built = built.header(name, value);
    }
    built
        .body(request.body.into())
        .map_err(|error| Error::invalid_request(format!("the request: {error}")))
}

fn write(response: http::Response<Bytes>) -> Result<Vec<u8>, Error> {
    let (parts, body) = response.into_parts();
    let (len, max) = (body.len(), limits::HTTP_BODY_MAX);
    if len > max {
        let message = format!("the body of the response has {len} bytes, at most {max} are allowed");
        return Err(Error::new(group::MESSAGE, code::OUTGOING_TOO_LONG, message));
    }
    let headers = parts.headers.iter();
    let reply = HttpReply {
        status: parts.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
        body: body.into(),
    };
    codec::encode(&reply).map_err(Error::internal)
}

/// What `on_request` may return: a response, or `None` for a request that the actor does not answer (its client is told
/// `handler.request_not_defined`, 404).
#[diagnostic::on_unimplemented(
    message = "`on_request` cannot return `{Self}`",
    label = "not a response",
    note = "return `http::Response<B>` where `B` becomes `Bytes` (text, `Vec<u8>`), an `Option` of it, or a `Result` of either"
)]
pub trait HttpAnswer {
    /// The response, if there is one.
    fn answer(self) -> Option<http::Response<Bytes>>;
}

impl<B: Into<Bytes>> HttpAnswer for http::Response<B> {
    fn answer(self) -> Option<http::Response<Bytes>> {
        Some(self.map(Into::into))
    }
}

impl<B: Into<Bytes>> HttpAnswer for Option<http::Response<B>> {
    fn answer(self) -> Option<http::Response<Bytes>> {
        self.map(|response| response.map(Into::into))
    }
}

/// Lets a service answer a request of `on_request`: a router with the paths of the actor, say. Its body is read whole.
///
/// # Errors
/// `message.outgoing_too_long` above [`limits::HTTP_BODY_MAX`] bytes; what the service or its body fails with, as an internal
/// error.
pub async fn serve_request<S, B>(
    mut service: S,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, Error>
where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<B>>,
    S::Error: std::fmt::Display,
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |error: &dyn std::fmt::Display| Error::internal(format!("the service: {error}"));
    poll_fn(|task| service.poll_ready(task))
        .await
        .map_err(|error| failed(&error))?;
    let response = service.call(request.map(Full::new)).await;
    let (parts, body) = response.map_err(|error| failed(&error))?.into_parts();
    let max = limits::HTTP_BODY_MAX;
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(http::Response::from_parts(parts, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body of the response has more than {max} bytes");
            Err(Error::new(group::MESSAGE, code::OUTGOING_TOO_LONG, message))
        }
        Err(error) => Err(failed(&error)),
    }
}
