//! Nothing but the programs beside it: `cargo run -p clinch-examples --example counter`, and so on.
//!
//! | example | shows |
//! |---|---|
//! | `counter` | the smallest actor that survives its program |
//! | `reminder` | one-shot schedules, a cron schedule in a time zone, list and cancel |
//! | `rate_limiter` | an actor per tenant, with a state that may be lost |
//! | `job_queue` | a durable queue, workers, retries, senders that wait |
//! | `coordinator` | one actor that makes and knows others |
//! | `fan_out` | spreading work over actors and gathering it |
//! | `game_room` | a tick loop beside the actions, and players who hear of what is near them |
//! | `mirror_sqlite` | every change of the state in an external database, in order and once |
//! | `axum_app` | a node inside a web application |
//! | `chat` | a chat room in a browser page: raw HTTP and raw WebSockets of one actor |
//! | `agent` | an agent that streams a model's answer piece by piece |
//!
//! `tests/examples.rs` runs each of them as a program and looks at what it says.

#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/guide/actors.md")]
    struct Actors;
    #[doc = include_str!("../../docs/guide/state.md")]
    struct State;
    #[doc = include_str!("../../docs/guide/life.md")]
    struct Life;
    #[doc = include_str!("../../docs/guide/schedules.md")]
    struct Schedules;
    #[doc = include_str!("../../docs/guide/queues.md")]
    struct Queues;
    #[doc = include_str!("../../docs/guide/connections.md")]
    struct Connections;
    #[doc = include_str!("../../docs/guide/errors.md")]
    struct Errors;
    /// Without Rust: `node/tests/cli` runs its commands.
    #[doc = include_str!("../../docs/guide/http.md")]
    struct Http;
    #[doc = include_str!("../../docs/guide/typescript.md")]
    struct TypeScript;
    /// Without Rust: the documentation of `clinch::otlp` has it.
    #[doc = include_str!("../../docs/guide/traces.md")]
    struct Traces;
    #[doc = include_str!("../../docs/guide/testing.md")]
    struct Testing;
    #[doc = include_str!("../../docs/guide/patterns.md")]
    struct Patterns;
}
