//! The floors of this machine, measured right before the runs they are compared with: one sync, one round trip.
//!
//! Nothing that is durable at another process can be faster than the two together.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clinch_transport::{
    Class, ClusterCa, Handler, Inbound, InboundStream, PeerId, RefuseAll, Transport, TransportConfig,
    UdpSockets,
};
use clinch_types::{Clock, NodeId};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::load::{Caller, Load, Pace, Plan};
use crate::tally::{Failure, Tally};

/// One write, as a log makes it.
const BLOCK_BYTES: usize = 4 << 10;
/// Blocks written before the log is recycled: enough that a drive does not see one hot block.
const BLOCKS: u64 = 1024;
/// Bytes of an echoed frame, about those of an increment.
const ECHO_BYTES: usize = 200;

/// What the machine can do at best. Times in µs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Floors {
    /// Overwrite 4 KiB of a preallocated file in the cluster's folder and `fdatasync` it.
    pub(crate) fdatasync_p50_us: f64,
    pub(crate) fdatasync_p99_us: f64,
    /// One frame there and back on a long-lived QUIC stream over loopback, both ends in this process.
    pub(crate) quic_p50_us: f64,
    pub(crate) quic_p99_us: f64,
}

impl Floors {
    /// Measures both, each for `time`, files in `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written, or the echo does not start.
    pub(crate) async fn measure(folder: &Path, time: Duration) -> anyhow::Result<Self> {
        let disk = tokio::task::block_in_place(|| sync_recycled(folder, time))
            .with_context(|| format!("syncing a file in {}", folder.display()))?;
        let disk = disk.latency().context("no write was synced")?;
        let network = echo(time)
            .await
            .context("the QUIC echo")?
            .latency()
            .context("nothing was echoed")?;
        Ok(Self {
            fdatasync_p50_us: disk.p50_us,
            fdatasync_p99_us: disk.p99_us,
            quic_p50_us: network.p50_us,
            quic_p99_us: network.p99_us,
        })
    }

    /// The least that a durable change at another process takes, in ms: one sync and one round trip.
    pub(crate) fn durable_ms(&self) -> f64 {
        (self.fdatasync_p50_us + self.quic_p50_us) / 1000.0
    }
}

fn sync_recycled(folder: &Path, time: Duration) -> std::io::Result<Tally> {
    let path = folder.join("floor.bin");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    let mut block = vec![0u8; BLOCK_BYTES];
    for index in 0..BLOCKS {
        file.write_all_at(&block, index * BLOCK_BYTES as u64)?;
    }
    file.sync_all()?;
    let mut tally = Tally::default();
    let until = Instant::now() + time;
    for index in 0u64.. {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        block[..8].copy_from_slice(&index.to_le_bytes());
        file.write_all_at(&block, index % BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        let ended = Instant::now();
        tally.sample(Ok(()), ended - begun, ended);
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(tally)
}

struct Echo;

impl Handler for Echo {
    fn request(&self, inbound: Inbound) {
        let body = inbound.body.clone();
        inbound.respond(body);
    }

    fn stream(&self, _: InboundStream) {}
}

struct EchoCaller {
    client: Transport,
    body: Bytes,
}

impl Caller for EchoCaller {
    async fn call(&mut self) -> Result<i64, Failure> {
        let answer = self
            .client
            .call(
                SERVER,
                Class::Action,
                1,
                self.body.clone(),
                Duration::from_secs(5),
            )
            .await;
        answer
            .map(|_| 0)
            .map_err(|e| Failure::refused("echo.failed", e.to_string()))
    }
}

const SERVER: NodeId = NodeId(1);

async fn echo(time: Duration) -> anyhow::Result<Tally> {
    let ca = ClusterCa::generate("bench-floor", clinch::SystemClock.wall())?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let start = |identity, bind, handler: Arc<dyn Handler>| {
        let (config, sockets) = (TransportConfig::default(), Arc::new(UdpSockets::default()));
        Transport::start(
            config,
            identity,
            sockets,
            bind,
            handler,
            tracker.clone(),
            stop.clone(),
        )
    };
    let server = start(
        ca.issue_node(SERVER, &[])?,
        Some("127.0.0.1:0".parse()?),
        Arc::new(Echo),
    )?;
    let client = start(ca.issue_client("bench")?, None, Arc::new(RefuseAll))?;
    client.set_route(PeerId::Node(SERVER), server.local_addr()?.to_string());
    let caller = EchoCaller {
        client,
        body: Bytes::from(vec![7; ECHO_BYTES]),
    };
    let plan = Plan {
        pace: Pace::Closed,
        warmup: time / 4,
        window: time,
    };
    let done = Load::start(vec![caller], plan)?.finish().await?;
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    anyhow::ensure!(done.tally.error_count() == 0, "{:?}", done.tally.errors());
    Ok(done.tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_floors_are_measured_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let floors = Floors::measure(folder.path(), Duration::from_millis(50))
            .await
            .unwrap();
        assert!(floors.fdatasync_p50_us > 0.0 && floors.fdatasync_p99_us >= floors.fdatasync_p50_us);
        assert!(floors.quic_p50_us > 0.0 && floors.durable_ms() > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
