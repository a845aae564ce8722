//! Calls between two healthy processes: answers, refusals, bounds, deadlines.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use bytes::Bytes;
use clinch_transport::{
    Class, Handler, Inbound, InboundStream, Outgoing, PeerId, Refusal, RefusalCode, Side, TransportConfig,
    TransportError,
};
use clinch_types::NodeId;
use clinch_types::limits::FRAME_MAX;
use common::*;
use parking_lot::Mutex;

const TWO: NodeId = NodeId(2);

#[tokio::test]
async fn every_class_gets_its_answer() {
    let (one, two) = pair(TransportConfig::default());
    for class in Class::ALL {
        let body = bytes(&format!("{class:?}"));
        assert_eq!(
            one.transport.call(TWO, class, ECHO, body.clone(), LONG).await,
            Ok(body)
        );
    }
    assert!(one.transport.is_up(TWO));
    assert!(one.transport.rtt(TWO).is_some());
    one.shut_down().await;
    two.shut_down().await;
}

#[tokio::test]
async fn a_request_arrives_with_all_it_was_given() {
    let (one, mut two) = pair(TransportConfig::default());
    let request = Outgoing {
        class: Class::Control,
        kind: SILENT,
        body: bytes("q"),
        deadline: LONG,
        trace: Some([9; 25]),
    };
    let (answer, inbound) = tokio::join!(one.transport.call_with(TWO, request), async {
        let inbound = two.next_request().await;
        let facts = (
            inbound.from.clone(),
            inbound.class,
            inbound.kind,
            inbound.body.clone(),
            inbound.trace,
        );
        let left = inbound.deadline.unwrap() - tokio::time::Instant::now();
        assert!(left <= LONG && left > LONG / 2, "{left:?}");
        inbound.respond(bytes("a"));
        facts
    });
    assert_eq!(answer, Ok(bytes("a")));
    assert_eq!(
        inbound,
        (
            PeerId::Node(NodeId(1)),
            Class::Control,
            SILENT,
            bytes("q"),
            Some([9; 25])
        )
    );
}

#[tokio::test]
async fn a_client_that_only_dials_is_known_by_its_certificate() {
    let ca = ca("test");
    let mut server = start(TransportConfig::default(), node(&ca, 2), Some(loopback()));
    let client = start(TransportConfig::default(), ca.issue_client("shop").unwrap(), None);
    assert_eq!(client.transport.identity(), &PeerId::Client("shop".into()));
    let address = server.address();
    let (answer, from) = tokio::join!(
        client
            .transport
            .call_addr(&address, Class::Action, SILENT, bytes("q"), LONG),
        async {
            let inbound = server.next_request().await;
            let from = inbound.from.clone();
            inbound.respond(bytes("a"));
            from
        }
    );
    assert_eq!(
        answer,
        Ok((PeerId::Node(TWO), bytes("a"))),
        "the seed's id is found"
    );
    assert_eq!(from, PeerId::Client("shop".into()));
}

#[tokio::test]
async fn host_names_are_resolved_when_dialled() {
    let (one, two) = pair(TransportConfig::default());
    let port = two.transport.local_addr().unwrap().port();
    one.transport
        .set_route(PeerId::Node(TWO), format!("localhost:{port}"));
    assert_eq!(
        one.transport
            .call(TWO, Class::Action, ECHO, bytes("q"), LONG)
            .await,
        Ok(bytes("q"))
    );
    let lost = one
        .transport
        .call_addr("no-such-host.invalid:1", Class::Action, ECHO, bytes("q"), LONG)
        .await;
    assert!(matches!(&lost, Err(TransportError::NotSent { .. })), "{lost:?}");
}

#[tokio::test]
async fn large_bodies_arrive_whole_and_larger_ones_are_refused_by_name() {
    let (one, _two) = pair(TransportConfig::default());
    let body: Bytes = (0..FRAME_MAX).map(|i| (i % 251) as u8).collect();
    let answer = one
        .transport
        .call(TWO, Class::Append, ECHO, body.clone(), LONG)
        .await
        .unwrap();
    assert!(answer == body, "16 MiB came back changed");
    let over = Bytes::from(vec![0; FRAME_MAX + 1]);
    let error = one
        .transport
        .call(TWO, Class::Append, ECHO, over, LONG)
        .await
        .unwrap_err();
    assert_eq!(
        error,
        TransportError::TooLarge {
            len: FRAME_MAX + 1,
            max: FRAME_MAX
        }
    );
    assert!(error.to_string().contains("16777217"), "{error}");
}

#[tokio::test]
async fn a_reply_over_the_limit_is_refused_instead_of_sent() {
    let (one, mut two) = pair(TransportConfig::default());
    let (answer, ()) = tokio::join!(
        one.transport.call(TWO, Class::Action, SILENT, Bytes::new(), LONG),
        async {
            two.next_request().await.respond(vec![0; FRAME_MAX + 1].into());
        }
    );
    let error = answer.unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::Refused {
                code: RefusalCode::ReplyTooLarge,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.perhaps_done(), "the handler did run");
}

#[tokio::test]
async fn refusals_say_why() {
    let (one, _two) = pair(TransportConfig::default());
    let call = |kind| one.transport.call(TWO, Class::Action, kind, Bytes::new(), LONG);
    match call(77).await {
        Err(
            error @ TransportError::Refused {
                code: RefusalCode::UnknownKind,
                ..
            },
        ) => {
            assert!(
                error.to_string().contains("no kind 77") && !error.perhaps_done(),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    match call(DROP).await {
        Err(
            error @ TransportError::Refused {
                code: RefusalCode::Dropped,
                ..
            },
        ) => assert!(error.perhaps_done()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_without_answer_ends_at_its_deadline_and_the_next_one_works() {
    let (one, mut two) = pair(TransportConfig::default());
    let after = Duration::from_millis(50);
    let error = one
        .transport
        .call(TWO, Class::Action, SILENT, Bytes::new(), after)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TransportError::Deadline { sent: true, .. }),
        "{error:?}"
    );
    assert!(error.perhaps_done());
    // Its late answer finds nobody, and disturbs nobody.
    two.next_request().await.respond(bytes("late"));
    assert_eq!(
        one.transport
            .call(TWO, Class::Action, ECHO, bytes("q"), LONG)
            .await,
        Ok(bytes("q"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_at_once_get_each_their_own_answer() {
    let (one, _two) = pair(TransportConfig {
        waiting_max: 10_000,
        ..Default::default()
    });
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..4000u32 {
        let transport = one.transport.clone();
        calls.spawn(async move {
            let mut body = vec![n as u8; n as usize % 700];
            body.extend_from_slice(&n.to_le_bytes());
            let class = Class::ALL[n as usize % 4];
            let answer = transport
                .call(TWO, class, ECHO, body.clone().into(), LONG)
                .await
                .unwrap();
            assert!(answer == body, "call {n}");
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

/// Blocks its thread on the first request of class `Action` until told to go on, so that nothing more is read.
struct Stuck {
    go: Mutex<Option<blocking::Receiver<()>>>,
    entered: tokio::sync::Notify,
    requests: AtomicUsize,
}

impl Stuck {
    fn new() -> (Arc<Self>, blocking::Sender<()>) {
        let (tx, rx) = blocking::channel();
        let go = Mutex::new(Some(rx));
        (
            Arc::new(Self {
                go,
                entered: tokio::sync::Notify::new(),
                requests: AtomicUsize::new(0),
            }),
            tx,
        )
    }
}

impl Handler for Stuck {
    fn request(&self, inbound: Inbound) {
        if inbound.class == Class::Action {
            self.requests.fetch_add(1, Ordering::SeqCst);
            let go = self.go.lock().take();
            if let Some(go) = go {
                self.entered.notify_one();
                let _ = tokio::task::block_in_place(|| go.recv());
            }
        }
        let body = inbound.body.clone();
        inbound.respond(body);
    }

    fn stream(&self, _: InboundStream) {}
}

/// A client whose queue towards node 2 is small, and a node 2 that reads nothing until told.
fn stuck_pair() -> (Running, Arc<Stuck>, blocking::Sender<()>) {
    let ca = ca("test");
    let config = TransportConfig {
        stream_window: 16 << 10,
        queue_bytes: 8 << 10,
        waiting_max: 2,
        idle_timeout: LONG,
        // A handler that blocks its thread holds up acknowledgements, too.
        silence_max: LONG,
        ..Default::default()
    };
    let (handler, go) = Stuck::new();
    let (server, ..) = start_with(config.clone(), node(&ca, 2), Some(loopback()), handler.clone()).unwrap();
    let client = start(config, node(&ca, 1), Some(loopback()));
    client
        .transport
        .set_route(PeerId::Node(TWO), server.local_addr().unwrap().to_string());
    (client, handler, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_full_queue_is_an_answer_and_what_was_reported_unsent_never_arrives() {
    let (client, handler, go) = stuck_pair();
    let transport = client.transport.clone();
    let first = tokio::spawn(async move {
        transport
            .call(TWO, Class::Action, ECHO, bytes("first"), LONG)
            .await
    });
    handler.entered.notified().await;

    // Fill the stream's window one by one, until a request cannot leave any more.
    let call = |after| {
        let transport = client.transport.clone();
        let body = Bytes::from(vec![7; 2 << 10]);
        async move { transport.call(TWO, Class::Action, ECHO, body, after).await }
    };
    let mut sent = 0;
    loop {
        match call(Duration::from_millis(20)).await {
            Err(TransportError::Deadline { sent: true, .. }) => sent += 1,
            Err(TransportError::Deadline { sent: false, .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    // Then the queue, then the places for waiting.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        calls.spawn(call(Duration::from_millis(500)));
    }
    let (mut unsent, mut overloaded) = (0, 0);
    while let Some(done) = calls.join_next().await {
        match done.unwrap() {
            Err(TransportError::Deadline { sent: true, .. }) => sent += 1,
            Err(TransportError::Deadline { sent: false, .. }) => unsent += 1,
            Err(error @ TransportError::Overloaded { .. }) => {
                assert!(!error.perhaps_done());
                overloaded += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        sent > 0 && unsent > 0 && overloaded > 0,
        "{sent} sent, {unsent} unsent, {overloaded} overloaded"
    );

    go.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(bytes("first")));
    // Frames of one stream arrive in order: once this one has, everything before it has.
    assert_eq!(
        client
            .transport
            .call(TWO, Class::Action, ECHO, bytes("last"), LONG)
            .await,
        Ok(bytes("last"))
    );
    let arrived = handler.requests.load(Ordering::SeqCst) - 2;
    assert!(
        arrived <= sent,
        "{arrived} arrived, but only {sent} were reported as sent"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn votes_are_not_delayed_by_a_full_action_stream() {
    let (client, handler, go) = stuck_pair();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let transport = client.transport.clone();
        let body = Bytes::from(vec![7; 2 << 10]);
        calls.spawn(async move { transport.call(TWO, Class::Action, ECHO, body, LONG).await });
    }
    handler.entered.notified().await;
    for class in [Class::Vote, Class::Append] {
        let answer = client
            .transport
            .call(TWO, class, ECHO, bytes("v"), SECOND * 5)
            .await;
        assert_eq!(answer, Ok(bytes("v")), "{class:?}");
    }
    go.send(()).unwrap();
}

#[tokio::test]
async fn an_acceptor_with_too_many_open_requests_refuses_more() {
    let ca = ca("test");
    let config = TransportConfig {
        inbound_max: 2,
        ..Default::default()
    };
    let mut server = start(config, node(&ca, 2), Some(loopback()));
    let client = start(TransportConfig::default(), node(&ca, 1), Some(loopback()));
    client.transport.set_route(PeerId::Node(TWO), server.address());
    let call = || {
        client
            .transport
            .call(TWO, Class::Action, SILENT, Bytes::new(), LONG)
    };
    let (first, second, third) = tokio::join!(call(), call(), async {
        let held = [server.next_request().await, server.next_request().await];
        let third = call().await;
        for inbound in held {
            inbound.respond(bytes("a"));
        }
        third
    });
    assert_eq!((first, second), (Ok(bytes("a")), Ok(bytes("a"))));
    assert!(
        matches!(
            third,
            Err(TransportError::Refused {
                code: RefusalCode::Overloaded,
                ..
            })
        ),
        "{third:?}"
    );
    // The places are free again.
    let (again, ()) = tokio::join!(call(), async {
        let refusal = Refusal::new(RefusalCode::Forbidden, "not you");
        server.next_request().await.refuse(refusal);
    });
    assert!(
        matches!(
            again,
            Err(TransportError::Refused {
                code: RefusalCode::Forbidden,
                ..
            })
        ),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_dropped_call_frees_its_place() {
    let ca = ca("test");
    let config = TransportConfig {
        pending_max: 1,
        ..Default::default()
    };
    let mut server = start(config.clone(), node(&ca, 2), Some(loopback()));
    let client = start(config, node(&ca, 1), Some(loopback()));
    client.transport.set_route(PeerId::Node(TWO), server.address());
    let held = {
        let mut call = Box::pin(
            client
                .transport
                .call(TWO, Class::Action, SILENT, Bytes::new(), LONG),
        );
        let held = tokio::select! {
            answer = &mut call => panic!("{answer:?}"),
            inbound = server.next_request() => inbound,
        };
        let full = client
            .transport
            .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
            .await;
        assert!(
            matches!(full, Err(TransportError::Overloaded { limit: 1, .. })),
            "{full:?}"
        );
        held
    };
    assert_eq!(
        client
            .transport
            .call(TWO, Class::Action, ECHO, bytes("q"), LONG)
            .await,
        Ok(bytes("q"))
    );
    held.respond(bytes("late"));
    assert_eq!(
        client
            .transport
            .call(TWO, Class::Action, ECHO, bytes("r"), LONG)
            .await,
        Ok(bytes("r"))
    );
}

#[tokio::test]
async fn connections_are_reported_to_both_handlers_and_a_forgotten_node_is_not_dialled() {
    let (mut one, mut two) = pair(TransportConfig::default());
    one.transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
        .await
        .unwrap();
    assert!(matches!(
        one.next_connection().await,
        Seen::Up(PeerId::Node(TWO), Side::Dialled)
    ));
    assert!(matches!(
        two.next_connection().await,
        Seen::Up(PeerId::Node(NodeId(1)), Side::Accepted)
    ));
    one.transport.forget(TWO);
    assert!(matches!(
        one.next_connection().await,
        Seen::Down(PeerId::Node(TWO), Side::Dialled)
    ));
    assert!(matches!(
        two.next_connection().await,
        Seen::Down(PeerId::Node(NodeId(1)), Side::Accepted)
    ));
    let error = one
        .transport
        .call(TWO, Class::Action, ECHO, Bytes::new(), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::NotSent { .. }), "{error:?}");
}
