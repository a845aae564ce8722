use clinch_actor::{Any, Ctx};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[hook]
    async fn run(&mut self, _c: Ctx<Self>) {}

    #[hook]
    fn on_state_change(&mut self, _c: &Ctx<Self>) {
        self.count = 0;
    }

    #[hook]
    async fn before_action_response(&self, _action: &str, output: Any) -> Any {
        output
    }

    #[hook]
    fn vars(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

fn main() {}
