//! `/request/..`: raw HTTP, answered by the actor itself.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use clinch_types::{CallOp, HttpReply, HttpRequest, code, codec, group, limits};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::action::{self, door, params, trace};
use crate::address::Address;
use crate::backend::GatewayCall;
use crate::body;
use crate::error::HttpError;
use crate::service::Gateway;

/// Headers that are the connection's, not the actor's.
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "trailer",
];

pub(crate) async fn answer(
    gateway: &Gateway,
    request: Request,
    address: Address,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let params = params(&parts.headers)?;
    let rest = address.path.strip_prefix("/request").unwrap_or_default();
    let path = match rest {
        "" => "/",
        rest => rest,
    };
    let uri = match address.query.as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    let (target, token) = action::admit(gateway, &parts.headers, address.who, address.token)?;
    let body = match body::read(gateway, body, limits::HTTP_BODY_MAX).await {
        Ok(body) => body,
        Err(error) if error.is(group::MESSAGE, code::INCOMING_TOO_LONG) => {
            return Err(HttpError::guard(
                "request_body_too_large",
                error.error().message.clone(),
            ));
        }
        Err(error) => return Err(error),
    };
    let request = HttpRequest {
        method: parts.method.as_str().to_owned(),
        uri,
        body: body.bytes.to_vec(),
    };
    let op = CallOp::Http(Box::new(request));
    let call = GatewayCall {
        params,
        token,
        trace: trace(&parts.headers),
        door: Some(door(&parts.headers)),
        ..GatewayCall::new(target, op, gateway.config.call_timeout())
    };
    let reply = action::call(gateway, call).await?;
    let reply: HttpReply = codec::decode(&reply.output).map_err(|error| {
        tracing::error!(%error, "the answer of an actor to a request cannot be read");
        HttpError::internal()
    })?;
    Ok(response(reply))
}

fn response(reply: HttpReply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    // Made by the `http` crate at the owner, so both are sound.
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if HOP_BY_HOP.contains(&name.as_str()) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
