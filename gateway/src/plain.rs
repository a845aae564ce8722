//! Routes about this node and its cluster, not about an actor.

use axum::extract::Request;
use axum::response::Response;
use clinch_types::group;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::address::shown;
use crate::backend::Scope;
use crate::error::HttpError;
use crate::service::{Gateway, bearer, respond};
use crate::{openapi, pages};

pub(crate) const RUNTIME: &str = "clinch";
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
const JSON: &str = "application/json";

type Route = fn(&Gateway, &Request) -> Result<Response, HttpError>;

/// Every route of this module.
pub(crate) const ROUTES: &[(&str, Route)] = &[
    ("/", |_, _| Ok(respond("text/plain; charset=utf-8", banner()))),
    ("/health", |_, _| Ok(json_of(&health()))),
    ("/ready", |gateway, _| Ok(ready(gateway))),
    ("/metadata", |gateway, _| Ok(json_of(&metadata(gateway)))),
    ("/metrics", metrics),
    ("/cluster", cluster),
    ("/openapi.json", |_, _| Ok(respond(JSON, openapi::document()))),
    // Browser clients load this from pages on localhost; an empty file keeps their consoles quiet.
    ("/devtools/mod.js", |_, _| Ok(respond("text/javascript", ""))),
    ("/inspector/ui", |_, _| Ok(pages::to_page())),
    ("/inspector/ui/", |_, _| Ok(pages::page())),
    ("/inspector/ui/app.js", |_, _| Ok(pages::script())),
    ("/inspector/ui/style.css", |_, _| Ok(pages::style())),
];

/// Answers every path that addresses neither an actor nor the manager API.
pub(crate) fn answer(gateway: &Gateway, request: &Request) -> Result<Response, HttpError> {
    let path = request.uri().path();
    let Some((_, route)) = ROUTES.iter().find(|(route, _)| *route == path) else {
        return Err(match path == "/gateway" || path.starts_with("/gateway/") {
            true => HttpError::guard("no_route", format!("{} leads to no actor", shown(path))),
            false => HttpError::no_api(&shown(path)),
        });
    };
    match *request.method() {
        Method::GET | Method::HEAD => route(gateway, request),
        _ => Err(HttpError::method("api", "GET, HEAD")),
    }
}

pub(crate) fn json_of(value: &Value) -> Response {
    respond(JSON, value.to_string())
}

fn banner() -> String {
    format!("Clinch {VERSION}: durable, addressable actors. Clients connect to this address.\n")
}

fn health() -> Value {
    json!({"status": "ok", "runtime": RUNTIME, "version": VERSION})
}

fn ready(gateway: &Gateway) -> Response {
    match gateway.backend.ready() {
        Ok(()) => json_of(&json!({"status": "ready"})),
        Err(reason) => {
            let mut response = json_of(&json!({"status": "not-ready", "reason": reason}));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

/// Asked once per client and endpoint, and waited for by all else: it answers whatever state the node is in.
fn metadata(gateway: &Gateway) -> Value {
    let names: Map<String, Value> = gateway
        .backend
        .actor_names()
        .into_iter()
        .map(|name| (name, json!({"metadata": {}})))
        .collect();
    let mut value = json!({
        "runtime": RUNTIME,
        "version": VERSION,
        "actorNames": names,
        "runner": {"kind": {"normal": {}}},
    });
    if let Some(endpoint) = &gateway.config.client_endpoint {
        value["clientEndpoint"] = json!(endpoint);
    }
    value
}

fn metrics(gateway: &Gateway, request: &Request) -> Result<Response, HttpError> {
    gateway
        .backend
        .authorize(bearer(request.headers()), Scope::Admin, None)?;
    Ok(respond(
        "text/plain; version=0.0.4; charset=utf-8",
        gateway.backend.metrics(),
    ))
}

fn cluster(gateway: &Gateway, request: &Request) -> Result<Response, HttpError> {
    gateway
        .backend
        .authorize(bearer(request.headers()), Scope::Admin, None)?;
    Ok(json_of(&gateway.backend.status()))
}

/// Refuses a namespace that does not exist.
pub(crate) fn known_namespace(gateway: &Gateway, namespace: &str) -> Result<(), HttpError> {
    if gateway.backend.namespace_exists(namespace) {
        return Ok(());
    }
    Err(HttpError::new(
        group::NAMESPACE,
        "not_found",
        format!("The namespace {} does not exist.", shown(namespace)),
    ))
}
