use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn get_count(&self) -> i64 {
        self.count
    }

    #[action(name = "getCount")]
    fn count(&self) -> i64 {
        self.count
    }
}

fn main() {}
