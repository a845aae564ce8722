use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn rename(&mut self, name: &str) -> usize {
        name.len()
    }
}

fn main() {}
