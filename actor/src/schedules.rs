//! The actor's own schedules, this turn's changes included.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::turn::Effect;
use crate::{Error, RunRecord, ScheduleEntry, ScheduleId, ScheduleOp, Turn};

/// Lists and cancels; adding is `c.me().action(..)` with `.after(..)`, `.at(..)`, `.every(..)` or `.cron(..)`.
pub struct Schedules<'a> {
    turn: &'a Arc<Turn>,
}

impl<'a> Schedules<'a> {
    pub(crate) fn new(turn: &'a Arc<Turn>) -> Self {
        Self { turn }
    }

    /// All of them, the soonest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ScheduleEntry>, Error> {
        let stored = self.turn.host.schedules(self.turn.actor.id)?;
        let mut all: BTreeMap<ScheduleId, ScheduleEntry> =
            stored.into_iter().map(|entry| (entry.id, entry)).collect();
        self.turn.peek(|effects| {
            for op in &effects.schedules {
                match op {
                    ScheduleOp::Put(entry) => drop(all.insert(entry.id, entry.clone())),
                    ScheduleOp::Cancel(id) => drop(all.remove(id)),
                }
            }
        });
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by_key(|entry| (entry.due, entry.id));
        Ok(all)
    }

    /// The one with this id, if it has neither fired nor been cancelled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, id: ScheduleId) -> Result<Option<ScheduleEntry>, Error> {
        Ok(self.list()?.into_iter().find(|entry| entry.id == id))
    }

    /// The repeated one with this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn named(&self, name: &str) -> Result<Option<ScheduleEntry>, Error> {
        self.get(ScheduleId::of_name(name))
    }

    /// The latest firings of the repeated schedule with this name, the last first; at most 100 are kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn history(&self, name: &str) -> Result<Vec<RunRecord>, Error> {
        let id = ScheduleId::of_name(name);
        self.turn.host.schedule_history(self.turn.actor.id, id)
    }

    /// Cancels the repeated one with this name; see [`Schedules::cancel`].
    ///
    /// # Errors
    /// As [`Schedules::cancel`].
    pub fn cancel_named(&self, name: &str) -> Result<bool, Error> {
        self.cancel(ScheduleId::of_name(name))
    }

    /// Cancels it when this turn commits; tells whether there was one.
    ///
    /// # Errors
    /// When the store cannot be read, or the turn's effects are over their limit.
    pub fn cancel(&self, id: ScheduleId) -> Result<bool, Error> {
        let there = self.get(id)?.is_some();
        if there {
            self.turn.record(Effect::Schedule(ScheduleOp::Cancel(id)))?;
        }
        Ok(there)
    }
}
