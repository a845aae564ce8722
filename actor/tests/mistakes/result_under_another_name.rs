use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

type Answer<T> = Result<T, String>;

#[clinch_actor::actor(crate = "clinch_actor")]
impl Counter {
    #[action]
    fn count(&self) -> Answer<i64> {
        Ok(self.count)
    }
}

fn main() {}
