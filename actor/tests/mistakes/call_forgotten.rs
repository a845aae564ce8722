use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
#[deny(unused_must_use)]
impl Counter {
    #[action]
    async fn ask(&mut self, c: &Ctx<Self>) {
        c.get::<Counter>("b").ask();
    }
}

fn main() {}
