use clinch_actor::Ctx;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(vars = std::rc::Rc<u8>, crate = "clinch_actor")]
impl Counter {
    #[action]
    fn name(&self, c: &Ctx<Self>) -> u8 {
        **c.vars()
    }
}

fn main() {}
