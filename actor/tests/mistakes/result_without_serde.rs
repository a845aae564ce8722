use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

struct Total(i64);

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn total(&self) -> Total {
        Total(self.count)
    }
}

fn main() {}
