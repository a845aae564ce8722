//! Waiting until nodes serve, and saying what is missing when they do not.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clinch_types::NodeId;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::LocalCluster;

/// Between two questions to a node that is not ready.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Most bytes of an answer that are read.
const ANSWER_MAX: u64 = 64 << 10;
/// How much of a log's end is shown.
const TAIL_BYTES: u64 = 4 << 10;
const TAIL_LINES: usize = 8;

pub(super) async fn wait(cluster: &LocalCluster, nodes: &[NodeId], timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut missing: BTreeMap<NodeId, String> =
        nodes.iter().map(|n| (*n, "was not asked yet".into())).collect();
    loop {
        for node in missing.keys().copied().collect::<Vec<_>>() {
            if !cluster.pids().contains_key(&node) {
                let log = cluster.log(node);
                anyhow::bail!(
                    "node {node} has ended; the end of {}:\n{}",
                    log.display(),
                    tail(&log)
                );
            }
            match ask(cluster.node(node)?.gateway).await {
                Ok(()) => drop(missing.remove(&node)),
                Err(reason) => drop(missing.insert(node, reason)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let list: Vec<String> = missing
                .iter()
                .map(|(node, reason)| format!("node {node}: {reason}"))
                .collect();
            let logs = cluster.dir().display();
            anyhow::bail!(
                "not ready after {timeout:?}: {} (logs are in {logs}/node-*/node.log)",
                list.join("; ")
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks one gateway's `/ready`; the error is the reason it gives.
async fn ask(gateway: SocketAddr) -> Result<(), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(gateway).await?;
        // HTTP/1.0: the answer ends where the connection does.
        stream
            .write_all(b"GET /ready HTTP/1.0\r\nhost: clinch\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(ASK_MAX, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("its gateway {gateway} does not answer: {error}")),
        Err(_) => return Err(format!("its gateway {gateway} is silent")),
    };
    judge(&String::from_utf8_lossy(&answer))
}

fn judge(answer: &str) -> Result<(), String> {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let reason = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|b| Some(b.get("reason")?.as_str()?.to_owned()));
    Err(reason.unwrap_or_else(|| format!("its gateway answers {status:?}")))
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let shown = lines[lines.len().saturating_sub(TAIL_LINES)..]
                .iter()
                .map(|line| format!("  {line}"));
            shown.collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("  (it cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        assert_eq!(judge("HTTP/1.0 200 OK\r\n\r\n{}"), Ok(()));
        let answer = "HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\n{\"status\":\"not-ready\",\"reason\":\"no quorum\"}";
        assert_eq!(judge(answer), Err("no quorum".into()));
        assert_eq!(judge("garbage"), Err("its gateway answers \"\"".into()));
    }
}
