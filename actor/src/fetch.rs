//! Raw HTTP from a program or a turn to the `on_request` of an actor.
//!
//! Not here: answering (`request`), carrying bodies between nodes (the client's router).

use clinch_types::{CallOp, Door, HttpBody, HttpReply, HttpRequest, code, codec, group, limits};

use crate::{Body, Error, RawHandle};

/// Headers that are about the way of a message, and not for the actor.
const OF_THE_WAY: [&str; 7] = [
    "connection",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl RawHandle {
    /// Asks the actor's `on_request`, which sees method, path and query of the URI, headers and body. The actor is created if
    /// need be (see [`RawHandle::existing`]), and the hooks of its connections run as for a request through a gateway.
    ///
    /// Waits for the head of the answer as long as a call for its result. Text and bytes of at most 64 KiB travel
    /// with the request and may be asked again when the owner moves; others flow no faster than they are read, in both
    /// directions, and one that breaks off is an error of [`Body::next`].
    ///
    /// # Errors
    /// `actor.invalid_request` for a URI without a path; `handler.request_not_defined` when nobody answers there;
    /// `guard.answer_lost` when a streamed answer came and its owner is gone; `actor.not_supported` where calls are carried
    /// by something without bodies; as every call.
    pub async fn fetch<B: Into<Body>>(
        &self,
        request: http::Request<B>,
    ) -> Result<http::Response<Body>, Error> {
        let (parts, body) = request.into_parts();
        let uri = match parts.uri.path_and_query() {
            Some(path) if path.as_str().starts_with('/') => path.as_str().to_owned(),
            _ => {
                let message = format!("the URI {} has no path, it must begin with /", parts.uri);
                return Err(Error::invalid_request(message));
            }
        };
        let headers = parts.headers.iter();
        let headers = headers
            .filter(|(name, _)| !OF_THE_WAY.contains(&name.as_str()))
            // Bytes beyond ASCII are Latin-1, as gateways read them.
            .map(|(name, value)| {
                let value = value.as_bytes().iter().map(|byte| char::from(*byte));
                (name.as_str().to_owned(), value.collect())
            })
            .collect();
        let body: Body = body.into();
        let (body, streamed) = match body.at_hand(limits::HTTP_PIECE_MAX) {
            Ok(body) => (HttpBody::Whole(body.into()), None),
            Err(body) => {
                let length = body.length();
                (HttpBody::Streamed { length }, Some(body))
            }
        };
        let request = HttpRequest {
            method: parts.method.as_str().to_owned(),
            uri,
            body,
        };
        let call = self.call::<()>(Ok(CallOp::Http(Box::new(request))));
        let answered = call
            .through(Door { conn: None, headers })
            .exchange(streamed)
            .await?;
        response(answered.0.output, answered.1)
    }
}

fn response(output: Vec<u8>, streamed: Option<Body>) -> Result<http::Response<Body>, Error> {
    let reply: HttpReply = codec::decode(&output).map_err(Error::internal)?;
    let body = match (reply.body, streamed) {
        (HttpBody::Whole(body), _) => Body::from(body),
        (HttpBody::Streamed { .. }, Some(body)) => body,
        // The second answer to one request: the first had the body.
        (HttpBody::Streamed { .. }, None) => {
            let message = "the request took effect; its answer was streamed, and is lost";
            return Err(Error::new(group::GUARD, code::ANSWER_LOST, message));
        }
    };
    let mut response = http::Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(body).map_err(Error::internal)
}

/// Where calls are carried by something without bodies beside them.
pub(crate) fn no_exchanges() -> Error {
    let message =
        "there are no raw requests by this way: use a client over QUIC, or any client of HTTP at a gateway";
    Error::new(group::ACTOR, "not_supported", message)
}
