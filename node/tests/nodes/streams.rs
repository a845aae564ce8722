//! Bodies of raw HTTP that are streamed, from the client through a gateway to the actor and back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{PATIENCE, TestCluster, eventually, gate, ran, runs};
use axum::Router;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use clinch::http::{Request, Response};
use clinch::prelude::*;
use clinch::{Body, serve_request};
use clinch_types::{Key, Target, limits};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PIECE: usize = 64 << 10;

#[derive(Default, Serialize, Deserialize)]
struct Pipe {
    bytes: u64,
}

#[clinch::actor(name = "pipe", action_timeout = "20s", request_body_max = "20MiB")]
impl Pipe {
    #[hook]
    async fn on_request(&mut self, c: &Ctx<Self>, request: Request<Body>) -> Result<Response<Body>> {
        let (parts, mut body) = request.into_parts();
        let key = c.key().to_string();
        match parts.uri.path() {
            "/upload" => {
                while let Some(piece) = body.next().await {
                    self.bytes += piece?.len() as u64;
                }
                Ok(Response::new(self.bytes.to_string().into()))
            }
            // Reads nothing before its gate opens.
            "/later" => {
                gate(&key)
                    .acquire()
                    .await
                    .expect("gates are never closed")
                    .forget();
                let all = body.whole(limits::HTTP_BODY_MAX).await?;
                Ok(Response::new(all.len().to_string().into()))
            }
            // One event each time its gate lets it, with what the state says then; the end after the event `3`.
            "/events" => {
                let (events, body) = Body::channel();
                c.spawn(move |c| async move {
                    let gate = gate(&key);
                    for number in 0..4 {
                        tokio::select! {
                            () = events.closed() => return ran(&format!("{key} closed")),
                            permit = gate.acquire() => permit.expect("gates are never closed").forget(),
                        }
                        let Ok(bytes) = c.read(|pipe| pipe.bytes).await else {
                            return;
                        };
                        ran(&format!("{key} sends"));
                        if events.send(format!("data: {number} {bytes}\n\n")).await.is_err() {
                            return;
                        }
                    }
                    events.finish().await;
                });
                let response = Response::builder().header("content-type", "text/event-stream");
                response.body(body).map_err(Error::internal)
            }
            // Bytes without end, counted as they are made.
            "/flood" => {
                let pieces = futures_util::stream::repeat_with(move || {
                    ran(&format!("{key} made"));
                    Ok::<_, Infallible>(vec![b'x'; PIECE])
                });
                Ok(Response::new(Body::from_stream(pieces)))
            }
            // More than an answer that is remembered whole.
            "/long" => Ok(Response::new("y".repeat(limits::REPLY_MAX + 1).into())),
            _ => {
                let router = Router::new().route("/service", get(|| async { told(2) }));
                serve_request(router, Request::from_parts(parts, body)).await
            }
        }
    }

    #[action]
    fn add(&mut self, by: u64) -> u64 {
        self.bytes += by;
        self.bytes
    }

    #[action]
    fn get(&self) -> u64 {
        self.bytes
    }
}

fn told(count: u32) -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::iter(
        (0..count).map(|number| Ok(Event::default().data(format!("told {number}")))),
    ))
}

fn registry() -> Registry {
    Registry::new().actor::<Pipe>()
}

/// A cluster of three; the index of the owner of this pipe, and of a node that is not.
async fn three(key: &str) -> (TestCluster, usize, usize) {
    let cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    cluster.node(0).cluster().get::<Pipe>(key).get().await.unwrap();
    let (_, owner) = cluster.owner(0, &target(key)).expect("an owner");
    (cluster, owner, (owner + 1) % 3)
}

fn target(key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: "pipe".into(),
        key: Key::new([key]).expect("a short key"),
        create: None,
    }
}

/// A client that says and hears what is on the wire.
struct Wire {
    socket: TcpStream,
    heard: Vec<u8>,
}

impl Wire {
    async fn ask(gateway: SocketAddr, method: &str, key: &str, path: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(gateway).await.unwrap();
        let head = format!(
            "{method} /gateway/pipe/request/{path}?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=r&rvt-key={key} \
             HTTP/1.1\r\nhost: x\r\n{headers}\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let heard = Vec::new();
        Self { socket, heard }
    }

    async fn of(cluster: &TestCluster, node: usize, key: &str, path: &str) -> Self {
        Self::ask(cluster.node(node).gateways()[0], "GET", key, path, "").await
    }

    /// Hears one more bit; `false` at the end.
    async fn hear(&mut self) -> bool {
        let heard = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.heard)).await;
        // A connection that is reset has ended, too.
        heard.expect("something within the patience").unwrap_or(0) > 0
    }

    /// Hears until this text has come; it and what was before it are forgotten.
    async fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.heard.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let rest = self.heard.split_off(at + text.len());
                let before = std::mem::replace(&mut self.heard, rest);
                return String::from_utf8_lossy(&before).into_owned();
            }
            let heard = String::from_utf8_lossy(&self.heard).into_owned();
            assert!(self.hear().await, "{text:?} did not come, but {heard:?}");
        }
    }

    /// Everything up to the end of the connection.
    async fn rest(mut self) -> String {
        while self.hear().await {}
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    async fn say(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_reach_the_client_as_they_are_written_through_any_gateway() {
    let (cluster, owner, other) = three("sse").await;
    for node in [owner, other] {
        let mut wire = Wire::of(&cluster, node, "sse", "events").await;
        let head = wire.until("\r\n\r\n").await;
        assert!(
            head.contains("200 OK") && head.contains("text/event-stream"),
            "{head}"
        );
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        for number in 0..3 {
            gate("sse").add_permits(1);
            wire.until(&format!("data: {number} ")).await;
        }
        gate("sse").add_permits(1);
        let last = wire.until("0\r\n\r\n").await;
        assert!(last.contains("data: 3 "), "{last}");

        let mut wire = Wire::of(&cluster, node, "sse", "service").await;
        let all = wire.until("\r\n0\r\n\r\n").await;
        assert!(
            all.contains("data: told 0\n\n") && all.contains("data: told 1\n\n"),
            "{all}"
        );

        let mut wire = Wire::of(&cluster, node, "sse", "long").await;
        let head = wire.until("\r\n\r\n").await;
        let length = format!("content-length: {}", limits::REPLY_MAX + 1);
        assert!(head.contains(&length), "{head}");
        while wire.heard.len() <= limits::REPLY_MAX {
            assert!(wire.hear().await, "{} bytes", wire.heard.len());
        }
        assert!(wire.heard.iter().all(|byte| *byte == b'y'));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_upload_is_streamed_and_one_over_the_limit_is_refused_with_value_and_limit() {
    let (cluster, owner, other) = three("up").await;
    let piece = vec![7; PIECE];
    let mut total = 0;
    for node in [owner, other] {
        let gateway = cluster.node(node).gateways()[0];
        let len = 15 << 20;
        let mut wire = Wire::ask(
            gateway,
            "PUT",
            "up",
            "upload",
            &format!("content-length: {len}\r\n"),
        )
        .await;
        for _ in 0..len / PIECE {
            assert!(wire.say(&piece).await);
        }
        total += len;
        wire.until("200 OK").await;
        wire.until(&format!("\r\n\r\n{total}")).await;

        // Said beforehand: not a byte of it is wanted.
        let len = limits::HTTP_BODY_MAX + 1;
        let headers = format!("content-length: {len}\r\nexpect: 100-continue\r\n");
        let mut wire = Wire::ask(gateway, "PUT", "up", "upload", &headers).await;
        let answer = wire.until("guard").await;
        assert!(answer.contains("413 Payload Too Large"), "{answer}");
        let answer = wire.until("}").await;
        assert!(answer.contains("request_body_too_large"), "{answer}");
        assert!(
            answer.contains("20971521") && answer.contains("at most 20971520"),
            "{answer}"
        );

        // Found out on the way: it is not read to its end.
        let headers = "transfer-encoding: chunked\r\nconnection: close\r\n";
        let mut wire = Wire::ask(gateway, "PUT", "up", "upload", headers).await;
        let chunk = [
            format!("{PIECE:x}\r\n").into_bytes(),
            piece.clone(),
            b"\r\n".to_vec(),
        ]
        .concat();
        let mut said = 0;
        while said < 64 << 20 && wire.say(&chunk).await {
            said += PIECE;
        }
        assert!(said > limits::HTTP_BODY_MAX - PIECE, "refused after {said} bytes");
        assert!(said < 48 << 20, "{said} bytes of a body without end were taken");
    }
    // What was refused left nothing.
    let pipe = cluster.node(0).cluster().get::<Pipe>("up");
    assert_eq!(pipe.get().await.unwrap(), total as u64);
}

/// Waits until the count stands still, and returns it.
async fn standstill(what: &str) -> u64 {
    let mut last = 0;
    eventually("the count stands still", || {
        let before = std::mem::replace(&mut last, runs(what));
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            before > 0 && runs(what) == before
        }
    })
    .await;
    runs(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_its_writer_back_in_both_directions() {
    let (cluster, owner, other) = three("slow").await;
    for node in [owner, other] {
        let mut wire = Wire::of(&cluster, node, "slow", "flood").await;
        wire.until("\r\n\r\n").await;
        let made = standstill("slow made").await;
        // Nearly all of it is in the buffers of the two sockets.
        assert!(
            made * (PIECE as u64) < 24 << 20,
            "{made} pieces were made for a client that reads none"
        );
        let mut read = 0;
        while runs("slow made") < made + 100 {
            wire.heard.clear();
            assert!(wire.hear().await);
            read += wire.heard.len();
        }
        assert!(read > 0);
        drop(wire);
        // Its reader is gone: nothing more is made.
        standstill("slow made").await;

        let gateway = cluster.node(node).gateways()[0];
        let len = limits::HTTP_BODY_MAX;
        let headers = format!("content-length: {len}\r\n");
        let mut wire = Wire::ask(gateway, "PUT", "slow", "later", &headers).await;
        let piece = vec![7; PIECE];
        let mut said = 0;
        while let Ok(went) = tokio::time::timeout(Duration::from_millis(500), wire.socket.write(&piece)).await
        {
            said += went.unwrap();
        }
        assert!(
            said < 14 << 20,
            "{said} bytes were taken for an actor that reads none"
        );
        gate("slow").add_permits(1);
        while said < len {
            let next = piece.len().min(len - said);
            assert!(wire.say(&piece[..next]).await);
            said += next;
        }
        wire.until(&format!("\r\n\r\n{len}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_what_its_actor_does_for_it() {
    let (cluster, owner, other) = three("gone").await;
    for (round, node) in [owner, other].into_iter().enumerate() {
        let mut wire = Wire::of(&cluster, node, "gone", "events").await;
        gate("gone").add_permits(1);
        wire.until("data: 0").await;
        drop(wire);
        eventually("the actor hears of it", || async {
            runs("gone closed") == round as u64 + 1
        })
        .await;

        // Half an upload is no upload: its turn leaves nothing.
        let gateway = cluster.node(node).gateways()[0];
        let mut wire = Wire::ask(gateway, "PUT", "gone", "upload", "content-length: 2000000\r\n").await;
        assert!(wire.say(&vec![7; 1_000_000]).await);
        drop(wire);
        let pipe = cluster.node(0).cluster().get::<Pipe>("gone");
        assert_eq!(pipe.get().await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_owner_stops_is_cut_short_and_never_looks_whole() {
    let (mut cluster, owner, other) = three("cut").await;
    let mut wire = Wire::of(&cluster, other, "cut", "events").await;
    gate("cut").add_permits(1);
    wire.until("data: 0").await;
    cluster.stop_node(owner).await;
    let rest = wire.rest().await;
    assert!(
        !rest.contains("0\r\n\r\n"),
        "a body that was cut short looks whole: {rest:?}"
    );
    // The next one comes from the new owner.
    let mut wire = Wire::of(&cluster, other, "cut", "service").await;
    wire.until("data: told 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_piece_of_a_body_leaves_before_what_it_rests_on_is_committed() {
    let (mut cluster, owner, other) = three("early").await;
    let mut wire = Wire::of(&cluster, owner, "early", "events").await;
    gate("early").add_permits(1);
    wire.until("data: 0 0").await;
    // Without the others nothing can be committed any more.
    for node in [other, 3 - owner - other] {
        cluster.stop_node(node).await;
    }
    let pipe = cluster.node(owner).cluster().get::<Pipe>("early");
    let add = tokio::spawn(async move { pipe.add(5).timeout(Duration::from_secs(5)).await });
    let sent = runs("early sends");
    gate("early").add_permits(1);
    eventually("the actor writes on", || async { runs("early sends") > sent }).await;
    let rest = wire.rest().await;
    assert!(
        !rest.contains("data: 1 5"),
        "it tells of a turn that is not committed: {rest:?}"
    );
    assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    assert!(add.await.unwrap().is_err());
}
