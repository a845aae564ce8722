//! Peers with a valid certificate that break the protocol: only their own connection may suffer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use clinch_types::{NodeId, WallMs};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frame::{self, Decoder, Frame, FrameType};
use crate::identity::SERVER_NAME;
use crate::lane::STREAM_VERSION;
use crate::{
    CertBundle, Class, ClusterCa, Handler, Inbound, InboundStream, PeerId, RefusalCode, Transport,
    TransportConfig, UdpSockets,
};

const LONG: Duration = Duration::from_secs(30);
const TWO: NodeId = NodeId(2);

struct Echo;

impl Handler for Echo {
    fn request(&self, inbound: Inbound) {
        let body = inbound.body.clone();
        inbound.respond(body);
    }

    fn stream(&self, _: InboundStream) {}
}

fn start(identity: CertBundle, config: TransportConfig) -> Transport {
    let bind = Some("127.0.0.1:0".parse().unwrap());
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    Transport::start(
        config,
        identity,
        Arc::new(UdpSockets::default()),
        bind,
        Arc::new(Echo),
        tracker,
        stop,
    )
    .unwrap()
}

fn ca() -> ClusterCa {
    #[expect(
        clippy::disallowed_methods,
        reason = "TLS judges the test's certificates by the system clock"
    )]
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    ClusterCa::generate("test", WallMs(now.as_millis() as u64)).unwrap()
}

/// A victim, a friend that talks to it properly, and a raw connection of an enemy with a certificate of its own.
async fn scene() -> (Transport, Transport, quinn::Connection, Transport) {
    let ca = ca();
    let victim = start(ca.issue_node(TWO, &[]).unwrap(), TransportConfig::default());
    let friend = start(ca.issue_node(NodeId(1), &[]).unwrap(), TransportConfig::default());
    let enemy = start(ca.issue_client("enemy").unwrap(), TransportConfig::default());
    let address = victim.local_addr().unwrap();
    friend.set_route(PeerId::Node(TWO), address.to_string());
    let raw = enemy
        .shared
        .endpoint
        .connect(address, SERVER_NAME)
        .unwrap()
        .await
        .unwrap();
    still_serves(&friend).await;
    (victim, friend, raw, enemy)
}

async fn still_serves(friend: &Transport) {
    let answer = friend
        .call(TWO, Class::Action, 1, Bytes::from_static(b"q"), LONG)
        .await;
    assert_eq!(answer, Ok(Bytes::from_static(b"q")));
    assert!(friend.is_up(TWO));
}

/// The words with which the victim closed the enemy's connection.
async fn closed_with(raw: &quinn::Connection) -> String {
    match timeout(LONG, raw.closed())
        .await
        .expect("the connection is closed")
    {
        quinn::ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        other => panic!("closed without a reason: {other:?}"),
    }
}

async fn send(raw: &quinn::Connection, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, receive) = raw.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, receive)
}

fn preamble(class: Class) -> BytesMut {
    BytesMut::from(&[STREAM_VERSION, class.index() as u8][..])
}

fn request(kind: FrameType, correlation: u64) -> Frame {
    Frame {
        kind,
        service: 1,
        correlation,
        deadline_ms: 0,
        trace: None,
        body: Bytes::new(),
    }
}

#[tokio::test]
async fn a_frame_that_claims_more_than_the_limit_closes_only_its_connection() {
    let (_victim, friend, raw, _enemy) = scene().await;
    let mut bytes = preamble(Class::Action);
    bytes.put_u32_le(u32::MAX);
    let _stream = send(&raw, &bytes).await;
    let reason = closed_with(&raw).await;
    assert!(reason.contains("frame of 4294967295 bytes, at most"), "{reason}");
    still_serves(&friend).await;
}

#[tokio::test]
async fn garbage_on_any_stream_closes_only_its_connection() {
    let wrong_version = {
        let mut bytes = preamble(Class::Vote);
        request(FrameType::Request, 1).encode_head(&mut bytes);
        bytes[2 + 4] = 9;
        bytes
    };
    let answer = {
        let mut bytes = preamble(Class::Vote);
        request(FrameType::Reply, 1).encode_head(&mut bytes);
        bytes
    };
    let cases: [(&[u8], &str); 5] = [
        (&[STREAM_VERSION, 200], "unknown preamble"),
        (&[77, 0], "unknown preamble"),
        (&[STREAM_VERSION, 0, 1, 0, 0, 0, 1], "shorter than its header"),
        (&wrong_version, "frame version 9"),
        (&answer, "an answer came where only requests may"),
    ];
    for (bytes, words) in cases {
        let (_victim, friend, raw, _enemy) = scene().await;
        let _stream = send(&raw, bytes).await;
        let reason = closed_with(&raw).await;
        assert!(reason.contains(words), "{reason}");
        still_serves(&friend).await;
    }
}

#[tokio::test]
async fn a_frame_type_of_a_later_release_is_refused_politely() {
    let (_victim, friend, raw, _enemy) = scene().await;
    let mut bytes = preamble(Class::Action);
    request(FrameType::Unknown(99), 5).encode_head(&mut bytes);
    request(FrameType::Request, 6).encode_head(&mut bytes);
    let (_send, mut receive) = send(&raw, &bytes).await;
    let (mut decoder, mut answers) = (Decoder::default(), vec![]);
    while answers.len() < 2 {
        let chunk = timeout(LONG, receive.read_chunk(1 << 16, true))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        decoder.push(chunk.bytes);
        while let Some(frame) = decoder.next().unwrap() {
            answers.push(frame);
        }
    }
    assert_eq!((answers[0].kind, answers[0].correlation), (FrameType::Refusal, 5));
    assert_eq!(
        frame::decode_refusal(answers[0].body.clone()).code,
        RefusalCode::UnknownKind
    );
    assert_eq!((answers[1].kind, answers[1].correlation), (FrameType::Reply, 6));
    still_serves(&friend).await;
}

#[tokio::test]
async fn a_stream_header_over_the_limit_stops_that_stream_and_nothing_else() {
    let (_victim, friend, raw, _enemy) = scene().await;
    let mut stream = raw.open_uni().await.unwrap();
    stream
        .write_all(&[STREAM_VERSION, 1, 0xff, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    let stopped = timeout(LONG, stream.stopped())
        .await
        .expect("the stream is stopped")
        .unwrap();
    assert!(stopped.is_some());
    let mut bytes = preamble(Class::Action);
    request(FrameType::Request, 6).encode_head(&mut bytes);
    let (_send, mut receive) = send(&raw, &bytes).await;
    assert!(
        timeout(LONG, receive.read_chunk(64, true))
            .await
            .unwrap()
            .unwrap()
            .is_some()
    );
    still_serves(&friend).await;
}

/// A raw acceptor with a valid certificate that answers the first bytes of every stream with `answer`.
async fn raw_acceptor(identity: CertBundle, answer: Vec<u8>) -> std::net::SocketAddr {
    let quic = crate::tls::configs(&TransportConfig::default(), &identity).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(quic.endpoint, Some(quic.server), socket, runtime).unwrap();
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let connection = incoming.await.unwrap();
            let mut welcome = connection.open_uni().await.unwrap();
            welcome.write_all(crate::accept::WELCOME).await.unwrap();
            welcome.finish().unwrap();
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            receive.read_chunk(1 << 16, true).await.unwrap();
            send.write_all(&answer).await.unwrap();
            // Stays open: the dialler must act on the bytes, not on the end of the stream.
            connection.closed().await;
        }
    });
    address
}

#[tokio::test]
async fn an_acceptor_that_answers_garbage_is_cut_off_and_its_callers_hear_perhaps() {
    let ca = ca();
    let friend = start(ca.issue_node(NodeId(1), &[]).unwrap(), TransportConfig::default());
    let request_back = {
        let mut bytes = BytesMut::new();
        request(FrameType::Request, 0).encode_head(&mut bytes);
        bytes.to_vec()
    };
    for (answer, words) in [
        (u32::MAX.to_le_bytes().to_vec(), "frame of 4294967295 bytes"),
        (vec![1, 0, 0, 0], "shorter than its header"),
        (request_back, "a request came where only answers may"),
    ] {
        let address = raw_acceptor(ca.issue_node(TWO, &[]).unwrap(), answer).await;
        friend.set_route(PeerId::Node(TWO), address.to_string());
        let error = friend
            .call(TWO, Class::Action, 1, Bytes::new(), LONG)
            .await
            .unwrap_err();
        assert!(
            matches!(error, crate::TransportError::Perhaps { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_a_place_is_free_again_after_one_closes() {
    let ca = ca();
    let config = TransportConfig {
        connections_max: 1,
        ..Default::default()
    };
    let server = start(ca.issue_node(TWO, &[]).unwrap(), config);
    let dialler = |id| {
        let config = TransportConfig {
            backoff_max: Duration::from_millis(50),
            ..Default::default()
        };
        let dialler = start(ca.issue_node(NodeId(id), &[]).unwrap(), config);
        dialler.set_route(PeerId::Node(TWO), server.local_addr().unwrap().to_string());
        dialler
    };
    let (first, second) = (dialler(11), dialler(12));
    let call = |from: &Transport| {
        let from = from.clone();
        async move { from.call(TWO, Class::Action, 1, Bytes::new(), LONG).await }
    };
    call(&first).await.unwrap();
    let error = call(&second).await.unwrap_err();
    assert!(
        matches!(error, crate::TransportError::NotSent { .. }),
        "{error:?}"
    );
    first.forget(TWO);
    let deadline = tokio::time::Instant::now() + LONG;
    while call(&second).await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the place was never freed"
        );
    }
}
