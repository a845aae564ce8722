//! Clients that mean no good: requests that two servers read differently, headers without end, sockets that do not read,
//! too many of everything. What is refused is refused with the limit's name, and the gateway serves on.

use std::time::Duration;

use clinch_gateway::GatewayConfig;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Answer, Server, request, within};
use crate::support::memory::Memory;

/// Everything the gateway says to these bytes until it closes, or falls silent for a moment.
async fn heard(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let silence = Duration::from_millis(300);
    while let Ok(Ok(1..)) = tokio::time::timeout(silence, stream.read_buf(&mut answer)).await {}
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_whose_length_can_be_read_in_two_ways_never_becomes_two() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let path = format!("/gateway/{id}/action/increment");
    let inner = format!("POST {path} HTTP/1.1\r\nhost: g\r\ncontent-length: 12\r\n\r\n{{\"args\":[1]}}");
    let both =
        |headers: &str, body: &str| format!("POST {path} HTTP/1.1\r\nhost: g\r\n{headers}\r\n\r\n{body}");
    let attempts = [
        both(
            "content-length: 5\r\ntransfer-encoding: chunked",
            &format!("0\r\n\r\n{inner}"),
        ),
        both(
            "transfer-encoding: chunked\r\ncontent-length: 5",
            &format!("0\r\n\r\n{inner}"),
        ),
        both("content-length: 0\r\ncontent-length: 200", &inner),
        both("content-length: +0", &inner),
        both("content-length: 0x0", &inner),
        both("content-length: 99999999999999999999999", &inner),
        both(
            "transfer-encoding: chunked, identity",
            &format!("0\r\n\r\n{inner}"),
        ),
        both("transfer-encoding: xchunked", &format!("0\r\n\r\n{inner}")),
        both("transfer-encoding : chunked", &format!("0\r\n\r\n{inner}")),
        both("x: y\r\n content-length: 0", &inner),
        both("transfer-encoding: chunked", &format!("-1\r\n\r\n{inner}")),
        both(
            "transfer-encoding: chunked",
            &format!("fffffffffffffffff\r\n{inner}"),
        ),
        both("transfer-encoding: chunked", &format!("5;a=\n\r\n{inner}")),
    ];
    for attempt in &attempts {
        let answer = heard(&server, attempt.as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        let first = answer.lines().next().unwrap_or_default().to_owned();
        assert!(answers <= 1, "{attempt}\nwas answered {answers} times:\n{answer}");
        assert!(first.is_empty() || first.contains(" 4"), "{attempt}\n{answer}");
    }
    let count = server
        .post(&format!("/gateway/{id}/action/getCount"), "{\"args\":[]}")
        .await;
    assert_eq!(count.json()["output"], 0, "nothing was smuggled in");
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_harms_nobody() {
    let server = Server::start().await;
    let long_line = format!("GET /{} HTTP/1.1\r\nhost: g\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nhost: g\r\n{}\r\n", "a: b\r\n".repeat(500));
    let garbage: Vec<u8> = (0..4096u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut flood = preface.to_vec();
    flood.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // A thousand empty SETTINGS, then HEADERS that begin and never end.
    flood.extend([0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(1000));
    flood.extend([0, 0, 0, 1, 0, 0, 0, 0, 1]);
    flood.extend([0, 0, 0, 9, 0, 0, 0, 0, 1].repeat(10_000));
    let attempts: [&[u8]; 8] = [
        long_line.as_bytes(),
        many.as_bytes(),
        &garbage,
        b"\0\0\0\0\0\0\0\0",
        b"GET http://[::1 HTTP/1.1\r\nhost: g\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x80\xff HTTP/1.1\r\nhost: \x01\r\n\r\n",
        &flood,
    ];
    for attempt in attempts {
        let mut stream = server.connect().await;
        let _maybe_closed_already = stream.write_all(attempt).await;
        let mut answer = Vec::new();
        let silence = Duration::from_millis(200);
        while let Ok(Ok(1..)) = tokio::time::timeout(silence, stream.read_buf(&mut answer)).await {}
        let text = String::from_utf8_lossy(&answer);
        assert!(
            !text.contains("HTTP/1.1 2") && !text.contains("HTTP/1.1 5"),
            "{text}"
        );
    }
    assert_eq!(server.get("/health").await.status, 200);
    server.stopped().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_is_told_the_limit() {
    let config = GatewayConfig {
        max_connections_per_address: 2,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(&request("GET /health", &[], b"")).await.unwrap();
        assert_eq!(within(Answer::read(&mut stream)).await.status, 200);
        held.push(stream);
    }
    let mut third = server.connect().await;
    let refused = within(Answer::read(&mut third)).await;
    refused.is_error(503, "guard/overloaded");
    refused.message_has("max-connections-per-address");
}

#[tokio::test]
async fn more_requests_than_the_rate_are_429_with_the_limit_and_the_time() {
    let config = GatewayConfig {
        max_requests_per_second_per_connection: 3,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let mut stream = server.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        stream
            .write_all(&request("GET /health", &[("origin", "http://page")], b""))
            .await
            .unwrap();
        let answer = within(Answer::read(&mut stream)).await;
        if answer.status == 429 {
            answer.is_error(429, "guard/rate_limit");
            answer.message_has("3 requests a second (max-requests-per-second-per-connection)");
            assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
            assert_eq!(
                answer.header("access-control-allow-origin").as_deref(),
                Some("http://page")
            );
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..3], [200; 3]);
    assert!(statuses[3..].contains(&429), "{statuses:?}");
    assert_eq!(
        server.get("/health").await.status,
        200,
        "another connection has its own rate"
    );
}

async fn socket(server: &Server, name: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let id = server.actor(name, "k").await;
    let url = format!("ws://{}/gateway/{id}/connect", server.address);
    let (mut socket, _) = within(client_async(url, server.connect().await))
        .await
        .expect("an upgrade");
    let _init = within(socket.next()).await.unwrap().unwrap();
    socket
}

#[tokio::test]
async fn frames_beyond_the_rate_wait_and_none_is_lost() {
    let config = GatewayConfig {
        max_requests_per_second_per_connection: 10,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let mut socket = socket(&server, "counter").await;
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
}

#[tokio::test]
async fn frames_that_break_the_protocol_of_web_sockets_end_theirs_alone() {
    let server = Server::start().await;
    let mut good = socket(&server, "counter").await;
    // Not masked; reserved bits; an unknown opcode; a control frame in pieces, one that is too long; a continuation of
    // nothing; a length of 2^63; a text that is no UTF-8.
    let attacks: [&[u8]; 8] = [
        &[0x81, 0x01, b'x'],
        &[0xf1, 0x80, 0, 0, 0, 0],
        &[0x83, 0x80, 0, 0, 0, 0],
        &[0x09, 0x80, 0, 0, 0, 0],
        &[0x89, 0xfe, 0x01, 0x00, 0, 0, 0, 0],
        &[0x80, 0x80, 0, 0, 0, 0],
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28],
    ];
    for attack in attacks {
        let mut stream = socket(&server, "counter").await.into_inner();
        stream.write_all(attack).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _reset_is_an_end = within(stream.read_to_end(&mut rest)).await;
    }
    let ping =
        r#"{"body":{"tag":"ActionRequest","val":{"id":["$BigInt","1"],"name":"increment","args":[1]}}}"#;
    good.send(Message::text(ping)).await.unwrap();
    let answer = within(good.next()).await.unwrap().unwrap();
    assert!(answer.to_text().unwrap().contains("ActionResponse"), "{answer:?}");
    drop(good);
    server.stopped().await;
}
