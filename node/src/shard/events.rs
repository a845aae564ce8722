//! Events on their way out of committed turns, to whoever in this process listens to an actor.
//!
//! Invariant (G6, G8): events of a turn reach the hub only after its commit, in commit order. A listener that is too
//! slow is cut off and told so by the end of its stream, and so is every one when its shard is owned here no more: it
//! never silently misses one.

use std::collections::HashMap;
use std::sync::Arc;

use clinch_actor::EventOut;
use clinch_types::{ActorId, Epoch, Version};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// The events of one committed turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    /// Whose events.
    pub actor: ActorId,
    /// In which ownership epoch they were committed.
    pub epoch: Epoch,
    /// The actor's version after the turn: the events' place in its history.
    pub version: Version,
    /// The events, in the order of the turn.
    pub events: Vec<EventOut>,
}

/// The committed events of one actor as they come.
pub type EventStream = mpsc::Receiver<Arc<EventBatch>>;

/// Turns of events a listener may lag behind before it is cut off.
const LAG_MAX: usize = 1024;

/// Hands committed events to listeners of this process.
#[derive(Debug, Default)]
pub struct EventHub {
    listeners: Mutex<HashMap<ActorId, Vec<mpsc::Sender<Arc<EventBatch>>>>>,
}

impl EventHub {
    /// Events of this actor that commit on this node from now on. The stream ends when the listener lags behind too
    /// far, and when the node has owned the actor's shard and owns it no more: listen anew, where its owner is.
    pub fn subscribe(&self, actor: ActorId) -> EventStream {
        let (sender, receiver) = mpsc::channel(LAG_MAX);
        self.listeners.lock().entry(actor).or_default().push(sender);
        receiver
    }

    /// Ends the streams of those actors: what commits next is not told here, or not all of it.
    pub(crate) fn end(&self, is_over: impl Fn(ActorId) -> bool) {
        self.listeners.lock().retain(|actor, _| !is_over(*actor));
    }

    pub(crate) fn publish(&self, batch: EventBatch) {
        let mut listeners = self.listeners.lock();
        let Some(list) = listeners.get_mut(&batch.actor) else {
            return;
        };
        let actor = batch.actor;
        let batch = Arc::new(batch);
        // Full means too slow, closed means gone: both end the subscription.
        list.retain(|listener| listener.try_send(batch.clone()).is_ok());
        if list.is_empty() {
            listeners.remove(&actor);
        }
    }
}
