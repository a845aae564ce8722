//! W1 and W2: durable increments, `state += 1; return state`, on one node and on three.
//!
//! Afterwards the counts are read back: what was acknowledged must be there, and nothing else.

use crate::bed::Bed;
use crate::bench::Bench;
use crate::caller::{Op, QuicCaller, Via, handles};
use crate::load::Done;
use crate::measure::{self, Case};
use crate::report::{Record, Shape, Through, Verified, durable};
use crate::workloads::{keys, total};

const CALLERS: [usize; 4] = [1, 16, 64, 256];

/// # Errors
/// When a run cannot be made.
pub(crate) async fn run(bench: &mut Bench, workload: &'static str, nodes: u32) -> anyhow::Result<()> {
    let bed = bench.bed(nodes).await?;
    for shape in bench.options.shape.clone() {
        let keys = keys(shape, bench.options.actors);
        let actors = handles(bed.client(), &keys);
        for via in bench.options.via.clone() {
            for callers in bench.options.callers_or(&CALLERS) {
                let before = total(&actors).await?;
                let case = Case {
                    workload,
                    what: "durable increment",
                    shape,
                    actors: Some(keys.len()),
                    via,
                    through: Through::Any,
                    durable: durable(nodes),
                };
                let (mut record, done) = load(bench, &bed, case, &keys, callers).await?;
                let found = total(&actors).await?.saturating_sub(before);
                let (acknowledged, unknown) = (done.tally.acknowledged, done.tally.unknown);
                record.verified = Some(Verified::new(acknowledged, unknown, found));
                bench.report(record)?;
            }
        }
    }
    bed.stop().await;
    Ok(())
}

async fn load(
    bench: &Bench,
    bed: &Bed,
    case: Case,
    keys: &[String],
    callers: usize,
) -> anyhow::Result<(Record, Done)> {
    let (plan, retries, op) = (bench.options.plan(), &bench.retries, Op::Increment);
    debug_assert!(matches!(case.shape, Shape::Hot | Shape::Spread));
    match case.via {
        Via::Quic => {
            let callers = QuicCaller::many(callers, op, &handles(bed.client(), keys));
            measure::run(bed, retries, case, callers, plan).await
        }
        Via::Http => {
            let callers = bed.http_callers(callers, op, keys, case.through).await?;
            measure::run(bed, retries, case, callers, plan).await
        }
    }
}
