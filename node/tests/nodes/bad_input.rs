//! What comes from outside and is wrong: refused with a reason, and the node serves on. Hostile packets below the frame
//! are the transport's tests, the protocol of the gateway is the gateway's; here both are what a real node shows.

use std::time::Duration;

use crate::common::*;
use clinch::prelude::*;
use clinch::{ClusterConfig, SystemClock};
use clinch_transport::{ClusterCa, RefusalCode, TransportError};
use clinch_types::{
    CallOp, Clock, CreateSpec, Key, ListRequest, NodeId, RequestId, ShardId, Target, codec, kind, limits,
};
use tokio::time::timeout;

fn registry() -> Registry {
    Registry::new().actor::<Probe>()
}

/// What the peer said when it refused.
#[track_caller]
fn refusal(result: Result<bytes::Bytes, TransportError>) -> (RefusalCode, String) {
    match result {
        Err(TransportError::Refused { code, message, .. }) => (code, message),
        other => panic!("not refused: {other:?}"),
    }
}

async fn still_serves(cluster: &TestCluster) {
    let probe = cluster.node(0).cluster().get::<Probe>("still-serves");
    let before = probe.get().await.unwrap();
    assert_eq!(probe.add(1).await.unwrap(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_client_is_refused_with_a_reason() {
    let cluster = TestCluster::start(1, registry()).await;
    let (client, to) = (RawClient::new(&cluster), cluster.node(0).address());
    for kind in [0, 4, 31, 38, 44, 99, 255] {
        let (code, message) = refusal(client.ask(to, kind, "x").await);
        assert_eq!(code, RefusalCode::UnknownKind, "kind {kind}");
        assert!(message.contains(&kind.to_string()), "{message}");
    }
    let sound = codec::encode(&request_for("garbage", "add", (1,), RequestId::default())).unwrap();
    // Lengths that promise 2^40 bytes, in every place a length may stand.
    for at in 1..sound.len() {
        let mut hostile = sound[..at].to_vec();
        hostile.push(253);
        hostile.extend_from_slice(&(1u64 << 40).to_le_bytes());
        hostile.extend_from_slice(&[7; 64]);
        match client.ask(to, kind::CALL, hostile).await {
            Err(error) => assert_eq!(refusal(Err(error)).0, RefusalCode::Invalid, "at {at}"),
            Ok(_) => panic!("a call with a hostile length at {at} was read"),
        }
        let (code, message) = refusal(client.ask(to, kind::CALL, sound[..at].to_vec()).await);
        assert_eq!(code, RefusalCode::Invalid, "cut at {at}");
        assert!(message.contains("cannot be read"), "{message}");
    }
    let mut longer = sound.clone();
    longer.push(0);
    assert!(
        refusal(client.ask(to, kind::CALL, longer).await)
            .1
            .contains("1 bytes after the end")
    );
    let mut newer = sound;
    newer[0] = 9;
    assert!(
        refusal(client.ask(to, kind::CALL, newer).await)
            .1
            .contains("unknown format 9")
    );
    assert_eq!(
        refusal(client.ask(to, kind::LIST, vec![1, 2, 3]).await).0,
        RefusalCode::Invalid
    );
    let too_large = client
        .ask(to, kind::CALL, vec![0; limits::FRAME_MAX + 1])
        .await
        .unwrap_err();
    assert!(
        matches!(too_large, TransportError::TooLarge { .. }),
        "{too_large}"
    );
    let largest = client.ask(to, kind::CALL, vec![0; limits::FRAME_MAX]).await;
    assert_eq!(refusal(largest).0, RefusalCode::Invalid);
    assert_eq!(runs("garbage"), 0, "nothing of that was executed");
    still_serves(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_not_speak_as_a_node() {
    let cluster = TestCluster::start(1, registry()).await;
    let (client, to) = (RawClient::new(&cluster), cluster.node(0).address());
    // Raft's messages, joining, commands to the control group.
    for kind in (32..=37).chain([40, 41]) {
        for body in [&b""[..], &[0; 4], &[0; 64], &[1; 300]] {
            let (code, message) = refusal(client.ask(to, kind, body.to_vec()).await);
            assert_eq!(code, RefusalCode::Forbidden, "kind {kind}: {message}");
            assert!(message.contains("is not a node"), "{message}");
        }
    }
    still_serves(&cluster).await;
}

fn action(name: &str, args: Vec<u8>) -> CallOp {
    CallOp::Action {
        name: name.into(),
        args,
    }
}

fn target(namespace: &str, name: &str, key: &str, input: Option<Vec<u8>>) -> Target {
    let key = match key.len() {
        // What a client of ours would not even build.
        129.. => codec::decode_body::<Key>(&codec::encode(&vec![key.to_owned()]).unwrap()[1..]).unwrap(),
        _ => Key::new([key]).unwrap(),
    };
    let create = Some(CreateSpec { input, region: None });
    Target::Key {
        namespace: namespace.into(),
        name: name.into(),
        key,
        create,
    }
}

/// Calls to nobody, or by names that are too long; and what the owner says.
fn bad_targets() -> Vec<(&'static str, &'static str, Target, CallOp)> {
    let add = || action("add", clinch_actor::encode(&(1,)).unwrap());
    let long = "n".repeat(65);
    vec![
        (
            "actor",
            "not_registered",
            target("default", "nobody", "k", None),
            add(),
        ),
        (
            "actor",
            "invalid_request",
            target("default", &long, "k", None),
            add(),
        ),
        (
            "actor",
            "invalid_request",
            target(&long, "probe", "k", None),
            add(),
        ),
        (
            "actor",
            "key_too_large",
            target("default", "probe", &"k".repeat(129), None),
            add(),
        ),
        (
            "actor",
            "input_too_large",
            target("default", "probe", "k", Some(vec![0; (4 << 20) + 1])),
            add(),
        ),
    ]
}

/// Calls of an actor that would serve them, were they sound.
fn bad_actions() -> Vec<(&'static str, &'static str, Target, CallOp)> {
    let none = vec![0x80];
    let cases = [
        (
            "message",
            "incoming_too_long",
            action("add", vec![0; (1 << 20) + 1]),
        ),
        ("actor", "invalid_request", action(&"a".repeat(129), none.clone())),
        ("actor", "action_not_found", action("nothing", none.clone())),
        ("actor", "action_not_found", action("", none.clone())),
        // Arguments: none, of the wrong type, not an array, not CBOR at all, not even a byte.
        ("actor", "invalid_request", action("add", none)),
        (
            "actor",
            "invalid_request",
            action("add", clinch_actor::encode(&("one",)).unwrap()),
        ),
        (
            "actor",
            "invalid_request",
            action("add", clinch_actor::encode(&7).unwrap()),
        ),
        ("actor", "invalid_request", action("add", vec![0xff; 100])),
        ("actor", "invalid_request", action("add", Vec::new())),
    ];
    cases
        .into_iter()
        .map(|(group, code, op)| (group, code, probe_target("limits"), op))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limits_are_refused_by_the_owner_itself() {
    let cluster = TestCluster::start(1, registry()).await;
    let (client, to) = (RawClient::new(&cluster), cluster.node(0).address());
    let sound = || request_for("limits", "add", (1,), RequestId::default());
    for (n, (group, code, target, op)) in bad_targets().into_iter().chain(bad_actions()).enumerate() {
        let mut request = sound();
        request.target = target;
        request.op = op;
        let error = client.call(to, &request).await.unwrap_err().into_actor_error();
        assert!(error.is(group, code), "case {n}: {error}");
        assert!(
            error.message.len() < 400,
            "case {n}: an error echoes its input: {} bytes",
            error.message.len()
        );
    }
    let mut request = sound();
    request.chain = vec![Default::default(); 65];
    let error = client.call(to, &request).await.unwrap_err().into_actor_error();
    assert!(error.is("actor", "invalid_request"), "{error}");
    let page = ListRequest {
        shard: ShardId(4000),
        namespace: "default".into(),
        name: None,
        ids: vec![Default::default(); 10_000],
        after: None,
        limit: u32::MAX,
    };
    let answer = client
        .ask(to, kind::LIST, codec::encode(&page).unwrap())
        .await
        .unwrap();
    let answer = codec::decode::<Result<clinch_types::ListReply, clinch_types::CallError>>(&answer).unwrap();
    assert!(answer.is_err(), "there is no such shard");
    assert_eq!(runs("limits"), 0);
    still_serves(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_another_authority_open_no_door() {
    let mut cluster = TestCluster::start(1, registry()).await;
    // The same names, another CA.
    let foreign = cluster.dir.path().join("foreign");
    let ca = ClusterCa::generate("test", SystemClock.wall()).unwrap();
    ca.save(&foreign).unwrap();
    ca.issue_node(NodeId(2), &[])
        .and_then(|c| c.save(&foreign))
        .unwrap();
    let client = RawClient::with(ca.issue_client("test").unwrap());
    let to = cluster.node(0).address();
    let error = timeout(
        PATIENCE,
        client.ask_for(to, kind::ROUTES, "", Duration::from_secs(3)),
    )
    .await
    .unwrap()
    .unwrap_err();
    assert!(!error.perhaps_done(), "nothing was sent: {error}");
    assert!(
        error.to_string().to_lowercase().contains("certificate"),
        "the reason is given: {error}"
    );

    let mut config = cluster.configs[0].clone();
    config.node = NodeId(2);
    config.listen = free_udp();
    config.data_dir = cluster.dir.path().join("foreign-data");
    config.cert_dir = foreign;
    config.cluster = ClusterConfig {
        join: vec![to.to_string()],
        ..ClusterConfig::default()
    };
    let joining = registry().node(config.clone()).start();
    assert!(
        timeout(Duration::from_secs(2), joining).await.is_err(),
        "it was let in"
    );
    let nodes = cluster.node(0).status()["nodes"].as_array().map_or(0, Vec::len);
    assert_eq!(nodes, 1);
    // A certificate for another node than the configuration names is noticed before anything else.
    config.node = NodeId(3);
    config.data_dir = cluster.dir.path().join("foreign-data-3");
    let error = format!(
        "{:#}",
        registry()
            .node(config)
            .start()
            .await
            .err()
            .expect("no certificate")
    );
    assert!(error.contains("node-3"), "{error}");
    still_serves(&cluster).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_belongs_to_one_node_and_one_process() {
    let mut cluster = TestCluster::start(1, registry()).await;
    // A second one on the same directory.
    let mut second = cluster.configs[0].clone();
    second.listen = free_udp();
    let error = format!(
        "{:#}",
        registry()
            .node(second)
            .start()
            .await
            .err()
            .expect("the directory is in use")
    );
    assert!(
        error.contains("data directory") && error.contains("node-1"),
        "{error}"
    );
    still_serves(&cluster).await;
    cluster.stop_all().await;
    // The directory of node 1 under the name of node 2.
    let ca = ClusterCa::load(&cluster.certs()).unwrap();
    ca.issue_node(NodeId(2), &[])
        .and_then(|c| c.save(&cluster.certs()))
        .unwrap();
    let mut other = cluster.configs[0].clone();
    other.node = NodeId(2);
    let error = format!(
        "{:#}",
        registry()
            .node(other)
            .start()
            .await
            .err()
            .expect("another node's directory")
    );
    assert!(error.contains("belongs to node 1, not to node 2"), "{error}");
    // Both attempts did the data no harm.
    cluster.start_all(registry()).await;
    assert_eq!(
        cluster
            .node(0)
            .cluster()
            .get::<Probe>("still-serves")
            .get()
            .await
            .unwrap(),
        1
    );
}

/// A request by hand; the body may be anything.
fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const ADD: &str =
    "/gateway/probe/action/add?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=web";

const JSON: &str = "content-type: application/json\r\n";

/// Requests that say what is wrong with them.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("no JSON", post(ADD, JSON, b"{")),
        ("no body", post(ADD, JSON, b"")),
        ("deep JSON", post(ADD, JSON, "[".repeat(100_000).as_bytes())),
        ("wrong shape", post(ADD, JSON, b"[1]")),
        ("arguments of another type", post(ADD, JSON, br#"{"args":["x"]}"#)),
        ("too many arguments", post(ADD, JSON, br#"{"args":{"by":1}}"#)),
        ("no CBOR", post(ADD, "x-rivet-encoding: cbor\r\n", &[0xff; 50])),
        (
            "CBOR with a hostile length",
            post(
                ADD,
                "x-rivet-encoding: cbor\r\n",
                &[0x9b, 0xff, 0, 0, 0, 0, 0, 0, 1],
            ),
        ),
        ("no BARE", post(ADD, "x-rivet-encoding: bare\r\n", &[0xff; 50])),
        (
            "an encoding of its own",
            post(ADD, "x-rivet-encoding: morse\r\n", b"..."),
        ),
        (
            "unknown actor",
            post(&ADD.replace("probe", "nobody"), JSON, br#"{"args":[1]}"#),
        ),
        (
            "unknown action",
            post(&ADD.replace("add", "nothing"), JSON, br#"{"args":[]}"#),
        ),
        (
            "unknown namespace",
            post(
                &ADD.replace("=default&rvt-m", "=elsewhere&rvt-m"),
                JSON,
                br#"{"args":[1]}"#,
            ),
        ),
        (
            "long key",
            post(&format!("{ADD}{}", "k".repeat(200)), JSON, br#"{"args":[1]}"#),
        ),
        ("bad escape", post(&format!("{ADD}%zz"), JSON, br#"{"args":[1]}"#)),
        (
            "no actor id",
            post("/gateway/xyz/action/add", JSON, br#"{"args":[1]}"#),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_refuses_what_is_malformed_and_serves_on() {
    let cluster = TestCluster::start(1, registry()).await;
    let to = cluster.node(0).gateways()[0];
    let (status, body) = http(to, &post(ADD, JSON, br#"{"args":[2]}"#)).await;
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"output":2}"#),
        "the sound request beside which the others stand"
    );
    for (what, request) in malformed() {
        let (status, body) = http(to, &request).await;
        assert!((400..500).contains(&status), "{what}: {status} {body}");
        let error: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        // Errors in another encoding than JSON are the gateway's tests.
        if !what.contains("CBOR") && !what.contains("BARE") {
            assert!(
                error["group"].is_string() && error["code"].is_string(),
                "{what}: {body}"
            );
        }
        assert!(!body.contains("internal_error"), "{what}: {body}");
    }
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST \0 HTTP/1.1\r\n\r\n",
    ] {
        let (status, _) = http(to, garbage).await;
        assert_eq!(status, 400);
    }
    let (status, _) = http(
        to,
        format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
            "h".repeat(100_000)
        )
        .as_bytes(),
    )
    .await;
    assert_eq!(status, 431);
    let (status, body) = http(to, &post(ADD, JSON, br#"{"args":[3]}"#)).await;
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"output":5}"#),
        "none of them had an effect"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_wants_a_token_that_allows_enough() {
    let mut cluster = TestCluster::prepare(1, registry());
    cluster.configs[0].tokens = vec![
        token("publishable", "for-browsers"),
        token("secret", "for-servers"),
        token("admin", "for-operators"),
    ];
    cluster.start_node(0).await;
    cluster.ready().await;
    let to = cluster.node(0).gateways()[0];
    let add = ADD.replace("key=web", "key=token");
    let call = |token: &str| {
        post(
            &add,
            &format!("content-type: application/json\r\n{token}"),
            br#"{"args":[1]}"#,
        )
    };
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let refused = [
        String::new(),
        bearer(""),
        bearer("for-browser"),
        "authorization: Basic Zm9y\r\n".into(),
    ];
    for token in &refused {
        let (status, body) = http(to, &call(token)).await;
        assert_eq!(status, 401, "{token:?}: {body}");
        assert!(body.contains("unauthorized"), "{body}");
    }
    assert_eq!(runs("token"), 0);
    for token in ["for-browsers", "for-servers", "for-operators"] {
        let (status, body) = http(to, &call(&bearer(token))).await;
        assert_eq!(status, 200, "{token}: {body}");
    }
    assert_eq!(runs("token"), 3);
    let get = |path: &str, token: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n",
            bearer(token)
        )
        .into_bytes()
    };
    for (path, token, expected) in [
        ("/actors?name=probe&namespace=default", "for-servers", 200),
        ("/cluster", "for-browsers", 403),
        ("/cluster", "for-servers", 403),
        ("/cluster", "for-operators", 200),
        ("/metrics", "for-browsers", 403),
        ("/health", "", 200),
    ] {
        let (status, body) = http(to, &get(path, token)).await;
        assert_eq!(status, expected, "{path} with {token}: {body}");
    }
}
