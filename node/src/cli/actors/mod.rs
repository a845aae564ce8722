//! The example actors that `clinch dev`, `up` and `start` serve.
//!
//! They show the model, and an unmodified client of the protocol can be tried against them; a program of one's own
//! registers its own types instead.

mod chat;
mod counter;
mod echo;
mod errors;
mod hooks;
mod kv_store;
mod lives;
mod raw;
mod reminders;
mod shop;

use clinch_actor::Registry;

pub use counter::{Counter, CounterHandle, NewCount};

/// All of them.
pub fn registry() -> Registry {
    Registry::new()
        .actor::<Counter>()
        .actor::<chat::ChatRoom>()
        .actor::<chat::ConnState>()
        .actor::<chat::BadOnConnect>()
        .actor::<chat::AuthHeader>()
        .actor::<hooks::Hooks>()
        .actor::<raw::RawHttp>()
        .actor::<raw::RawSocket>()
        .actor::<raw::NoHandlers>()
        .actor::<raw::QueueWorker>()
        .actor::<echo::Echo>()
        .actor::<echo::Meta>()
        .actor::<errors::Errors>()
        .actor::<errors::Slowpoke>()
        .actor::<kv_store::KvStore>()
        .actor::<lives::WithInput>()
        .actor::<lives::Lifecycle>()
        .actor::<lives::Sleeper>()
        .actor::<lives::Observer>()
        .actor::<lives::Destroyable>()
        .actor::<reminders::Reminder>()
        .actor::<reminders::SleepyReminder>()
        .actor::<shop::Inventory>()
        .actor::<shop::Order>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_actors_are_sound() {
        let registry = super::registry();
        registry.check().unwrap();
        assert_eq!(registry.types().count(), 24);
    }
}
