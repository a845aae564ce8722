use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn increment(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }
}

async fn call(counter: CounterHandle) -> clinch_actor::Result<String> {
    let total: i64 = counter.increment("three").await?;
    counter.decrement(1).await?;
    counter.increment(total).await
}

fn main() {}
