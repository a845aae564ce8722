//! Bodies that are read whole: bounded in size and time, with or without a length in front.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use clinch_types::{code, group};
use http_body_util::BodyExt;
use tokio::sync::SemaphorePermit;

use crate::error::HttpError;
use crate::flow::DRAIN_MAX;
use crate::service::Gateway;

/// Largest body of an action, in bytes: the limit of the reference servers, which clients know.
pub(crate) const ACTION_MAX: usize = 64 << 10;
/// Largest body of the manager API, in bytes: an input of 4 MiB in base64, and the fields around it.
pub(crate) const MANAGER_MAX: usize = 6 << 20;
/// A body, with the permit that a large one holds while it is in memory.
pub(crate) struct Whole<'a> {
    pub(crate) bytes: Bytes,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// `message.incoming_too_long`, `message.incoming_timed_out`, `message.malformed` when the client broke off, and
/// `actor.overloaded` when too many large bodies are held already.
pub(crate) async fn read(gateway: &Gateway, body: Body, max: usize) -> Result<Whole<'_>, HttpError> {
    let limit = gateway.config.body_read_timeout();
    tokio::time::timeout(limit, collect(gateway, body, max))
        .await
        .unwrap_or_else(|_| {
            Err(HttpError::new(
                group::MESSAGE,
                "incoming_timed_out",
                format!("the body did not arrive within {} ms", limit.as_millis()),
            ))
        })
}

async fn collect(gateway: &Gateway, mut body: Body, max: usize) -> Result<Whole<'_>, HttpError> {
    let declared = body
        .size_hint()
        .exact()
        .map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    if let Some(len) = declared.filter(|&len| len > max.saturating_add(DRAIN_MAX)) {
        return Err(too_long(len, true, max));
    }
    let mut permit = None;
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| HttpError::malformed(format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        len += data.len();
        if len > max {
            // From here on only counted.
            (first, joined) = (Bytes::new(), BytesMut::new());
            if len > max + DRAIN_MAX {
                return Err(too_long(len, false, max));
            }
            continue;
        }
        if len > ACTION_MAX && permit.is_none() {
            let limit = gateway.config.max_large_bodies;
            permit = Some(
                gateway
                    .large_bodies
                    .try_acquire()
                    .map_err(|_| HttpError::overloaded("memory for large requests", limit))?,
            );
        }
        // Nearly every body is one frame: it is passed on without a copy.
        if first.is_empty() && joined.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.reserve(declared.unwrap_or(len).min(max));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
    }
    if len > max {
        return Err(too_long(len, true, max));
    }
    let bytes = if joined.is_empty() { first } else { joined.freeze() };
    Ok(Whole {
        bytes,
        _permit: permit,
    })
}

fn too_long(len: usize, exact: bool, max: usize) -> HttpError {
    let at_least = if exact { "" } else { "at least " };
    HttpError::new(
        group::MESSAGE,
        code::INCOMING_TOO_LONG,
        format!("the body has {at_least}{len} bytes, at most {max} are allowed"),
    )
}
