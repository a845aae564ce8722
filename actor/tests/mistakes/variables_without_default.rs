use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

struct Pool(String);

#[clinch_actor::actor(vars = Pool, crate = "clinch_actor")]
impl Counter {
    #[action]
    fn name(&self, c: &Ctx<Self>) -> String {
        c.vars().0.clone()
    }
}

fn main() {}
