//! Simulated clusters as users have them: their own actors, virtual time, faults by hand.

use std::time::Duration;

use clinch::prelude::*;
use clinch::simulate::Simulate;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Tally {
    count: i64,
    rung: i64,
}

#[clinch::actor(name = "tally")]
impl Tally {
    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    #[action]
    fn count(&self) -> i64 {
        self.count
    }

    #[action]
    fn ring_in(&mut self, c: &Ctx<Self>, hours: u64) -> Result<()> {
        c.me().ring().after(Duration::from_secs(hours * 3600))?;
        Ok(())
    }

    #[action]
    fn ring(&mut self) {
        self.rung += 1;
    }

    #[action]
    fn rung(&self) -> i64 {
        self.rung
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_majority_serves_while_one_node_is_cut_off_and_nothing_is_lost_when_it_is_back() -> anyhow::Result<()> {
    let mut sim = Registry::new().actor::<Tally>().simulate(11).nodes(3).start()?;
    let add = |cluster: Cluster| async move { cluster.get::<Tally>("a").add(1).await };
    assert_eq!(sim.run(add)??, 1);
    for (expected, cut) in (2..).zip(0..3) {
        let others: Vec<usize> = (0..3).filter(|node| *node != cut).collect();
        sim.partition(&[cut], &others);
        assert_eq!(sim.run(add)??, expected);
        sim.heal();
        sim.advance(Duration::from_secs(2));
    }
    let count = |cluster: Cluster| async move { cluster.get::<Tally>("a").count().await };
    assert_eq!(sim.run(count)??, 4);
    Ok(())
}

#[test]
fn power_loss_of_all_nodes_loses_nothing_answered() -> anyhow::Result<()> {
    let mut sim = Registry::new().actor::<Tally>().simulate(12).nodes(3).start()?;
    let add = |cluster: Cluster| async move { cluster.get::<Tally>("a").add(5).await };
    assert_eq!(sim.run(add)??, 5);
    for node in 0..3 {
        sim.power_loss(node);
        assert!(!sim.is_on(node));
    }
    for node in 0..3 {
        sim.restart(node)?;
    }
    assert_eq!(sim.run(add)??, 10);
    Ok(())
}

#[test]
fn a_month_passes_in_a_moment_and_what_is_due_happens_in_it_and_not_before() -> anyhow::Result<()> {
    let mut sim = Registry::new().actor::<Tally>().simulate(13).nodes(3).start()?;
    let ring = |cluster: Cluster| async move { cluster.get::<Tally>("a").ring_in(24 * 20).await };
    sim.run(ring)??;
    let rung = |cluster: Cluster| async move { cluster.get::<Tally>("a").rung().await };
    sim.advance(HOUR * 24 * 19);
    assert_eq!(sim.run(rung)??, 0);
    sim.advance(HOUR * 24 * 2);
    assert_eq!(sim.run(rung)??, 1);
    sim.advance(HOUR * 24 * 9);
    assert_eq!(sim.run(rung)??, 1);
    Ok(())
}

#[test]
fn a_future_that_never_ends_is_told_with_the_seed() -> anyhow::Result<()> {
    let mut sim = Registry::new().actor::<Tally>().simulate(14).nodes(1).start()?;
    let never = |_: Cluster| std::future::pending::<()>();
    let error = sim.run(never).unwrap_err().to_string();
    assert!(
        error.contains("seed 14") && error.contains("did not end"),
        "{error}"
    );
    Ok(())
}
