//! The attribute and derive macros of Clinch.
//!
//! Invariant: what they write, a user could write by hand against `clinch_actor` (`actor/examples/by_hand.rs`);
//! a mistake is reported where it is made, in the words of the model.
//! Not here: anything that runs.

mod attr;
mod conns;
mod event;
mod expand;
mod handle;
mod key;
mod method;
mod names;
mod returns;
mod typescript;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes the type of an `impl` block an actor.
///
/// In the block, `#[action]` marks what callers may call and `#[hook]` what runs at moments of the actor's life.
/// `&mut self` is an exclusive turn that is committed, `&self` a read, no `self` runs beside everything. A parameter
/// of type `&Ctx<Self>` or `Ctx<Self>` gets the context; all others are positional arguments. Names on the wire are
/// camelCase, or as `#[action(name = "..")]` says.
///
/// Arguments of the attribute, all optional: `name = "counter"`, `version = 2`, `events(Count, Reset)`,
/// `handle = "CounterHandle"`, `action_timeout = "60s"`, `sleep_after = "30s"` (or `"never"`), `queue_max = 1024`,
/// `state_max = "8MiB"`, `kv_max = "10GiB"`, `request_body_max = "20MiB"`, `durability = "replicated"` (or `"may lose 10s"`, `"may lose everything"`), `reentrant`,
/// `typescript` (the types of actions and events for `Registry::typescript`; they derive `ts_rs::TS`),
/// `vars = Cache` (made by `Default` at each start), `vars_timeout`, `background_timeout`, `create_timeout`, `on_create_timeout`, `on_wake_timeout`, `on_sleep_timeout`,
/// `on_destroy_timeout`, and `crate = "path"` for the crate that the code refers to.
///
/// Hooks, in the order of an actor's life: `create(c, input) -> Self`, `on_create(&mut self, c, input)`,
/// `vars(&self, c) -> Vars`, `on_wake(&mut self, c)`, `run(c: Ctx<Self>)`, then with every action
/// `on_state_change(&self, c)` and `before_action_response(&self, c, action: &str, output: Any) -> Any`, at the end
/// `on_sleep` or `on_destroy` (`&mut self, c`); and `migrate(from: u32, bytes: &[u8]) -> Self` for states of older
/// versions. Each may return a `Result`. All may be `async` but `migrate`, `on_state_change` and
/// `before_action_response`; `run` is.
#[proc_macro_attribute]
pub fn actor(attr: TokenStream, item: TokenStream) -> TokenStream {
    let block = parse_macro_input!(item as syn::ItemImpl);
    expand::actor(attr.into(), block).into()
}

/// Makes a struct a key: its fields, in order, are the components.
///
/// Fields are text, numbers or actor ids. The struct goes wherever a key does, and `c.key_as::<RoomKey>()` gives it back.
#[proc_macro_derive(ActorKey, attributes(actor_key))]
pub fn derive_actor_key(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    key::derive(&item)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a struct an event that actors can broadcast.
///
/// The fields of a tuple struct are the event's positional arguments; a struct with named fields is one argument, a
/// map. `#[event(name = "..")]` sets the name on the wire, which else is the type's in camelCase.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    event::derive(&item)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
