//! A whole node with all commands of `clinch`: `cargo run --example counter_node -- dev`.
use clinch::prelude::*;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter(i64);

#[clinch::actor(name = "counter")]
impl Counter {
    #[action]
    async fn increment(&mut self, by: i64) -> i64 {
        self.0 += by;
        self.0
    }
    #[action]
    fn get_count(&self) -> i64 {
        self.0
    }
}

fn main() -> std::process::ExitCode {
    clinch::cli::main_with(Registry::new().actor::<Counter>())
}
