use clinch_actor::{Ctx, Event};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "clinch_actor")]
struct Count(i64);

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn increment(&mut self, c: &Ctx<Self>) {
        self.count += 1;
        c.broadcast(Count(self.count));
    }
}

fn main() {}
