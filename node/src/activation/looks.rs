//! Looks at actors from outside: how one is, without waking it, making it or keeping it awake.
//!
//! Invariant: nothing is told before everything it rests on is committed, as for every answer.
//! Not here: what an awake actor shows of its inside (`inspect`), listings (`shard::listing`).

use clinch_types::{
    ActorId, ActorLook, ActorStatus, ActorWarning, CallOp, CallReply, Target, TurnsReply, WallMs, codec,
};
use tokio::time::Instant;

use super::life::seconds_of;
use super::slot::{Open, Running};
use super::warnings;
use crate::shard::Owner;
use crate::shard::keys::{self, ActorRecord, KeyHash};

impl Owner {
    /// How an actor that exists is now.
    pub(crate) fn status(&self, id: ActorId) -> ActorStatus {
        let crash = self.crashes.of(id);
        let Some(slot) = self.slots.get(&id) else {
            return crash.map_or(ActorStatus::Sleeping, |crash| ActorStatus::Crashed(crash.clone()));
        };
        if let Some(busy) = &slot.busy {
            match busy.running {
                Some((_, Running::Start { .. }, _)) => return ActorStatus::Starting,
                Some((_, Running::Sleep | Running::Destroy { .. }, _)) => return ActorStatus::Stopping,
                _ if busy.stopping || busy.asleep => return ActorStatus::Stopping,
                _ => {}
            }
        }
        match crash {
            // Begun again it runs, until it fails again.
            Some(crash) if !slot.life.is_running() => ActorStatus::BackingOff(crash.clone()),
            _ => ActorStatus::Running,
        }
    }

    /// Answers a call that only looks.
    pub(crate) fn look_at(&mut self, target: &Target, op: &CallOp, open: Open) -> std::io::Result<()> {
        let id = match target {
            Target::Id(id) => Some(*id),
            Target::Key {
                namespace, name, key, ..
            } => self.id_of(KeyHash::of(namespace, name, key))?,
        };
        let seen = match id {
            Some(id) => self.seen(id, op)?.map(|output| (id, output)),
            None => None,
        };
        let result = match seen {
            Some((id, output)) => Ok(CallReply {
                meta: self.call_meta(id, self.version_of(id), false),
                output,
            }),
            None => {
                let message = match target {
                    Target::Id(id) => format!("there is no actor {id}"),
                    Target::Key { name, key, .. } => format!("there is no actor {name} with key {key}"),
                };
                Err(self.missing(false, message).into())
            }
        };
        self.answer_after(self.horizon(), open, result);
        Ok(())
    }

    /// The answer to a look at the actor; `None` when there is no such actor.
    fn seen(&mut self, id: ActorId, op: &CallOp) -> std::io::Result<Option<Vec<u8>>> {
        let record = self.provisional.get(&keys::record(id))?;
        if let CallOp::Turns { from, to, limit } = op {
            let reply = self.latest_turns(id, (*from, *to), *limit as usize);
            // Of one that was destroyed they are told as long as they are remembered.
            let known = record.is_some() || !reply.turns.is_empty();
            let output = codec::encode(&reply).map_err(std::io::Error::other)?;
            return Ok(known.then_some(output));
        }
        let Some(bytes) = record else { return Ok(None) };
        let record: ActorRecord = codec::decode(&bytes).map_err(std::io::Error::other)?;
        let (namespace, name) = (record.namespace.clone(), record.name.clone());
        let look = ActorLook {
            view: self.view(id, record),
            warnings: self.warnings_of(id, &namespace, &name),
        };
        codec::encode(&look).map(Some).map_err(std::io::Error::other)
    }

    /// What is wrong with how the actor and its type are used.
    fn warnings_of(&mut self, id: ActorId, namespace: &str, name: &str) -> Vec<ActorWarning> {
        let (now, second) = (Instant::now(), seconds_of(self));
        let held = warnings::held(self.recent.newest(), id, self.context.clock.wall());
        let slow = warnings::slow(held);
        // What cannot be read is told to whoever wants to work with it.
        let state = self.base(id).ok().flatten();
        let large = state.and_then(|(_, state)| warnings::large(state.len()));
        let found = [
            self.usage.hot(id, now),
            slow,
            large,
            self.usage.short_lived(namespace, name, second),
        ];
        found.into_iter().flatten().collect()
    }

    /// The actor's turns that began within this time, at most so many, the newest last.
    fn latest_turns(&self, id: ActorId, (from, to): (WallMs, WallMs), limit: usize) -> TurnsReply {
        let mut reply = TurnsReply::default();
        let mut matching = self
            .recent
            .newest()
            .filter(|(_, turn)| turn.actor() == id && (from..=to).contains(&turn.began()));
        for (number, turn) in matching.by_ref().take(limit) {
            reply.turns.push(turn.told(number, self.epoch));
        }
        reply.clamped = matching.next().is_some();
        reply.turns.reverse();
        reply
    }
}
