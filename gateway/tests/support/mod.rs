//! What the tests and the example server share: actors in memory behind the `Backend` trait. Test tooling, not a
//! product: nothing is stored, and an actor is a map entry.

pub(crate) mod actors;
pub(crate) mod memory;
