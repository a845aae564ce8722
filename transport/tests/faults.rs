//! Peers that die, restart, leave, and streams that break off.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clinch_transport::{
    CertBundle, Class, Inbound, PeerId, RefuseAll, Side, Transport, TransportConfig, TransportError,
};
use clinch_types::NodeId;
use common::*;
use tokio::sync::mpsc;
use tokio::time::Instant;

const TWO: NodeId = NodeId(2);

/// A node on a runtime of its own, so that it can be killed as a process is: without a word.
struct Victim {
    runtime: Option<tokio::runtime::Runtime>,
    /// Holds the socket as well.
    transport: Option<Transport>,
    seen: mpsc::UnboundedReceiver<Seen>,
    address: SocketAddr,
}

impl Victim {
    fn start(config: TransportConfig, identity: CertBundle, bind: SocketAddr) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (handler, seen) = Echo::new();
        let started = {
            let _entered = runtime.enter();
            start_with(config, identity, Some(bind), handler)
        };
        let transport = match started {
            Ok((transport, ..)) => transport,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        Ok(Self {
            address: transport.local_addr()?,
            runtime: Some(runtime),
            transport: Some(transport),
            seen,
        })
    }

    async fn next_request(&mut self) -> Inbound {
        loop {
            if let Seen::Request(inbound) = self.seen.recv().await.unwrap() {
                return inbound;
            }
        }
    }

    /// Drops every task and the socket where they stand.
    fn kill(&mut self) {
        self.transport = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a node on the address of one that was killed, as soon as the system has freed it.
async fn restart(config: TransportConfig, identity: CertBundle, address: SocketAddr) -> Victim {
    let deadline = Instant::now() + LONG;
    loop {
        match Victim::start(config.clone(), identity.clone(), address) {
            Ok(victim) => return victim,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Silence alone would be noticed only after the test's own limit.
fn patient() -> TransportConfig {
    TransportConfig {
        idle_timeout: Duration::from_secs(120),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_answers_within_a_second_although_its_old_connection_never_closed() {
    let ca = ca("test");
    let identity = node(&ca, 2);
    let mut victim = Victim::start(patient(), identity.clone(), loopback()).unwrap();
    let one = start(patient(), node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), victim.address.to_string());
    let call = |after| one.transport.call(TWO, Class::Action, ECHO, bytes("q"), after);
    assert_eq!(call(LONG).await, Ok(bytes("q")));

    let address = victim.address;
    victim.kill();
    let _second_life = restart(patient(), identity, address).await;
    let begun = Instant::now();
    // The first call meets the old connection: it must be told of its end, not wait for silence.
    let mut tries = 0;
    while let Err(error) = call(LONG).await {
        tries += 1;
        assert!(
            error.perhaps_done() || matches!(error, TransportError::NotSent { .. }),
            "{error:?}"
        );
        assert!(tries < 4, "{error:?}");
    }
    assert!(begun.elapsed() < SECOND * 2, "took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_back_after_a_while_is_called_at_once_over_a_new_connection() {
    let ca = ca("test");
    let identity = node(&ca, 2);
    let mut victim = Victim::start(patient(), identity.clone(), loopback()).unwrap();
    let mut one = start(patient(), node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), victim.address.to_string());
    let call = |after| one.transport.call(TWO, Class::Action, ECHO, bytes("q"), after);
    assert_eq!(call(LONG).await, Ok(bytes("q")));
    let address = victim.address;
    victim.kill();
    // More than QUIC lets be under way, until it probes so rarely that it would not learn of the restart by itself for
    // seconds.
    let killed = Instant::now();
    let much = Bytes::from(vec![0; 32 << 10]);
    while killed.elapsed() < SECOND * 4 {
        let lost = one.transport.call(TWO, Class::Action, ECHO, much.clone(), SECOND);
        lost.await.unwrap_err();
    }

    let back = Instant::now();
    let second = restart(patient(), identity, address).await;
    let there = second.transport.as_ref().unwrap();
    there.set_route(PeerId::Node(NodeId(1)), one.address());
    assert_eq!(
        there
            .call(NodeId(1), Class::Action, ECHO, bytes("back"), LONG)
            .await,
        Ok(bytes("back"))
    );
    // The old connection is given up after a moment of silence, not at its next probe.
    while !matches!(
        one.next_connection().await,
        Seen::Down(PeerId::Node(TWO), Side::Dialled)
    ) {}
    assert_eq!(
        one.transport
            .call(TWO, Class::Action, ECHO, bytes("q"), LONG)
            .await,
        Ok(bytes("q"))
    );
    assert!(back.elapsed() < SECOND * 2, "took {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_notices_a_restart_by_its_keep_alive() {
    let ca = ca("test");
    let config = TransportConfig {
        keep_alive: Duration::from_millis(200),
        ..patient()
    };
    let identity = node(&ca, 2);
    let mut victim = Victim::start(config.clone(), identity.clone(), loopback()).unwrap();
    let mut one = start(config.clone(), node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), victim.address.to_string());
    one.transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
        .await
        .unwrap();
    let address = victim.address;
    victim.kill();
    let _second_life = restart(config, identity, address).await;
    while !matches!(one.next_connection().await, Seen::Down(PeerId::Node(TWO), _)) {}
    // The loss is known: the next call succeeds at the first try.
    assert_eq!(
        one.transport
            .call(TWO, Class::Action, ECHO, bytes("q"), LONG)
            .await,
        Ok(bytes("q"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_when_the_peer_dies_is_perhaps_done_and_the_next_one_is_not_sent() {
    let ca = ca("test");
    let config = TransportConfig {
        keep_alive: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(400),
        dial_timeout: Duration::from_millis(300),
        // This is about the connection's end; silence is the next test.
        silence_max: LONG,
        ..Default::default()
    };
    let mut victim = Victim::start(config.clone(), node(&ca, 2), loopback()).unwrap();
    let one = start(config, node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), victim.address.to_string());
    let call = |kind| one.transport.call(TWO, Class::Action, kind, Bytes::new(), LONG);
    let (error, _unanswered) = tokio::join!(call(SILENT), async {
        let unanswered = victim.next_request().await;
        victim.kill();
        unanswered
    });
    let error = error.unwrap_err();
    assert!(matches!(error, TransportError::Perhaps { .. }), "{error:?}");
    let error = call(ECHO).await.unwrap_err();
    assert!(matches!(error, TransportError::NotSent { .. }), "{error:?}");
    assert!(error.to_string().contains(&victim.address.to_string()), "{error}");
}

#[tokio::test]
async fn an_action_at_a_silent_peer_is_perhaps_done_long_before_the_connection_is_lost() {
    let ca = ca("test");
    let config = TransportConfig::default();
    let mut victim = Victim::start(config.clone(), node(&ca, 2), loopback()).unwrap();
    let one = start(config.clone(), node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), victim.address.to_string());
    let begun = Instant::now();
    let action = one.transport.call(TWO, Class::Action, SILENT, Bytes::new(), LONG);
    let (action, _held) = tokio::join!(action, async {
        let held = victim.next_request().await;
        victim.kill();
        held
    });
    let error = action.unwrap_err();
    assert!(matches!(error, TransportError::Perhaps { .. }), "{error:?}");
    assert!(error.to_string().contains("silent for"), "{error}");
    assert!(begun.elapsed() < config.idle_timeout, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_living_peer_is_not_silent_however_long_its_action_takes() {
    let ca = ca("test");
    // Nothing but the request itself makes the peer speak.
    let config = TransportConfig {
        keep_alive: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(60),
        silence_max: Duration::from_millis(100),
        ..TransportConfig::default()
    };
    let mut slow = Victim::start(config.clone(), node(&ca, 2), loopback()).unwrap();
    let one = start(config, node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), slow.address.to_string());
    let after = Duration::from_millis(900);
    let call = one
        .transport
        .call(TWO, Class::Action, SILENT, Bytes::new(), after);
    let (answer, _held) = tokio::join!(call, slow.next_request());
    let error = answer.unwrap_err();
    assert!(
        matches!(error, TransportError::Deadline { sent: true, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_at_the_address_is_not_sent_within_the_callers_deadline() {
    let ca = ca("test");
    let one = start(TransportConfig::default(), node(&ca, 1), Some(loopback()));
    // Bound, but nobody speaks QUIC there.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    one.transport
        .set_route(PeerId::Node(TWO), mute.local_addr().unwrap().to_string());
    let begun = Instant::now();
    let after = Duration::from_millis(100);
    let error = one
        .transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), after)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::NotSent { .. }), "{error:?}");
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_new_route_cuts_the_pause_after_a_failure_short() {
    let ca = ca("test");
    let config = TransportConfig {
        dial_timeout: Duration::from_millis(100),
        backoff_min: LONG * 10,
        backoff_max: LONG * 10,
        ..Default::default()
    };
    let one = start(config.clone(), node(&ca, 1), Some(loopback()));
    let two = start(config, node(&ca, 2), Some(loopback()));
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    one.transport
        .set_route(PeerId::Node(TWO), mute.local_addr().unwrap().to_string());
    let call = || one.transport.call(TWO, Class::Action, ECHO, bytes("q"), LONG);
    assert!(matches!(call().await, Err(TransportError::NotSent { .. })));
    let (answer, ()) = tokio::join!(call(), async {
        // The call above polls first: it now sits in the pause.
        one.transport.set_route(PeerId::Node(TWO), two.address());
    });
    assert_eq!(answer, Ok(bytes("q")));
}

#[tokio::test]
async fn a_peer_that_shuts_down_says_so_at_once() {
    let (one, mut two) = pair(patient());
    let call = |kind| one.transport.call(TWO, Class::Action, kind, Bytes::new(), LONG);
    let (error, held) = tokio::join!(call(SILENT), async {
        let held = two.next_request().await;
        two.stop.cancel();
        held
    });
    let error = error.unwrap_err();
    assert!(matches!(error, TransportError::Perhaps { .. }), "{error:?}");
    assert!(error.to_string().contains("shutting down"), "{error}");
    // Answering a connection that is gone is harmless.
    held.respond(Bytes::new());
    two.shut_down().await;
}

#[tokio::test]
async fn after_its_own_stop_a_transport_sends_nothing_and_all_its_tasks_end() {
    let (one, two) = pair(patient());
    one.transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
        .await
        .unwrap();
    let transport = one.transport.clone();
    one.shut_down().await;
    let error = transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::NotSent { .. }), "{error:?}");
    two.shut_down().await;
}

#[tokio::test]
async fn a_handshake_with_a_process_that_refuses_everything_still_connects() {
    let ca = ca("test");
    let (server, ..) = start_with(
        patient(),
        node(&ca, 2),
        Some(loopback()),
        std::sync::Arc::new(RefuseAll),
    )
    .unwrap();
    let one = start(patient(), node(&ca, 1), Some(loopback()));
    one.transport
        .set_route(PeerId::Node(TWO), server.local_addr().unwrap().to_string());
    let error = one
        .transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error:?}");
    let mut stream = one
        .transport
        .send_stream(TWO, 1, Bytes::new(), LONG)
        .await
        .unwrap();
    let chunk = Bytes::from(vec![0; 64 << 10]);
    while stream.write(chunk.clone()).await.is_ok() {}
}

#[tokio::test]
async fn a_stream_of_32_mib_arrives_intact_beside_calls() {
    let (one, mut two) = pair(TransportConfig::default());
    let piece = |n: u32| -> Bytes { (0..65_536u32).map(|i| (i.wrapping_mul(31) ^ n) as u8).collect() };
    let send = async {
        let mut stream = one
            .transport
            .send_stream(TWO, 5, bytes("head"), LONG)
            .await
            .unwrap();
        for n in 0..512 {
            stream.write(piece(n)).await.unwrap();
            if n % 100 == 0 {
                let answer = one.transport.call(TWO, Class::Vote, ECHO, bytes("v"), LONG).await;
                assert_eq!(answer, Ok(bytes("v")));
            }
        }
        stream.finish().await.unwrap();
    };
    let receive = async {
        let Seen::Stream(mut inbound) = two.next().await else {
            panic!("not a stream")
        };
        assert_eq!(
            (inbound.from, inbound.kind, inbound.header),
            (PeerId::Node(NodeId(1)), 5, bytes("head"))
        );
        let mut all = Vec::new();
        while let Some(bytes) = inbound.stream.read().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        all
    };
    let ((), all) = tokio::join!(send, receive);
    assert_eq!(all.len(), 32 << 20);
    for (n, part) in all.chunks(65_536).enumerate() {
        assert!(part == piece(n as u32), "piece {n} differs");
    }
}

#[tokio::test]
async fn a_stream_dropped_by_its_sender_is_an_error_not_an_end() {
    let (one, mut two) = pair(TransportConfig::default());
    let mut stream = one
        .transport
        .send_stream(TWO, 5, Bytes::new(), LONG)
        .await
        .unwrap();
    stream.write(bytes("half")).await.unwrap();
    let Seen::Stream(mut inbound) = two.next().await else {
        panic!("not a stream")
    };
    drop(stream);
    loop {
        match inbound.stream.read().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("half a stream looked whole"),
            Err(error) => break assert!(error.to_string().contains("node 1"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_stream_its_receiver_drops_stops_the_sender() {
    let (one, mut two) = pair(TransportConfig::default());
    let mut stream = one
        .transport
        .send_stream(TWO, 5, Bytes::new(), LONG)
        .await
        .unwrap();
    let Seen::Stream(inbound) = two.next().await else {
        panic!("not a stream")
    };
    drop(inbound);
    let chunk = Bytes::from(vec![0; 64 << 10]);
    while stream.write(chunk.clone()).await.is_ok() {}
    let error = stream.finish().await.unwrap_err();
    assert!(error.to_string().contains("node 2"), "{error}");
}
