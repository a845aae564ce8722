//! The one error of the programming model: what actions and hooks return, and what callers get.
//!
//! Invariant: an error that leaves an action is definite. Whatever class an inner call's error had (moved,
//! overloaded, perhaps done), the action's own turn was rolled back, so its caller gets it as a plain refusal;
//! [`Error::into_definite`] does that. The cause of an internal error never travels: it is kept for the log.
//! Not here: turning errors into bodies of a protocol (gateway), retrying (client).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use ciborium::Value;
use clinch_types::{ActorError, CallError, Reaction, code, group};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cbor;

/// A result with Clinch's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of the outside world, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What an action returns that wants `?` on every error: an [`Error`] inside passes through as it is, anything
/// else reaches the caller as `internal_error` and the log in full.
pub type ActionResult<T = ()> = std::result::Result<T, BoxError>;

const INTERNAL_MESSAGE: &str = "Internal error. Read the server logs for more details.";

/// Why there is no result. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    /// The error as applications see it.
    view: ActorError,
    class: Class,
}

#[derive(Clone)]
enum Class {
    /// The `view` is all there is.
    Definite,
    /// From the way to the actor; the class says whether a retry makes sense.
    Transport(CallError),
    /// Not for clients; the cause is for the log.
    Internal(Arc<dyn StdError + Send + Sync + 'static>),
}

impl Error {
    /// An error made by the application: group `user`, reaches the caller in full.
    pub fn user(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(group::USER, code, message)
    }

    /// A definite error of any group; see [`clinch_types::group`] and [`clinch_types::code`].
    pub fn new(group: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::from(ActorError::new(group, code, message))
    }

    /// Hides `cause` from callers; the node logs it.
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        let view = ActorError::new(group::INTERNAL, code::INTERNAL_ERROR, INTERNAL_MESSAGE);
        Self(Arc::new(Inner {
            view,
            class: Class::Internal(Arc::from(cause.into())),
        }))
    }

    /// `actor.invalid_request`: arguments, input or frame do not decode.
    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(group::ACTOR, code::INVALID_REQUEST, message)
    }

    /// Adds a fact for programs to the metadata map.
    #[must_use]
    pub fn with(self, name: impl Into<String>, value: impl Serialize) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        let mut entries = match inner.view.metadata.as_deref().map(cbor::value) {
            Some(Ok(Value::Map(entries))) => entries,
            _ => Vec::new(),
        };
        let name = Value::Text(name.into());
        let value = Value::serialized(&value).unwrap_or_else(|error| {
            let ciborium::value::Error::Custom(why) = error;
            Value::Text(format!("not serializable: {why}"))
        });
        entries.retain(|(key, _)| *key != name);
        entries.push((name, value));
        inner.view.metadata = cbor::to_vec(&Value::Map(entries)).ok();
        Self(Arc::new(inner))
    }

    /// Which part of the system says so.
    pub fn group(&self) -> &str {
        &self.0.view.group
    }

    /// What is wrong, for programs.
    pub fn code(&self) -> &str {
        &self.0.view.code
    }

    /// What is wrong, for people.
    pub fn message(&self) -> &str {
        &self.0.view.message
    }

    /// The further facts, if there are any and they have the shape of `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Option<T> {
        cbor::from_slice(self.0.view.metadata.as_deref()?).ok()
    }

    /// Whether this is the error `group.code`.
    pub fn is(&self, group: &str, code: &str) -> bool {
        self.0.view.is(group, code)
    }

    /// Whether nothing was done and the same call may succeed soon.
    pub fn is_retryable(&self) -> bool {
        matches!(self.reaction(), Reaction::Elsewhere | Reaction::BackOff)
    }

    /// Whether the call perhaps took effect: repeat it only under the same idempotency key.
    pub fn is_perhaps(&self) -> bool {
        self.reaction() == Reaction::SameRequest
    }

    /// What to do about it.
    pub fn reaction(&self) -> Reaction {
        match &self.0.class {
            Class::Transport(error) => error.reaction(),
            Class::Definite | Class::Internal(_) => Reaction::Final,
        }
    }

    /// The cause of an internal error, for the log.
    pub fn internal_cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        match &self.0.class {
            Class::Internal(cause) => Some(&**cause),
            Class::Definite | Class::Transport(_) => None,
        }
    }

    /// The error as callers see it, without its class.
    pub fn to_actor_error(&self) -> ActorError {
        self.0.view.clone()
    }

    /// The error as it leaves an action, see the module.
    #[must_use]
    pub fn into_definite(self) -> Self {
        match &self.0.class {
            Class::Definite | Class::Internal(_) => self,
            Class::Transport(_) => Self::from(self.0.view.clone()),
        }
    }

    /// The error as it travels. Of an internal one only `reference` is told, by which its cause is found in the log.
    pub fn into_call_error(self, reference: &str) -> CallError {
        match &self.0.class {
            Class::Definite => CallError::Failed(self.0.view.clone()),
            Class::Transport(error) => error.clone(),
            Class::Internal(_) => CallError::Failed(ActorError::internal(reference)),
        }
    }
}

impl From<ActorError> for Error {
    fn from(view: ActorError) -> Self {
        Self(Arc::new(Inner {
            view,
            class: Class::Definite,
        }))
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Failed(view) => Self::from(view),
            other => Self(Arc::new(Inner {
                view: other.clone().into_actor_error(),
                class: Class::Transport(other),
            })),
        }
    }
}

impl From<clinch_types::KeyError> for Error {
    fn from(error: clinch_types::KeyError) -> Self {
        Self::new(group::ACTOR, code::KEY_TOO_LARGE, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.class {
            Class::Definite | Class::Transport(_) => write!(f, "{}", self.0.view),
            Class::Internal(cause) => write!(f, "{}.{}: {cause}", self.0.view.group, self.0.view.code),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.class {
            // Its text is already this error's text.
            Class::Internal(cause) => cause.source(),
            Class::Transport(_) | Class::Definite => None,
        }
    }
}

/// What may stand as `E` in the `Result<T, E>` of an action or hook: every `std::error::Error`, [`BoxError`],
/// `anyhow::Error`, `String` and `&'static str`.
///
/// An [`Error`] keeps its group, code and metadata, also inside a box or an `anyhow::Error`; everything else is an
/// internal error.
pub trait IntoActionError {
    /// Converts at the boundary of the action.
    fn into_action_error(self) -> Error;
}

impl<E: Into<BoxError> + 'static> IntoActionError for E {
    fn into_action_error(self) -> Error {
        // `anyhow` hides the type of its content when it becomes a box, so it is asked before.
        let mut this = Some(self);
        if let Some(any) = (&mut this as &mut dyn std::any::Any).downcast_mut::<Option<anyhow::Error>>()
            && let Some(error) = any.take()
        {
            return match error.downcast::<Error>() {
                Ok(error) => error.into_definite(),
                Err(error) => Error::internal(BoxError::from(error)),
            };
        }
        let boxed: BoxError = match this {
            Some(error) => error.into(),
            // Taken only above, where we return.
            None => return Error::internal("an error was lost"),
        };
        match boxed.downcast::<Error>() {
            Ok(error) => error.into_definite(),
            Err(other) => Error::internal(other),
        }
    }
}
