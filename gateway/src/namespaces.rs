//! `/namespaces`: which there are, and making one. Actors of two namespaces know nothing of each other.

use axum::extract::Request;
use axum::response::Response;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::backend::Scope;
use crate::body;
use crate::error::HttpError;
use crate::plain::json_of;
use crate::service::{Gateway, bearer};

/// The path of all of it.
pub(crate) const PATH: &str = "/namespaces";

#[derive(Deserialize)]
struct Wanted {
    name: String,
}

pub(crate) async fn answer(gateway: &Gateway, request: Request) -> Result<Response, HttpError> {
    gateway
        .backend
        .authorize(bearer(request.headers()), Scope::Admin, None)?;
    match *request.method() {
        Method::GET | Method::HEAD => {
            let all = gateway.backend.namespaces();
            let named: Vec<_> = all.iter().map(|name| json!({ "name": name })).collect();
            Ok(json_of(&json!({ "namespaces": named })))
        }
        Method::PUT => {
            let body = body::read(gateway, request.into_body(), body::MANAGER_MAX).await?;
            let wanted: Wanted = serde_json::from_slice(&body.bytes)
                .map_err(|e| HttpError::bad_request(format!("Request is invalid: {e}")))?;
            let created = gateway.backend.create_namespace(wanted.name.clone()).await?;
            Ok(json_of(
                &json!({ "namespace": { "name": wanted.name }, "created": created }),
            ))
        }
        _ => Err(HttpError::method("api", "GET, HEAD, PUT")),
    }
}
