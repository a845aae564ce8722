//! The three ways a request names an actor: by id in the path, by name and key in the query, by header.
//!
//! Pure: texts in, an [`Address`] or the error of the protocol out. What belongs to the actor (the inner path, and
//! the query without our parameters) is passed on byte for byte.
//! Not here: whether the actor exists, and whether the caller may ask.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clinch_types::{ActorId, Key, code, group, limits};
use http::Uri;
use http::header::{HeaderMap, HeaderName};

use crate::cbor::rewrite;
use crate::error::HttpError;
use crate::percent;

const TARGET: HeaderName = HeaderName::from_static("x-rivet-target");
const ACTOR: HeaderName = HeaderName::from_static("x-rivet-actor");
const PREFIX: &str = "/gateway/";
/// What marks a parameter of the query as ours.
const OURS: &str = "rvt-";

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) who: Who,
    /// The path inside the actor, as sent: begins with `/`.
    pub(crate) path: String,
    /// The query inside the actor: as sent, without what is ours.
    pub(crate) query: String,
    /// The token given in the address, decoded.
    pub(crate) token: Option<String>,
}

/// Which actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Id(ActorId),
    Key {
        namespace: String,
        name: String,
        key: Key,
        create: Option<Create>,
    },
}

/// How to create the actor if it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Create {
    /// CBOR as the actor decodes it.
    pub(crate) input: Option<Vec<u8>>,
    /// The name of a region.
    pub(crate) region: Option<String>,
}

/// Reads the address; `None` when the request is not for an actor.
///
/// # Errors
/// `guard.query_*`, `guard.missing_header`, `actor.not_found` for what is no actor id, `actor.key_too_large`.
pub(crate) fn parse(uri: &Uri, headers: &HeaderMap) -> Result<Option<Address>, HttpError> {
    let path = uri.path();
    if let Some(rest) = path.strip_prefix(PREFIX) {
        if path.contains("//") {
            return Ok(None);
        }
        let (segment, inner) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        return match uri.query() {
            Some(query) if has_ours(query) => {
                by_query(segment, rest.len() == segment.len(), inner, query).map(Some)
            }
            _ if segment.is_empty() => Ok(None),
            query => by_id(segment, inner, query.unwrap_or_default()).map(Some),
        };
    }
    if let Some(address) = by_alias(uri) {
        return address.map(Some);
    }
    if headers.get(TARGET).is_some_and(|target| target == "actor") {
        return by_header(path, uri.query().unwrap_or_default(), headers).map(Some);
    }
    Ok(None)
}

fn has_ours(query: &str) -> bool {
    query.split('&').any(|part| part.starts_with(OURS))
}

/// `/actors/NAME/http/PATH`: another way to write `/gateway/NAME/request/PATH`, for actors addressed by the query.
fn by_alias(uri: &Uri) -> Option<Result<Address, HttpError>> {
    let (name, inner) = uri.path().strip_prefix("/actors/")?.split_once('/')?;
    let rest = inner.strip_prefix("http")?;
    let query = uri.query().filter(|query| has_ours(query))?;
    let fits = !name.is_empty() && (rest.is_empty() || rest.starts_with('/'));
    fits.then(|| by_query(name, false, &format!("/request{rest}"), query))
}

fn by_header(path: &str, query: &str, headers: &HeaderMap) -> Result<Address, HttpError> {
    let id = headers
        .get(ACTOR)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty())
        .ok_or_else(|| HttpError::guard("missing_header", "Missing x-rivet-actor header."))?;
    Ok(Address {
        who: Who::Id(actor_id(id)?),
        path: path.to_owned(),
        query: query.to_owned(),
        token: None,
    })
}

fn by_id(segment: &str, inner: &str, query: &str) -> Result<Address, HttpError> {
    let (id, token) = match segment.split_once('@') {
        Some((id, token)) => (id, Some(decoded(token)?.into_owned())),
        None => (segment, None),
    };
    Ok(Address {
        who: Who::Id(actor_id(&decoded(id)?)?),
        path: inner.to_owned(),
        query: query.to_owned(),
        token,
    })
}

fn decoded(text: &str) -> Result<Cow<'_, str>, HttpError> {
    percent::path(text).map_err(|e| HttpError::bad_request(format!("{e} in the path")))
}

/// A text that is no id names nothing that ever was: the answer is the same as for an actor that is gone.
pub(crate) fn actor_id(text: &str) -> Result<ActorId, HttpError> {
    text.parse().map_err(|e| {
        HttpError::new(
            group::ACTOR,
            code::NOT_FOUND,
            format!(
                "There is no such actor: {e}. To address by name, give rvt-namespace, rvt-method and rvt-key."
            ),
        )
    })
}

/// The parameters of the query that are ours, as sent.
#[derive(Default)]
struct Parameters<'q> {
    namespace: Option<Cow<'q, str>>,
    method: Option<Cow<'q, str>>,
    runner: Option<Cow<'q, str>>,
    key: Option<Cow<'q, str>>,
    input: Option<Cow<'q, str>>,
    region: Option<Cow<'q, str>>,
    crash_policy: Option<Cow<'q, str>>,
    token: Option<Cow<'q, str>>,
    skip_ready_wait: Option<Cow<'q, str>>,
}

impl<'q> Parameters<'q> {
    fn read(query: &'q str) -> Result<Self, HttpError> {
        let mut all = Self::default();
        for part in query.split('&').filter(|part| part.starts_with(OURS)) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(query_error(
                    "param_missing_equals",
                    format!("{} has no value", shown(part)),
                ));
            };
            let place = match &name[OURS.len()..] {
                "namespace" => &mut all.namespace,
                "method" => &mut all.method,
                // Generations differ in the name; pools mean nothing here.
                "runner" | "pool" => &mut all.runner,
                "key" => &mut all.key,
                "input" => &mut all.input,
                "region" => &mut all.region,
                "crash-policy" => &mut all.crash_policy,
                "token" => &mut all.token,
                "skip-ready-wait" => &mut all.skip_ready_wait,
                _ => {
                    return Err(query_error(
                        "invalid_params",
                        format!("unknown parameter {}", shown(name)),
                    ));
                }
            };
            if place.is_some() {
                return Err(query_error("duplicate_param", format!("{name} is there twice")));
            }
            let value = percent::form(value)
                .map_err(|e| query_error("invalid_percent_encoding", format!("{e} in {name}")))?;
            *place = Some(value);
        }
        Ok(all)
    }

    /// Refuses parameters that only make sense for an actor that may be created.
    fn check_get(&self) -> Result<(), HttpError> {
        let disallowed = [
            ("rvt-input", &self.input),
            ("rvt-region", &self.region),
            ("rvt-crash-policy", &self.crash_policy),
            ("rvt-runner", &self.runner),
        ];
        match disallowed.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(query_error(
                "get_disallowed_params",
                format!("{name} does not go with rvt-method=get"),
            )),
            None => Ok(()),
        }
    }

    fn create(self) -> Result<Create, HttpError> {
        if self.runner.is_none() {
            return Err(query_error("missing_pool", "rvt-runner is missing"));
        }
        if let Some(policy) = &self.crash_policy
            && !["restart", "sleep", "destroy"].contains(&policy.as_ref())
        {
            return Err(query_error(
                "invalid_params",
                format!("unknown crash policy {}", shown(policy)),
            ));
        }
        let input = match self.input {
            Some(input) => Some(decode_input(&input)?),
            None => None,
        };
        Ok(Create {
            input,
            region: self.region.map(Cow::into_owned),
        })
    }
}

fn decode_input(text: &str) -> Result<Vec<u8>, HttpError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|e| query_error("invalid_base64_input", format!("rvt-input is no base64url: {e}")))?;
    rewrite::inbound(&bytes, true)
        .map(Cow::into_owned)
        .map_err(|e| query_error("invalid_cbor_input", format!("rvt-input: {e}")))
}

fn by_query(segment: &str, bare: bool, inner: &str, query: &str) -> Result<Address, HttpError> {
    // `getGatewayUrl()` gives a URL with a query; code that appends a path to it means that path.
    let (query, path, kept) = match moved_path(query).filter(|_| bare) {
        Some((query, path, kept)) => (query, path, kept.to_owned()),
        None => (query, inner, theirs(query)),
    };
    let mut parameters = Parameters::read(query)?;
    if segment.contains('@') {
        return Err(query_error(
            "path_token_syntax",
            "a token goes into rvt-token here, not behind an @",
        ));
    }
    let name = percent::path(segment)
        .map_err(|e| query_error("invalid_percent_encoding", format!("{e} in the actor name")))?;
    if name.is_empty() {
        return Err(query_error("empty_actor_name", "there is no actor name"));
    }
    let missing = |name: &str| query_error("invalid_params", format!("{name} is missing"));
    let namespace = parameters
        .namespace
        .take()
        .ok_or_else(|| missing("rvt-namespace"))?;
    let method = parameters.method.take().ok_or_else(|| missing("rvt-method"))?;
    let key = parameters.key.take().unwrap_or_default();
    let token = parameters.token.take().map(Cow::into_owned);
    let create = match method.as_ref() {
        "get" => {
            parameters.check_get()?;
            None
        }
        "getOrCreate" => Some(parameters.create()?),
        other => {
            return Err(query_error(
                "invalid_params",
                format!("unknown method {}", shown(other)),
            ));
        }
    };
    Ok(Address {
        who: Who::Key {
            namespace: namespace.into_owned(),
            name: checked_name(&name)?,
            key: comma_key(&key)?,
            create,
        },
        path: path.to_owned(),
        query: kept,
        token,
    })
}

/// The parameters that are not ours, as sent.
fn theirs(query: &str) -> String {
    let theirs: Vec<&str> = query.split('&').filter(|part| !part.starts_with(OURS)).collect();
    theirs.join("&")
}

/// Splits `…&rvt-x=sleep/request/y` in front of the path, and the path from a query of its own.
fn moved_path(query: &str) -> Option<(&str, &str, &str)> {
    let last = query.rfind('&').map_or(0, |at| at + 1);
    let part = query[last..].strip_prefix(OURS).map(|_| &query[last..])?;
    let slash = last + part.find('/')?;
    let path = &query[slash..];
    // What the caller meant as the query of that path comes behind a second `?`.
    let (path, kept) = path.split_once('?').unwrap_or((path, ""));
    Some((&query[..slash], path, kept))
}

/// The clients join components with commas and escape nothing: `["a,b"]` and `["a","b"]` are one key here.
fn comma_key(text: &str) -> Result<Key, HttpError> {
    if text.is_empty() {
        return Ok(Key::empty());
    }
    Key::new(text.split(',')).map_err(key_error)
}

pub(crate) fn key_error(error: clinch_types::KeyError) -> HttpError {
    HttpError::new(group::ACTOR, code::KEY_TOO_LARGE, error.to_string())
}

/// Refuses a name over its limit, before it is repeated in logs and errors.
pub(crate) fn checked_name(name: &str) -> Result<String, HttpError> {
    let len = name.chars().count();
    if len > limits::ACTOR_NAME_MAX {
        return Err(clinch_types::ActorError::too_long("actor name", len, limits::ACTOR_NAME_MAX).into());
    }
    Ok(name.to_owned())
}

fn query_error(code: &str, message: impl Into<String>) -> HttpError {
    HttpError::guard(&format!("query_{code}"), message)
}

/// A text from outside, fit for an error message.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    let mut cut: String = text.chars().take(SHOWN_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "000703ff0123456789abcdef00112233";

    fn address(target: &str) -> Result<Option<Address>, HttpError> {
        parse(&target.parse().unwrap(), &HeaderMap::new())
    }

    fn found(target: &str) -> Address {
        address(target).unwrap().unwrap()
    }

    #[track_caller]
    fn refused(target: &str, group: &str, code: &str) {
        let error = address(target).unwrap_err();
        assert!(error.is(group, code), "{target}: {error:?}");
    }

    fn key(parts: &[&str]) -> Key {
        Key::new(parts.iter().copied()).unwrap()
    }

    #[test]
    fn an_id_in_the_path_addresses_an_actor_with_or_without_a_token() {
        let plain = found(&format!("/gateway/{ID}/action/get%20it?x=1"));
        assert_eq!(plain.who, Who::Id(ID.parse().unwrap()));
        assert_eq!((plain.path.as_str(), plain.token), ("/action/get%20it", None));
        let token = found(&format!("/gateway/{ID}@p%40k/connect"));
        assert_eq!(
            (token.path.as_str(), token.token.as_deref()),
            ("/connect", Some("p@k"))
        );
        assert_eq!(found(&format!("/gateway/{ID}")).path, "/");
    }

    #[test]
    fn what_is_no_id_names_no_actor() {
        refused("/gateway/counter/action/x", "actor", "not_found");
        refused("/gateway/%zz/action/x", "api", "bad_request");
        assert_eq!(address("/gateway/").unwrap(), None);
        assert_eq!(address(&format!("/gateway//{ID}/action/x")).unwrap(), None);
        assert_eq!(address(&format!("/gateway/{ID}//action/x")).unwrap(), None);
        assert_eq!(address("/health").unwrap(), None);
    }

    #[test]
    fn a_recorded_query_addresses_by_name_and_key() {
        let found = found(
            "/gateway/withInput/action/read?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default\
             &rvt-key=org%2Cgoc-42197e8eb5a5&rvt-input=uQABZXN0YXJ0AQ&rvt-crash-policy=sleep",
        );
        assert_eq!(
            found.who,
            Who::Key {
                namespace: "default".into(),
                name: "withInput".into(),
                key: key(&["org", "goc-42197e8eb5a5"]),
                create: Some(Create {
                    input: Some(vec![0xb9, 0, 1, 0x65, b's', b't', b'a', b'r', b't', 1]),
                    region: None,
                }),
            }
        );
        assert_eq!(found.path, "/action/read");
    }

    #[test]
    fn keys_in_queries_are_split_at_every_comma() {
        let key_of = |text: &str| match found(&format!(
            "/gateway/c/action/x?rvt-namespace=default&rvt-method=get&{text}"
        ))
        .who
        {
            Who::Key { key, .. } => key,
            Who::Id(id) => panic!("{id}"),
        };
        assert_eq!(key_of("rvt-key=a%2C"), key(&["a", ""]));
        assert_eq!(key_of("rvt-key=a+b%2Bc"), key(&["a b+c"]));
        assert_eq!(key_of("rvt-key="), Key::empty());
        assert_eq!(key_of("x=1"), Key::empty());
    }

    #[test]
    fn every_fault_of_a_query_has_its_code() {
        let get = "rvt-namespace=default&rvt-method=get";
        let create = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default";
        for (target, code) in [
            (format!("c/action/x?{get}&rvt-nope=1"), "query_invalid_params"),
            ("c/action/x?rvt-method=get".into(), "query_invalid_params"),
            ("c/action/x?rvt-namespace=default".into(), "query_invalid_params"),
            (
                "c/action/x?rvt-namespace=default&rvt-method=put".into(),
                "query_invalid_params",
            ),
            (
                format!("c/action/x?{create}&rvt-crash-policy=burn"),
                "query_invalid_params",
            ),
            (
                format!("c/action/x?{get}&rvt-key=a&rvt-key=b"),
                "query_duplicate_param",
            ),
            (format!("c/action/x?{get}&rvt-key"), "query_param_missing_equals"),
            (
                format!("c/action/x?{get}&rvt-key=%f"),
                "query_invalid_percent_encoding",
            ),
            (format!("%f/action/x?{get}"), "query_invalid_percent_encoding"),
            (format!("?{get}"), "query_empty_actor_name"),
            (format!("c@token/action/x?{get}"), "query_path_token_syntax"),
            (
                format!("c/action/x?{get}&rvt-input=AA"),
                "query_get_disallowed_params",
            ),
            (
                format!("c/action/x?{get}&rvt-region=0"),
                "query_get_disallowed_params",
            ),
            (
                format!("c/action/x?{get}&rvt-crash-policy=sleep"),
                "query_get_disallowed_params",
            ),
            (
                format!("c/action/x?{get}&rvt-pool=p"),
                "query_get_disallowed_params",
            ),
            (
                "c/action/x?rvt-namespace=default&rvt-method=getOrCreate".into(),
                "query_missing_pool",
            ),
            (
                format!("c/action/x?{create}&rvt-input=a%3D"),
                "query_invalid_base64_input",
            ),
            (
                format!("c/action/x?{create}&rvt-input=gg"),
                "query_invalid_cbor_input",
            ),
        ] {
            refused(&format!("/gateway/{target}"), "guard", code);
        }
        let long = "x".repeat(limits::KEY_COMPONENT_MAX + 1);
        refused(
            &format!("/gateway/c/action/x?{get}&rvt-key={long}"),
            "actor",
            "key_too_large",
        );
        refused(
            &format!("/gateway/{long}/action/x?{get}"),
            "actor",
            "invalid_request",
        );
    }

    #[test]
    fn a_path_appended_to_a_gateway_url_is_a_path() {
        let found = found("/gateway/c?rvt-namespace=default&rvt-method=get&rvt-key=k/request/a?x=1");
        assert_eq!((found.path.as_str(), found.query.as_str()), ("/request/a", "x=1"));
        assert!(matches!(found.who, Who::Key { key: k, .. } if k == key(&["k"])));
    }

    #[test]
    fn a_header_addresses_when_the_path_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert(TARGET, "actor".parse().unwrap());
        let uri: Uri = "/action/x".parse().unwrap();
        assert!(parse(&uri, &headers).unwrap_err().is("guard", "missing_header"));
        headers.insert(ACTOR, ID.parse().unwrap());
        let address = parse(&uri, &headers).unwrap().unwrap();
        assert_eq!(address.path, "/action/x");
        // The path form wins.
        let other = "000703ff0123456789abcdef00112234";
        let uri: Uri = format!("/gateway/{other}/action/x").parse().unwrap();
        let address = parse(&uri, &headers).unwrap().unwrap();
        assert_eq!(address.who, Who::Id(other.parse().unwrap()));
    }

    proptest! {
        #[test]
        fn arbitrary_queries_never_panic(query in "(rvt-[a-z]{0,9}=?[a-zA-Z0-9%/+,&]{0,12}&?){0,6}") {
            if let Ok(uri) = format!("/gateway/c?{query}").parse::<Uri>() {
                let _ = parse(&uri, &HeaderMap::new());
            }
        }
    }
}
