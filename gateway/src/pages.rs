//! `/inspector/ui/`: the pages of the inspector, for a browser.
//!
//! Invariant: these are files that everybody may have. All they show comes from other routes, with the token that somebody
//! entered in the page and is kept by it alone. They load nothing from elsewhere, and no text becomes a script. Pages that
//! actors answer with share their origin: whoever serves pages of strangers looks at actors under another name or port.

use axum::response::Response;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::service::respond;

/// Only files from here run or are shown, no form leaves the page (a token could go along), and nobody puts it into a frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'",
);

pub(crate) fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("pages/index.html"))
}

pub(crate) fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("pages/app.js"))
}

pub(crate) fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("pages/style.css"))
}

/// Relative, for the gateway may be served under a path of somebody else's.
pub(crate) fn to_page() -> Response {
    let mut response = respond("text/plain; charset=utf-8", "The pages are at ui/\n");
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("ui/"));
    response
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let mut response = respond(content_type, text);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // A node of another release may answer at this address tomorrow.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
