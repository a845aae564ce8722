//! Errors as clients see them: always JSON, whatever the request's encoding, with a status for people and proxies.
//!
//! Clients look at "2xx or not" and at the body; the body alone says what happened. Which codes make a client send
//! the same action again is part of the protocol: none of those may be used for a call that perhaps took effect.

use axum::body::Body;
use axum::response::Response;
use clinch_types::{ActorError, CallError, code, group};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{StatusCode, header};

use crate::cbor;
use crate::visitors::Refused;

/// Group of errors of the manager API and of plain routes.
const API: &str = "api";

/// An answer that is not the one asked for.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    error: ActorError,
    /// The methods that would have worked.
    allow: Option<&'static str>,
}

impl HttpError {
    /// An error of the given group and code; the status follows from them.
    pub(crate) fn new(group: &str, code: &str, message: impl Into<String>) -> Self {
        ActorError::new(group, code, message).into()
    }

    pub(crate) fn guard(code: &str, message: impl Into<String>) -> Self {
        Self::new(group::GUARD, code, message)
    }

    /// The body does not decode.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(group::MESSAGE, "malformed", message)
    }

    /// A parameter of the manager API is not usable.
    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new("validation", "invalid_input", message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(API, "bad_request", message)
    }

    /// No such route in the manager API.
    pub(crate) fn no_api(path: &str) -> Self {
        Self::new(API, code::NOT_FOUND, format!("there is no {path} here"))
    }

    /// Part of the protocol, and not served by this release.
    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(
            API,
            "not_implemented",
            format!("{what} is not served by this release"),
        )
    }

    pub(crate) fn method(group: &str, allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                group,
                "method_not_allowed",
                format!("only {allow} is answered here"),
            )
        }
    }

    /// Nothing was done: too much is going on.
    pub(crate) fn overloaded(what: &str, limit: usize) -> Self {
        CallError::Overloaded {
            what: what.to_owned(),
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
        }
        .into()
    }

    /// Nothing was done: this connection or its address asks too often, or too much at a time.
    pub(crate) fn rate_limit(refused: &Refused) -> Self {
        let Refused {
            setting,
            limit,
            after,
        } = refused;
        // Rounded up: who comes at that time finds room.
        let message = match after.map(|after| after.as_millis() + 1) {
            Some(after) => {
                format!("More than {limit} requests a second ({setting}); there is room again in {after} ms.")
            }
            None => format!(
                "More than {limit} requests of this address to this actor in flight ({setting}); there is room again when \
                 one of them has ended."
            ),
        };
        Self::guard("rate_limit", message)
    }

    /// The error as actors and connections have it.
    pub(crate) fn error(&self) -> &ActorError {
        &self.error
    }

    /// Ours, and hidden; the log has the rest.
    pub(crate) fn internal() -> Self {
        let message = "Internal error. Read the server logs for more details.";
        Self::new(group::INTERNAL, code::INTERNAL_ERROR, message)
    }

    #[cfg(test)]
    pub(crate) fn is(&self, group: &str, code: &str) -> bool {
        self.error.is(group, code)
    }

    /// Whether the actor asked for is not there.
    pub(crate) fn is_missing_actor(&self) -> bool {
        self.error.is(group::ACTOR, code::NOT_FOUND)
    }

    /// Whether the node that would have to answer runs an earlier release.
    pub(crate) fn is_not_supported(&self) -> bool {
        self.error.is(group::GUARD, code::NOT_SUPPORTED)
    }

    pub(crate) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(body_of(&self.error)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl From<ActorError> for HttpError {
    fn from(error: ActorError) -> Self {
        Self {
            status: status_of(&error.group, &error.code),
            error,
            allow: None,
        }
    }
}

impl From<CallError> for HttpError {
    fn from(error: CallError) -> Self {
        error.into_actor_error().into()
    }
}

/// `{"group","code","message","metadata"?}`.
fn body_of(error: &ActorError) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + error.message.len());
    out.extend_from_slice(b"{\"group\":");
    cbor::json::string(&error.group, &mut out);
    out.extend_from_slice(b",\"code\":");
    cbor::json::string(&error.code, &mut out);
    out.extend_from_slice(b",\"message\":");
    cbor::json::string(&error.message, &mut out);
    if let Some(metadata) = &error.metadata {
        let end = out.len();
        out.extend_from_slice(b",\"metadata\":");
        // Metadata that is no CBOR is our bug, and must not hide the error it belongs to.
        if let Err(fault) = cbor::json::write(metadata, &mut out) {
            tracing::warn!(%fault, "metadata of an error does not decode");
            out.truncate(end);
        }
    }
    out.push(b'}');
    out
}

/// The status of an error.
fn status_of(group: &str, code: &str) -> StatusCode {
    match (group, code) {
        ("rivetkit" | "internal" | "core", _) => StatusCode::INTERNAL_SERVER_ERROR,
        ("actor", "not_found" | "not_registered" | "action_not_found")
        | ("guard", "no_route")
        | ("api", "not_found")
        | ("handler", _) => StatusCode::NOT_FOUND,
        ("actor", "action_timed_out") | ("message", "incoming_timed_out") => StatusCode::REQUEST_TIMEOUT,
        (_, "method_not_allowed") => StatusCode::METHOD_NOT_ALLOWED,
        ("actor", "not_active" | "deadlock") => StatusCode::CONFLICT,
        ("actor", "overloaded" | "starting" | "stopping" | "restarting") => StatusCode::SERVICE_UNAVAILABLE,
        (
            "guard",
            "service_unavailable"
            | "actor_ready_timeout"
            | "actor_stopped_while_waiting"
            | "actor_wake_retries_exceeded"
            | "tunnel_request_aborted"
            | "tunnel_response_closed"
            | "overloaded",
        ) => StatusCode::SERVICE_UNAVAILABLE,
        ("guard", "request_timeout" | "tunnel_message_timeout" | "gateway_response_start_timeout") => {
            StatusCode::GATEWAY_TIMEOUT
        }
        ("guard", "answer_lost") => StatusCode::BAD_GATEWAY,
        ("guard", "rate_limit") => StatusCode::TOO_MANY_REQUESTS,
        ("guard", "request_body_too_large") => StatusCode::PAYLOAD_TOO_LARGE,
        ("api" | "inspector", "unauthorized") => StatusCode::UNAUTHORIZED,
        ("api" | "auth", "forbidden") => StatusCode::FORBIDDEN,
        ("api", "not_implemented") | ("guard", "not_supported") => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_carries_group_code_message_and_metadata_as_json() {
        let mut error = ActorError::new("user", "rate_limited", "Rate \"limit\" exceeded\n");
        // {"limit": 100}
        error.metadata = Some(vec![0xa1, 0x65, b'l', b'i', b'm', b'i', b't', 0x18, 100]);
        let value: serde_json::Value = serde_json::from_slice(&body_of(&error)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"group": "user", "code": "rate_limited", "message": "Rate \"limit\" exceeded\n",
                "metadata": {"limit": 100}})
        );
    }

    #[test]
    fn broken_metadata_is_left_out_and_the_error_stays() {
        let mut error = ActorError::new("user", "x", "y");
        error.metadata = Some(vec![0xa1, 0x65]);
        let value: serde_json::Value = serde_json::from_slice(&body_of(&error)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"group": "user", "code": "x", "message": "y"})
        );
    }

    #[test]
    fn a_call_that_perhaps_took_effect_is_never_answered_with_a_code_that_clients_retry() {
        let error: HttpError = CallError::Perhaps {
            reason: "lost node 3".into(),
        }
        .into();
        assert!(error.is("guard", "request_timeout"));
        assert_eq!(error.status, StatusCode::GATEWAY_TIMEOUT);
    }

    #[test]
    fn application_errors_are_400_and_hidden_ones_500() {
        assert_eq!(status_of("user", "not_found"), StatusCode::BAD_REQUEST);
        assert_eq!(status_of("namespace", "not_found"), StatusCode::BAD_REQUEST);
        assert_eq!(
            status_of("rivetkit", "internal_error"),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
}
