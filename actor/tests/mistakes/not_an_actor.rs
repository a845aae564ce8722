use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

struct Plain;

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    async fn ask(&mut self, c: &Ctx<Self>) {
        let _other = c.get::<Plain>("b");
    }
}

fn main() {}
