//! W3: reads, answered by the owner; asked there, or at a node that has to pass the call on.
//!
//! The Rust client knows the owners and asks nobody else (a node that is not the owner answers it with the owner's
//! name), so only gateways can be asked at another node.

use crate::bench::Bench;
use crate::caller::{Op, QuicCaller, Via, handles};
use crate::measure::{self, Case};
use crate::report::{READ, Through};
use crate::workloads::{keys, total};

const CALLERS: [usize; 3] = [1, 64, 256];

/// # Errors
/// When a run cannot be made.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let nodes = bench.options.nodes;
    let bed = bench.bed(nodes).await?;
    for shape in bench.options.shape.clone() {
        let keys = keys(shape, bench.options.actors);
        let actors = handles(bed.client(), &keys);
        // Creates them; the reads that are measured find them.
        total(&actors).await?;
        for (via, through) in ways(&bench.options.via, nodes) {
            for callers in bench.options.callers_or(&CALLERS) {
                let case = Case {
                    workload: "W3",
                    what: "read",
                    shape,
                    actors: Some(keys.len()),
                    via,
                    through,
                    durable: READ,
                };
                let (plan, retries) = (bench.options.plan(), &bench.retries);
                let (record, _) = match via {
                    Via::Quic => {
                        measure::run(
                            &bed,
                            retries,
                            case,
                            QuicCaller::many(callers, Op::Get, &actors),
                            plan,
                        )
                        .await?
                    }
                    Via::Http => {
                        let callers = bed.http_callers(callers, Op::Get, &keys, through).await?;
                        measure::run(&bed, retries, case, callers, plan).await?
                    }
                };
                bench.report(record)?;
            }
        }
    }
    bed.stop().await;
    Ok(())
}

fn ways(via: &[Via], nodes: u32) -> Vec<(Via, Through)> {
    let mut ways = Vec::new();
    for &via in via {
        ways.push((via, Through::Owner));
        if via == Via::Http && nodes > 1 {
            ways.push((via, Through::Another));
        }
    }
    ways
}
