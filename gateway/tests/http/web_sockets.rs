//! WebSockets: upgrades that are always completed, frames in order, limits, and the end.

use clinch_gateway::GatewayConfig;
use clinch_types::{CallOp, ConnItem};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::{Server, within};
use crate::support::memory::{Memory, REQUEST_MAX, lock};

type Socket = WebSocketStream<TcpStream>;

async fn open(server: &Server, path: &str, protocols: &str) -> Socket {
    let mut request = format!("ws://{}{path}", server.address)
        .into_client_request()
        .unwrap();
    if !protocols.is_empty() {
        let headers = request.headers_mut();
        headers.insert(
            "sec-websocket-protocol",
            HeaderValue::from_str(protocols).unwrap(),
        );
    }
    let stream = server.connect().await;
    let (socket, response) = within(client_async(request, stream)).await.expect("the upgrade");
    let answered = response.headers().get("sec-websocket-protocol");
    let offered = protocols.split(',').any(|token| token == "rivet");
    assert_eq!(answered.map(|v| v.as_bytes()), offered.then_some(&b"rivet"[..]));
    socket
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        match within(socket.next()).await {
            Some(Ok(Message::Ping(_))) => {}
            Some(Ok(message)) => return message,
            other => panic!("{other:?}"),
        }
    }
}

async fn frame(socket: &mut Socket) -> Value {
    let message = next(socket).await;
    let mut frame: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
    frame["body"].take()
}

/// Code and reason of the close, whatever comes before.
async fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        match next(socket).await {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => return (1005, String::new()),
            _ => {}
        }
    }
}

fn action(id: u64, name: &str, args: &Value) -> Message {
    let value = json!({"id": ["$BigInt", id.to_string()], "name": name, "args": args});
    Message::text(json!({"body": {"tag": "ActionRequest", "val": value}}).to_string())
}

fn event(name: &str) -> ConnItem {
    ConnItem::Event {
        name: name.into(),
        args: vec![0x81, 5],
    }
}

#[tokio::test]
async fn a_connection_is_told_who_it_is_and_answers_wait_for_the_events_before_them() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    {
        let mut told = lock(&server.memory.told);
        told.items = vec![(3, event("a")), (4, event("b"))];
        told.after = 4;
    }
    let mut socket = open(
        &server,
        &format!("/gateway/{id}/connect"),
        "rivet,rivet_encoding.json",
    )
    .await;
    let init = frame(&mut socket).await;
    assert_eq!(
        (&init["tag"], &init["val"]["actorId"]),
        (&json!("Init"), &json!(id))
    );
    socket.send(action(0, "increment", &json!([2]))).await.unwrap();
    let mut tags = Vec::new();
    for _ in 0..3 {
        let frame = frame(&mut socket).await;
        tags.push(match frame["val"]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => frame["val"]["output"].to_string(),
        });
    }
    assert_eq!(tags, ["a", "b", "2"]);
    socket.send(action(1, "nope", &json!([]))).await.unwrap();
    let error = frame(&mut socket).await;
    assert_eq!(error["val"]["code"], "action_not_found");
    assert_eq!(error["val"]["actionId"], json!(["$BigInt", "1"]));
    socket.close(None).await.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn the_owner_hears_of_the_end_of_a_connection() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let mut socket = open(&server, &format!("/gateway/{id}/connect"), "rivet").await;
    frame(&mut socket).await;
    drop(socket);
    let told = async {
        let has_left = |server: &Server| {
            let calls = lock(&server.memory.calls);
            calls
                .iter()
                .any(|call| matches!(call.op, CallOp::Disconnect { .. }))
        };
        while !has_left(&server) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(told).await;
    server.stopped().await;
}

#[tokio::test]
async fn an_upgrade_is_completed_whatever_is_wrong_and_the_close_says_what() {
    let server = Server::with(Memory::default(), GatewayConfig::default()).await;
    let unknown = "000703ff0123456789abcdef00112233";
    let get = "rvt-namespace=default&rvt-method=get&rvt-key=k";
    for (path, protocols, code, reason) in [
        (
            format!("/gateway/{unknown}/connect"),
            "rivet",
            1011,
            "actor.not_found",
        ),
        ("/gateway/nobody/connect".into(), "rivet", 1011, "actor.not_found"),
        (
            format!("/gateway/counter/connect?{get}"),
            "",
            1011,
            "actor.not_found",
        ),
        (
            format!("/gateway/counter/connect?{get}&rvt-x=1"),
            "rivet",
            1011,
            "guard.query_invalid_params",
        ),
        (
            "/websocket/x".into(),
            "rivet,rivet_target.actor",
            1011,
            "guard.missing_header",
        ),
        ("/nowhere".into(), "rivet", 1011, "guard.no_route"),
        (
            format!("/gateway/{unknown}/elsewhere"),
            "rivet",
            1011,
            "actor.not_found",
        ),
        (
            format!("/gateway/{unknown}/connect"),
            "rivet,rivet_encoding.xml",
            1003,
            "actor.unsupported_websocket_encoding",
        ),
        (
            format!("/gateway/{unknown}/connect"),
            "rivet,rivet_conn_params.%7B",
            1011,
            "params.invalid",
        ),
    ] {
        let mut socket = open(&server, &path, protocols).await;
        assert_eq!(
            closed(&mut socket).await,
            (code, reason.to_owned()),
            "{path} {protocols}"
        );
    }
    let id = server.actor("counter", "k").await;
    let mut socket = open(&server, &format!("/gateway/{id}/websocket/no-entry"), "rivet").await;
    assert_eq!(closed(&mut socket).await, (1011, "user.forbidden".into()));
}

#[tokio::test]
async fn a_rejection_is_a_frame_and_a_close_and_comes_after_a_pause() {
    let server = Server::start().await;
    let begun = tokio::time::Instant::now();
    let query = "rvt-namespace=default&rvt-method=get&rvt-key=k";
    let mut socket = open(&server, &format!("/gateway/counter/connect?{query}"), "rivet").await;
    let error = frame(&mut socket).await;
    assert_eq!(
        (&error["tag"], &error["val"]["actionId"]),
        (&json!("Error"), &Value::Null)
    );
    assert_eq!(closed(&mut socket).await, (1011, "actor.not_found".into()));
    assert!(
        begun.elapsed().as_millis() >= 1000,
        "clients would start over at once"
    );
}

#[tokio::test]
async fn frames_that_are_too_long_or_cannot_be_read_end_the_connection_with_a_reason() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let path = format!("/gateway/{id}/connect");
    let just_over = "x".repeat(64 << 10);
    let far_over = "x".repeat(1 << 20);
    for (message, reason) in [
        (Message::text(just_over + "x"), "message.incoming_too_long"),
        (Message::text(far_over), "message.incoming_too_long"),
        (Message::text("{not json"), "actor.invalid_request"),
        (
            Message::text("{\"body\":{\"tag\":\"Nope\",\"val\":{}}}"),
            "actor.invalid_request",
        ),
        (action(0, &"n".repeat(1000), &json!([])), ""),
    ] {
        let mut socket = open(&server, &path, "rivet").await;
        frame(&mut socket).await;
        // A server that refuses early may close while this is still being sent.
        let _sent = socket.send(message).await;
        if reason.is_empty() {
            assert_eq!(frame(&mut socket).await["val"]["code"], "invalid_request");
            continue;
        }
        assert_eq!(closed(&mut socket).await, (1011, reason.to_owned()));
    }
}

#[tokio::test]
async fn raw_messages_pass_as_they_are() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    for message in [Message::text("héllo"), Message::binary(vec![0, 255])] {
        let mut socket = open(&server, &format!("/gateway/{id}/websocket/a/b?c=%2F"), "").await;
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, message);
    }
    let paths: Vec<String> = lock(&server.memory.calls)
        .iter()
        .filter_map(|call| match &call.op {
            CallOp::Connect { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(paths, ["/websocket/a/b?c=%2F"; 2]);
}

#[tokio::test]
async fn a_socket_is_pinged_as_often_as_the_settings_say_and_lost_after_their_silence() {
    let config = GatewayConfig {
        socket_ping_ms: 100,
        socket_silence_ms: 350,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let id = server.actor("counter", "k").await;
    for kind in ["connect", "websocket/x"] {
        let mut client = server.connect().await;
        let head = format!(
            "GET /gateway/{id}/{kind} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let begun = tokio::time::Instant::now();
        // A client that says nothing, not even that it is there.
        let mut heard = Vec::new();
        within(client.read_to_end(&mut heard)).await.unwrap();
        let took = begun.elapsed();
        assert!(
            took >= std::time::Duration::from_millis(350),
            "{kind}: lost after {took:?}"
        );
        let pings = heard.windows(2).filter(|frame| frame == &[0x89, 0]).count();
        assert!((3..=4).contains(&pings), "{kind}: {pings} pings");
    }
}

#[tokio::test]
async fn sockets_over_their_limit_are_told_to_come_back_and_a_stop_closes_the_others() {
    let config = GatewayConfig {
        max_sockets: 1,
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let id = server.actor("counter", "k").await;
    let path = format!("/gateway/{id}/connect");
    let mut first = open(&server, &path, "rivet").await;
    frame(&mut first).await;
    let mut second = open(&server, &path, "rivet").await;
    assert_eq!(
        closed(&mut second).await,
        (1011, "guard.service_unavailable#max-sockets=1".into())
    );
    server.stop.cancel();
    // Without a dot: clients connect again, and their applications hear of no error.
    assert_eq!(closed(&mut first).await, (1001, "draining".into()));
    server.stopped().await;
}

#[tokio::test]
async fn what_is_no_proper_upgrade_is_refused_as_a_request() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let request = b"GET /gateway/x/connect HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn queue_messages_are_sent_in_every_encoding_and_waiting_ends() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let queue = |name: &str| format!("/gateway/{id}/queue/{name}");
    let answer = server.post(&queue("jobs"), r#"{"body":{"n":1}}"#).await;
    assert_eq!(answer.json(), json!({"status": "completed"}));
    let call = server.memory.last_call();
    let sent = CallOp::Push {
        queue: "jobs".into(),
        body: vec![0xa1, 0x61, b'n', 1],
        wait: false,
    };
    assert_eq!(call.op, sent);
    let answer = server.post(&queue("done"), r#"{"body":7,"wait":true}"#).await;
    assert_eq!(answer.json(), json!({"status": "completed", "response": 7}));
    let answer = server
        .post(&queue("parked"), r#"{"body":7,"wait":true,"timeout":100}"#)
        .await;
    assert_eq!(answer.json(), json!({"status": "timedOut"}));
    let bare = [("x-rivet-encoding", "bare")];
    let body = b"\x04\0\x01\x05\0\x01\x01\0";
    let answer = server.send(&format!("POST {}", queue("done")), &bare, body).await;
    assert_eq!(answer.body, b"\x04\0\x09completed\x01\x01\x05");
    let answer = server.post(&queue("jobs"), "no json").await;
    answer.is_error(400, "message/malformed");
}

#[tokio::test]
async fn raw_requests_reach_the_actor_with_what_is_theirs() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let headers = [
        ("x-test-one", "1"),
        ("x-rivet-token", "secret"),
        ("te", "trailers"),
    ];
    let line = format!("PATCH /gateway/{id}/request/a/b?x=1&y=%2F");
    let answer = server.send(&line, &headers, b"abc").await;
    // Two headers are the actor's business: the host and the test's.
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (418, &b"PATCH /a/b?x=1&y=%2F 2"[..])
    );
    assert_eq!(answer.header("x-answer").as_deref(), Some("yes"));
    let query = "rvt-namespace=default&x=1&rvt-method=getOrCreate&rvt-runner=r&rvt-key=k&y=2";
    let answer = server.get(&format!("/gateway/counter/request?{query}")).await;
    assert_eq!(answer.body, b"GET /?x=1&y=2 1");
}

#[tokio::test]
async fn long_bodies_flow_both_ways_and_what_the_actor_refuses_is_not_read_to_its_end() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let line = format!("PUT /gateway/{id}/request/up");
    let long = vec![b'x'; REQUEST_MAX];
    let answer = server.send(&line, &[], &long).await;
    assert_eq!((answer.status, answer.body.len()), (200, REQUEST_MAX));
    // The second answer to a request whose first was streamed has a head only.
    let answer = server.get(&format!("/gateway/{id}/request/lost")).await;
    answer.is_error(502, "guard/answer_lost");
    let long = vec![b'x'; REQUEST_MAX + 1];
    let answer = server.send(&line, &[], &long).await;
    answer.is_error(413, "guard/request_body_too_large");
}
