use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: i64,
}

#[clinch_actor::actor(nam = "counter", crate = "clinch_actor")]
impl Counter {}

#[derive(Default, Serialize, Deserialize)]
struct Spaced;

#[clinch_actor::actor(name = "my counter", crate = "clinch_actor")]
impl Spaced {}

#[derive(Default, Serialize, Deserialize)]
struct Fast;

#[clinch_actor::actor(action_timeout = "30", crate = "clinch_actor")]
impl Fast {}

#[derive(Default, Serialize, Deserialize)]
struct Long;

#[clinch_actor::actor(name = "0123456789012345678901234567890123456789012345678901234567890123x", crate = "clinch_actor")]
impl Long {}

fn main() {}
