//! The counter as the documentation shows it, from its macro to its committed event.

use clinch::{Ctx, Event, RawHandle};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[rustfmt::skip]
mod sample {
    use super::*;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Counter { count: i64 }

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "count")]
pub(crate) struct Count(pub(crate) i64);

#[clinch::actor(name = "counter", events(Count))]
impl Counter {
    #[action] async fn increment(&mut self, c: &Ctx<Self>, by: i64) -> i64 {
        self.count += by;
        c.broadcast(Count(self.count));
        self.count
    }
    #[action] fn get_count(&self, _c: &Ctx<Self>) -> i64 { self.count }
}
}

#[tokio::test]
async fn a_call_changes_the_state_and_broadcasts_when_it_commits() {
    let node = Node::start::<sample::Counter>().await;
    let counter: sample::CounterHandle =
        RawHandle::by_key(node.caller(), "default", "counter", "my-counter").into();
    assert_eq!(counter.increment(3).await.unwrap(), 3);
    assert_eq!(counter.increment(-1).await.unwrap(), 2);
    assert_eq!(counter.get_count().await.unwrap(), 2);
    let events = node.last().events;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].name, "count");
    assert_eq!(sample::Count::decode_args(&events[0].args).unwrap().0, 2);
}
