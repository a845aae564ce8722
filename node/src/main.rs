//! The `clinch` program, with the example actors. A program of one's own registers its actors and runs a node; see the
//! crate's documentation.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    clinch::cli::main()
}
