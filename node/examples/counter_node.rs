//! A whole node: `cargo run --example counter_node` in a folder with a `clinch.toml`.
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = clinch::cli::load_config("clinch.toml".as_ref())?;
    Registry::new().actor::<Counter>().node(node).run().await
}
