//! Round trips per second over loopback, small bodies, class `Action`, both ends in this process.
//!
//! `cargo run --release -p clinch-transport --example echo_bench [seconds] [in flight ...]`
//! Prints one line per number of requests in flight: round trips/s, p50 and p99 latency, CPU per round trip (both
//! ends together).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_transport::{
    Class, ClusterCa, Handler, Inbound, InboundStream, PeerId, RefuseAll, Transport, TransportConfig,
    UdpSockets,
};
use clinch_types::{NodeId, WallMs};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BODY_BYTES: usize = 200;
const SERVER: NodeId = NodeId(1);
const SECOND: Duration = Duration::from_secs(1);

struct Echo;

impl Handler for Echo {
    fn request(&self, inbound: Inbound) {
        let body = inbound.body.clone();
        inbound.respond(body);
    }

    fn stream(&self, _: InboundStream) {}
}

/// Latencies in buckets of 1/16 of a power of two: counting must not cost more than what is counted.
struct Latencies(Vec<u64>);

const FINE_BITS: u32 = 4;

impl Latencies {
    fn new() -> Self {
        Self(vec![0; 64 << FINE_BITS])
    }

    fn add(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1 << FINE_BITS);
        let shift = ns.ilog2() - FINE_BITS;
        self.0[((shift as usize) << FINE_BITS) + (ns >> shift) as usize] += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The latency that this many of a thousand do not exceed.
    fn at(&self, per_mille: u64) -> Duration {
        let mut left = self.count() * per_mille / 1000;
        let bucket = self.0.iter().position(|&count| {
            let found = left < count;
            left = left.saturating_sub(count);
            found
        });
        let bucket = bucket.unwrap_or(0) as u64;
        // The fine part runs from 16 to 31, so it carries one into the shift.
        let shift = (bucket >> FINE_BITS).saturating_sub(1);
        Duration::from_nanos((bucket - (shift << FINE_BITS)) << shift)
    }
}

/// User and system time of this process, in ticks of 10 ms; 0 where there is no `/proc`.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |text| text.parse())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates need the date; this is no product code"
    )]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let ca = ClusterCa::generate("bench", WallMs(u64::try_from(now.as_millis())?))?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let start = |identity, bind, handler: Arc<dyn Handler>| {
        let sockets = Arc::new(UdpSockets::default());
        Transport::start(
            TransportConfig::default(),
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

    println!("{BODY_BYTES} B each way, {seconds} s each");
    let mut in_flight: Vec<usize> = std::env::args()
        .skip(2)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    if in_flight.is_empty() {
        in_flight = vec![1, 64, 256, 1024];
    }
    for in_flight in in_flight {
        run(&client, in_flight, SECOND).await?;
        let (busy, begun) = (cpu(), Instant::now());
        let latencies = run(&client, in_flight, SECOND * seconds).await?;
        let (took, busy) = (begun.elapsed(), cpu() - busy);
        let count = latencies.count() as f64;
        println!(
            "{in_flight:>5} in flight: {:>9.0} round trips/s, p50 {:?}, p99 {:?}, {:.2} us CPU each",
            count / took.as_secs_f64(),
            latencies.at(500),
            latencies.at(990),
            busy.as_secs_f64() * 1e6 / count,
        );
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(())
}

/// Keeps so many requests in flight for so long.
async fn run(
    client: &Transport,
    in_flight: usize,
    time: Duration,
) -> Result<Latencies, Box<dyn std::error::Error>> {
    let body = Bytes::from(vec![7; BODY_BYTES]);
    let until = Instant::now() + time;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (client, body) = (client.clone(), body.clone());
        callers.spawn(async move {
            let mut latencies = Latencies::new();
            loop {
                let begun = Instant::now();
                if begun >= until {
                    return Ok::<_, clinch_transport::TransportError>(latencies);
                }
                client
                    .call(SERVER, Class::Action, 1, body.clone(), SECOND * 10)
                    .await?;
                latencies.add(begun.elapsed());
            }
        });
    }
    let mut all = Latencies::new();
    while let Some(latencies) = callers.join_next().await {
        all.merge(&latencies??);
    }
    Ok(all)
}
