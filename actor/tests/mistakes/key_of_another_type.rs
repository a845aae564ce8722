use clinch_actor::{ActorKey, Ctx};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

struct Room {
    number: u32,
}

#[derive(ActorKey)]
#[actor_key(crate = "clinch_actor")]
struct Seat {
    weight: f32,
}

#[derive(ActorKey)]
#[actor_key(crate = "clinch_actor")]
enum Place {
    Here,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    async fn ask(&mut self, c: &Ctx<Self>) {
        let _other = c.get::<Counter>(Room { number: 1 });
        let _third = c.get::<Counter>(1.5);
    }
}

fn main() {}
