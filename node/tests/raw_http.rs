//! Raw HTTP answered by a service inside the actor, by the actor itself, and by nobody.

mod common;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use bytes::Bytes;
use clinch::http::{Request, Response};
use clinch::prelude::*;
use clinch::{Body, serve_request};
use clinch_client::RoutedCall;
use clinch_types::{CallError, CallOp, HttpBody, HttpReply, HttpRequest, Key, Target, codec};
use common::TestCluster;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Shop {
    asked: u32,
    stock: Vec<String>,
}

#[clinch::actor(name = "shop")]
impl Shop {
    #[hook]
    async fn on_request(&mut self, request: Request<Bytes>) -> Result<Option<Response<Body>>> {
        self.asked += 1;
        if request.uri().path() == "/elsewhere" {
            return Ok(None);
        }
        let stock = Arc::new(Mutex::new(std::mem::take(&mut self.stock)));
        let router = Router::new()
            .route("/stock", get(list))
            .route("/stock/{thing}", get(has).put(add))
            .with_state(Arc::clone(&stock));
        let response = serve_request(router, request).await;
        self.stock = std::mem::take(&mut stock.lock());
        response.map(Some)
    }

    #[action]
    fn asked(&self) -> u32 {
        self.asked
    }
}

type Stock = State<Arc<Mutex<Vec<String>>>>;

async fn list(State(stock): Stock) -> String {
    stock.lock().join(" ")
}

async fn has(State(stock): Stock, Path(thing): Path<String>) -> Result<String, axum::http::StatusCode> {
    match stock.lock().contains(&thing) {
        true => Ok(thing),
        false => Err(axum::http::StatusCode::NOT_FOUND),
    }
}

async fn add(State(stock): Stock, Path(thing): Path<String>, body: String) -> Result<String, Infallible> {
    stock.lock().push(format!("{thing}:{body}"));
    Ok(format!("added {thing}"))
}

async fn ask(cluster: &TestCluster, method: &str, uri: &str) -> Result<(u16, String), CallError> {
    let request = HttpRequest {
        method: method.into(),
        uri: uri.into(),
        body: HttpBody::Whole(b"7".to_vec()),
    };
    let target = Target::Key {
        namespace: "default".into(),
        name: "shop".into(),
        key: Key::new(["a"]).expect("a short key"),
        create: Some(Default::default()),
    };
    let call = RoutedCall::new(target, CallOp::Http(Box::new(request)));
    let output = cluster.node(0).cluster().router().call(call).await?.output;
    let reply: HttpReply = codec::decode(&output).expect("a reply");
    let HttpBody::Whole(body) = reply.body else {
        panic!("a short answer is whole: {reply:?}")
    };
    Ok((reply.status, String::from_utf8(body).expect("text")))
}

fn refusal(result: Result<(u16, String), CallError>) -> (String, String) {
    match result {
        Err(CallError::Failed(error)) => (format!("{}.{}", error.group, error.code), error.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_inside_an_actor_answers_and_what_it_does_not_is_passed_on() {
    let cluster = TestCluster::start(1, Registry::new().actor::<Shop>()).await;
    let said = |status: u16, text: &str| (status, text.to_owned());
    assert_eq!(
        ask(&cluster, "PUT", "/stock/tea").await.unwrap(),
        said(200, "added tea")
    );
    assert_eq!(ask(&cluster, "GET", "/stock").await.unwrap(), said(200, "tea:7"));
    assert_eq!(
        ask(&cluster, "GET", "/stock/tea:7").await.unwrap(),
        said(200, "tea:7")
    );
    assert_eq!(ask(&cluster, "GET", "/stock/milk").await.unwrap(), said(404, ""));
    assert_eq!(ask(&cluster, "DELETE", "/stock/tea").await.unwrap().0, 405);
    assert_eq!(
        cluster.node(0).cluster().get::<Shop>("a").asked().await.unwrap(),
        5
    );

    // Not answered: the turn leaves nothing.
    let (code, message) = refusal(ask(&cluster, "GET", "/elsewhere?a=1").await);
    assert_eq!(code, "handler.request_not_defined");
    assert!(message.contains("GET /elsewhere"), "{message}");
    assert_eq!(
        cluster.node(0).cluster().get::<Shop>("a").asked().await.unwrap(),
        5
    );
    assert_eq!(ask(&cluster, "GET", "/stock").await.unwrap(), said(200, "tea:7"));
}
