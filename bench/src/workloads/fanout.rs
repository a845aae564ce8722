//! W6: fan-out. One actor with many connections, each a WebSocket of its own through a gateway; callers let the actor tell
//! all of them, one event a call.
//!
//! Every connection checks what it hears: each event once, in order, none left out. The latencies are those of the calls;
//! the deliveries are counted where they arrive.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clinch::Cluster;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::actors::{BenchRoom, BenchRoomHandle, EVENT, ROOM};
use crate::bed::Bed;
use crate::bench::Bench;
use crate::caller::{OPERATION_MAX, Via};
use crate::load::Caller;
use crate::measure::{self, Case};
use crate::report::{Fanout, Shape, Through, durable};
use crate::tally::Failure;
use crate::usage;
use crate::workloads::{IN_FLIGHT, PREPARE_MAX};

/// Few: each call stands for as many deliveries as there are connections.
const CALLERS: [usize; 2] = [1, 8];
/// The room's key.
const KEY: &str = "fan";
/// How long the last events may take to arrive.
const ARRIVED_MAX: Duration = Duration::from_secs(30);
/// The protocol version that clients speak, little-endian, and the tag of a subscription.
const SUBSCRIBE: [u8; 3] = [2, 0, 1];
/// A call of `told` as request 0, without arguments.
const READY: &[u8] = &[2, 0, 0, 0, 4, b't', b'o', b'l', b'd', 1, 0x80];
/// The tag of an event, behind the version.
const EVENT_TAG: u8 = 3;
/// Digits at the end of each event: its number.
const DIGITS: usize = 16;

type Socket = WebSocketStream<TcpStream>;

/// # Errors
/// When a run cannot be made, or a connection misses an event.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let nodes = bench.options.nodes;
    let bed = bench.bed(nodes).await?;
    let room = bed.client().get::<BenchRoom>(KEY);
    room.told().timeout(PREPARE_MAX).await?;
    let (stop, stopped) = watch::channel(None);
    let before = resident(&bed)?;
    let mut listeners = listen(&bed, bench.options.connections, &stopped).await?;
    let grown = resident(&bed)?.saturating_sub(before);
    for callers in bench.options.callers_or(&CALLERS) {
        let case = Case {
            workload: "W6",
            what: "an event to every connection of one actor",
            shape: Shape::Hot,
            actors: Some(1),
            via: Via::Quic,
            through: Through::Owner,
            durable: durable(nodes),
        };
        let one = |_| Shouter {
            room: room_of(bed.client()),
        };
        let shouters = (0..callers).map(one).collect();
        let (mut record, _) =
            measure::run(&bed, &bench.retries, case, shouters, bench.options.plan()).await?;
        let connections = listeners.len() as u64;
        record.fanout = Some(Fanout {
            connections,
            // Each answered call is an event in every connection; that all of them arrive is checked at the end.
            deliveries: record.ops * connections,
            rate: record.rate * connections as f64,
            bytes_each: grown / connections.max(1),
        });
        bench.report(record)?;
    }
    let told = room.told().timeout(PREPARE_MAX).await?;
    stop.send_replace(Some((told, Instant::now() + ARRIVED_MAX)));
    while let Some(one) = listeners.join_next().await {
        one??;
    }
    bed.stop().await;
    Ok(())
}

/// What the nodes hold in memory, in bytes.
fn resident(bed: &Bed) -> anyhow::Result<u64> {
    let nodes = bed.cluster.pids();
    nodes
        .into_values()
        .map(|pid| Ok(usage::resident(pid)?.total))
        .sum()
}

fn room_of(cluster: &Cluster) -> BenchRoomHandle {
    cluster.get::<BenchRoom>(KEY)
}

struct Shouter {
    room: BenchRoomHandle,
}

impl Caller for Shouter {
    async fn call(&mut self) -> Result<i64, Failure> {
        Ok(self.room.shout().timeout(OPERATION_MAX).await?)
    }
}

/// When to stop listening: how many events there are in all, and how long the last may take.
type End = Option<(u64, Instant)>;

/// Opens all connections, spread over the gateways; each is a task that checks what it hears.
async fn listen(
    bed: &Bed,
    connections: u32,
    end: &watch::Receiver<End>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let gateways: Vec<String> = bed.cluster.gateways().into_values().collect();
    let mut opening = JoinSet::new();
    let mut listeners = JoinSet::new();
    for gateway in gateways.iter().cycle().take(connections as usize) {
        if opening.len() >= IN_FLIGHT
            && let Some(opened) = opening.join_next().await
        {
            listeners.spawn(hear(opened??, end.clone()));
        }
        let address = gateway.strip_prefix("http://").unwrap_or(gateway).to_owned();
        opening.spawn(async move {
            let opened = tokio::time::timeout(PREPARE_MAX, open(&address)).await;
            opened.context("opening a connection took too long")?
        });
    }
    while let Some(opened) = opening.join_next().await {
        listeners.spawn(hear(opened??, end.clone()));
    }
    Ok(listeners)
}

/// A connection that has subscribed. Returns when the actor has told it who it is.
async fn open(address: &str) -> anyhow::Result<Socket> {
    let query = "rvt-namespace=default&rvt-method=get&rvt-key=";
    let url = format!("ws://{address}/gateway/{ROOM}/connect?{query}{KEY}");
    let mut request = url.into_client_request()?;
    let offer = HeaderValue::from_static("rivet,rivet_encoding.bare");
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async(request, stream).await?;
    let init = message(&mut socket).await?;
    ensure!(init.get(2) == Some(&0), "the gateway begins with {init:?}");
    let mut subscribe = SUBSCRIBE.to_vec();
    subscribe.push(u8::try_from(EVENT.len())?);
    subscribe.extend_from_slice(EVENT.as_bytes());
    subscribe.push(1);
    socket.send(Message::binary(subscribe)).await?;
    // Frames of one connection are done in order: once this action is answered, it is subscribed.
    socket.send(Message::binary(READY)).await?;
    let answer = message(&mut socket).await?;
    ensure!(answer.get(2) == Some(&2), "the gateway answers {answer:?}");
    Ok(socket)
}

/// The next frame that says something. Pings are answered on the way.
async fn message(socket: &mut Socket) -> anyhow::Result<bytes::Bytes> {
    loop {
        match socket.next().await.context("a connection has ended")?? {
            Message::Binary(bytes) => return Ok(bytes),
            Message::Close(frame) => bail!("a connection was closed: {frame:?}"),
            _ => {}
        }
    }
}

/// Hears every event once and in order, until all have come.
async fn hear(mut socket: Socket, mut end: watch::Receiver<End>) -> anyhow::Result<()> {
    let mut heard = 0;
    loop {
        let known = *end.borrow_and_update();
        if known.is_some_and(|(all, _)| heard >= all) {
            socket.close(None).await?;
            return Ok(());
        }
        let frame = match known {
            None => tokio::select! {
                frame = message(&mut socket) => frame?,
                changed = end.changed() => {
                    changed.context("the run was given up")?;
                    continue;
                }
            },
            Some((all, until)) => tokio::time::timeout_at(until, message(&mut socket))
                .await
                .with_context(|| format!("a connection has heard {heard} of {all} events"))??,
        };
        let number = number_of(&frame)?;
        ensure!(number == heard + 1, "event {number} came behind event {heard}");
        heard = number;
    }
}

/// The number of an event, from its last digits.
fn number_of(frame: &[u8]) -> anyhow::Result<u64> {
    let digits = frame
        .last_chunk::<DIGITS>()
        .filter(|_| frame.get(2) == Some(&EVENT_TAG));
    let digits = digits.with_context(|| format!("a frame that is no event: {frame:?}"))?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_event_is_read_from_its_end_and_nothing_else_is_taken_for_one() {
        let mut frame = vec![4, 0, EVENT_TAG, 7];
        frame.extend_from_slice(b"shouted xx0000000000000042");
        assert_eq!(number_of(&frame).unwrap(), 42);
        frame[2] = 2;
        assert!(number_of(&frame).is_err());
        assert!(number_of(&[2, 0, EVENT_TAG]).is_err());
    }
}
