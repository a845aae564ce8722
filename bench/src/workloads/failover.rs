//! W8: owners are killed (`kill -9`) under load and started again, one after the other.
//!
//! Each caller increments an actor of its own in a closed loop, so a pause of the actor is a pause of its caller; the
//! longest pause after a kill is the wait that a user would have seen. In the end every count is read back.
//! CPU time is not told: it begins at zero with each start of a node.

use std::sync::Arc;
use std::time::Duration;

use clinch::Cluster;
use clinch_types::NodeId;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actors::BenchCounter;
use crate::bed::Bed;
use crate::bench::Bench;
use crate::caller::{HttpCaller, OPERATION_MAX, Op, QuicCaller, Via, handles, uris};
use crate::load::{Caller, Done};
use crate::measure::{self, Case};
use crate::report::{Failover, Shape, Through, Verified, durable};
use crate::tally::{Failure, Tally};
use crate::usage;

const CALLERS: [usize; 1] = [32];
/// How long a killed node stays away: longer than a failover should take.
const AWAY: Duration = Duration::from_secs(3);
/// How long a started node may take to serve.
const BACK_MAX: Duration = Duration::from_secs(60);
/// Shorter pauses are not told apart.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Pause of a caller after an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);

/// # Errors
/// When a run cannot be made.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let bed = bench.bed(3).await?;
    for via in bench.options.via.clone() {
        for count in bench.options.callers_or(&CALLERS) {
            let keys: Vec<String> = (0..count)
                .map(|n| format!("own-{via:?}-{count}-{n}").to_lowercase())
                .collect();
            let load_before = usage::load_average();
            let retries = bench.retries.count();
            let under_load = match via {
                Via::Quic => kill_under_load(bench, &bed, &keys, quic(bed.client(), &keys)).await?,
                Via::Http => kill_under_load(bench, &bed, &keys, roaming(&bed, &keys)?).await?,
            };
            let case = Case {
                workload: "W8",
                what: "durable increment while owners are killed",
                shape: Shape::Own,
                actors: Some(keys.len()),
                via,
                through: Through::Any,
                durable: durable(3),
            };
            let (watched, failover) = under_load;
            let verified = verify(bed.client(), &keys, &watched.callers).await?;
            let mut tally = Tally::default();
            watched.callers.into_iter().for_each(|one| tally.merge(one));
            let done = Done {
                tally,
                elapsed: watched.elapsed,
            };
            let mut record = measure::record(&bed, case, count, &done, load_before);
            record.retries = bench.retries.count() - retries;
            (record.verified, record.failover) = (Some(verified), Some(failover));
            bench.report(record)?;
        }
    }
    bed.stop().await;
    Ok(())
}

fn quic(cluster: &Cluster, keys: &[String]) -> Vec<QuicCaller> {
    keys.iter()
        .flat_map(|key| QuicCaller::many(1, Op::Increment, &handles(cluster, [key])))
        .collect()
}

/// A caller that goes to the next gateway when one does not answer.
struct Roaming {
    doors: Vec<HttpCaller>,
    at: usize,
}

impl Caller for Roaming {
    async fn call(&mut self) -> Result<i64, Failure> {
        let result = self.doors[self.at].call().await;
        if result
            .as_ref()
            .is_err_and(|failure| failure.kind.starts_with("http."))
        {
            self.at = (self.at + 1) % self.doors.len();
        }
        result
    }
}

fn roaming(bed: &Bed, keys: &[String]) -> anyhow::Result<Vec<Roaming>> {
    let gateways = bed.cluster.gateways();
    let caller = |(number, key): (usize, &String)| {
        let actor = uris(Op::Increment, [key])?;
        let door = |gateway: &String| HttpCaller::new(gateway, Op::Increment, Arc::clone(&actor), number);
        let doors = gateways.values().map(door).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Roaming {
            at: number % doors.len(),
            doors,
        })
    };
    keys.iter().enumerate().map(caller).collect()
}

/// What all callers saw.
struct Watched {
    /// By caller.
    callers: Vec<Tally>,
    elapsed: Duration,
}

/// A pause between two answers.
#[derive(Debug, Clone, Copy)]
struct Pause {
    from: Instant,
    to: Instant,
}

/// One kill: when, and which callers' actors were owned by the killed node.
struct Kill {
    at: Instant,
    hit: Vec<bool>,
}

async fn kill_under_load<C: Caller>(
    bench: &Bench,
    bed: &Bed,
    keys: &[String],
    callers: Vec<C>,
) -> anyhow::Result<(Watched, Failover)> {
    let (stop, begun) = (CancellationToken::new(), Instant::now());
    let mut tasks = JoinSet::new();
    for (number, caller) in callers.into_iter().enumerate() {
        let stop = stop.clone();
        tasks.spawn(async move { (number, watch(caller, stop).await) });
    }
    tokio::time::sleep(bench.options.warmup).await;
    let mut kills = Vec::new();
    for round in 0..bench.options.kills {
        kills.push(kill(bed, keys, round as usize).await?);
        tokio::time::sleep(bench.options.warmup).await;
    }
    stop.cancel();
    let mut seen: Vec<(usize, (Tally, Vec<Pause>))> = Vec::new();
    while let Some(one) = tasks.join_next().await {
        seen.push(one?);
    }
    let elapsed = begun.elapsed();
    seen.sort_by_key(|(number, _)| *number);
    let (callers, pauses): (Vec<Tally>, Vec<_>) = seen.into_iter().map(|(_, seen)| seen).unzip();
    Ok((Watched { callers, elapsed }, waits(&kills, &pauses)))
}

/// Kills the node whose turn it is, and waits until the cluster is whole again.
async fn kill(bed: &Bed, keys: &[String], round: usize) -> anyhow::Result<Kill> {
    // A shard that has not come home is measured where it is.
    if let Err(error) = bed.settled().await {
        eprintln!("note: {error}");
    }
    let owners = bed.owners(keys).await?;
    let mut owning: Vec<NodeId> = owners.iter().flatten().copied().collect();
    owning.sort_unstable();
    owning.dedup();
    anyhow::ensure!(!owning.is_empty(), "nobody owns any of the actors");
    let victim = owning[round % owning.len()];
    let hit = owners.iter().map(|owner| *owner == Some(victim)).collect();
    let at = bed.cluster.kill(victim).await?;
    tokio::time::sleep(AWAY).await;
    bed.cluster.restart(victim)?;
    bed.cluster.wait_ready(BACK_MAX).await?;
    Ok(Kill { at, hit })
}

async fn watch<C: Caller>(mut caller: C, stop: CancellationToken) -> (Tally, Vec<Pause>) {
    let (mut tally, mut pauses) = (Tally::default(), Vec::new());
    let mut last = Instant::now();
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let result = caller.call().await;
        let ended = Instant::now();
        tally.effect(&result);
        if result.is_ok() {
            if ended - last >= PAUSE_MIN {
                pauses.push(Pause {
                    from: last,
                    to: ended,
                });
            }
            last = ended;
        } else {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
        tally.sample(result, ended - begun, ended);
    }
    // Whoever is never answered again waits until the end.
    let now = Instant::now();
    if now - last >= PAUSE_MIN {
        pauses.push(Pause { from: last, to: now });
    }
    (tally, pauses)
}

/// The longest pause of each caller after each kill, counted from the kill, until the next one.
fn waits(kills: &[Kill], pauses: &[Vec<Pause>]) -> Failover {
    let (mut hit, mut others) = (Vec::new(), Duration::ZERO);
    for (index, kill) in kills.iter().enumerate() {
        let next = kills.get(index + 1).map(|next| next.at);
        // The answer before a pause came before the kill that made it, so a pause reaches into the time before.
        let within = |pause: &Pause| {
            let to = next.map_or(pause.to, |next| pause.to.min(next));
            to.saturating_duration_since(pause.from.max(kill.at))
        };
        for (pauses, is_hit) in pauses.iter().zip(&kill.hit) {
            let longest = pauses.iter().map(within).max().unwrap_or_default().max(PAUSE_MIN);
            match is_hit {
                true => hit.push(longest),
                false => others = others.max(longest),
            }
        }
    }
    hit.sort_unstable();
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let at = |quantile: f64| {
        let index = (hit.len() as f64 * quantile).ceil() as usize;
        hit.get(index.saturating_sub(1)).copied().map_or(0.0, ms)
    };
    let (waits, kills) = (hit.len() as u64, kills.len() as u64);
    Failover {
        kills,
        waits,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        others_max_ms: ms(others),
    }
}

/// Reads every count back and compares it with what its caller was told.
async fn verify(cluster: &Cluster, keys: &[String], callers: &[Tally]) -> anyhow::Result<Verified> {
    let mut sum = Verified::new(0, 0, 0);
    for (key, tally) in keys.iter().zip(callers) {
        let found = cluster
            .get::<BenchCounter>(key)
            .get_count()
            .timeout(OPERATION_MAX)
            .await?;
        sum.add(Verified::new(
            tally.acknowledged,
            tally.unknown,
            u64::try_from(found)?,
        ));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_the_longest_pause_after_the_kill_of_those_who_were_hit() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let pause = |from, to| Pause {
            from: at(from),
            to: at(to),
        };
        let kills = [
            Kill {
                at: at(100),
                hit: vec![true, false],
            },
            Kill {
                at: at(1000),
                hit: vec![false, true],
            },
        ];
        let pauses = vec![
            // Over before the kill; the wait; a short one after it; one after the second kill.
            vec![pause(0, 90), pause(95, 400), pause(500, 520), pause(1005, 1040)],
            vec![pause(995, 1700)],
        ];
        let failover = waits(&kills, &pauses);
        assert_eq!((failover.kills, failover.waits), (2, 2));
        assert_eq!(
            (failover.p50_ms, failover.p99_ms, failover.max_ms),
            (300.0, 700.0, 700.0)
        );
        assert_eq!(failover.others_max_ms, 35.0);
    }
}
