use clinch_actor::{Ctx, Event};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn late_context(&mut self, _by: i64, _c: &Ctx<Self>) -> i64 {
        1
    }

    #[action]
    fn generic<T>(&mut self, _by: T) {}

    #[action]
    #[hook]
    fn both(&mut self) {}

    #[hook]
    fn create(&mut self) -> i64 {
        1
    }

    #[hook]
    async fn on_sleep(&mut self, _c: &Ctx<Self>, _why: String) {}

    #[action]
    fn good(&self) -> i64 {
        self.count
    }
}

#[derive(Serialize, Deserialize, Event)]
enum Either {
    A,
}

fn main() {}
