//! The workloads, one file each. What they mean is told in the README.

pub(crate) mod cold;
pub(crate) mod failover;
pub(crate) mod fanout;
pub(crate) mod increments;
pub(crate) mod memory;
pub(crate) mod reads;
pub(crate) mod timers;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::actors::BenchCounterHandle;
use crate::report::Shape;

/// Calls in flight while a run is prepared or checked.
const IN_FLIGHT: usize = 64;

/// Time limit of such a call: a cluster that has just been overloaded may need a while.
const PREPARE_MAX: Duration = Duration::from_secs(60);

/// The keys of a shape.
fn keys(shape: Shape, spread: u32) -> Vec<String> {
    match shape {
        Shape::Hot => vec!["hot".into()],
        Shape::Spread | Shape::Fresh | Shape::Own => (0..spread).map(|n| format!("spread-{n}")).collect(),
    }
}

/// Reads all counts (and creates the actors that are not there); returns their sum.
///
/// # Errors
/// The first read that failed.
async fn total(actors: &Arc<[BenchCounterHandle]>) -> anyhow::Result<u64> {
    let mut readers = JoinSet::new();
    for first in 0..IN_FLIGHT {
        let actors = actors.clone();
        readers.spawn(async move {
            let mut sum = 0;
            for actor in actors.iter().skip(first).step_by(IN_FLIGHT) {
                sum += actor.get_count().timeout(PREPARE_MAX).await?;
            }
            Ok::<i64, clinch::Error>(sum)
        });
    }
    let mut sum = 0;
    while let Some(part) = readers.join_next().await {
        sum += part??;
    }
    Ok(u64::try_from(sum)?)
}
