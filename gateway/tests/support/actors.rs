//! The actors of the conformance suite that need neither connections nor schedules.

use std::time::Duration;

use ciborium::Value;
use clinch_types::{ActorError, ActorInfo, code, group};

/// All actor types there are.
pub(crate) const NAMES: [&str; 11] = [
    "chatRoom",
    "counter",
    "destroyable",
    "echo",
    "errors",
    "kvStore",
    "meta",
    "observer",
    "rawHttp",
    "slowpoke",
    "withInput",
];

/// One turn of one actor.
pub(crate) struct Turn<'a> {
    pub(crate) info: &'a ActorInfo,
    pub(crate) state: &'a mut Value,
    pub(crate) args: Vec<Value>,
    pub(crate) params: Option<Value>,
}

/// What an action does.
pub(crate) enum Outcome {
    Value(Output),
    Later(Duration, Output),
    Destroy,
}

/// An action's result: a value, or bytes that the library cannot write.
pub(crate) enum Output {
    Value(Value),
    Raw(Vec<u8>),
}

impl Output {
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Value(value) => cbor(&value),
            Self::Raw(bytes) => bytes,
        }
    }
}

pub(crate) fn cbor(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("memory does not fail");
    out
}

/// The first state of an actor.
pub(crate) fn create(name: &str, input: Option<Value>) -> Value {
    match name {
        "counter" => member(input.as_ref(), "start").unwrap_or(0.into()),
        "destroyable" => member(input.as_ref(), "value").unwrap_or(0.into()),
        "chatRoom" | "observer" => Value::Array(Vec::new()),
        _ => input.unwrap_or(Value::Null),
    }
}

fn member(value: Option<&Value>, name: &str) -> Option<Value> {
    let map = value?.as_map()?;
    map.iter()
        .find(|(key, _)| key.as_text() == Some(name))
        .map(|(_, value)| value.clone())
}

/// Runs an action.
pub(crate) fn run(turn: Turn<'_>, action: &str) -> Result<Outcome, ActorError> {
    let value = match turn.info.name.as_str() {
        "counter" => counter(turn, action)?,
        "echo" => return echo(turn.args, action),
        "errors" => errors(action)?,
        "chatRoom" => chat_room(turn, action)?,
        "slowpoke" => return slowpoke(action),
        "destroyable" => match action {
            "remove" | "destroy" => return Ok(Outcome::Destroy),
            _ => cell(turn, action)?,
        },
        "withInput" if action == "read" => {
            map([("input", turn.state.clone()), ("onCreate", turn.state.clone())])
        }
        "meta" => match action {
            "key" => turn
                .info
                .key
                .components()
                .iter()
                .map(|c| c.as_str().into())
                .collect::<Vec<Value>>()
                .into(),
            "name" => turn.info.name.as_str().into(),
            "actorId" => turn.info.id.to_string().into(),
            "region" => "string".into(),
            _ => return Err(unknown(action)),
        },
        _ => cell(turn, action)?,
    };
    Ok(Outcome::Value(Output::Value(value)))
}

fn unknown(action: &str) -> ActorError {
    ActorError::new(
        group::ACTOR,
        code::ACTION_NOT_FOUND,
        format!("Action `{action}` not found."),
    )
}

fn user(message: &str, code: &str) -> ActorError {
    ActorError::new(group::USER, code, message)
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(
        members
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .collect(),
    )
}

fn int(value: &Value) -> i128 {
    value.as_integer().map_or(0, i128::from)
}

fn counter(turn: Turn<'_>, action: &str) -> Result<Value, ActorError> {
    let next = match action {
        "increment" => int(turn.state) + turn.args.first().map_or(1, int),
        "setCount" => turn.args.first().map_or(0, int),
        "getCount" => return Ok(turn.state.clone()),
        _ => return Err(unknown(action)),
    };
    let next = i64::try_from(next).map_err(|_| user("Too large", "overflow"))?;
    *turn.state = next.into();
    Ok(next.into())
}

fn cell(turn: Turn<'_>, action: &str) -> Result<Value, ActorError> {
    match action {
        "get" => Ok(turn.state.clone()),
        "set" => {
            *turn.state = turn.args.into_iter().next().unwrap_or(Value::Null);
            Ok(turn.state.clone())
        }
        _ => Err(unknown(action)),
    }
}

fn echo(args: Vec<Value>, action: &str) -> Result<Outcome, ActorError> {
    let mut args = args.into_iter();
    let mut next = || args.next().unwrap_or(Value::Null);
    let value = match action {
        "echo" => next(),
        "args" => Value::Array(args.collect()),
        "argCount" => (args.len() as u64).into(),
        "nothing" => return Ok(Outcome::Value(Output::Raw(vec![0xf7]))),
        "nullish" => Value::Null,
        "typeOf" => type_of(&next()).into(),
        "bytes" => Value::Bytes((0..int(&next())).map(|i| (i % 256) as u8).collect()),
        "big" => 9_007_199_254_740_993u64.into(),
        "makeString" => "x".repeat(usize::try_from(int(&next())).unwrap_or(0)).into(),
        "slow" => {
            let delay = Duration::from_millis(u64::try_from(int(&next())).unwrap_or(0));
            return Ok(Outcome::Later(delay, Output::Value(next())));
        }
        "broken" => return Ok(Outcome::Value(Output::Raw(vec![0x82, 0x01]))),
        _ => return Err(unknown(action)),
    };
    Ok(Outcome::Value(Output::Value(value)))
}

fn type_of(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Text(_) => "string".into(),
        Value::Integer(_) | Value::Float(_) => "number".into(),
        Value::Bytes(bytes) => format!("arraybuffer:{}", bytes.len()),
        Value::Array(items) => format!("array:{}", items.len()),
        Value::Tag(1, inner) => {
            let seconds = inner.as_float().unwrap_or(int(inner) as f64);
            format!("date:{}", (seconds * 1000.0).round())
        }
        Value::Tag(64, inner) => format!("bytes:{}", inner.as_bytes().map_or(0, Vec::len)),
        Value::Tag(258, inner) => format!("set:{}", inner.as_array().map_or(0, Vec::len)),
        Value::Tag(259, inner) => format!("map:{}", inner.as_map().map_or(0, Vec::len)),
        _ => "object".into(),
    }
}

fn errors(action: &str) -> Result<Value, ActorError> {
    Err(match action {
        "fine" => return Ok("fine".into()),
        "simple" => user("Username is too long", code::USER_ERROR),
        "withCode" => user("Username is too short", "username_too_short"),
        "withMetadata" => ActorError {
            metadata: Some(cbor(&map([
                ("limit", 100.into()),
                ("retryAfter", 1.5.into()),
                (
                    "nested",
                    map([(
                        "list",
                        vec![1.into(), "two".into(), Value::Null, true.into()].into(),
                    )]),
                ),
            ]))),
            ..user("Rate limit exceeded", "rate_limited")
        },
        "internal" | "asyncInternal" | "throwString" => ActorError::internal("7f3a"),
        _ => unknown(action),
    })
}

fn slowpoke(action: &str) -> Result<Outcome, ActorError> {
    match action {
        "quick" => Ok(Outcome::Value(Output::Value("quick".into()))),
        "stall" => Err(ActorError::new(
            group::ACTOR,
            code::ACTION_TIMED_OUT,
            "Action `stall` ran longer than 400 ms.",
        )),
        _ => Err(unknown(action)),
    }
}

fn chat_room(turn: Turn<'_>, action: &str) -> Result<Value, ActorError> {
    match member(turn.params.as_ref(), "authToken")
        .as_ref()
        .and_then(Value::as_text)
    {
        Some("bad") => {
            return Err(ActorError {
                metadata: Some(cbor(&map([("reason", "bad token".into())]))),
                ..user("Forbidden", "forbidden")
            });
        }
        Some("bad-state") => return Err(user("Invalid token", "invalid_token")),
        Some("crash") => return Err(ActorError::internal("7f3b")),
        _ => {}
    }
    let name = member(turn.params.as_ref(), "username").unwrap_or("anonymous".into());
    match action {
        "whoAmI" => Ok(map([
            ("username", name),
            ("params", turn.params.unwrap_or(Value::Null)),
            ("connId", "stateless".into()),
        ])),
        "history" => Ok(turn.state.clone()),
        _ => Err(unknown(action)),
    }
}
