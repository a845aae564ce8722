//! `clinch actors`: listing, finding, calling and destroying actors through a gateway.

use clap::Subcommand;
use clinch_client::percent_encode;
use clinch_types::{ActorId, Clock as _, Key, limits};
use http::Method;
use serde_json::{Value, json};

use super::exit::{Failure, Outcome, ResultExt as _};
use super::remote::Remote;
use super::terminal::{print, table};
use crate::SystemClock;

/// List, find, call and destroy actors
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ActorsCommand,
}

#[derive(Debug, Subcommand)]
enum ActorsCommand {
    /// List the actors of a type
    #[command(after_help = "Example:\n  clinch actors ls counter --limit 20")]
    Ls {
        /// The actor type
        name: String,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Find one actor by its key
    #[command(after_help = "Example:\n  clinch actors get room europe lobby")]
    Get {
        /// The actor type
        name: String,
        /// The parts of the key
        key: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Call an action; an actor that does not exist is created
    #[command(
        after_help = "Examples:\n  clinch actors call counter my-counter increment '[3]'\n  \
                      clinch actors call counter my-counter getCount\n\n\
                      The parts of the key stand between the actor type and the action. The arguments are a JSON \
                      array; without one there are none. The result is printed as JSON."
    )]
    Call {
        /// The actor type
        name: String,
        /// The parts of the key, the action, and its arguments as a JSON array
        #[arg(value_name = "[KEY]... ACTION [ARGS]", required = true)]
        rest: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Destroy an actor and its data, for ever
    #[command(after_help = "Example:\n  clinch actors destroy 000003ff0123456789abcdef00112233")]
    Destroy {
        /// The actor's id, as `clinch actors ls` shows it
        id: ActorId,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    remote: Remote,
    /// The namespace of the actors
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Common {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        Ok(self.remote.client()?.request(method, path, body).await?)
    }

    fn print(&self, actors: &[Value], warnings: &[Value]) -> Outcome {
        print(&match self.json {
            true if warnings.is_empty() => json!({ "actors": actors }).to_string(),
            true => json!({ "actors": actors, "warnings": warnings }).to_string(),
            false => actors_text(actors, warnings, SystemClock.wall().0),
        })
    }
}

pub(crate) async fn run(args: &Args) -> Outcome {
    match &args.command {
        ActorsCommand::Ls { name, limit, common } => ls(common, name, *limit).await,
        ActorsCommand::Get { name, key, common } => get(common, name, key).await,
        ActorsCommand::Call { name, rest, common } => call(common, name, rest).await,
        ActorsCommand::Destroy { id, common } => {
            let path = format!("/actors/{id}?namespace={}", percent_encode(&common.namespace));
            common.ask(Method::DELETE, &path, None).await?;
            print(&match common.json {
                true => json!({ "destroyed": id }).to_string(),
                false => format!("{id} is destroyed"),
            })
        }
    }
}

async fn ls(common: &Common, name: &str, limit: usize) -> Outcome {
    let mut actors = Vec::new();
    let mut cursor = String::new();
    let mut warnings: Vec<Value> = Vec::new();
    while actors.len() < limit {
        let page = (limit - actors.len()).min(limits::LIST_MAX as usize);
        let path = format!(
            "/actors?namespace={}&name={}&limit={page}&cursor={}",
            percent_encode(&common.namespace),
            percent_encode(name),
            percent_encode(&cursor),
        );
        let mut answer = common.ask(Method::GET, &path, None).await?;
        if let Some(Value::Array(page)) = answer.get_mut("actors").map(Value::take) {
            actors.extend(page);
        }
        if let Some(Value::Array(told)) = answer.get_mut("warnings").map(Value::take) {
            let new = |warning: &Value| warnings.iter().all(|known| known["code"] != warning["code"]);
            let told: Vec<Value> = told.into_iter().filter(new).collect();
            warnings.extend(told);
        }
        match answer.pointer("/pagination/cursor").and_then(Value::as_str) {
            Some(next) if next != cursor => cursor = next.to_owned(),
            _ => break,
        }
    }
    common.print(&actors, &warnings)
}

async fn get(common: &Common, name: &str, key: &[String]) -> Outcome {
    let key = Key::new(key).usage()?;
    let path = format!(
        "/actors?namespace={}&name={}&key={}",
        percent_encode(&common.namespace),
        percent_encode(name),
        percent_encode(&key.to_string()),
    );
    let answer = common.ask(Method::GET, &path, None).await?;
    match answer.get("actors").and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) | None => Err(Failure::failed(format!("there is no {name} with the key {key}"))),
        Some(actors) => common.print(actors, &[]),
    }
}

async fn call(common: &Common, name: &str, rest: &[String]) -> Outcome {
    let (key, action, args) = split_call(rest)?;
    let client = common.remote.client()?.in_namespace(&common.namespace);
    let output = client.call(name, key, action, args).await?;
    print(&output.to_string())
}

/// Takes apart `[KEY]... ACTION [ARGS]`: the last is arguments if it looks like an array.
fn split_call(rest: &[String]) -> Outcome<(&[String], &str, Value)> {
    let (front, args) = match rest {
        [front @ .., last] if last.trim_start().starts_with('[') => {
            let args: Value = serde_json::from_str(last).map_err(|error| {
                Failure::usage(format!("the arguments {last} are no JSON array: {error}"))
            })?;
            (front, args)
        }
        all => (all, json!([])),
    };
    match front {
        [key @ .., action] => Ok((key, action, args)),
        [] => Err(Failure::usage(
            "which action? clinch actors call NAME [KEY]... ACTION [ARGS]",
        )),
    }
}

fn actors_text(actors: &[Value], warnings: &[Value], now_ms: u64) -> String {
    let text = |actor: &Value, name: &str| actor.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let rows: Vec<Vec<String>> = actors
        .iter()
        .map(|actor| {
            let created = actor.get("create_ts").and_then(Value::as_u64);
            let age = created.map_or_else(|| "-".into(), |created| age(now_ms.saturating_sub(created)));
            vec![
                text(actor, "actor_id"),
                text(actor, "name"),
                text(actor, "key"),
                age,
                status_text(actor, now_ms),
            ]
        })
        .collect();
    let mut shown = table(&["ID", "NAME", "KEY", "AGE", "STATUS"], &rows);
    for warning in warnings {
        shown.push_str(&format!("\nwarning: {}", text(warning, "message")));
    }
    shown
}

/// The status, and of one that is not well why, since when, and when it is tried again.
fn status_text(actor: &Value, now_ms: u64) -> String {
    let Some(status) = actor.get("status").and_then(Value::as_str) else {
        // The gateway is of an earlier release.
        return "-".to_owned();
    };
    let Some(crash) = actor.get("crash").filter(|crash| crash.is_object()) else {
        return status.to_owned();
    };
    let text = |name: &str| crash.get(name).and_then(Value::as_str).unwrap_or("-");
    let number = |name: &str| crash.get(name).and_then(Value::as_u64);
    let since = number("since_ts").map_or_else(|| "-".into(), |since| age(now_ms.saturating_sub(since)));
    let next = match number("next_try_ts") {
        Some(next) => format!("next try in {}", age(next.saturating_sub(now_ms))),
        None => "next try with the next call".to_owned(),
    };
    format!(
        "{status}: {}.{}, {} in a row for {since}, {next}",
        text("group"),
        text("code"),
        number("failures").unwrap_or(1)
    )
}

/// Time in its largest unit.
fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(rest: &[&str]) -> Outcome<(Vec<String>, String, Value)> {
        let rest: Vec<String> = rest.iter().map(|part| (*part).to_owned()).collect();
        split_call(&rest).map(|(key, action, args)| (key.to_vec(), action.to_owned(), args))
    }

    #[test]
    fn a_call_is_a_key_an_action_and_perhaps_arguments() {
        let (key, action, args) = split(&["a", "b", "increment", "[3]"]).unwrap();
        assert_eq!(
            (key, action.as_str(), args),
            (vec!["a".into(), "b".into()], "increment", json!([3]))
        );
        let (key, action, args) = split(&["getCount"]).unwrap();
        assert_eq!((key.len(), action.as_str(), args), (0, "getCount", json!([])));
        assert!(split(&["increment", "[3"]).is_err());
        assert!(split(&["[3]"]).is_err());
    }

    #[test]
    fn a_status_says_why_an_actor_is_not_well_and_when_it_is_tried_again() {
        let crashed = |next: Value| {
            let crash = json!({"group": "user", "code": "no_deal", "failures": 3, "since_ts": 1000,
                "next_try_ts": next});
            status_text(&json!({"status": "crashed", "crash": crash}), 61_500)
        };
        let why = "crashed: user.no_deal, 3 in a row for 1m, next try";
        assert_eq!(crashed(Value::Null), format!("{why} with the next call"));
        assert_eq!(crashed(json!(63_500)), format!("{why} in 2s"));
        assert_eq!(status_text(&json!({"status": "sleeping"}), 0), "sleeping");
        assert_eq!(status_text(&json!({}), 0), "-");
    }

    #[test]
    fn ages_are_shown_in_their_largest_unit() {
        assert_eq!(
            [900, 61_000, 7_200_000, 200_000_000].map(age),
            ["0s", "1m", "2h", "2d"]
        );
    }
}
