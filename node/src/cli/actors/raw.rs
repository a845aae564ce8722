//! Actors that speak HTTP and WebSocket themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clinch_actor::http::{Method, Request, Response, StatusCode, header};
use clinch_actor::{Any, Body, Conn, Ctx, Error, Frame};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Bytes that one answer may have.
const BYTES_MAX: usize = 1 << 20;

/// Who comes in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Visitor {
    #[serde(default)]
    auth_token: Option<String>,
}

fn check(visitor: Option<&Visitor>) -> Result<(), Error> {
    match visitor.and_then(|visitor| visitor.auth_token.as_deref()) {
        Some("bad") => Err(Error::user("forbidden", "Forbidden")),
        _ => Ok(()),
    }
}

/// Answers raw requests.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct RawHttp {
    hits: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Echo {
    method: String,
    path: String,
    search: String,
    headers: BTreeMap<String, String>,
    content_type: Option<String>,
    body: String,
    params: Option<serde_json::Value>,
}

fn answer(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Result<Response<Bytes>, Error> {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind);
    response
        .header("x-from-actor", "yes")
        .body(body.into())
        .map_err(Error::internal)
}

fn json_of(value: &impl Serialize) -> Result<Response<Bytes>, Error> {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    answer(StatusCode::OK, "application/json", body)
}

/// The bytes 0, 1, 2, … as many as the query asks for.
fn counted(query: &str) -> Result<Response<Bytes>, Error> {
    let asked = query.split('&').find_map(|part| part.strip_prefix("n="));
    let count: usize = asked.unwrap_or("4").parse().unwrap_or(0);
    let bytes: Vec<u8> = (0..count.min(BYTES_MAX)).map(|i| (i % 256) as u8).collect();
    answer(StatusCode::OK, "application/octet-stream", bytes)
}

/// Server-sent events without end, twenty a second.
fn ticks() -> Result<Response<Body>, Error> {
    let events = futures_util::stream::unfold(0_u64, |number| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, Error>(format!("data: {number}\n\n")), number + 1))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(Body::from_stream(events))
        .map_err(Error::internal)
}

fn status_of(text: &str) -> Result<Response<Bytes>, Error> {
    let status = text.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| Error::user("no_status", format!("{text:?} is no status")))?;
    let body = match status {
        StatusCode::NO_CONTENT => String::new(),
        status => format!("status {}", status.as_u16()),
    };
    answer(status, "text/plain", body)
}

#[clinch_actor::actor(name = "rawHttp", crate = "clinch_actor")]
impl RawHttp {
    #[hook]
    fn before_connect(visitor: Option<Visitor>) -> Result<(), Error> {
        check(visitor.as_ref())
    }

    #[hook]
    fn on_request(&mut self, c: &Ctx<Self>, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let path = request.uri().path();
        if path == "/ticks" {
            return ticks();
        }
        let answered = match path {
            "/throw-user" => Err(Error::user("nope", "nope").with("a", 1)),
            "/throw-internal" => Err(Error::internal("secret stack")),
            "/hits" => json_of(&json!({ "hits": self.hits })),
            "/increment" if request.method() == Method::POST => {
                self.hits += 1;
                json_of(&json!({ "hits": self.hits }))
            }
            "/bytes" => counted(request.uri().query().unwrap_or_default()),
            path if path.starts_with("/status/") => status_of(&path["/status/".len()..]),
            path if path == "/" || path.starts_with("/echo") => json_of(&echo(c, &request)?),
            _ => answer(StatusCode::NOT_FOUND, "text/plain", "no such route"),
        };
        answered.map(|response| response.map(Body::from))
    }

    #[action]
    fn hits(&self) -> u64 {
        self.hits
    }
}

fn echo(c: &Ctx<RawHttp>, request: &Request<Bytes>) -> Result<Echo, Error> {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let tests = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-test-"));
    let silent = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(Echo {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        search: request
            .uri()
            .query()
            .map_or_else(String::new, |query| format!("?{query}")),
        headers: tests
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        content_type: request.headers().get(header::CONTENT_TYPE).map(text),
        body: match silent {
            true => String::new(),
            false => String::from_utf8_lossy(request.body()).into_owned(),
        },
        params: c.conn()?.params()?,
    })
}

/// Speaks over raw WebSockets.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct RawSocket {
    opened: u64,
}

#[clinch_actor::actor(name = "rawSocket", crate = "clinch_actor")]
impl RawSocket {
    #[hook]
    fn before_connect(visitor: Option<Visitor>) -> Result<(), Error> {
        check(visitor.as_ref())
    }

    #[hook]
    fn on_websocket(&mut self, conn: &Conn<Self>) -> Result<(), Error> {
        self.opened += 1;
        let params: Option<serde_json::Value> = conn.params()?;
        let welcome = json!({
            "type": "welcome", "opened": self.opened, "path": conn.path(), "params": params,
        });
        conn.send_text(welcome.to_string());
        Ok(())
    }

    #[hook]
    fn on_message(&mut self, conn: &Conn<Self>, frame: Frame) {
        match frame {
            Frame::Text(text) if text == "ping" => conn.send_text("pong"),
            Frame::Text(text) if text == "close-me" => conn.close(4001, "bye now"),
            Frame::Text(text) => conn.send_text(format!("echo:{text}")),
            Frame::Binary(bytes) => conn.send_binary(bytes.iter().rev().copied().collect::<Vec<u8>>()),
        }
    }

    #[action]
    fn opened(&self) -> u64 {
        self.opened
    }
}

/// Has neither of the hooks.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct NoHandlers {}

#[clinch_actor::actor(name = "noHandlers", crate = "clinch_actor")]
impl NoHandlers {
    #[action]
    fn hello(&self) -> String {
        "hello".into()
    }
}

/// What a worker has dealt with.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    name: String,
    body: Any,
}

/// Works off its queues.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct QueueWorker {
    seen: Vec<Seen>,
}

#[derive(Deserialize)]
struct Role {
    #[serde(default)]
    role: Option<String>,
}

#[derive(Deserialize)]
struct Task {
    n: f64,
}

#[clinch_actor::actor(name = "queueWorker", crate = "clinch_actor")]
impl QueueWorker {
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<(), Error> {
        let mut queue = c.queue::<Any>("jobs").or("tasks").or("guarded");
        while let Some(message) = queue.next().await? {
            c.try_update(move |state: &mut Self, c| {
                let name = message.queue().to_owned();
                let body = Any::clone(&message);
                state.seen.push(Seen {
                    name: name.clone(),
                    body: body.clone(),
                });
                if name != "tasks" {
                    return message.ack_in(c);
                }
                let task: Task = clinch_actor::decode("the task", &clinch_actor::encode(&body)?)?;
                message.complete_in(c, json!({ "doubled": task.n * 2.0 }))
            })
            .await?;
        }
        Ok(())
    }

    #[hook]
    fn can_publish(&self, c: &Ctx<Self>, queue: &str) -> Result<bool, Error> {
        if queue != "guarded" {
            return Ok(true);
        }
        let role: Option<Role> = c.conn()?.params()?;
        Ok(role.and_then(|role| role.role).as_deref() == Some("admin"))
    }

    #[action]
    fn seen(&self) -> Vec<Seen> {
        self.seen.clone()
    }
}
