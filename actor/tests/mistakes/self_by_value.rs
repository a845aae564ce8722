use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn take(self) -> i64 {
        self.count
    }
}

fn main() {}
