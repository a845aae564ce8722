//! Who owns which shard, as the replicas of this node know.

use std::collections::BTreeMap;
use std::sync::Arc;

use clinch_types::{Epoch, NodeId, ShardId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Owners by shard, and a signal that some owner changed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Owners {
    known: Arc<Mutex<BTreeMap<ShardId, (NodeId, Epoch)>>>,
    changes: watch::Sender<u64>,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            changes: watch::channel(0).0,
        }
    }
}

impl Owners {
    /// The owners known now.
    pub(crate) fn all(&self) -> BTreeMap<ShardId, (NodeId, Epoch)> {
        self.known.lock().clone()
    }

    /// Counts the changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A replica has heard of an owner, or that there is none.
    pub(crate) fn set(&self, shard: ShardId, owner: Option<(NodeId, Epoch)>) {
        let before = {
            let mut known = self.known.lock();
            match owner {
                Some(owner) => known.insert(shard, owner),
                None => known.remove(&shard),
            }
        };
        if before != owner {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}
