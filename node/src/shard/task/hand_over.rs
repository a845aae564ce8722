//! A shard on its way to another owner, while this node still leads it.
//!
//! Nothing new is admitted (calls are parked) and no lease is trusted; what was executed commits, then the leadership is
//! transferred, and whoever waits asks the next owner.
//! Invariant: once the transfer has been asked for, nothing is admitted here before it has failed.
//! Not here: who the next owner should be (`shards`, `leave`).

use std::time::Duration;

use clinch_types::{ActorId, NodeId, fp, planted};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Role, ShardTask};
use crate::shard::Owner;

/// How long each stage of a hand-over may take: what was begun here to end, and the transfer to happen.
const STAGE_MAX: Duration = Duration::from_secs(2);

/// A hand-over under way.
pub(super) struct HandOver {
    to: NodeId,
    /// Until when its present stage may take.
    until: Instant,
    /// Whether the transfer has been asked for.
    is_asked: bool,
    /// The node is about to stop: there is no going back.
    is_leaving: bool,
    /// Actors are being put to sleep before.
    resting: Option<oneshot::Receiver<()>>,
}

impl HandOver {
    /// Whether a call must be let in although the shard is on its way: an actor of this shard waits for its answer.
    pub(super) fn lets_in(&self, owner: &Owner, chain: &[ActorId]) -> bool {
        let waits = |id| owner.slots.get(id).is_some_and(|slot| !slot.idle());
        !self.is_asked && chain.iter().any(waits)
    }

    /// Whether actors are still falling asleep.
    fn is_resting(&mut self) -> bool {
        let resting = self.resting.as_mut();
        resting.is_some_and(|done| done.try_recv() == Err(oneshot::error::TryRecvError::Empty))
    }
}

impl ShardTask {
    /// Begins to hand the shard over, if this node owns it and does not do so already. With `leaving`, its actors are put to
    /// sleep first, and turns that do not end in time are left behind: their callers ask the next owner.
    pub(super) fn begin_hand_over(&mut self, to: NodeId, leaving: bool) {
        let Role::Owner { owner, .. } = &mut self.role else {
            return;
        };
        if self.hand_over.is_some() {
            return;
        }
        if !planted!("lease-through-transfer") {
            self.lease_void = Some(owner.epoch);
        }
        let resting = leaving.then(|| {
            let (done, resting) = oneshot::channel();
            owner.rest(done);
            resting
        });
        // From here on nothing is admitted and no lease is trusted: `as_leader()` does not know of a transfer.
        self.hand_over = Some(HandOver {
            to,
            until: Instant::now() + STAGE_MAX,
            is_asked: false,
            is_leaving: leaving,
            resting,
        });
    }

    /// Asks for the transfer once everything that was begun here has ended; whether it was given up, and calls that waited
    /// for it are served here.
    pub(super) async fn continue_hand_over(&mut self) -> bool {
        let (Some(hand_over), Role::Owner { owner, .. }) = (&mut self.hand_over, &mut self.role) else {
            return false;
        };
        let is_late = hand_over.until <= Instant::now();
        if !hand_over.is_asked {
            owner.save_all();
            // Senders that wait until their message is dealt with may wait for long: they ask the next owner.
            let ends = owner.pipeline.busy() || owner.open.len() > owner.beside.waiting.len();
            if ends || hand_over.is_resting() {
                match (is_late, hand_over.is_leaving) {
                    (false, _) => return false,
                    (true, false) => {
                        self.give_up_hand_over();
                        return true;
                    }
                    (true, true) => tracing::warn!(
                        shard = %self.context.id,
                        "what does not end in time is left behind: its callers ask the next owner"
                    ),
                }
            }
            hand_over.is_asked = true;
            hand_over.until = Instant::now() + STAGE_MAX;
            let to = hand_over.to;
            tracing::info!(shard = %self.context.id, %to, "handing the shard over");
            fp!("shard.before_transfer");
            if let Err(error) = self.raft.trigger().transfer_leader(to.0).await {
                tracing::warn!(shard = %self.context.id, %error, "the hand-over could not be started");
                self.end_hand_over();
            }
        } else if is_late {
            self.give_up_hand_over();
        }
        self.hand_over.is_none()
    }

    fn give_up_hand_over(&mut self) {
        tracing::warn!(shard = %self.context.id, "a hand-over did not happen in time; serving on");
        self.end_hand_over();
    }

    fn end_hand_over(&mut self) {
        self.hand_over = None;
        for (request, deadline, reply) in std::mem::take(&mut self.parked) {
            self.call(request, deadline, reply);
        }
    }
}
