//! Actors that chose to lose something: their state is kept in memory and written now and then, or never.
//!
//! Invariant: only the state (and events) of a turn may be unsafe; a turn that asks for anything else commits as a whole,
//! with the state. What is in memory is never older than what is stored.
//! `Busy::base` holds the state after the last executed turn as long as it is not stored.

use bytes::Bytes;
use clinch_actor::{Durability, Effects};
use clinch_types::{ActorId, CallReply, Version};
use tokio::time::Instant;

use super::slot::Open;
use crate::shard::{EventBatch, Owner};

impl Owner {
    /// Whether a turn with these effects may stay in memory for now.
    pub(crate) fn may_hold(&self, id: ActorId, effects: &Effects) -> bool {
        let Some(slot) = self.slots.get(&id) else {
            return false;
        };
        let lossy = match slot.actor_type.options().durability {
            Durability::Replicated => false,
            Durability::MayLose(_) | Durability::MayLoseEverything => true,
        };
        // Behind a turn on its way to the log its events would come too early.
        lossy
            && slot.last_seq <= self.pipeline.committed()
            && !effects.save
            && !effects.destroy
            && effects.kv.is_empty()
            && effects.schedules.is_empty()
            && effects.sends.is_empty()
            && effects.queue.is_empty()
            && effects.conns.is_empty()
    }

    /// Keeps a turn's state in memory and answers.
    pub(crate) fn hold(
        &mut self,
        id: ActorId,
        state: Bytes,
        effects: Effects,
        answer: Option<(Open, Vec<u8>)>,
    ) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.version = Version(slot.version.0 + 1);
        let (version, seq) = (slot.version, slot.last_seq);
        slot.busy().base = Some(state);
        if !std::mem::replace(&mut slot.unsaved, true)
            && let Durability::MayLose(time) = slot.actor_type.options().durability
        {
            self.beside.unsaved.insert((Instant::now() + time, id), ());
        }
        if let Some(told) = self.tell_conns(id, version, &effects.events, Vec::new(), None) {
            self.deliver(told);
        }
        if !effects.events.is_empty() {
            self.context.events.publish(EventBatch {
                actor: id,
                epoch: self.epoch,
                version,
                events: effects.events,
            });
        }
        let Some((open, output)) = answer else { return };
        let reply = CallReply {
            meta: self.call_meta(id, version, open.created),
            output,
        };
        if open.request.seq > 0 {
            // Remembered as the state is: in memory.
            let now = self.context.clock.wall();
            self.dedup.record(
                open.request,
                seq,
                now,
                open.long_dedup,
                std::sync::Arc::new(reply.clone()),
            );
        }
        self.answer_after(seq, open, Ok(reply));
    }

    /// Writes the states whose time has come.
    pub(crate) fn save_due(&mut self, now: Instant) {
        while let Some((&(at, id), ())) = self.beside.unsaved.first_key_value()
            && at <= now
        {
            if self.pipeline.full() {
                return;
            }
            self.beside.unsaved.pop_first();
            self.save_now(id);
        }
    }

    /// Writes the actor's state, if it chose to have it written and it is not.
    pub(crate) fn save_now(&mut self, id: ActorId) {
        let Some(slot) = self.slots.get(&id).filter(|slot| slot.must_save()) else {
            return;
        };
        let Some(state) = slot.busy.as_ref().and_then(|busy| busy.base.clone()) else {
            return;
        };
        self.write_state(id, state);
        self.end_beside(id, Vec::new());
    }

    /// Writes all of them, before the shard moves.
    pub(crate) fn save_all(&mut self) {
        while let Some(((_, id), ())) = self.beside.unsaved.pop_first() {
            self.save_now(id);
        }
    }
}
