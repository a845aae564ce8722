//! Who may talk to whom: certificates of both ends, and what is said when they do not fit.

mod common;

use std::io::Write;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use clinch_transport::{CertBundle, Class, ClusterCa, PeerId, TransportConfig, TransportError};
use clinch_types::{Clock, NodeId, WallMs};
use common::*;
use parking_lot::Mutex;

const TWO: NodeId = NodeId(2);

/// Collects the warnings of all tests of this file.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || writer.clone())
            .init();
        log
    })
}

/// Waits until the acceptor has warned in these words.
async fn warned(words: &str) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !String::from_utf8_lossy(&log().0.lock()).contains(words) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no warning says {words:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// A certificate and key as issued, but trusting other authorities.
fn trusting(trusted: &[&ClusterCa], issued: &CertBundle) -> CertBundle {
    let dir = tempfile::tempdir().unwrap();
    issued.save(dir.path()).unwrap();
    let stem = match issued.peer() {
        PeerId::Node(id) => format!("node-{}", id.0),
        PeerId::Client(name) => format!("client-{name}"),
    };
    let read = |name: String| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let (certificate, key) = (read(format!("{stem}.pem")), read(format!("{stem}.key")));
    let root = |ca: &&ClusterCa| {
        let dir = tempfile::tempdir().unwrap();
        ca.save(dir.path()).unwrap();
        std::fs::read_to_string(dir.path().join("ca.pem")).unwrap()
    };
    let roots: String = trusted.iter().map(root).collect();
    CertBundle::from_pem(&roots, &certificate, &key).unwrap()
}

async fn dial(dialler: CertBundle, acceptor: CertBundle) -> (TransportError, Running) {
    log();
    let config = TransportConfig::default();
    let server = start(config.clone(), acceptor, Some(loopback()));
    let client = start(config, dialler, Some(loopback()));
    client.transport.set_route(PeerId::Node(TWO), server.address());
    (
        client
            .transport
            .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
            .await
            .unwrap_err(),
        server,
    )
}

fn reason(error: TransportError) -> String {
    match error {
        TransportError::NotSent { reason, .. } => reason,
        other => panic!("a refused handshake must be reported as not sent: {other:?}"),
    }
}

#[tokio::test]
async fn an_acceptor_of_a_foreign_authority_is_refused_by_the_dialler() {
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let (error, mut server) = dial(node(&ours, 1), node(&theirs, 2)).await;
    let reason = reason(error);
    assert!(
        reason.contains("its certificate is not valid in our cluster"),
        "{reason}"
    );
    warned("does not accept our certificate in its cluster").await;
    assert!(server.seen.try_recv().is_err(), "nothing reaches the handler");
}

#[tokio::test]
async fn a_dialler_of_a_foreign_authority_is_refused_by_the_acceptor() {
    let (ours, theirs) = (ca("same"), ca("same"));
    // It trusts the acceptor, but the acceptor does not trust it.
    let (error, mut server) = dial(trusting(&[&ours], &node(&theirs, 1)), node(&ours, 2)).await;
    let reason = reason(error);
    assert!(
        reason.contains("does not accept our certificate in its cluster"),
        "{reason}"
    );
    warned("its certificate is not valid in our cluster").await;
    assert!(server.seen.try_recv().is_err(), "nothing reaches the handler");
}

#[tokio::test]
async fn two_authorities_of_the_same_name_are_still_two() {
    let (error, _server) = dial(node(&ca("same"), 1), node(&ca("same"), 2)).await;
    let reason = reason(error);
    assert!(
        reason.contains("its certificate is not valid in our cluster"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_cluster_of_another_name_is_refused_even_if_its_authority_is_trusted() {
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let both = |bundle| trusting(&[&ours, &theirs], &bundle);
    let (error, _server) = dial(both(node(&theirs, 1)), both(node(&ours, 2))).await;
    let reason = reason(error);
    assert!(
        reason.contains("it belongs to cluster ours, we to theirs"),
        "{reason}"
    );
    // Whoever looks first, the acceptor's warning names both clusters.
    warned("belongs to cluster").await;
}

#[tokio::test]
async fn a_client_certificate_does_not_serve() {
    let ca = ca("test");
    let server = start(
        TransportConfig::default(),
        ca.issue_client("mallory").unwrap(),
        Some(loopback()),
    );
    let client = start(TransportConfig::default(), node(&ca, 1), Some(loopback()));
    let answer = client
        .transport
        .call_addr(&server.address(), Class::Action, ECHO, Bytes::new(), LONG)
        .await;
    let reason = reason(answer.unwrap_err());
    assert!(
        reason.contains("its certificate is not valid in our cluster"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_authority_is_replaced_by_trusting_both_for_a_while() {
    let (old, new) = (ca("same"), ca("same"));
    let both = |bundle| trusting(&[&old, &new], &bundle);
    let server = start(TransportConfig::default(), both(node(&new, 2)), Some(loopback()));
    let client = start(TransportConfig::default(), both(node(&old, 1)), Some(loopback()));
    client.transport.set_route(PeerId::Node(TWO), server.address());
    let answer = client
        .transport
        .call(TWO, Class::Action, ECHO, bytes("q"), LONG)
        .await;
    assert_eq!(answer, Ok(bytes("q")));
}

#[tokio::test]
async fn a_node_that_is_not_the_one_meant_is_refused_by_name() {
    let ca = ca("test");
    let (error, _server) = dial(node(&ca, 1), node(&ca, 3)).await;
    let reason = reason(error);
    assert!(reason.contains("node 3 answers there, not node 2"), "{reason}");
}

#[tokio::test]
async fn a_key_that_does_not_fit_its_certificate_is_refused_at_start() {
    let ca = ca("test");
    let dir = tempfile::tempdir().unwrap();
    node(&ca, 1).save(dir.path()).unwrap();
    node(&ca, 2).save(dir.path()).unwrap();
    let path = |name: &str| dir.path().join(name);
    let bundle = CertBundle::load_files(&path("ca.pem"), &path("node-1.pem"), &path("node-2.key")).unwrap();
    let (handler, _seen) = Echo::new();
    let error = start_with(TransportConfig::default(), bundle, Some(loopback()), handler).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

struct At(WallMs);

impl Clock for At {
    fn mono(&self) -> std::time::Instant {
        unreachable!("certificates are judged by wall time")
    }

    fn wall(&self) -> WallMs {
        self.0
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = ClusterCa::generate("old", WallMs(1_000_000_000_000)).unwrap();
    let start_at = |bundle, ms| {
        let clock: Arc<dyn Clock> = Arc::new(At(WallMs(ms)));
        start(
            TransportConfig {
                certificate_clock: Some(clock),
                ..Default::default()
            },
            bundle,
            Some(loopback()),
        )
    };
    let in_time = 1_000_000_001_000;
    let server = start_at(node(&ca, 2), in_time);
    for (ms, fine) in [(in_time, true), (in_time + 11 * 365 * 24 * 3600 * 1000, false)] {
        let client = start_at(node(&ca, 1), ms);
        client.transport.set_route(PeerId::Node(TWO), server.address());
        let answer = client
            .transport
            .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
            .await;
        assert_eq!(answer.is_ok(), fine, "{answer:?}");
        if let Err(error) = answer {
            assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
        }
    }
}
