//! What one address may ask of one actor: requests a second and requests in flight, over every door.

use std::net::Ipv4Addr;
use std::time::Duration;

use clinch_gateway::GatewayConfig;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Answer, Server, request, within};
use crate::support::memory::{Memory, lock};

const RATE: &str = "max-requests-per-second-per-actor";
const IN_FLIGHT: &str = "max-in-flight-per-actor";

async fn server(rate: u32, in_flight: u32) -> Server {
    let config = GatewayConfig {
        max_requests_per_second_per_actor: rate,
        max_in_flight_per_actor: in_flight,
        ..GatewayConfig::default()
    };
    Server::with(Memory::recording(), config).await
}

/// Sends a request from an address of its own.
async fn from_elsewhere(server: &Server, line: &str, body: &[u8]) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(&request(line, &[], body)).await.unwrap();
    within(Answer::read(&mut stream)).await
}

fn by_key(action: &str) -> String {
    format!(
        "/gateway/echo/action/{action}?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k"
    )
}

/// An action that takes a minute, under way when this returns.
async fn held(server: &Server, path: &str) -> TcpStream {
    let before = lock(&server.memory.calls).len();
    let mut stream = server.connect().await;
    let bytes = request(&format!("POST {path}"), &[], br#"{"args":[60000,1]}"#);
    stream.write_all(&bytes).await.unwrap();
    until(|| lock(&server.memory.calls).len() > before).await;
    stream
}

async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Asks until it is answered: what a client has let go of is given back a moment later.
async fn answered(server: &Server, path: &str) {
    within(async { while server.post(path, r#"{"args":[1]}"#).await.status != 200 {} }).await;
}

#[tokio::test]
async fn an_address_asks_one_actor_so_often_and_is_told_the_limit_and_the_time() {
    let server = server(3, 0).await;
    let (one, two) = (
        server.actor("counter", "one").await,
        server.actor("counter", "two").await,
    );
    let path = format!("/gateway/{one}/action/increment");
    let mut refused = None;
    for n in 0..100 {
        let answer = server.post(&path, r#"{"args":[1]}"#).await;
        if answer.status != 200 {
            assert!(n >= 3, "request {n} is within the rate");
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a hundred requests take less than half a minute");
    refused.is_error(429, "guard/rate_limit");
    refused.message_has(&format!("3 requests a second ({RATE}); there is room again in "));
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    let other = format!("/gateway/{two}/action/increment");
    assert_eq!(server.post(&other, r#"{"args":[1]}"#).await.status, 200);
    let elsewhere = from_elsewhere(&server, &format!("POST {path}"), br#"{"args":[1]}"#).await;
    assert_eq!(elsewhere.status, 200);
    answered(&server, &path).await;
}

#[tokio::test]
async fn every_door_of_an_actor_but_the_inspector_s_has_the_same_rate() {
    let server = server(1, 0).await;
    for (n, line) in [
        "POST action/echo",
        "POST queue/jobs",
        "GET request/x",
        "GET metadata",
    ]
    .into_iter()
    .enumerate()
    {
        let id = server.actor("echo", &n.to_string()).await;
        let (method, inner) = line.split_once(' ').unwrap();
        let line = format!("{method} /gateway/{id}/{inner}");
        // One of two within a second is too many; a machine may be so slow that a second passes.
        let refused = within(async {
            loop {
                let answer = server.send(&line, &[], b"{}").await;
                if answer.status == 429 {
                    break answer;
                }
            }
        })
        .await;
        refused.message_has(RATE);
        let shown = server.get(&format!("/gateway/{id}/inspector/state")).await;
        assert_eq!(shown.status, 200);
    }
}

#[tokio::test]
async fn an_address_has_so_many_requests_in_flight_at_one_actor_and_a_cancelled_one_gives_its_place_back() {
    let server = server(0, 2).await;
    let (one, two) = (
        server.actor("echo", "one").await,
        server.actor("echo", "two").await,
    );
    let slow = format!("/gateway/{one}/action/slow");
    let quick = format!("/gateway/{one}/action/echo");
    let (first, second) = (held(&server, &slow).await, held(&server, &slow).await);
    let refused = server.post(&quick, r#"{"args":[1]}"#).await;
    refused.is_error(429, "guard/rate_limit");
    refused.message_has(&format!(
        "More than 2 requests of this address to this actor in flight ({IN_FLIGHT})"
    ));
    let other = format!("/gateway/{two}/action/echo");
    assert_eq!(server.post(&other, r#"{"args":[1]}"#).await.status, 200);
    let elsewhere = from_elsewhere(&server, &format!("POST {quick}"), br#"{"args":[1]}"#).await;
    assert_eq!(elsewhere.status, 200);
    drop(first);
    answered(&server, &quick).await;
    let third = held(&server, &slow).await;
    assert_eq!(server.post(&quick, r#"{"args":[1]}"#).await.status, 429);
    drop((second, third));
    answered(&server, &quick).await;
}

#[tokio::test]
async fn an_actor_is_one_whether_it_is_asked_for_by_key_or_by_id() {
    let server = server(0, 1).await;
    assert_eq!(server.post(&by_key("echo"), r#"{"args":[1]}"#).await.status, 200);
    let id = server.actor("echo", "k").await;
    let first = held(&server, &format!("/gateway/{id}/action/slow")).await;
    let refused = server.post(&by_key("echo"), r#"{"args":[1]}"#).await;
    refused.message_has(IN_FLIGHT);
    drop(first);
    answered(&server, &by_key("echo")).await;
}

#[tokio::test]
async fn an_answer_that_is_streamed_is_in_flight_to_its_end() {
    let server = server(0, 1).await;
    let id = server.actor("rawHttp", "k").await;
    let path = format!("/gateway/{id}/request/endless");
    let mut stream = server.connect().await;
    stream
        .write_all(&request(&format!("GET {path}"), &[], b""))
        .await
        .unwrap();
    let mut head = [0; 15];
    within(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let other = format!("/gateway/{id}/request/x");
    server.get(&other).await.message_has(IN_FLIGHT);
    drop(stream);
    within(async { while server.get(&other).await.status == 429 {} }).await;
}

#[tokio::test]
async fn a_connection_beyond_the_rate_is_closed_with_the_reason_that_clients_come_back_after() {
    let server = server(1, 0).await;
    let id = server.actor("counter", "k").await;
    for door in ["connect", "websocket/x"] {
        let url = format!("ws://{}/gateway/{id}/{door}", server.address);
        let reason = within(async {
            loop {
                let stream = server.connect().await;
                let (mut socket, _) = client_async(url.as_str(), stream).await.expect("an upgrade");
                // One that is open may say nothing by itself.
                let heard = tokio::time::timeout(Duration::from_millis(300), socket.next()).await;
                if let Ok(Some(Ok(Message::Close(Some(frame))))) = heard {
                    break (u16::from(frame.code), frame.reason.to_string());
                }
            }
        })
        .await;
        assert_eq!(reason, (1011, format!("guard.service_unavailable#{RATE}=1")));
    }
}

#[tokio::test]
async fn frames_of_a_connection_beyond_the_rate_of_its_actor_wait_and_none_is_lost() {
    let server = server(10, 0).await;
    let id = server.actor("counter", "k").await;
    let url = format!("ws://{}/gateway/{id}/connect", server.address);
    let (mut socket, _) = within(client_async(url, server.connect().await))
        .await
        .expect("an upgrade");
    let _init = within(socket.next()).await.unwrap().unwrap();
    let begun = tokio::time::Instant::now();
    for id in 0..20 {
        let frame = format!(
            r#"{{"body":{{"tag":"ActionRequest","val":{{"id":["$BigInt","{id}"],"name":"increment","args":[1]}}}}}}"#
        );
        socket.send(Message::text(frame)).await.unwrap();
    }
    let mut answers = 0;
    while answers < 20 {
        if let Message::Text(text) = within(socket.next()).await.unwrap().unwrap() {
            assert!(text.contains("ActionResponse"), "{text}");
            answers += 1;
        }
    }
    // Ten are there at once, ten come in the second that follows.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    let line = format!("POST /gateway/{id}/action/getCount");
    let count = from_elsewhere(&server, &line, br#"{"args":[]}"#).await;
    assert_eq!(count.json()["output"], 20);
}
