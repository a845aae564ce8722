//! The gateway of a node inside the web server of an application.

use crate::common::{PATIENCE, http};
use axum::Router;
use axum::routing::get;
use clinch::Frame;
use clinch::http::{Request, Response};
use clinch::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[derive(Default, Serialize, Deserialize)]
struct Loud {
    hits: u32,
}

#[clinch::actor(name = "loud")]
impl Loud {
    #[hook]
    fn on_message(&mut self, conn: &Conn<Self>, frame: Frame) {
        if let Frame::Text(text) = frame {
            conn.send_text(text.to_uppercase());
        }
    }

    #[hook]
    fn on_request(&mut self, request: Request<clinch::Body>) -> Response<String> {
        self.hits += 1;
        Response::new(format!("{} {}", request.uri(), self.hits))
    }
}

const QUERY: &str = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=r&rvt-key=a";

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_a_router_inside_of_another_server_with_its_sockets() {
    let node = Registry::new().actor::<Loud>().start_local().await.unwrap();
    let app = Router::new()
        .route("/", get(|| async { "the application" }))
        .nest_service("/api/actors", node.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let get = async |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        http(address, head.as_bytes()).await
    };
    assert_eq!(get("/").await, (200, "the application".into()));
    assert_eq!(get("/health").await.0, 404, "what is the application's stays so");
    assert_eq!(get("/api/actors/health").await.0, 200);
    let path = format!("/api/actors/gateway/loud/request/x?{QUERY}");
    assert_eq!(get(&path).await, (200, "/x 1".into()));

    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /api/actors/gateway/loud/websocket?{QUERY} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // A text of two letters, masked with nothing.
    socket
        .write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .await
        .unwrap();
    let mut heard = Vec::new();
    let answered = async {
        while !heard.ends_with(&[0x81, 2, b'H', b'I']) {
            assert!(socket.read_buf(&mut heard).await.unwrap() > 0, "{heard:?}");
        }
    };
    timeout(PATIENCE, answered).await.expect("an answer");
    // Sockets end with the node, though the server lives on.
    node.stop().await;
    timeout(PATIENCE, async {
        while socket.read_buf(&mut heard).await.unwrap_or(0) > 0 {}
    })
    .await
    .expect("the end of the socket");
    assert_eq!(get("/").await.0, 200);
    server.abort();
}
