//! A counter that survives its program: run it twice.
use clinch::prelude::*;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(i64);

#[clinch::actor]
impl Counter {
    #[action]
    fn increment(&mut self, by: i64) -> i64 {
        self.0 += by;
        self.0
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let registry = Registry::new().actor::<Counter>();
    let node = registry.start_in("counter-data").await?;
    let counter = node.cluster().get::<Counter>("my-counter");
    println!("{}", counter.increment(1).await?);
    Ok(())
}
