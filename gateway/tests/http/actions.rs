//! Actions in three encodings, and everything that may be wrong with a request.

use clinch_types::{CallOp, limits};
use serde_json::json;

use crate::client::{Answer, Server, request};

fn action(id: &str, name: &str) -> String {
    format!("/gateway/{id}/action/{name}")
}

async fn encoded(server: &Server, path: &str, encoding: &str, body: &[u8]) -> Answer {
    server
        .send(&format!("POST {path}"), &[("x-rivet-encoding", encoding)], body)
        .await
}

#[tokio::test]
async fn an_action_answers_in_the_encoding_it_was_called_in() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let path = action(&id, "increment");

    let json = server.post(&path, r#"{"args":[42]}"#).await;
    assert_eq!((json.status, json.json()), (200, json!({"output": 42})));
    assert_eq!(json.header("content-type").as_deref(), Some("application/json"));

    let cbor = encoded(&server, &path, "cbor", b"\xb9\0\x01\x64args\x81\x01").await;
    assert_eq!(
        (cbor.status, &cbor.body[..]),
        (200, &b"\xa1\x66output\x18\x2b"[..])
    );
    assert_eq!(
        cbor.header("content-type").as_deref(),
        Some("application/octet-stream")
    );

    for version in [2, 3, 4] {
        let bare = encoded(&server, &path, "bare", &[version, 0, 2, 0x81, 0]).await;
        assert_eq!(
            (bare.status, &bare.body[..]),
            (200, &[version, 0, 2, 0x18, 0x2b][..])
        );
    }
    let turn = json.header("x-clinch-turn").unwrap();
    assert!(turn.starts_with(&format!("actor={id};shard=")), "{turn}");
    assert!(turn.ends_with("version=1;created=false"), "{turn}");
}

#[tokio::test]
async fn arguments_reach_the_backend_as_the_bytes_the_client_wrote() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    // [1, "two", null] with heads no encoder of ours would write
    let args = b"\x98\x03\x01\x78\x03two\xf6";
    let cbor = [b"\xbf\x61x\xf6\x64args", &args[..], b"\xff"].concat();
    encoded(&server, &action(&id, "args"), "cbor", &cbor).await;
    let bare = [&[4, 0, args.len() as u8][..], args].concat();
    encoded(&server, &action(&id, "args"), "bare", &bare).await;
    for _ in 0..2 {
        let expected = CallOp::Action {
            name: "args".into(),
            args: args.to_vec(),
        };
        assert_eq!(server.memory.last_call().op, expected);
    }
}

#[tokio::test]
async fn numbers_keep_their_kind_in_every_encoding() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "echo");
    // Date.now() as a JavaScript client writes it: a float, which the actor gets as an integer.
    let float = b"\xfb\x42\x78\xbc\xfe\x56\x80\0\0";
    let bare = encoded(&server, &path, "bare", &[&b"\x04\0\x0a\x81"[..], float].concat()).await;
    assert_eq!(bare.body, [&b"\x04\0\x09"[..], float].concat());
    let CallOp::Action { args, .. } = server.memory.last_call().op else {
        panic!("not an action");
    };
    assert_eq!(args, b"\x81\x1b\0\0\x01\x8b\xcf\xe5\x68\0");
    let json = server.post(&path, r#"{"args":[1700000000000]}"#).await;
    assert_eq!(json.body, br#"{"output":1700000000000}"#);
    // 2^53 + 1 is a BigInt for JavaScript, and stays one.
    let big = b"\x1b\0\x20\0\0\0\0\0\x01";
    let bare = encoded(&server, &action(&id, "big"), "bare", b"\x04\0\x01\x80").await;
    assert_eq!(bare.body, [&b"\x04\0\x09"[..], big].concat());
    let json = server.post(&action(&id, "big"), r#"{"args":[]}"#).await;
    assert_eq!(json.body, br#"{"output":["$BigInt","9007199254740993"]}"#);
    let json = server
        .post(&path, r#"{"args":[["$BigInt","-1152921504606846977"]]}"#)
        .await;
    assert_eq!(json.body, br#"{"output":["$BigInt","-1152921504606846977"]}"#);
}

#[tokio::test]
async fn markers_are_undone_and_escaped_for_those_clients_that_write_and_read_them() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "echo");
    let user = b"\x82\x62$x\x01";
    let escaped = b"\x82\x63$$x\x01";
    let sent = |version: u8, value: &[u8]| [&[version, 0, value.len() as u8 + 1, 0x81], value].concat();
    let answer = |version: u8, value: &[u8]| [&[version, 0, value.len() as u8], value].concat();
    let v4 = encoded(&server, &path, "bare", &sent(4, escaped)).await;
    assert_eq!(v4.body, answer(4, escaped));
    let v3 = encoded(&server, &path, "bare", &sent(3, escaped)).await;
    assert_eq!(v3.body, answer(3, user));
    let v2 = encoded(&server, &path, "bare", &sent(2, escaped)).await;
    assert_eq!(v2.body, answer(2, escaped));
    let json = server.post(&path, r#"{"args":[["$$x",1]]}"#).await;
    assert_eq!(json.body, br#"{"output":["$$x",1]}"#);
    let CallOp::Action { args, .. } = server.memory.last_call().op else {
        panic!("not an action");
    };
    assert_eq!(args, [&[0x81], &user[..]].concat());

    // Raw CBOR: never undone, escaped for generation 2.3 only.
    let body = [&b"\xa1\x64args\x81"[..], user].concat();
    let old = encoded(&server, &path, "cbor", &body).await;
    assert_eq!(old.body, [&b"\xa1\x66output"[..], user].concat());
    let agent = [("x-rivet-encoding", "cbor"), ("user-agent", "RivetKit/2.3.19")];
    let new = server.send(&format!("POST {path}"), &agent, &body).await;
    assert_eq!(new.body, [&b"\xa1\x66output"[..], escaped].concat());
}

#[tokio::test]
async fn an_action_without_a_result_has_an_output_nevertheless() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "nothing");
    assert_eq!(
        server.post(&path, r#"{"args":[]}"#).await.body,
        br#"{"output":null}"#
    );
    assert_eq!(
        encoded(&server, &path, "cbor", b"\xa1\x64args\x80").await.body,
        b"\xa1\x66output\xf7"
    );
    assert_eq!(
        encoded(&server, &path, "bare", b"\x02\0\x01\x80").await.body,
        b"\x02\0\x01\xf7"
    );
}

#[tokio::test]
async fn missing_arguments_are_none_and_a_lone_value_is_the_only_one() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "argCount");
    for (body, count) in [
        ("{}", 0),
        (r#"{"args":null}"#, 0),
        (r#"{"args":5}"#, 1),
        (r#"{"args":[[]]}"#, 1),
    ] {
        assert_eq!(
            server.post(&path, body).await.json(),
            json!({"output": count}),
            "{body}"
        );
    }
}

#[tokio::test]
async fn bodies_that_do_not_decode_are_refused_before_the_backend_is_asked() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    server.memory.last_call();
    let path = action(&id, "increment");
    let deep = [vec![0xa1, 0x64, b'a', b'r', b'g', b's'], vec![0x81; 1000]].concat();
    let cases: &[(&str, &[u8])] = &[
        ("json", b""),
        ("json", b"{\"args\":[1]"),
        ("json", b"[1]"),
        ("json", b"{\"args\":[1]} x"),
        ("json", b"{\"args\":[[\"$BigInt\",\"x\"]]}"),
        ("json", b"{\"args\":[\xff]}"),
        ("cbor", b""),
        ("cbor", b"\x81\x01"),
        ("cbor", b"\xa1\x64args\x82\x01"),
        ("cbor", b"\xa1\x64args\x80\x00"),
        ("cbor", &deep),
        ("bare", b""),
        ("bare", b"\x04"),
        ("bare", b"\x04\0\x05\x80"),
        ("bare", b"\x04\0\x01\x80\x00"),
        ("bare", b"\x04\0\x01\xff"),
        ("bare", b"\x04\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("bare", b"\x01\0\x01\x80"),
        ("bare", b"\x05\0\x01\x80"),
        ("bare", b"\x04\0\x0b\x81\x82\x67$BigInt\xf6"),
    ];
    for (encoding, body) in cases {
        let answer = encoded(&server, &path, encoding, body).await;
        answer.is_error(400, "message/malformed");
    }
    assert!(server.memory.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_encoding_is_refused_by_name() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let answer = encoded(&server, &action(&id, "increment"), "msgpack", b"{}").await;
    answer.is_error(400, "encoding/invalid");
    answer.message_has("msgpack");
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_with_its_size_and_the_limit() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "argCount");
    let body = |len: usize| format!("{{\"args\":[\"{}\"]}}", "y".repeat(len - 13));
    assert_eq!(server.post(&path, &body(65_536)).await.status, 200);
    let answer = server.post(&path, &body(65_537)).await;
    answer.is_error(400, "message/incoming_too_long");
    answer.message_has("65537");
    answer.message_has("65536");
    // So much too large that it is not read at all.
    let head = format!("POST {path} HTTP/1.1\r\nhost: g\r\ncontent-length: 99999999\r\n\r\n");
    let answer = server.raw(head.as_bytes()).await;
    answer.is_error(400, "message/incoming_too_long");
    answer.message_has("99999999");
    // Without a length in front.
    let mut chunked =
        format!("POST {path} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..9 {
        chunked.extend_from_slice(format!("2000\r\n{}\r\n", "y".repeat(8192)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = server.raw(&chunked).await;
    answer.is_error(400, "message/incoming_too_long");
    answer.message_has("73728");
}

#[tokio::test]
async fn bodies_in_chunks_are_read_on_every_post_route() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let chunked = |line: &str, parts: &[&str]| {
        let mut text = format!("{line} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n");
        for part in parts {
            text.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
        }
        text.push_str("0\r\n\r\n");
        text.into_bytes()
    };
    let line = format!("POST {}", action(&id, "increment"));
    let answer = server.raw(&chunked(&line, &["{\"args\"", ":[", "5]}"])).await;
    assert_eq!(answer.json(), json!({"output": 5}));
    let body = ["{\"name\":\"counter\",", "\"key\":\"chunks\"}"];
    assert_eq!(server.raw(&chunked("POST /actors", &body)).await.status, 200);
    let answer = server.raw(&chunked("PUT /actors", &body)).await;
    assert_eq!(answer.json()["created"], false);
}

#[tokio::test]
async fn an_output_over_its_limit_is_refused_with_its_size() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "makeString");
    let fits = limits::REPLY_MAX - 5;
    let answer = server.post(&path, &format!("{{\"args\":[{fits}]}}")).await;
    assert_eq!((answer.status, answer.body.len()), (200, fits + 13));
    let answer = server.post(&path, &format!("{{\"args\":[{}]}}", fits + 1)).await;
    answer.is_error(400, "message/outgoing_too_long");
    answer.message_has("1048577");
}

#[tokio::test]
async fn an_output_that_is_no_cbor_is_an_internal_error_in_every_encoding() {
    let server = Server::start().await;
    let id = server.actor("echo", "k").await;
    let path = action(&id, "broken");
    for (encoding, body) in [
        ("json", &b"{}"[..]),
        ("cbor", b"\xa0"),
        ("bare", b"\x04\0\x01\x80"),
    ] {
        let answer = encoded(&server, &path, encoding, body).await;
        answer.is_error(500, "rivetkit/internal_error");
    }
}

#[tokio::test]
async fn errors_of_the_actor_pass_through_as_json_in_every_encoding() {
    let server = Server::start().await;
    let id = server.actor("errors", "k").await;
    for (encoding, body) in [
        ("json", &b"{}"[..]),
        ("cbor", b"\xa0"),
        ("bare", b"\x04\0\x01\x80"),
    ] {
        let answer = encoded(&server, &action(&id, "withMetadata"), encoding, body).await;
        answer.is_error(400, "user/rate_limited");
        assert_eq!(
            answer.json()["metadata"],
            json!({"limit": 100, "retryAfter": 1.5, "nested": {"list": [1, "two", null, true]}})
        );
        let answer = encoded(&server, &action(&id, "nope"), encoding, body).await;
        answer.is_error(404, "actor/action_not_found");
        let answer = encoded(&server, &action(&id, "internal"), encoding, body).await;
        answer.is_error(500, "rivetkit/internal_error");
    }
}

#[tokio::test]
async fn only_post_calls_an_action() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let line = format!("{method} {}", action(&id, "increment"));
        let answer = server.send(&line, &[], b"").await;
        answer.is_error(405, "actor/method_not_allowed");
        assert_eq!(answer.header("allow").as_deref(), Some("POST"));
    }
    let answer = server.get(&format!("/gateway/{id}/queue/jobs")).await;
    answer.is_error(405, "actor/method_not_allowed");
}

#[tokio::test]
async fn what_this_release_does_not_serve_says_so() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    for path in ["inspect/rpcs", "dynamic/reload"] {
        let answer = server.get(&format!("/gateway/{id}/{path}")).await;
        answer.is_error(501, "api/not_implemented");
    }
    for path in ["connect", "websocket", "websocket/x"] {
        let answer = server.get(&format!("/gateway/{id}/{path}")).await;
        answer.is_error(400, "api/bad_request");
    }
    let answer = server.get(&format!("/gateway/{id}/nope")).await;
    answer.is_error(404, "actor/not_found");
}

#[tokio::test]
async fn connection_parameters_reach_the_backend_decoded_from_latin_1() {
    let server = Server::start().await;
    let id = server.actor("chatRoom", "k").await;
    let mut bytes = request(
        &format!("POST {}", action(&id, "whoAmI")),
        &[("x-rivet-conn-params", "{\"username\":\"zo?\"}")],
        b"{}",
    );
    let place = bytes.iter().position(|&b| b == b'?').unwrap();
    bytes[place] = 0xeb;
    let answer = server.raw(&bytes).await;
    assert_eq!(answer.json()["output"]["username"], "zoë");
    let params = server.memory.last_call().params;
    assert_eq!(
        params,
        Some([&b"\xa1\x68username\x64"[..], "zoë".as_bytes()].concat())
    );
    let line = format!("POST {}", action(&id, "whoAmI"));
    let answer = server
        .send(&line, &[("x-rivet-conn-params", "{username")], b"{}")
        .await;
    answer.is_error(400, "params/invalid");
}

#[tokio::test]
async fn an_action_name_is_decoded_and_bounded() {
    let server = Server::start().await;
    let id = server.actor("errors", "k").await;
    let answer = server.post(&action(&id, "a%2Fb%20c"), "{}").await;
    answer.message_has("`a/b c`");
    server
        .post(&action(&id, "%zz"), "{}")
        .await
        .is_error(400, "api/bad_request");
    let long = "x".repeat(limits::ACTION_NAME_MAX + 1);
    let answer = server.post(&action(&id, &long), "{}").await;
    answer.is_error(400, "actor/invalid_request");
    answer.message_has("129");
    server
        .post(&action(&id, "a/b"), "{}")
        .await
        .is_error(404, "actor/not_found");
}

#[tokio::test]
async fn a_trace_context_goes_along() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let trace = [(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )];
    server
        .send(&format!("POST {}", action(&id, "getCount")), &trace, b"{}")
        .await;
    let call = server.memory.last_call();
    assert_eq!((call.trace[0], call.trace[16], call.trace[24]), (0x0a, 0xb7, 1));
    assert!(!call.if_active);
}
