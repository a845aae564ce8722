//! The manager API: find, create, list and destroy actors, and read the tokens of their inspectors. JSON over HTTP under `/actors`.
//!
//! Older clients ask here before every action, so finding by key is one call and no listing. Unknown parameters and
//! members are ignored, because generations differ in them.

use std::borrow::Cow;

use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clinch_types::{ActorId, ActorInfo, ActorStatus, CallOp, Key, Target, code, group, limits};
use http::Method;
use http::header::{HeaderMap, USER_AGENT};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::action::{call, spec};
use crate::address::{Create, actor_id, checked_name, key_error, shown};
use crate::backend::{GatewayCall, ListQuery, Listing, Scope};
use crate::cbor::rewrite::inbound;
use crate::error::HttpError;
use crate::look::{self, Crash, look};
use crate::plain::{json_of, known_namespace};
use crate::service::{Gateway, bearer, respond};
use crate::{body, inspector, percent};

const DEFAULT_NAMESPACE: &str = "default";
/// Actors in a page unless the caller asks for another number.
const PAGE: u32 = 100;

/// Answers every path that begins with `/actors`.
pub(crate) async fn answer(gateway: &Gateway, request: Request) -> Result<Response, HttpError> {
    let path = request.uri().path();
    let query = Query::read(request.uri().query().unwrap_or_default())?;
    match path {
        "/actors" => match *request.method() {
            Method::GET | Method::HEAD => list(gateway, request.headers(), query).await,
            Method::PUT | Method::POST => create(gateway, request, &query.namespace).await,
            _ => Err(HttpError::method("api", "GET, HEAD, PUT, POST")),
        },
        "/actors/names" => match *request.method() {
            Method::GET | Method::HEAD => names(gateway, request.headers(), &query.namespace),
            _ => Err(HttpError::method("api", "GET, HEAD")),
        },
        _ => {
            let rest = path.strip_prefix("/actors/").unwrap_or_default();
            match rest.split('/').collect::<Vec<_>>()[..] {
                [id] if !id.is_empty() => match *request.method() {
                    Method::DELETE => destroy(gateway, request.headers(), id, query.namespace).await,
                    _ => Err(HttpError::method("api", "DELETE")),
                },
                [id, "kv", "keys", key] => match *request.method() {
                    Method::GET | Method::HEAD => {
                        let actor = named(gateway, request.headers(), id, query.namespace).await?;
                        inspector::token(gateway, &actor, &in_path(key)?).await
                    }
                    _ => Err(HttpError::method("api", "GET, HEAD")),
                },
                _ => Err(HttpError::no_api(&shown(path))),
            }
        }
    }
}

/// Parameters of the query that mean something here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    namespace: String,
    name: Option<String>,
    key: Option<String>,
    ids: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

impl Query {
    fn read(query: &str) -> Result<Self, HttpError> {
        let mut all = Self {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            ..Self::default()
        };
        for part in query.split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match name {
                "namespace" => {
                    all.namespace = decoded(name, value)?;
                    continue;
                }
                "name" => &mut all.name,
                "key" => &mut all.key,
                "actor_ids" => &mut all.ids,
                "cursor" => &mut all.cursor,
                "limit" => &mut all.limit,
                _ => continue,
            };
            *place = Some(decoded(name, value)?);
        }
        Ok(all)
    }

    fn limit(&self) -> Result<u32, HttpError> {
        let Some(text) = &self.limit else {
            return Ok(PAGE);
        };
        match text.parse() {
            Ok(limit) if (1..=limits::LIST_MAX).contains(&limit) => Ok(limit),
            _ => Err(HttpError::invalid_input(format!(
                "limit is {}, it must be 1 to {}",
                shown(text),
                limits::LIST_MAX
            ))),
        }
    }
}

fn decoded(name: &str, value: &str) -> Result<String, HttpError> {
    percent::form(value)
        .map(Cow::into_owned)
        .map_err(|e| HttpError::bad_request(format!("{e} in the parameter {name}")))
}

fn admit(gateway: &Gateway, headers: &HeaderMap, scope: Scope, namespace: &str) -> Result<(), HttpError> {
    gateway
        .backend
        .authorize(bearer(headers), scope, Some(namespace))?;
    known_namespace(gateway, namespace)
}

async fn list(gateway: &Gateway, headers: &HeaderMap, query: Query) -> Result<Response, HttpError> {
    // Finding what one can name is part of calling it; seeing what others made is not.
    let scope = match (&query.ids, &query.key) {
        (None, None) => Scope::Secret,
        _ => Scope::Publishable,
    };
    admit(gateway, headers, scope, &query.namespace)?;
    let limit = query.limit()?;
    if let Some(text) = &query.ids {
        let (ids, asked) = ids(text);
        if asked > limits::LIST_MAX as usize {
            return Err(HttpError::invalid_input(format!(
                "{asked} actor ids, at most {} are allowed",
                limits::LIST_MAX
            )));
        }
        // Without this an empty list of ids would mean all actors.
        if ids.is_empty() {
            return Ok(page(gateway, &Listing::default()));
        }
        let limit = limits::LIST_MAX;
        return listing(
            gateway,
            ListQuery {
                ids,
                limit,
                ..query.listing()
            },
        )
        .await;
    }
    let name = query
        .name
        .as_deref()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| HttpError::invalid_input("Name is required when not using actor_ids."))?;
    match &query.key {
        Some(key) => {
            let target = Target::Key {
                namespace: query.namespace.clone(),
                name: checked_name(name)?,
                key: Key::parse(key).map_err(key_error)?,
                create: None,
            };
            let actors = match look(gateway, target, None).await {
                Ok(look) => vec![look.view],
                Err(error) if error.is_missing_actor() => Vec::new(),
                Err(error) => return Err(error),
            };
            Ok(page(
                gateway,
                &Listing {
                    actors,
                    ..Listing::default()
                },
            ))
        }
        None => {
            listing(
                gateway,
                ListQuery {
                    limit,
                    ..query.listing()
                },
            )
            .await
        }
    }
}

impl Query {
    fn listing(self) -> ListQuery {
        ListQuery {
            namespace: self.namespace,
            name: self.name.filter(|name| !name.is_empty()),
            ids: Vec::new(),
            cursor: self.cursor.filter(|cursor| !cursor.is_empty()),
            limit: PAGE,
        }
    }
}

/// The ids in a list, and how many were asked for. What is no id names nothing, and is left out like the unknown.
fn ids(text: &str) -> (Vec<ActorId>, usize) {
    let mut ids: Vec<ActorId> = text.split(',').filter_map(|id| id.trim().parse().ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    (ids, text.split(',').count())
}

async fn listing(gateway: &Gateway, query: ListQuery) -> Result<Response, HttpError> {
    Ok(page(gateway, &gateway.backend.list(query).await?))
}

fn names(gateway: &Gateway, headers: &HeaderMap, namespace: &str) -> Result<Response, HttpError> {
    admit(gateway, headers, Scope::Publishable, namespace)?;
    let names: Map<String, Value> = gateway
        .backend
        .actor_names()
        .into_iter()
        .map(|name| (name, json!({"metadata": {}})))
        .collect();
    Ok(json_of(&json!({"names": names, "pagination": {"cursor": null}})))
}

/// The body of PUT and POST.
#[derive(Deserialize)]
struct CreateBody {
    name: String,
    key: Option<String>,
    input: Option<String>,
    datacenter: Option<String>,
}

/// How a query and the body of a creation are read, for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) fn read(query: &str, body: &[u8]) -> String {
    let said = |result: Result<(), HttpError>| match result {
        Ok(()) => "read".to_owned(),
        Err(error) => format!("{}.{}", error.error().group, error.error().code),
    };
    let asked = Query::read(query).and_then(|query| query.limit().map(drop));
    let wanted = match serde_json::from_slice::<CreateBody>(body) {
        Ok(wanted) => {
            let input = wanted
                .input
                .map_or(Ok(()), |text| decode_input(&text, &HeaderMap::new()).map(drop));
            let key = Key::parse(&wanted.key.unwrap_or_default())
                .map(drop)
                .map_err(key_error);
            said(input.and(key).and(checked_name(&wanted.name).map(drop)))
        }
        Err(error) => error.to_string(),
    };
    format!("{}; {wanted}", said(asked))
}

async fn create(gateway: &Gateway, request: Request, namespace: &str) -> Result<Response, HttpError> {
    admit(gateway, request.headers(), Scope::Publishable, namespace)?;
    let (parts, body) = request.into_parts();
    let body = body::read(gateway, body, body::MANAGER_MAX).await?;
    let wanted: CreateBody = serde_json::from_slice(&body.bytes)
        .map_err(|e| HttpError::bad_request(format!("Request is invalid: {e}")))?;
    if wanted.name.is_empty() {
        return Err(HttpError::invalid_input("name is empty"));
    }
    let input = match wanted.input {
        Some(text) => Some(decode_input(&text, &parts.headers)?),
        None => None,
    };
    let spec = spec(
        gateway,
        Create {
            input,
            region: wanted.datacenter,
        },
    )?;
    let target = Target::Key {
        namespace: namespace.to_owned(),
        name: checked_name(&wanted.name)?,
        key: Key::parse(&wanted.key.unwrap_or_default()).map_err(key_error)?,
        create: Some(spec),
    };
    let mut wish = GatewayCall::resolve(target, None, gateway.config.call_timeout());
    let fresh = parts.method == Method::POST;
    if fresh {
        wish.op = CallOp::Create;
    }
    let reply = call(gateway, wish).await?;
    let info: ActorInfo = look::decoded(&reply.output)?;
    let actor = Actor::of(gateway, &info, None);
    if fresh {
        return Ok(json_of(&json!({"actor": actor})));
    }
    Ok(json_of(&json!({"actor": actor, "created": reply.meta.created})))
}

/// Standard base64 of CBOR. Clients before 2.3 write no markers, so what looks like one is the user's own.
fn decode_input(text: &str, headers: &HeaderMap) -> Result<Vec<u8>, HttpError> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|e| HttpError::bad_request(format!("input is no base64: {e}")))?;
    let old = headers.get(USER_AGENT).is_some_and(|agent| {
        [&b"RivetKit/2.0."[..], b"RivetKit/2.1.", b"RivetKit/2.2."]
            .iter()
            .any(|prefix| agent.as_bytes().starts_with(prefix))
    });
    inbound(&bytes, !old)
        .map(Cow::into_owned)
        .map_err(|e| HttpError::bad_request(format!("input: {e}")))
}

/// A text of the path, decoded.
fn in_path(text: &str) -> Result<Cow<'_, str>, HttpError> {
    percent::path(text).map_err(|e| HttpError::bad_request(format!("{e} in the path")))
}

/// The actor that the path names, for those who may list the actors of its namespace.
async fn named(
    gateway: &Gateway,
    headers: &HeaderMap,
    id: &str,
    namespace: String,
) -> Result<ActorInfo, HttpError> {
    admit(gateway, headers, Scope::Secret, &namespace)?;
    let id = actor_id(&in_path(id)?)?;
    // The id alone says nothing about the namespace that the caller was allowed in.
    let here = gateway
        .backend
        .list(ListQuery {
            namespace,
            ids: vec![id],
            limit: 1,
            ..ListQuery::default()
        })
        .await?;
    here.actors
        .into_iter()
        .next()
        .map(|view| view.info)
        .ok_or_else(|| {
            let message = format!("There is no actor {id} in this namespace.");
            HttpError::new(group::ACTOR, code::NOT_FOUND, message)
        })
}

async fn destroy(
    gateway: &Gateway,
    headers: &HeaderMap,
    id: &str,
    namespace: String,
) -> Result<Response, HttpError> {
    let id = named(gateway, headers, id, namespace).await?.id;
    let token = bearer(headers).map(str::to_owned);
    let mut wish = GatewayCall::resolve(Target::Id(id), token, gateway.config.call_timeout());
    wish.op = CallOp::Destroy;
    call(gateway, wish).await?;
    Ok(json_of(&json!({})))
}

/// An actor as clients and dashboards see it. Times are Unix milliseconds.
#[derive(Serialize)]
struct Actor<'a> {
    actor_id: ActorId,
    name: &'a str,
    key: String,
    namespace_id: &'a str,
    datacenter: String,
    runner_name_selector: &'static str,
    crash_policy: &'static str,
    create_ts: u64,
    start_ts: Option<u64>,
    pending_allocation_ts: Option<u64>,
    connectable_ts: Option<u64>,
    sleep_ts: Option<u64>,
    reschedule_ts: Option<u64>,
    destroy_ts: Option<u64>,
    /// Of an actor that was found: one that was just asked for is about to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<Crash<'a>>,
}

impl<'a> Actor<'a> {
    fn of(gateway: &Gateway, info: &'a ActorInfo, status: Option<&'a ActorStatus>) -> Self {
        Self {
            status: status.map(ActorStatus::name),
            crash: status.and_then(Crash::of),
            actor_id: info.id,
            name: &info.name,
            key: info.key.to_string(),
            namespace_id: &info.namespace,
            datacenter: gateway.backend.region_name(info.region),
            runner_name_selector: "default",
            crash_policy: "sleep",
            create_ts: info.created.0,
            // When a part of its life began is not recorded; only how it is now is known.
            start_ts: None,
            pending_allocation_ts: None,
            connectable_ts: None,
            sleep_ts: None,
            reschedule_ts: None,
            destroy_ts: None,
        }
    }
}

fn page(gateway: &Gateway, listing: &Listing) -> Response {
    #[derive(Serialize)]
    struct Page<'a> {
        actors: Vec<Actor<'a>>,
        pagination: Pagination<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        warnings: Option<Value>,
    }
    #[derive(Serialize)]
    struct Pagination<'a> {
        cursor: Option<&'a str>,
    }
    let actors = listing.actors.iter();
    let page = Page {
        actors: actors
            .map(|view| Actor::of(gateway, &view.info, Some(&view.status)))
            .collect(),
        pagination: Pagination {
            cursor: listing.cursor.as_deref(),
        },
        warnings: (!listing.warnings.is_empty()).then(|| look::shown(&listing.warnings)),
    };
    let body = serde_json::to_vec(&page).expect("texts, numbers and ids are always JSON");
    respond("application/json", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_form_decoded_and_unknown_ones_ignored() {
        let query = Query::read("namespace=a+b&name=counter&key=room%2Fa%5C%2Fb&x=%zz&limit=7").unwrap();
        assert_eq!(
            (query.namespace.as_str(), query.name.as_deref()),
            ("a b", Some("counter"))
        );
        assert_eq!(query.key.as_deref(), Some(r"room/a\/b"));
        assert_eq!(query.limit().unwrap(), 7);
        assert_eq!(Query::read("").unwrap().namespace, "default");
        assert!(Query::read("key=%zz").unwrap_err().is("api", "bad_request"));
        for limit in ["0", "1001", "x", "-1"] {
            let query = Query::read(&format!("limit={limit}")).unwrap();
            assert!(query.limit().unwrap_err().is("validation", "invalid_input"));
        }
    }

    #[test]
    fn what_is_no_id_is_left_out_of_a_list_of_ids() {
        let id = "000703ff0123456789abcdef00112233";
        assert_eq!(ids(&format!("{id}, x,,{id}")), (vec![id.parse().unwrap()], 4));
    }

    #[test]
    fn markers_in_an_input_count_only_for_clients_that_write_them() {
        let agent =
            |text: &'static str| HeaderMap::from_iter([(USER_AGENT, http::HeaderValue::from_static(text))]);
        // ["$Undefined", 0]
        let input = STANDARD.encode(b"\x82\x6a$Undefined\0");
        assert_eq!(decode_input(&input, &agent("RivetKit/2.3.19")).unwrap(), [0xf7]);
        assert_eq!(decode_input(&input, &agent("RivetKit/2.0.33")).unwrap().len(), 13);
        assert!(
            decode_input("*", &HeaderMap::new())
                .unwrap_err()
                .is("api", "bad_request")
        );
        assert!(
            decode_input("gg==", &HeaderMap::new())
                .unwrap_err()
                .is("api", "bad_request")
        );
    }
}
