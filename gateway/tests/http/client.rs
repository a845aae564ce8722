//! A gateway on a real socket, and a client that writes requests byte by byte: what no library would send, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clinch_gateway::{GatewayConfig, Tls, router, serve};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::memory::Memory;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) memory: Arc<Memory>,
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Memory::recording(), GatewayConfig::default()).await
    }

    pub(crate) async fn with(memory: Memory, config: GatewayConfig) -> Self {
        let memory = Arc::new(memory);
        let config = config.validate().expect("the test's settings are sound");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let router = router(memory.clone(), config.clone());
        tracker.spawn(serve(
            vec![listener],
            router,
            config.clone(),
            Tls::load(&config).expect("the test's certificate is sound"),
            stop.clone(),
            tracker.clone(),
        ));
        Self {
            address,
            memory,
            stop,
            tracker,
        }
    }

    /// Ends the server and waits for all of its tasks.
    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        self.tracker.close();
        within(self.tracker.wait()).await;
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the gateway listens")
    }

    /// Sends bytes and reads the one answer to them.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("the gateway reads");
        within(Answer::read(&mut stream)).await
    }

    pub(crate) async fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.raw(&request(line, headers, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], b"").await
    }

    /// Calls an action in JSON.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&format!("POST {path}"), &[], body.as_bytes()).await
    }

    /// Finds or makes an actor through the manager API; gives its id.
    pub(crate) async fn actor(&self, name: &str, key: &str) -> String {
        let body = serde_json::json!({"name": name, "key": key}).to_string();
        let answer = self.send("PUT /actors", &[], body.as_bytes()).await;
        answer.json()["actor"]["actor_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }
}

/// The bytes of a request with a length.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "{line} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens in time")
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// Reads one answer with a length, or up to the end of the connection.
    pub(crate) async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let len = stream.read_buf(&mut bytes).await.expect("the gateway answers");
            assert!(len > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        };
        let mut body = bytes.split_off(head + 4);
        let text = String::from_utf8(bytes).expect("our headers are ASCII");
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .expect("a status");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Self {
            status: status.parse().expect("a number"),
            body: Vec::new(),
            headers,
        };
        let len = answer
            .header("content-length")
            .map_or(0, |len| len.parse().expect("a number"));
        while body.len() < len {
            let read = stream.read_buf(&mut body).await.expect("the gateway answers");
            assert!(read > 0, "closed in the body");
        }
        answer.body = body;
        answer
    }

    /// The value of a header; all values with commas between when it is there more than once.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts that this is the error `group/code`, as every client understands it.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, error: &str) {
        let body = self.json();
        let found = format!(
            "{}/{}",
            body["group"].as_str().unwrap_or("?"),
            body["code"].as_str().unwrap_or("?")
        );
        assert_eq!((self.status, found.as_str()), (status, error), "{body}");
        assert_eq!(self.header("content-type").as_deref(), Some("application/json"));
        assert!(body["message"].is_string(), "{body}");
    }

    #[track_caller]
    pub(crate) fn message_has(&self, text: &str) {
        let body = self.json();
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "{message:?} has no {text:?}");
    }
}
