//! W4: cold start. Each operation is the first call of a new key: the actor is created, runs and answers, and both
//! its creation and its first change are durable before the reply.

use crate::bench::Bench;
use crate::caller::{FreshKeys, HttpCreator, OPERATION_MAX, QuicCreator, Via};
use crate::http::Http;
use crate::measure::{self, Case};
use crate::report::{Shape, Through, durable};

const CALLERS: [usize; 2] = [1, 64];

/// # Errors
/// When a run cannot be made.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let nodes = bench.options.nodes;
    let bed = bench.bed(nodes).await?;
    let gateways: Vec<String> = bed.cluster.gateways().into_values().collect();
    let mut run = 0;
    for via in bench.options.via.clone() {
        for callers in bench.options.callers_or(&CALLERS) {
            run += 1;
            let keys = FreshKeys::new(format!("cold-{run}"));
            let case = Case {
                workload: "W4",
                what: "create and first increment",
                shape: Shape::Fresh,
                actors: None,
                via,
                through: Through::Any,
                durable: durable(nodes),
            };
            let (plan, retries) = (bench.options.plan(), &bench.retries);
            let (record, _) = match via {
                Via::Quic => {
                    let one = |_| QuicCreator {
                        cluster: bed.client().clone(),
                        keys: keys.clone(),
                    };
                    measure::run(&bed, retries, case, (0..callers).map(one).collect(), plan).await?
                }
                Via::Http => {
                    let one = |gateway: &String| {
                        let http = Http::new(gateway, OPERATION_MAX)?;
                        Ok(HttpCreator {
                            http,
                            keys: keys.clone(),
                        })
                    };
                    let callers = gateways
                        .iter()
                        .cycle()
                        .take(callers)
                        .map(one)
                        .collect::<anyhow::Result<Vec<_>>>()?;
                    measure::run(&bed, retries, case, callers, plan).await?
                }
            };
            bench.report(record)?;
        }
    }
    bed.stop().await;
    Ok(())
}
