//! Raw HTTP: requests as the `http` crate has them, taken from the wire and put back.

use bytes::Bytes;
use clinch_types::{HttpReply, HttpRequest, code, codec, group, limits};

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
    write(hook(actor, c, request).await?)
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

/// What `on_request` may return, for generated code.
pub fn http_response<B: Into<Bytes>>(response: http::Response<B>) -> http::Response<Bytes> {
    response.map(Into::into)
}
