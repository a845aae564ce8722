//! Raw HTTP answered by a service inside the actor, by the actor itself, and by nobody.

use std::convert::Infallible;
use std::sync::Arc;

use crate::common::TestCluster;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use bytes::Bytes;
use clinch::http::{Request, Response};
use clinch::prelude::*;
use clinch::{Body, serve_request};
use clinch_client::RoutedCall;
use clinch_types::{CallError, CallOp, Door, HttpBody, HttpReply, HttpRequest, Key, Target, codec};
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

/// Lets in who says so, and keeps who came and went.
#[derive(Default, Serialize, Deserialize)]
struct Guarded {
    log: Vec<String>,
}

#[clinch::actor(name = "guarded")]
impl Guarded {
    #[hook]
    fn before_connect(&self, c: &Ctx<Self>, user: Option<String>) -> Result<()> {
        match (user.as_deref(), c.header("x-pass")) {
            (Some("amy"), Some("sesame")) => Ok(()),
            (user, _) => Err(Error::user("not_you", format!("{user:?} may not"))),
        }
    }

    #[hook]
    fn conn_state(user: String) -> String {
        user
    }

    #[hook]
    fn on_connect(&mut self, conn: &Conn<Self>) -> Result<()> {
        self.log.push(format!("+{}", conn.state()?));
        Ok(())
    }

    #[hook]
    fn on_disconnect(&mut self, conn: &Conn<Self>) -> Result<()> {
        self.log.push(format!("-{}", conn.state()?));
        Ok(())
    }

    #[hook]
    fn on_request(&mut self, c: &Ctx<Self>, request: Request<Bytes>) -> Result<Response<String>> {
        let (user, path) = (c.conn()?.state()?, request.uri().path().to_owned());
        self.log.push(format!("{user} asks {path}"));
        match path.as_str() {
            "/fail" => Err(Error::user("no", "not this")),
            _ => Ok(Response::new(String::new())),
        }
    }

    #[action]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_request_is_a_connection_as_long_as_it_lasts() {
    let cluster = TestCluster::start(1, Registry::new().actor::<Guarded>()).await;
    let ask = async |user: Option<&str>, pass: &str, uri: &str| {
        let request = HttpRequest {
            method: "GET".into(),
            uri: uri.into(),
            body: HttpBody::Whole(Vec::new()),
        };
        let target = Target::Key {
            namespace: "default".into(),
            name: "guarded".into(),
            key: Key::new(["a"]).expect("a short key"),
            create: Some(Default::default()),
        };
        let headers = vec![("x-pass".to_owned(), pass.to_owned())];
        let call = RoutedCall {
            params: user.map(|user| clinch::encode(&user).expect("a text").into()),
            door: Some(Box::new(Door { conn: None, headers })),
            ..RoutedCall::new(target, CallOp::Http(Box::new(request)))
        };
        cluster.node(0).cluster().router().exchange(call, None).await
    };
    let code = |answered: Result<clinch_client::Answered, CallError>| match answered {
        Ok(_) => "let in".to_owned(),
        Err(CallError::Failed(error)) => error.code,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(code(ask(None, "sesame", "/").await), "not_you");
    assert_eq!(code(ask(Some("amy"), "", "/").await), "not_you");
    assert_eq!(code(ask(Some("amy"), "sesame", "/a").await), "let in");
    // All of it is one turn: what fails leaves neither the request nor its connection.
    assert_eq!(code(ask(Some("amy"), "sesame", "/fail").await), "no");
    let guarded = cluster.node(0).cluster().get::<Guarded>("a");
    assert_eq!(guarded.log().await.unwrap(), ["+amy", "amy asks /a", "-amy"]);
}
