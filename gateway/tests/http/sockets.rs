//! Connections: both versions of HTTP, limits, slow clients, and the end.

use std::time::Duration;

use bytes::Bytes;
use clinch_gateway::GatewayConfig;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, Server, request, within};
use crate::support::memory::Memory;

/// Reads until the other side closes; a reset is a close as well.
async fn closed(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    within(async { while let Ok(1..) = stream.read(&mut buffer).await {} }).await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let mut stream = server.connect().await;
    for count in 1..=3 {
        let line = format!("POST /gateway/{id}/action/increment");
        stream
            .write_all(&request(&line, &[], b"{\"args\":[1]}"))
            .await
            .unwrap();
        let answer = within(Answer::read(&mut stream)).await;
        assert_eq!(answer.json(), json!({"output": count}));
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_works_on_the_same_port() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let uri = format!("http://{}/gateway/{id}/action/increment", server.address);
    for count in 1..=2 {
        let body = Full::new(Bytes::from_static(b"{\"args\":[1]}"));
        let request = hyper::Request::post(&uri).body(body).unwrap();
        let answer = within(client.request(request)).await.unwrap();
        assert_eq!(answer.version(), hyper::Version::HTTP_2);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("{{\"output\":{count}}}"));
    }
    drop(client);
    server.stopped().await;
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_so_and_a_freed_place_is_used_again() {
    let config = GatewayConfig {
        max_connections: 1,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let mut first = server.connect().await;
    first.write_all(&request("GET /health", &[], b"")).await.unwrap();
    assert_eq!(within(Answer::read(&mut first)).await.status, 200);
    let mut second = server.connect().await;
    let refused = within(Answer::read(&mut second)).await;
    refused.is_error(503, "guard/overloaded");
    closed(&mut second).await;
    drop(first);
    within(async {
        loop {
            let mut stream = server.connect().await;
            if stream.write_all(&request("GET /health", &[], b"")).await.is_err() {
                continue;
            }
            if Answer::read(&mut stream).await.status == 200 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_headers_is_cut_off() {
    let config = GatewayConfig {
        header_read_timeout_ms: 100,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    // Nothing, half a version, half an HTTP/2 preface, half the headers, and idle after an answer.
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET /health HTTP/1.1\r\nhost:"] {
        let mut stream = server.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        closed(&mut stream).await;
    }
    let mut idle = server.connect().await;
    idle.write_all(&request("GET /health", &[], b"")).await.unwrap();
    assert_eq!(within(Answer::read(&mut idle)).await.status, 200);
    closed(&mut idle).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let config = GatewayConfig {
        body_read_timeout_ms: 100,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::recording(), config).await;
    let id = server.actor("counter", "k").await;
    let head =
        format!("POST /gateway/{id}/action/increment HTTP/1.1\r\nhost: g\r\ncontent-length: 12\r\n\r\n{{");
    server
        .raw(head.as_bytes())
        .await
        .is_error(408, "message/incoming_timed_out");
}

#[tokio::test]
async fn large_bodies_are_held_up_to_their_number_and_one_more_is_told_the_limit() {
    let config = GatewayConfig {
        max_large_bodies: 1,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::recording(), config).await;
    let body = |key: &str, len: usize| {
        let wish = json!({"name": "counter", "key": key});
        format!("{wish}{}", " ".repeat(len))
    };
    let large = body("held", 100_000);
    let whole = request("PUT /actors", &[], large.as_bytes());
    // All but its end: it has its place as soon as the gateway has read more than 64 KiB of it.
    let (most, end) = whole.split_at(whole.len() - 1);
    let mut held = server.connect().await;
    held.write_all(most).await.unwrap();
    let other = body("other", 100_000);
    let refused = within(async {
        loop {
            let answer = server.send("PUT /actors", &[], other.as_bytes()).await;
            if answer.status != 200 {
                break answer;
            }
        }
    })
    .await;
    refused.is_error(503, "actor/overloaded");
    refused.message_has("memory for large requests is full: 1 ");
    // Small ones need no place.
    let small = body("small", 60_000);
    assert_eq!(
        server.send("PUT /actors", &[], small.as_bytes()).await.status,
        200
    );
    held.write_all(end).await.unwrap();
    assert_eq!(within(Answer::read(&mut held)).await.status, 200);
    assert_eq!(
        server.send("PUT /actors", &[], other.as_bytes()).await.status,
        200
    );
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let config = GatewayConfig {
        max_header_bytes: 8192,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let long = "x".repeat(20_000);
    let answer = server.send("GET /health", &[("x-long", &long)], b"").await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_and_health_is_not() {
    let config = GatewayConfig {
        max_in_flight: 1,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::recording(), config).await;
    let id = server.actor("echo", "k").await;
    server.memory.last_call();
    let mut slow = server.connect().await;
    let line = format!("POST /gateway/{id}/action/slow");
    slow.write_all(&request(&line, &[], b"{\"args\":[60000,1]}"))
        .await
        .unwrap();
    within(async {
        while server.memory.calls.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = server.post(&format!("/gateway/{id}/action/argCount"), "{}").await;
    refused.is_error(503, "actor/overloaded");
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    assert_eq!(server.get("/health").await.status, 200);
    // A client that goes away frees its place.
    drop(slow);
    within(async {
        while server
            .post(&format!("/gateway/{id}/action/argCount"), "{}")
            .await
            .status
            != 200
        {}
    })
    .await;
}

#[tokio::test]
async fn a_call_without_an_answer_ends_as_perhaps_done() {
    let config = GatewayConfig {
        call_timeout_ms: 50,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::recording(), config).await;
    let id = server.actor("echo", "k").await;
    let answer = server
        .post(&format!("/gateway/{id}/action/slow"), "{\"args\":[60000,1]}")
        .await;
    answer.is_error(504, "guard/request_timeout");
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_end_and_takes_no_new_connection() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    server.memory.last_call();
    let mut slow = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(&request("GET /health", &[], b"")).await.unwrap();
    within(Answer::read(&mut idle)).await;
    let line = format!("POST /gateway/{id}/action/slow");
    slow.write_all(&request(&line, &[], b"{\"args\":[300,\"done\"]}"))
        .await
        .unwrap();
    within(async {
        while server.memory.calls.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let address = server.address;
    let (answer, ()) = tokio::join!(within(Answer::read(&mut slow)), server.stopped());
    assert_eq!(answer.json(), json!({"output": "done"}));
    closed(&mut idle).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_cuts_requests_that_do_not_end() {
    let config = GatewayConfig {
        drain_timeout_ms: 50,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::recording(), config).await;
    let id = server.actor("echo", "k").await;
    server.memory.last_call();
    let mut slow = server.connect().await;
    let line = format!("POST /gateway/{id}/action/slow");
    slow.write_all(&request(&line, &[], b"{\"args\":[60000,1]}"))
        .await
        .unwrap();
    within(async {
        while server.memory.calls.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tokio::time::timeout(Duration::from_secs(10), server.stopped())
        .await
        .expect("the drain has an end");
    closed(&mut slow).await;
}
