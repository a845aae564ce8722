use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(durability = "batched", crate = "clinch_actor")]
impl Counter {
    #[action]
    fn name(&self, _c: &Ctx<Self>) {}
}

#[derive(Default, Serialize, Deserialize)]
struct Twice;

#[clinch_actor::actor(crate = "clinch_actor", reentrant, reentrant)]
impl Twice {}

fn main() {}
