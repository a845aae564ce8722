//! One request to a gateway, and everything it answers: status, clock and body.

use std::time::Duration;

use clinch_types::{Clock as _, WallMs};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::SystemClock;

/// Most bytes of an answer that are read.
const ANSWER_MAX: u64 = 16 << 20;

/// What a gateway said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    /// How far its clock is ahead of this one's, in ms, to within a second; unknown without a date in its answer.
    pub(super) ahead_ms: Option<i64>,
}

/// Asks `GET path` of the gateway at `http://host:port`.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn get(
    gateway: &str,
    path: &str,
    token: Option<&str>,
    timeout: Duration,
) -> Result<Answer, String> {
    let uri = gateway.parse::<http::Uri>().map_err(|error| error.to_string())?;
    let host = uri.host().ok_or("there is no host in it")?.to_owned();
    let port = uri.port_u16().unwrap_or(80);
    let credentials = token.map_or(String::new(), |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    // HTTP/1.0: the answer ends where the connection does.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\n{credentials}\r\n");
    let exchange = async {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((bare, port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(timeout, exchange).await;
    let answer = answer.map_err(|_| format!("nothing within {timeout:?}"))?;
    let answer = answer.map_err(|error| error.to_string())?;
    read(&String::from_utf8_lossy(&answer), SystemClock.wall())
}

fn read(answer: &str, now: WallMs) -> Result<Answer, String> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("what answers there is no gateway")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or("what answers there does not speak HTTP")?;
    let date = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim())
    });
    let seconds = date.and_then(|date| {
        let date = httpdate::parse_http_date(date).ok()?;
        date.duration_since(std::time::UNIX_EPOCH).ok()
    });
    // Dates have whole seconds: the middle of theirs is meant.
    let ahead_ms = seconds.and_then(|since| {
        let theirs = i64::try_from(since.as_millis()).ok()? + 500;
        Some(theirs - i64::try_from(now.0).ok()?)
    });
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Ok(Answer {
        status,
        body,
        ahead_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_a_body_and_a_clock() {
        let text = "HTTP/1.0 503 Service Unavailable\r\nDate: Thu, 01 Jan 1970 00:00:10 GMT\r\n\r\n{\"reason\":\"r\"}";
        let answer = read(text, WallMs(3_500)).unwrap();
        assert_eq!((answer.status, answer.ahead_ms), (503, Some(7_000)));
        assert_eq!(answer.body["reason"], "r");
        let answer = read("HTTP/1.1 200 OK\r\n\r\nhello", WallMs(0)).unwrap();
        assert_eq!(
            (answer.status, answer.ahead_ms, answer.body),
            (200, None, Value::Null)
        );
        assert!(read("SSH-2.0-x\r\n", WallMs(0)).is_err());
    }
}
