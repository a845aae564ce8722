//! Events: what an actor tells its connections.

use crate::Error;

/// A message type that actors broadcast. Derive it: `#[derive(Event)]`.
pub trait Event: Send + Sync + Sized + 'static {
    /// The name on the wire.
    const NAME: &'static str;
    /// How many positional arguments it has: the fields of a tuple struct; a struct with named fields is one.
    const ARITY: usize = 1;

    /// The CBOR array of the positional arguments.
    ///
    /// # Errors
    /// When a field refuses to be serialized, or all are over the limit.
    fn encode_args(&self) -> Result<Vec<u8>, Error>;

    /// The inverse of [`Event::encode_args`].
    ///
    /// # Errors
    /// `actor.invalid_request` naming the field that does not fit.
    fn decode_args(bytes: &[u8]) -> Result<Self, Error>;
}

/// That an actor type declares an event: only then it may broadcast it.
#[diagnostic::on_unimplemented(
    message = "actor `{Self}` does not declare the event `{E}`",
    label = "not declared by the actor",
    note = "declare it: `#[clinch::actor(name = \"..\", events({E}))]`"
)]
pub trait Emits<E: Event> {}

/// [`Emits`] seen from the event. The compiler looks at it only when it knows the event, and so can name it.
pub trait EmittedBy<A>: Event {}

impl<A: Emits<E>, E: Event> EmittedBy<A> for E {}
