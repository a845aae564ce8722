//! The metrics that change with every request, looked up once: a look-up by name costs more than a frame.

use metrics::{Counter, counter};

use crate::metric_names::{CALLS, REQUESTS};
use crate::{Class, TransportError};

/// Counters of one transport.
pub(crate) struct Meters {
    ok: Counter,
    not_sent: Counter,
    overloaded: Counter,
    perhaps: Counter,
    refused: Counter,
    too_large: Counter,
    deadline: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            ok: counter!(CALLS, "result" => "ok"),
            not_sent: counter!(CALLS, "result" => "not_sent"),
            overloaded: counter!(CALLS, "result" => "overloaded"),
            perhaps: counter!(CALLS, "result" => "perhaps"),
            refused: counter!(CALLS, "result" => "refused"),
            too_large: counter!(CALLS, "result" => "too_large"),
            deadline: counter!(CALLS, "result" => "deadline"),
        }
    }

    /// Counts a call that ended.
    pub(crate) fn call_ended<T>(&self, result: &Result<T, TransportError>) {
        let counter = match result {
            Ok(_) => &self.ok,
            Err(TransportError::NotSent { .. }) => &self.not_sent,
            Err(TransportError::Overloaded { .. }) => &self.overloaded,
            Err(TransportError::Perhaps { .. }) => &self.perhaps,
            Err(TransportError::Refused { .. }) => &self.refused,
            Err(TransportError::TooLarge { .. }) => &self.too_large,
            Err(TransportError::Deadline { .. }) => &self.deadline,
        };
        counter.increment(1);
    }
}

/// The counter of requests that arrive by a class.
pub(crate) fn requests(class: Class) -> Counter {
    counter!(REQUESTS, "class" => class.label())
}
