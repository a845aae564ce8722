//! TLS on the gateway's port: HTTP/2 for browsers, HTTP/1.1 and WebSockets beside it, plain HTTP from this machine.

use std::sync::Arc;

use bytes::Bytes;
use clinch_gateway::GatewayConfig;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Server, request, within};
use crate::support::memory::Memory;

struct Secure {
    server: Server,
    root: CertificateDer<'static>,
}

impl Secure {
    async fn start(config: GatewayConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("gateway.pem"), dir.path().join("gateway.key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let config = GatewayConfig {
            cert: Some(cert),
            key: Some(key),
            ..config
        };
        let server = Server::with(Memory::default(), config).await;
        let root = made.cert.der().clone();
        Self { server, root }
    }

    async fn connect(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let stream = self.server.connect().await;
        let name = ServerName::try_from("localhost").unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
        within(connected).await.expect("a handshake")
    }
}

fn agreed(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
}

#[tokio::test]
async fn a_browser_gets_http_2_and_many_requests_on_one_connection() {
    let secure = Secure::start(GatewayConfig::default()).await;
    let id = secure.server.actor("counter", "k").await;
    let stream = secure.connect(&["h2", "http/1.1"]).await;
    assert_eq!(agreed(&stream).as_deref(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let uri = format!("https://localhost/gateway/{id}/action/increment");
        let body = Full::new(Bytes::from_static(b"{\"args\":[1]}"));
        answers.push(sender.send_request(hyper::Request::post(uri).body(body).unwrap()));
    }
    let mut counts = Vec::new();
    for answer in answers {
        let body = within(answer)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let value: Value = serde_json::from_slice(&body).unwrap();
        counts.push(value["output"].as_u64().unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_http_2_there_is_http_1_and_web_sockets_on_the_same_port() {
    let secure = Secure::start(GatewayConfig::default()).await;
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = secure.connect(protocols).await;
        assert_eq!(agreed(&stream), protocols.first().map(|p| p.as_bytes().to_vec()));
        stream
            .write_all(&request("GET /health", &[("connection", "close")], b""))
            .await
            .unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let id = secure.server.actor("counter", "k").await;
    let stream = secure.connect(&["http/1.1"]).await;
    let upgrade = Box::pin(client_async(
        format!("wss://localhost/gateway/{id}/connect"),
        stream,
    ));
    let (mut socket, _) = within(upgrade).await.expect("the upgrade");
    let init = within(socket.next()).await.unwrap().unwrap();
    assert!(
        matches!(&init, Message::Text(text) if text.contains("Init")),
        "{init:?}"
    );
}

#[tokio::test]
async fn tools_of_this_machine_go_on_speaking_plain_http() {
    let secure = Secure::start(GatewayConfig::default()).await;
    assert_eq!(secure.server.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let config = GatewayConfig {
        header_read_timeout_ms: 100,
        ..GatewayConfig::default()
    };
    let secure = Secure::start(config).await;
    // Nothing, the beginning of a handshake, and a handshake that is none.
    for start in [&b""[..], &[0x16, 3, 1], &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]] {
        let mut stream = secure.server.connect().await;
        stream.write_all(start).await.unwrap();
        let mut rest = Vec::new();
        let _ended = within(stream.read_to_end(&mut rest)).await;
    }
    secure.server.stopped().await;
}
