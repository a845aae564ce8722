use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn increment(&self, _c: &Ctx<Self>) -> i64 {
        self.count += 1;
        self.count
    }
}

fn main() {}
