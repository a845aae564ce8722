use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[derive(Serialize, Deserialize)]
struct Job {
    name: String,
}

struct Plan;

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    async fn order(&mut self, c: &Ctx<Self>) {
        let jobs = c.get::<Counter>("b").queue::<Job>("jobs");
        let _pushed = jobs.push("a job").await;
        let _plans = c.queue::<Plan>("plans").pop();
    }
}

fn main() {}
