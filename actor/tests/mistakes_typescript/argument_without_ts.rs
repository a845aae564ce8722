use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[derive(Serialize, Deserialize)]
struct Step(i64);

#[clinch_actor::actor(typescript, crate = "clinch_actor")]
impl Counter {
    #[action]
    fn increment(&mut self, by: Step) -> i64 {
        self.count += by.0;
        self.count
    }
}

fn main() {}
