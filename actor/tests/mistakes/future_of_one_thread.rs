use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    async fn wait(&mut self, c: &Ctx<Self>) {
        let shared = std::rc::Rc::new(1);
        c.cancelled().await;
        self.count += *shared;
    }
}

fn main() {}
