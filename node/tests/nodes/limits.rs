//! Limits of what an actor keeps and is asked, at their edges: the errors name the value and the limit.

use std::time::Duration;

use crate::common::{TestCluster, eventually, gate, ran, runs};
use clinch::Body;
use clinch::http::{Request, Response};
use clinch::prelude::*;
use clinch_client::RoutedCall;
use clinch_types::{CallError, CallOp, ConnId, ConnKind, HttpBody, HttpRequest, Key, Target, limits};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Small {
    text: String,
}

#[clinch::actor(name = "small", state_max = "1KiB", queue_max = 2)]
impl Small {
    #[hook]
    fn conn_state() -> String {
        String::new()
    }

    #[hook]
    fn on_request(&mut self, request: Request<bytes::Bytes>) -> Response<String> {
        Response::new(request.body().len().to_string())
    }

    #[action]
    fn set(&mut self, len: usize) {
        self.text = "x".repeat(len);
    }

    #[action]
    fn len(&self) -> usize {
        self.text.len()
    }

    #[action]
    async fn hold(&mut self, c: &Ctx<Self>) {
        ran(&c.key().to_string());
        gate("small")
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
    }

    #[action]
    fn mark(&mut self, c: &Ctx<Self>, len: usize) -> Result<()> {
        c.conn()?.set_state(&"x".repeat(len))
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Open {}

#[clinch::actor(name = "open")]
impl Open {}

async fn start() -> TestCluster {
    TestCluster::start(1, Registry::new().actor::<Small>().actor::<Open>()).await
}

fn names(error: &Error, group: &str, code: &str, numbers: [usize; 2]) {
    assert!(error.is(group, code), "{error}");
    for number in numbers {
        assert!(
            error.message().contains(&number.to_string()),
            "{number} is not in: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_bounded_to_the_byte_and_a_turn_beyond_it_leaves_nothing() {
    let cluster = start().await;
    let small = cluster.node(0).cluster().get::<Small>("state");
    let encoded = |len: usize| {
        let text = "x".repeat(len);
        clinch::encode(&Small { text }).expect("a state").len()
    };
    let fits = (900..1024)
        .rev()
        .find(|len| encoded(*len) == 1024)
        .expect("a length that fits");
    small.set(fits).await.unwrap();
    let error = small.set(fits + 1).await.unwrap_err();
    names(&error, "actor", "state_too_large", [1025, 1024]);
    assert_eq!(small.len().await.unwrap(), fits);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_calls_wait_for_an_actor_as_it_allows_and_one_more_is_refused() {
    let cluster = start().await;
    let small = cluster.node(0).cluster().get::<Small>("queue");
    let call = || {
        let small = small.clone();
        tokio::spawn(async move { small.hold().await })
    };
    let first = call();
    eventually("the first one runs", || async { runs("queue") == 1 }).await;
    let waiting = [call(), call()];
    let refused = async || {
        small
            .hold()
            .timeout(Duration::from_millis(300))
            .await
            .unwrap_err()
    };
    eventually("the queue is full", || async {
        let error = refused().await;
        error.is("actor", "overloaded") && error.message().contains('2')
    })
    .await;
    gate("small").add_permits(100);
    first.await.unwrap().unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_connection_is_bounded_and_a_turn_without_one_says_so() {
    let cluster = start().await;
    let small = cluster.node(0).cluster().get::<Small>("conn");
    let conn = small.connect().await.unwrap();
    let head = clinch::encode(&"x".repeat(60_000)).unwrap().len() - 60_000;
    let max = limits::CONN_STATE_MAX;
    conn.mark(max - head).await.unwrap();
    let error = conn.mark(max - head + 1).await.unwrap_err();
    names(&error, "actor", "state_too_large", [max + 1, max]);
    let error = small.mark(1).await.unwrap_err();
    assert!(error.is("actor", "no_connection"), "{error}");
}

fn target(key: &str) -> Target {
    Target::Key {
        namespace: "default".into(),
        name: "small".into(),
        key: Key::new([key]).expect("a short key"),
        create: Some(Default::default()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_read_whole_has_a_limit_of_its_own() {
    let cluster = start().await;
    let router = cluster.node(0).cluster().router().clone();
    let ask = async |len: usize| {
        let request = HttpRequest {
            method: "PUT".into(),
            uri: "/".into(),
            body: HttpBody::Streamed { length: None },
        };
        let call = RoutedCall::new(target("body"), CallOp::Http(Box::new(request)));
        let pieces = (0..len)
            .step_by(1 << 16)
            .map(move |at| Ok::<_, Error>(vec![7; (len - at).min(1 << 16)]));
        router
            .exchange(call, Some(Body::from_stream(futures_util::stream::iter(pieces))))
            .await
    };
    let max = limits::HTTP_WHOLE_MAX;
    ask(max).await.unwrap();
    match ask(max + 1).await {
        Err(CallError::Failed(error)) => {
            names(&error.into(), "guard", "request_body_too_large", [max + 1, max])
        }
        other => panic!("{:?}", other.map(|(reply, _)| reply)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_has_so_many_connections_and_one_more_is_refused() {
    let cluster = start().await;
    let router = cluster.node(0).cluster().router();
    let open = |number: usize| {
        let op = CallOp::Connect {
            conn: ConnId(number as u128 + 1),
            kind: ConnKind::Events,
            path: String::new(),
        };
        let target = Target::Key {
            namespace: "default".into(),
            name: "open".into(),
            key: Key::new(["many"]).expect("a short key"),
            create: Some(Default::default()),
        };
        router.call(RoutedCall::new(target, op))
    };
    let max = limits::CONNS_MAX;
    // More than may be: those nobody asks about are ended after a while, which a slow machine may reach first.
    let mut opened = futures_util::stream::iter(0..5 * max).map(open).buffered(500);
    let mut let_in = 0;
    let refused = loop {
        match opened.next().await.expect("a refusal") {
            Ok(_) => let_in += 1,
            Err(error) => break error,
        }
    };
    assert!(let_in >= max, "refused after {let_in}: {refused}");
    match refused {
        CallError::Failed(error) => names(&error.into(), "actor", "too_many_connections", [max, max]),
        other => panic!("{other:?}"),
    }
}
