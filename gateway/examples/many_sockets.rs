//! Opens many WebSockets at one gateway, lets an actor tell them something, and says what that took.
//!
//! `cargo run -p clinch-gateway --example many_sockets -- ENDPOINT [SOCKETS] [PID]`: the server hosts `counter` (as `clinch dev`
//! does), with `http.max-sockets` and `http.max-connections` above SOCKETS (10,000 unless given), and may open as many files. With
//! the server's process id its memory is read from /proc. Exit status 0 only if every socket heard every event.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use futures_util::{SinkExt, future};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections of each actor: below the limit of an actor, enough actors for every shard.
const PER_ACTOR: usize = 100;
/// Upgrades at a time.
const OPENING: usize = 64;
/// Events for each socket.
const EVENTS: u64 = 5;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn address_of(actor: usize, run: u128, what: &str) -> String {
    let by_key = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default";
    format!("/gateway/counter/{what}?{by_key}&rvt-key=many-{run:x}-{actor}")
}

async fn open(host: &str, actor: usize, run: u128) -> Result<Socket, Failure> {
    let mut request = format!("ws://{host}{}", address_of(actor, run, "connect")).into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "rivet,rivet_encoding.json".parse()?);
    let (mut socket, _) = client_async(request, TcpStream::connect(host).await?).await?;
    heard(&mut socket, "Init").await?;
    let subscribe =
        r#"{"body":{"tag":"SubscriptionRequest","val":{"eventName":"newCount","subscribe":true}}}"#;
    socket.send(Message::text(subscribe)).await?;
    // What comes behind a subscription is answered when it is in effect.
    let ask = r#"{"body":{"tag":"ActionRequest","val":{"id":["$BigInt","0"],"name":"getCount","args":[]}}}"#;
    socket.send(Message::text(ask)).await?;
    heard(&mut socket, "ActionResponse").await?;
    Ok(socket)
}

/// The next frame, which must be of this kind.
async fn heard(socket: &mut Socket, kind: &str) -> Result<(), Failure> {
    let next = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if text.contains(kind) => return Ok(()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return Err(Failure::from(format!("{other:?} instead of {kind}"))),
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await?
}

fn memory_of(pid: Option<&str>) -> String {
    let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let line = status
        .as_deref()
        .and_then(|text| text.lines().find(|line| line.starts_with("VmRSS")));
    line.unwrap_or("memory unknown")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

async fn increment(host: &str, actor: usize, run: u128) -> Result<(), Failure> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let path = address_of(actor, run, "action/increment");
    let body = "{\"args\":[1]}";
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(answer.into()),
    }
}

/// One socket from its upgrade to its last event. Read all the time: whoever answers no ping is gone.
async fn listen(
    host: &str,
    actor: usize,
    run: u128,
    gate: &Semaphore,
    open_now: &watch::Sender<usize>,
) -> Result<(), Failure> {
    let permit = gate.acquire().await?;
    let mut socket = open(host, actor, run).await?;
    drop(permit);
    open_now.send_modify(|open| *open += 1);
    for _ in 0..EVENTS {
        heard(&mut socket, "newCount").await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "http://127.0.0.1:6420".into());
    let count: usize = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let pid = args.next();
    let (host, pid) = (
        endpoint.trim_start_matches("http://").trim_end_matches('/'),
        pid.as_deref(),
    );
    let run = u128::from(std::process::id());
    println!("before: {}", memory_of(pid));
    let (gate, (open_now, mut opened)) = (Semaphore::new(OPENING), watch::channel(0));
    let begun = Instant::now();
    let sockets = (0..count).map(|index| listen(host, index / PER_ACTOR, run, &gate, &open_now));
    let tell = async {
        opened.wait_for(|open| *open == count).await?;
        println!(
            "{count} sockets open after {:?}: {}",
            begun.elapsed(),
            memory_of(pid)
        );
        let told = Instant::now();
        for _ in 0..EVENTS {
            let calls = (0..count.div_ceil(PER_ACTOR)).map(|actor| increment(host, actor, run));
            let answers: Vec<_> = stream::iter(calls).buffer_unordered(OPENING).collect().await;
            answers.into_iter().collect::<Result<(), _>>()?;
        }
        Ok::<_, Failure>(told)
    };
    let (told, _) = future::try_join(tell, future::try_join_all(sockets)).await?;
    let events = count as u64 * EVENTS;
    println!(
        "{events} events heard after {:?}: {}",
        told.elapsed(),
        memory_of(pid)
    );
    Ok(())
}
