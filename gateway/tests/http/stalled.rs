//! Clients that stop in the middle, in virtual time: nobody who does not go on keeps a connection.

use std::sync::Arc;
use std::time::Duration;

use clinch_gateway::{GatewayConfig, router, serve_one};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::client_async;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::memory::Memory;

/// What may wait between the two ends of a connection, in bytes.
const BETWEEN: usize = 4 << 10;
/// Longer than any of the gateway's own limits here.
const HOUR: Duration = Duration::from_secs(3600);

/// One connection to a gateway: the client's end, the gateway's task, and what its sockets run on.
fn connection() -> (DuplexStream, JoinHandle<()>, TaskTracker) {
    let (ours, theirs) = tokio::io::duplex(BETWEEN);
    // An hour for headers, so that nothing else ends what a test is about.
    let config = GatewayConfig {
        header_read_timeout_ms: 3_600_000,
        ..GatewayConfig::default()
    };
    let router = router(Arc::new(Memory::default()), config.clone());
    let tracker = TaskTracker::new();
    let run = serve_one_owned(theirs, router, config, tracker.clone());
    (ours, tokio::spawn(run), tracker)
}

async fn serve_one_owned(
    stream: DuplexStream,
    router: axum::Router,
    config: GatewayConfig,
    tracker: TaskTracker,
) {
    serve_one(stream, router, &config, CancellationToken::new(), tracker).await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_no_answer_is_given_up() {
    let (mut client, served, _) = connection();
    let (begun, ask) = (Instant::now(), b"GET /openapi.json HTTP/1.1\r\nhost: g\r\n\r\n");
    client.write_all(ask).await.unwrap();
    timeout(HOUR / 2, served).await.expect("it is given up").unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_all_of_it() {
    let (mut client, served, _) = connection();
    client
        .write_all(b"GET /openapi.json HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        match client.read(&mut piece).await.unwrap() {
            0 => break,
            len => answer.extend_from_slice(&piece[..len]),
        }
    }
    served.await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    assert!(
        text.len() > 4 * BETWEEN && text.trim_end().ends_with('}'),
        "{}",
        text.len()
    );
}

/// A socket whose client has heard who it is, and from then on does nothing.
async fn silent(path: &str) -> (DuplexStream, TaskTracker) {
    let (client, _served, tracker) = connection();
    let url = format!("ws://gateway{path}");
    let (mut socket, _) = timeout(HOUR, client_async(url, client)).await.unwrap().unwrap();
    if path.contains("/connect") {
        timeout(HOUR, socket.next()).await.unwrap().unwrap().unwrap();
    }
    (socket.into_inner(), tracker)
}

#[tokio::test(start_paused = true)]
async fn a_web_socket_whose_client_answers_no_ping_is_ended() {
    for inner in ["connect", "websocket/x"] {
        let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k";
        let (mut client, tracker) = silent(&format!("/gateway/counter/{inner}?{query}")).await;
        let begun = Instant::now();
        // It reads, so that no write waits, and says nothing.
        let mut heard = Vec::new();
        let _reset_is_an_end = timeout(HOUR / 2, client.read_to_end(&mut heard))
            .await
            .expect("it is ended");
        let took = begun.elapsed();
        assert!((15..=25).contains(&took.as_secs()), "{inner}: {took:?}");
        assert!(
            heard.windows(2).any(|pair| pair == [0x89, 0]),
            "{inner}: it was pinged: {heard:?}"
        );
        tracker.close();
        timeout(HOUR, tracker.wait())
            .await
            .expect("nothing of it is left");
    }
}
