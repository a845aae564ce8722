//! The one gate of the repository: check, fix, tidy.
fn main() {}
