//! The Rust client of a Clinch cluster: routing, owner cache, retries by error class, typed calls.
