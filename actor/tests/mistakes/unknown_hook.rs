use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[hook]
    async fn on_wakeup(&mut self, _c: &Ctx<Self>) {}
}

fn main() {}
