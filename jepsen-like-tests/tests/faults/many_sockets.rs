//! A node full of WebSockets, and clients among them that mean no good: every event reaches every good client once, one
//! more socket is told the limit, and those that do not read, do not answer or do not finish are let go.
//!
//! `CLINCH_SOCKETS=10000` is the whole; without it a share that takes seconds.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clinch_types::NodeId;
use futures_util::future::try_join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use jepsen_like_tests::bed::{Bed, number};
use jepsen_like_tests::history::Op;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::ONE_AT_A_TIME;

type Socket = WebSocketStream<TcpStream>;

/// Sockets when nothing is said, the bad ones included; all are connections of one actor, which may have 10,000.
const SHARE: u64 = 1540;
/// Sockets of each bad kind.
const BAD: usize = 20;
/// Events that everybody hears.
const EVENTS: u64 = 20;
/// Sockets that are being opened at a time.
const AT_A_TIME: usize = 64;
/// Most memory of the node for one open socket with its connection at the actor, in bytes.
const SOCKET_BYTES_MAX: u64 = 64 << 10;
/// Time in which a client has to finish its headers.
const HEADERS_MS: i64 = 3000;
/// After that a bad client is gone: silence counts from 15 s on, and so does a write that nobody takes.
const GONE_MAX: Duration = Duration::from_secs(60);
const STEP_MAX: Duration = Duration::from_secs(240);
/// Whom they all listen to.
const CONNECT: &str =
    "gateway/counter/connect?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=crowd";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_full_of_sockets_tells_everybody_everything_and_lets_the_bad_go() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let limit = usize::try_from(number("CLINCH_SOCKETS", SHARE))?;
    let good = limit
        .checked_sub(2 * BAD)
        .with_context(|| format!("CLINCH_SOCKETS is {limit}, at least {} are needed", 2 * BAD))?;
    let bed = Bed::start_with("many-sockets", |options| {
        options.nodes = 1;
        let http = [
            (
                "max-sockets".to_owned(),
                i64::try_from(limit).unwrap_or(i64::MAX).into(),
            ),
            ("header-read-timeout-ms".to_owned(), HEADERS_MS.into()),
        ];
        options
            .settings
            .insert("http".into(), toml::Table::from_iter(http).into());
    })
    .await?;
    let address = bed.cluster.gateways()[&NodeId(1)].replace("http://", "");
    let pid = bed.cluster.pids()[&NodeId(1)];
    // What a node needs once, the first sockets bring; only those after them are counted.
    let mut sockets = open_many(&address, good / 10).await?;
    let before = resident(pid)?;
    sockets.extend(open_many(&address, good - good / 10).await?);
    let each = resident(pid)?.saturating_sub(before) / (good - good / 10) as u64;
    println!("many-sockets: {good} open, {each} bytes of the node's memory for each");
    ensure!(each < SOCKET_BYTES_MAX, "{each} bytes for each socket");

    // They fill the node up to its limit: some read and answer no ping, some do not even read.
    let mut half_open = cut_from(&address, BAD).await?;
    let deaf = cut_from(&address, BAD).await?;
    refused(&address, limit).await?;
    let mut slow = Vec::new();
    for start in [&b"GET /health HTTP/1.1\r\nhost:"[..], b"P", b""]
        .into_iter()
        .cycle()
        .take(BAD)
    {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(start).await?;
        slow.push(stream);
    }

    let mut listeners = JoinSet::new();
    for socket in sockets {
        listeners.spawn(hear(socket));
    }
    for _ in 0..EVENTS {
        count(&bed).await?;
    }
    within("slow headers are not cut off", GONE_MAX, gone(&mut slow)).await?;
    within(
        "half-open sockets are not cut off",
        GONE_MAX,
        gone(&mut half_open),
    )
    .await?;
    // There is room again for as many, so those that read nothing are gone too, and who is good is still there.
    let mut late = Vec::new();
    let room = async {
        while late.len() < 2 * BAD {
            match open(&address).await {
                Ok(socket) => late.push(socket),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        Ok(())
    };
    within("there is no room again", GONE_MAX, room).await?;
    drop(deaf);
    count(&bed).await?;
    for socket in &mut late {
        ensure!(
            event_of(&message(socket).await?)? == EVENTS + 1,
            "a late one heard something else"
        );
    }
    let heard = async {
        while let Some(one) = listeners.join_next().await {
            one??;
        }
        Ok(())
    };
    within("not everybody heard everything", STEP_MAX, heard).await?;
    bed.pass().await;
    Ok(())
}

async fn within<T>(
    what: &str,
    max: Duration,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(max, future)
        .await
        .with_context(|| format!("{what} after {max:?}"))?
}

/// Counts one up, which everybody hears.
async fn count(bed: &Bed) -> anyhow::Result<()> {
    let answer = bed.roaming().call("crowd", Op::Increment(1), STEP_MAX).await;
    ensure!(answer.is_ok(), "{:?}", answer.error);
    Ok(())
}

/// Sockets that have subscribed, without anybody who would answer for them.
async fn cut_from(address: &str, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let sockets = open_many(address, count).await?;
    Ok(sockets.into_iter().map(WebSocketStream::into_inner).collect())
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

async fn open_many(address: &str, count: usize) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let some = AT_A_TIME.min(count - sockets.len());
        let opened = try_join_all((0..some).map(|_| open(address)));
        sockets.extend(within("sockets are not open", STEP_MAX, opened).await?);
    }
    Ok(sockets)
}

async fn upgrade(address: &str) -> anyhow::Result<Socket> {
    let mut request = format!("ws://{address}/{CONNECT}").into_client_request()?;
    let offer = HeaderValue::from_static("rivet,rivet_encoding.json");
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let (socket, _) = client_async(request, TcpStream::connect(address).await?).await?;
    Ok(socket)
}

/// A connection that listens to the counter: frames are done in order, so once its action is answered it has subscribed.
async fn open(address: &str) -> anyhow::Result<Socket> {
    let mut socket = upgrade(address).await?;
    let init = message(&mut socket).await?;
    ensure!(init.contains("Init"), "it begins with {init}");
    for frame in [
        r#"{"body":{"tag":"SubscriptionRequest","val":{"eventName":"newCount","subscribe":true}}}"#,
        r#"{"body":{"tag":"ActionRequest","val":{"id":["$BigInt","0"],"name":"getCount","args":[]}}}"#,
    ] {
        socket.send(Message::text(frame)).await?;
    }
    let answer = message(&mut socket).await?;
    ensure!(answer.contains("ActionResponse"), "it is answered {answer}");
    Ok(socket)
}

/// One more than there may be.
async fn refused(address: &str, limit: usize) -> anyhow::Result<()> {
    let mut socket = upgrade(address).await?;
    match socket.next().await {
        Some(Ok(Message::Close(Some(frame)))) => {
            let wanted = format!("guard.service_unavailable#max-sockets={limit}");
            ensure!(
                frame.reason.as_str() == wanted,
                "the reason is {:?}",
                frame.reason
            );
            Ok(())
        }
        other => bail!("one more than {limit} is told {other:?}"),
    }
}

/// The next text. Pings are answered on the way.
async fn message(socket: &mut Socket) -> anyhow::Result<String> {
    loop {
        match socket.next().await.context("a connection has ended")?? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(frame) => bail!("a connection was closed: {frame:?}"),
            _ => {}
        }
    }
}

fn event_of(frame: &str) -> anyhow::Result<u64> {
    let frame: serde_json::Value = serde_json::from_str(frame)?;
    let val = &frame["body"]["val"];
    ensure!(val["name"] == "newCount", "no event: {frame}");
    val["args"][0].as_u64().context("a count")
}

/// Hears all counts from one on, each once and none left out.
async fn hear(mut socket: Socket) -> anyhow::Result<()> {
    for wanted in 1..=EVENTS + 1 {
        let frame = message(&mut socket)
            .await
            .with_context(|| format!("instead of event {wanted}"))?;
        let number = event_of(&frame)?;
        ensure!(number == wanted, "event {number} came instead of {wanted}");
    }
    Ok(())
}

/// Waits until the node has ended all of these.
async fn gone(streams: &mut [TcpStream]) -> anyhow::Result<()> {
    try_join_all(streams.iter_mut().map(|stream| async {
        let mut buffer = vec![0; 64 << 10];
        // A reset is an end as well.
        while let Ok(1..) = stream.read(&mut buffer).await {}
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}
