//! A small client for a gateway over HTTP, in JSON: what the command line and tests use.
//!
//! It keeps one connection and never retries: what a gateway answers is what its caller sees.

use std::time::Duration;

use bytes::Bytes;
use clinch_actor::{Error, RawHandle};
use clinch_types::{ActorError, Target, code, group};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

/// Largest answer read, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// Characters that may stand in a path segment or query value as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Talks to one gateway.
#[derive(Debug, Clone)]
pub struct HttpClient {
    base: String,
    namespace: String,
    token: Option<String>,
    timeout: Duration,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpClient {
    /// A client of the gateway at this base URL: `http://host:port`, or `http://namespace:token@host:port` with the
    /// namespace of its actors (else `default`) and the token, percent-encoded, unless `token` is given.
    pub fn new(base: &str, token: Option<String>, timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (base, credentials) = without_credentials(base.trim_end_matches('/'));
        let (namespace, found) = credentials.unwrap_or_else(|| ("default".into(), None));
        let token = token.or(found);
        Self {
            base,
            namespace,
            token,
            timeout,
            client,
        }
    }

    /// With calls on the actors of another namespace.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self
        }
    }

    /// Sends one request; a 2xx answer is its JSON, anything else the gateway's error.
    ///
    /// # Errors
    /// What the gateway says, or `guard.service_unavailable` naming the address when it cannot be reached.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ActorError> {
        let unreachable = |reason: &dyn std::fmt::Display| {
            let message = format!("no answer from {}: {reason}", self.base);
            ActorError::new(group::GUARD, code::SERVICE_UNAVAILABLE, message)
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request
                .header("authorization", format!("Bearer {token}"))
                .header("x-rivet-token", token);
        }
        let body = body.map_or_else(Bytes::new, |b| Bytes::from(b.to_string()));
        let request = request
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| unreachable(&e))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| unreachable(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await
                .map_err(|e| unreachable(&e))?;
            Ok((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await;
        let (status, body) =
            answer.map_err(|_| unreachable(&format!("nothing within {:?}", self.timeout)))??;
        parse(status, &body)
            .map_err(|error| error.unwrap_or_else(|| unreachable(&format!("{status} without JSON"))))
    }

    /// Calls an action of an actor, by name and key; creates the actor if it does not exist.
    ///
    /// # Errors
    /// As [`HttpClient::request`]; `actor.invalid_request` for a component of the key with a comma.
    pub async fn call(
        &self,
        name: &str,
        key: &[String],
        action: &str,
        args: Value,
    ) -> Result<Value, ActorError> {
        let below = format!("action/{}", encode(action));
        let path = by_key(&self.namespace, name, key, CREATES, &below)?;
        let answer = self
            .request(Method::POST, &path, Some(&serde_json::json!({ "args": args })))
            .await?;
        Ok(answer.get("output").cloned().unwrap_or(Value::Null))
    }
}

/// Takes `namespace:token@` out of a URL.
fn without_credentials(url: &str) -> (String, Option<(String, Option<String>)>) {
    let found = url.split_once("://").and_then(|(scheme, rest)| {
        // Behind the host an @ is part of the path.
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let (user, _) = host.rsplit_once('@')?;
        Some((format!("{scheme}://{}", &rest[user.len() + 1..]), user))
    });
    let Some((bare, user)) = found else {
        return (url.to_owned(), None);
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (namespace, token) = match user.split_once(':') {
        Some((namespace, token)) => (namespace, Some(decoded(token))),
        None => (user, None),
    };
    (bare, Some((decoded(namespace), token)))
}

/// The address of an actor at a gateway, for tools that know nothing of keys: curl, webhooks, a browser. `path` is what the
/// gateway serves below an actor: `request/any/path`, `action/name`, `websocket/`.
///
/// # Errors
/// `actor.invalid_request` for what a query cannot say: a comma in a component of the key, an input for the first call. The
/// actor's id ([`RawHandle::resolve`]) always works.
pub fn gateway_url(gateway: &str, handle: &RawHandle, path: &str) -> Result<String, Error> {
    let (gateway, path) = (gateway.trim_end_matches('/'), path.trim_start_matches('/'));
    match handle.target()? {
        Target::Id(id) => Ok(format!("{gateway}/gateway/{id}/{path}")),
        Target::Key {
            namespace,
            name,
            key,
            create,
        } => {
            let method = match create {
                Some(create) if create.input.is_some() || create.region.is_some() => {
                    return Err(unsayable("an address carries no input and no region".into()).into());
                }
                Some(_) => CREATES,
                None => "get",
            };
            let address = by_key(namespace, name, key.components(), method, path)?;
            Ok(format!("{gateway}{address}"))
        }
    }
}

/// The method of an address whose first call creates the actor, with what goes with it.
const CREATES: &str = "getOrCreate&rvt-runner=default";

fn unsayable(what: String) -> ActorError {
    ActorError::new(
        group::ACTOR,
        code::INVALID_REQUEST,
        format!("{what}; use the actor's id"),
    )
}

/// Where a gateway serves `path` below the actor of a name and key.
fn by_key(
    namespace: &str,
    name: &str,
    key: &[String],
    method: &str,
    path: &str,
) -> Result<String, ActorError> {
    if let Some(part) = key.iter().find(|part| part.contains(',')) {
        return Err(unsayable(format!(
            "an address splits the component {part:?} of the key at its comma"
        )));
    }
    let (name, namespace) = (encode(name), encode(namespace));
    let parts: Vec<String> = key.iter().map(|part| encode(part)).collect();
    let key = match parts.is_empty() {
        true => String::new(),
        false => format!("&rvt-key={}", parts.join("%2C")),
    };
    Ok(format!(
        "/gateway/{name}/{path}?rvt-namespace={namespace}&rvt-method={method}{key}"
    ))
}

/// Percent-encodes one path segment or query value.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

fn parse(status: StatusCode, body: &[u8]) -> Result<Value, Option<ActorError>> {
    let value: Value = serde_json::from_slice(body).map_err(|_| None)?;
    if status.is_success() {
        return Ok(value);
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let (Some(group), Some(code), Some(message)) = (text("group"), text("code"), text("message")) else {
        return Err(None);
    };
    Err(Some(ActorError::new(group, code, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_carry_namespace_and_token() {
        let client = |url: &str| HttpClient::new(url, None, Duration::from_secs(1));
        let with = client("http://shop:s%40cret@h:1/");
        assert_eq!((&*with.base, &*with.namespace), ("http://h:1", "shop"));
        assert_eq!(with.token.as_deref(), Some("s@cret"));
        let bare = client("http://h:1");
        assert_eq!(
            (&*bare.base, &*bare.namespace, bare.token),
            ("http://h:1", "default", None)
        );
        let path = client("http://h:1/a@b");
        assert_eq!((&*path.base, &*path.namespace), ("http://h:1/a@b", "default"));
        let given = HttpClient::new("http://shop:a@h:1", Some("b".into()), Duration::from_secs(1));
        assert_eq!(given.token.as_deref(), Some("b"));
    }
}
