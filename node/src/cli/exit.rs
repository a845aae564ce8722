//! How a command ends: with nothing, or with what failed and an exit code by its kind.

use std::process::ExitCode;

use clinch_types::{ActorError, code, group};

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command failed, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was tried, and failed; or what was verified is wrong.
    Failed,
    /// The arguments or the configuration.
    Usage,
    /// Nobody answered, or who answered cannot serve.
    Unavailable,
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        ExitCode::from(match kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unavailable => 3,
        })
    }
}

/// What failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failed,
            error: anyhow::Error::msg(text.into()),
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Usage,
            error: anyhow::Error::msg(text.into()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            kind: Kind::Failed,
            error,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self {
            kind: Kind::Failed,
            error: error.into(),
        }
    }
}

impl From<ActorError> for Failure {
    fn from(error: ActorError) -> Self {
        let kind = match error.is(group::GUARD, code::SERVICE_UNAVAILABLE) {
            true => Kind::Unavailable,
            false => Kind::Failed,
        };
        Self {
            kind,
            error: error.into(),
        }
    }
}

/// Gives an error its kind.
pub(crate) trait ResultExt<T> {
    fn usage(self) -> Outcome<T>;
    fn unavailable(self) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> ResultExt<T> for Result<T, E> {
    fn usage(self) -> Outcome<T> {
        self.map_err(|error| Failure {
            kind: Kind::Usage,
            error: error.into(),
        })
    }

    fn unavailable(self) -> Outcome<T> {
        self.map_err(|error| Failure {
            kind: Kind::Unavailable,
            error: error.into(),
        })
    }
}
