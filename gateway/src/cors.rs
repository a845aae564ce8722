//! What browsers need on every answer, errors and pre-flights included: without it a 404 becomes an opaque
//! "Failed to fetch".
//!
//! The origin is echoed, never `*`, because clients make manager calls with credentials "include". No credential of
//! ours is a cookie, so an echoed origin gives a page nothing that it could not do with its own token.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap, HeaderValue, VARY,
};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS, PATCH");
/// Headers of the protocol, for a pre-flight that does not say what it wants.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, x-rivet-conn-params, x-rivet-encoding, x-rivet-token",
);
/// A day: every action call of a browser has a pre-flight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");
/// With credentials `*` is a literal name, so what a page reads is listed too.
const EXPOSED: HeaderValue = HeaderValue::from_static("*, x-rivet-ray-id, x-clinch-turn");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// Answers any `OPTIONS`, without authentication and without reaching an actor.
pub(crate) fn preflight(request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    let wanted = request
        .get(ACCESS_CONTROL_REQUEST_HEADERS)
        .cloned()
        .unwrap_or(HEADERS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

/// Completes an answer to a request from `origin`; `allowed` empty means that all origins are.
pub(crate) fn complete(response: &mut Response, origin: Option<HeaderValue>, allowed: &[String]) {
    let headers = response.headers_mut();
    headers.append(VARY, VARY_ORIGIN);
    let Some(origin) = origin else { return };
    if !allowed.is_empty() && !allowed.iter().any(|a| a.as_bytes() == origin.as_bytes()) {
        return;
    }
    // An actor that answers for itself has chosen its own.
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}
