//! What actors a shard has, a page at a time.

use bytes::Bytes;
use clinch_types::{ActorId, ActorView, CallError, ListRequest, ViewReply, codec};

use super::Owner;
use super::keys::{self, ActorRecord};

/// Records looked at by one listing before it hands back a place to go on from: bounds the pause of the shard.
const LIST_LOOK_MAX: usize = 4096;

impl Owner {
    /// One page of the shard's actors.
    pub(crate) fn list(&self, request: &ListRequest) -> Result<ViewReply, CallError> {
        let unreadable = |error: &dyn std::fmt::Display| CallError::Unavailable {
            shard: self.context.id,
            reason: format!("the store cannot be read: {error}"),
        };
        let limit = request.limit.clamp(1, clinch_types::limits::LIST_MAX) as usize;
        let second = crate::activation::seconds_of(self);
        let type_of = request.name.as_deref();
        let warnings = type_of.and_then(|name| self.usage.short_lived(&request.namespace, name, second));
        let mut reply = ViewReply {
            warnings: warnings.into_iter().collect(),
            ..ViewReply::default()
        };
        let rows = if request.ids.is_empty() {
            let start = match request.after {
                Some(after) => std::ops::Bound::Excluded(keys::record(after)),
                None => std::ops::Bound::Included(b"A".to_vec()),
            };
            let end = keys::end_of(b"A");
            let start = start.as_ref().map(|k| k.as_slice());
            self.provisional
                .scan(start, std::ops::Bound::Excluded(&end), LIST_LOOK_MAX, false)
                .map_err(|e| unreadable(&e))?
        } else {
            let mut rows = Vec::new();
            for &id in request.ids.iter().take(LIST_LOOK_MAX) {
                let key = keys::record(id);
                if let Some(value) = self.provisional.get(&key).map_err(|e| unreadable(&e))? {
                    rows.push((Bytes::from(key), value));
                }
            }
            rows
        };
        let looked_at_all = !request.ids.is_empty() || rows.len() < LIST_LOOK_MAX;
        for (key, value) in rows {
            let id: [u8; 16] = key[1..].try_into().map_err(|e| unreadable(&e))?;
            let id = ActorId::from_bytes(id).map_err(|e| unreadable(&e))?;
            if reply.actors.len() == limit {
                // More than a page: go on behind the last one given.
                reply.next = reply.actors.last().map(|a| a.info.id);
                return Ok(reply);
            }
            let record: ActorRecord = codec::decode(&value).map_err(|e| unreadable(&e))?;
            let wanted = record.namespace == request.namespace
                && request.name.as_ref().is_none_or(|n| *n == record.name);
            if wanted {
                reply.actors.push(self.view(id, record));
            }
            if !looked_at_all {
                reply.next = Some(id);
            }
        }
        Ok(reply)
    }

    /// An actor, and how it is.
    pub(crate) fn view(&self, id: ActorId, record: ActorRecord) -> ActorView {
        let status = self.status(id);
        let info = clinch_types::ActorInfo {
            id,
            namespace: record.namespace,
            name: record.name,
            key: record.key,
            region: id.region(),
            created: record.created,
            awake: self.slots.contains_key(&id),
        };
        ActorView { info, status }
    }
}
