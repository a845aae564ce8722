//! What actions may return, for generated code.

use crate::{Error, IntoActionError};

/// A `Result` under any alias of that name.
pub trait Fallible {
    /// What it holds when all went well.
    type Value;

    /// The value, or the error as it leaves an action.
    ///
    /// # Errors
    /// The one it holds.
    fn into_value(self) -> Result<Self::Value, Error>;
}

impl<T, E: IntoActionError> Fallible for Result<T, E> {
    type Value = T;

    fn into_value(self) -> Result<T, Error> {
        self.map_err(E::into_action_error)
    }
}

/// Keeps an alias like `type Answer<T> = Result<T, E>` from being taken for a plain value, which would send errors
/// as successes: for a `Result` the parameter is ambiguous, and that does not compile.
pub trait CallYourResultTypeResult<Marker> {
    /// Only named, never called.
    fn checked(&self) {}
}

impl<T: ?Sized> CallYourResultTypeResult<()> for T {}
impl<T, E> CallYourResultTypeResult<u8> for Result<T, E> {}
