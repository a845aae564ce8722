//! Raw HTTP and raw WebSockets from programs and from actors: what browsers have by a gateway, by the same handles as calls.

use std::time::Duration;

use crate::common::{PATIENCE, TestCluster};
use bytes::Bytes;
use clinch::http::{HeaderValue, Request, Response, StatusCode};
use clinch::prelude::*;
use clinch::{Body, Client, ClientConfig, Frame};
use clinch_transport::{CertBundle, PeerId};
use clinch_types::limits;
use serde::{Deserialize, Serialize};

/// Longer than what travels with a request, and than an answer that is remembered whole.
const LONG: usize = limits::REPLY_MAX + 1;

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    asked: u32,
}

#[clinch::actor(name = "desk")]
impl Desk {
    #[hook]
    fn before_connect(&self, user: Option<String>) -> Result<()> {
        match user.as_deref() {
            Some("eve") => Err(Error::user("not_you", "eve may not")),
            _ => Ok(()),
        }
    }

    #[hook]
    async fn on_request(&mut self, request: Request<Body>) -> Result<Option<Response<Body>>> {
        self.asked += 1;
        let (parts, body) = request.into_parts();
        let header = |name: &str| {
            let value = parts.headers.get(name).map(|value| value.as_bytes().to_vec());
            value.unwrap_or_default()
        };
        Ok(Some(match parts.uri.path() {
            "/told" => {
                let text = format!(
                    "{} {} {:?} {} {}",
                    parts.method,
                    parts.uri,
                    String::from_utf8_lossy(&header("x-name")),
                    parts.headers.contains_key("te"),
                    body.whole(limits::HTTP_BODY_MAX).await?.len(),
                );
                let response = Response::builder().status(StatusCode::ACCEPTED);
                let response = response.header("x-asked", self.asked).body(text.into());
                response.map_err(Error::internal)?
            }
            "/long" => Response::new(vec![b'x'; LONG].into()),
            _ => return Ok(None),
        }))
    }

    #[hook]
    fn on_websocket(&mut self, conn: &Conn<Self>) {
        conn.send_text(format!("welcome to {}", conn.path()));
    }

    #[hook]
    fn on_message(&mut self, conn: &Conn<Self>, frame: Frame) -> Result<()> {
        match frame {
            Frame::Text(text) if text == "bye" => conn.close(4001, "bye now"),
            Frame::Text(text) if text == "fail" => return Err(Error::user("bad", "no")),
            Frame::Text(text) => {
                self.asked += 1;
                conn.send_text(format!("{} {text}", self.asked));
            }
            Frame::Binary(bytes) => conn.send_binary(bytes.iter().rev().copied().collect::<Vec<u8>>()),
        }
        Ok(())
    }

    /// Asks another one, from inside a turn.
    #[action]
    async fn ask(&self, c: &Ctx<Self>, other: String) -> Result<String> {
        let request = Request::post("/told").body("abc").map_err(Error::internal)?;
        let answer = c.get::<Desk>(other).fetch(request).await?;
        let body = answer.into_body().whole(limits::HTTP_WHOLE_MAX).await?;
        String::from_utf8(body.into()).map_err(Error::internal)
    }

    /// Opens a socket, from inside a turn.
    #[action]
    async fn open(&self, c: &Ctx<Self>, other: String) -> Result<()> {
        c.get::<Desk>(other).websocket("/x").await.map(drop)
    }

    #[action]
    fn asked(&self) -> u32 {
        self.asked
    }
}

async fn whole(answer: Response<Body>) -> Bytes {
    answer
        .into_body()
        .whole(limits::HTTP_BODY_MAX)
        .await
        .expect("a whole body")
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("a sound request")
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_actors_ask_raw_requests_with_bodies_both_ways() {
    let cluster = TestCluster::start(3, Registry::new().actor::<Desk>()).await;
    cluster.settled().await;
    let identity = CertBundle::load(&cluster.certs(), &PeerId::Client("test".into())).unwrap();
    let seeds = vec![cluster.node(0).address().to_string()];
    let client = Client::connect(ClientConfig::new(identity, seeds)).await.unwrap();
    let nodes = [0, 1, 2].map(|index| cluster.node(index).cluster().clone());
    let ways = nodes.iter().chain([client.cluster()]);
    for (count, way) in (1..).zip(ways) {
        let desk = way.get::<Desk>("a");
        // The authority of a URI is the gateway's, elsewhere; `te` is about the way.
        let name = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        let request = Request::put("http://any/told?q=1").header("x-name", name);
        let answer = desk
            .fetch(request.header("te", "x").body("seven").unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(answer.headers()["x-asked"], (2 * count - 1).to_string());
        assert_eq!(whole(answer).await, "PUT /told?q=1 \"caf\u{e9}\" false 5");
        // Both bodies flow.
        let request = Request::post("/told").body(vec![b'y'; LONG]).unwrap();
        let said = whole(desk.fetch(request).await.unwrap()).await;
        assert_eq!(said, format!("POST /told \"\" false {LONG}"));
        let answer = way.get::<Desk>("long").fetch(get("/long")).await.unwrap();
        assert_eq!(answer.body().length(), None, "it is streamed");
        assert_eq!(whole(answer).await, vec![b'x'; LONG]);
    }
    let desk = client.cluster().get::<Desk>("a");
    assert_eq!(desk.asked().await.unwrap(), 8);
    assert_eq!(
        client.cluster().get::<Desk>("b").ask("c".into()).await.unwrap(),
        "POST /told \"\" false 3"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_requests_that_cannot_be_answered_say_why_and_leave_nothing() {
    let cluster = TestCluster::start(1, Registry::new().actor::<Desk>()).await;
    let cluster = cluster.node(0).cluster();
    let desk = cluster.get::<Desk>("a");
    let error = desk.fetch(get("/nowhere")).await.unwrap_err();
    assert!(error.is("handler", "request_not_defined"), "{error}");
    let error = desk.fetch(get("host-alone")).await.unwrap_err();
    assert!(
        error.is("actor", "invalid_request") && error.message().contains("host-alone"),
        "{error}"
    );
    let error = desk
        .clone()
        .with_params("eve")
        .fetch(get("/told"))
        .await
        .unwrap_err();
    assert!(error.is("user", "not_you"), "{error}");
    let long = Request::get(format!("/{}", "x".repeat(limits::URI_MAX)))
        .body("")
        .unwrap();
    let error = desk.fetch(long).await.unwrap_err();
    let message = error.message();
    assert!(
        message.contains(&limits::URI_MAX.to_string()) && message.contains("8193"),
        "{error}"
    );
    let absent = cluster.get::<Desk>("absent").existing();
    let error = absent.fetch(get("/told")).await.unwrap_err();
    assert!(error.is("actor", "not_found"), "{error}");
    // A turn that waits for itself would wait for ever.
    let error = desk.ask("a".into()).await.unwrap_err();
    assert!(error.is("actor", "deadlock"), "asked: {error}");
    let error = desk.open("a".into()).await.unwrap_err();
    assert!(error.is("actor", "deadlock"), "opened: {error}");
    desk.open("b".into()).await.unwrap();
    assert_eq!(desk.asked().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_speaks_over_a_raw_socket_that_outlives_its_owner() {
    let mut cluster = TestCluster::start(3, Registry::new().actor::<Desk>()).await;
    cluster.settled().await;
    let identity = CertBundle::load(&cluster.certs(), &PeerId::Client("test".into())).unwrap();
    let seeds = cluster
        .nodes
        .iter()
        .flatten()
        .map(|node| node.address().to_string());
    let client = Client::connect(ClientConfig::new(identity, seeds.collect()))
        .await
        .unwrap();
    let desk = client.cluster().get::<Desk>("a");
    let refused = desk.clone().with_params("eve").websocket("/x").await;
    assert!(refused.err().is_some_and(|error| error.is("user", "not_you")));

    let mut socket = desk.websocket("/x?y=1").await.unwrap();
    assert_eq!(socket.next().await, Some("welcome to /websocket/x?y=1".into()));
    socket.send("hi").await.unwrap();
    socket.send(vec![1, 2, 3]).await.unwrap();
    assert_eq!(socket.next().await, Some("1 hi".into()));
    assert_eq!(socket.next().await, Some(vec![3, 2, 1].into()));
    let error = socket.send("fail").await.unwrap_err();
    assert!(error.is("user", "bad"), "{error}");
    let error = socket
        .send("x".repeat(limits::RAW_MESSAGE_MAX + 1))
        .await
        .unwrap_err();
    assert!(
        error.message().contains(&limits::RAW_MESSAGE_MAX.to_string()),
        "{error}"
    );

    let target = desk.target().unwrap().clone();
    let (_, owner) = cluster.owner(0, &target).expect("an owner");
    cluster.stop_node(owner).await;
    for number in 2..=20 {
        socket.send("on").await.unwrap();
        assert_eq!(socket.next().await, Some(format!("{number} on").into()));
    }
    socket.send("bye").await.unwrap();
    let last = tokio::time::timeout(PATIENCE, socket.next()).await;
    assert_eq!(last.expect("it has ended"), None);
    let reason = tokio::time::timeout(PATIENCE, socket.ended())
        .await
        .expect("it has ended");
    assert!(
        reason.is("actor", "connection_closed") && reason.message() == "bye now",
        "{reason}"
    );
    assert_eq!(reason.metadata::<Closed>().unwrap().close_code, 4001);
    let gone = tokio::time::timeout(Duration::from_secs(20), socket.send("more")).await;
    assert!(gone.expect("an answer in time").is_err());
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Closed {
    close_code: u16,
}
