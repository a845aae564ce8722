//! A minimal HTTP/1.1 client: one keep-alive connection, nothing repeated by itself.
//!
//! Not here: what the requests mean (`caller`, `cluster`).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::tally::Failure;

/// Largest answer read, in bytes.
const ANSWER_MAX: usize = 16 << 20;

/// One connection to a gateway, opened again by the next request after it was lost.
pub(crate) struct Http {
    /// `host:port`.
    address: String,
    host: HeaderValue,
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    /// To the gateway at `http://host:port`; connects with the first request.
    ///
    /// # Errors
    /// When that is no such address.
    pub(crate) fn new(base: &str, timeout: Duration) -> anyhow::Result<Self> {
        let address = base
            .strip_prefix("http://")
            .unwrap_or(base)
            .trim_end_matches('/')
            .to_owned();
        let host = HeaderValue::from_str(&address)?;
        Ok(Self {
            address,
            host,
            timeout,
            connection: None,
        })
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// `http.connect` when nothing was sent; `http.lost` and `http.timeout` when the request may have been done.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        uri: Uri,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let timeout = self.timeout;
        let answer = tokio::time::timeout(timeout, self.exchange(method, uri, body)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure::perhaps(
                "http.timeout",
                format!("no answer within {} ms", timeout.as_millis()),
            ))
        });
        if answer.is_err() {
            // What is left on it would be taken for the answer to the next request.
            self.connection = None;
        }
        answer
    }

    /// As [`Http::send`], for a path that answers 200.
    ///
    /// # Errors
    /// And any other status.
    pub(crate) async fn get(&mut self, path: &'static str) -> Result<Bytes, Failure> {
        let (status, body) = self
            .send(Method::GET, Uri::from_static(path), Bytes::new())
            .await?;
        match status {
            StatusCode::OK => Ok(body),
            other => Err(Failure::refused("http.status", format!("{path} answers {other}"))),
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        uri: Uri,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.address).await?),
        };
        let refused = |what: &dyn std::fmt::Display| Failure::refused("http.connect", what.to_string());
        connection.ready().await.map_err(|e| refused(&e))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, self.host.clone());
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let lost = |what: &dyn std::fmt::Display| Failure::perhaps("http.lost", what.to_string());
        let response = connection.send_request(request).await.map_err(|e| lost(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|e| lost(&e))?;
        Ok((status, body.to_bytes()))
    }
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let refused = |e: &dyn std::fmt::Display| Failure::refused("http.connect", format!("{address}: {e}"));
    let stream = TcpStream::connect(address).await.map_err(|e| refused(&e))?;
    stream.set_nodelay(true).map_err(|e| refused(&e))?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| refused(&e))?;
    // Ends with the connection; its error is told by the request that meets it.
    tokio::spawn(connection);
    Ok(sender)
}
