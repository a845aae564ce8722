//! Schedules of the shard's actors: kept in order of time, fired as turns.
//!
//! Invariant (G7): a schedule fires at its time or later, and what the firing did commits together with its removal or
//! with the next time it is due: once, whatever happens in between.
//! Not here: when a schedule is due next ([`clinch_actor::Timing`]).

use std::ops::Bound;

use bytes::Bytes;
use clinch_actor::{
    ActionKind, Effects, Error, FireInfo, MissedTick, Origin, RunOutcome, RunRecord, ScheduleEntry,
    ScheduleId, ScheduleOp,
};
use clinch_types::{ActorId, RequestId, WallMs, group, limits, planted};
use tokio::time::Instant;

use super::slot::{Running, Work};
use super::timers::WINDOW;
use super::turns::TurnFor;
use crate::shard::records::{self, Prefix};
use crate::shard::{Owner, TurnEnd, keys};

/// Schedules fired in one go before calls get their turn again.
const FIRE_MAX: usize = 256;
/// Schedules read from the store at once.
const LOAD_MAX: usize = 4096;

impl Owner {
    /// Fires what is due.
    pub(crate) fn fire_due(&mut self, now: WallMs) {
        self.load_timers(now);
        for _ in 0..FIRE_MAX {
            let Some((due, actor, schedule)) = self.timers.pop(now) else {
                break;
            };
            if let Err(error) = self.fire(actor, schedule, due) {
                self.fail(format!("the store cannot be read: {error}"));
            }
        }
    }

    /// When [`Owner::tick`] is next needed for a schedule.
    pub(crate) fn next_due(&self) -> Option<WallMs> {
        self.timers.next()
    }

    fn load_timers(&mut self, now: WallMs) {
        let until = now.after(WINDOW);
        let from = self.timers.loaded_until();
        // Refilled when half is used up, so that nothing due can be missed.
        if from.0 > now.after(WINDOW / 2).0 {
            return;
        }
        let start = keys::schedule(from, ActorId::default(), ScheduleId(0));
        let end = keys::schedule(until, ActorId::default(), ScheduleId(0));
        match self
            .provisional
            .scan(Bound::Included(&start), Bound::Excluded(&end), LOAD_MAX, false)
        {
            Ok(rows) => {
                let full = rows.len() == LOAD_MAX;
                let mut last = from;
                for (due, actor, schedule) in rows.iter().filter_map(|(key, _)| keys::parse_schedule(key)) {
                    self.timers.load(due, actor, schedule);
                    last = due;
                }
                // A full page ends somewhere inside its last millisecond: that one is read again.
                self.timers.loaded(if full && last > from { last } else { until });
            }
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    fn fire(&mut self, actor: ActorId, schedule: ScheduleId, due: WallMs) -> std::io::Result<()> {
        if !self.slots.contains_key(&actor) {
            if self
                .provisional
                .get(&keys::schedule(due, actor, schedule))?
                .is_none()
            {
                return Ok(());
            }
            if !self.wake_by_id(actor, false)? {
                let mut written = Vec::new();
                self.forget_schedule(actor, schedule, due, &mut written);
                self.end_beside(actor, written);
                return Ok(());
            }
        }
        match self.slots.contains_key(&actor) {
            true => self.enqueue(actor, Work::Fire { id: schedule, due }),
            // Waking it failed: of no interest to callers, who get their own try.
            false => self.put_off(actor, schedule, due),
        }
        Ok(())
    }

    /// The actor cannot be woken now: its schedule is tried again, later each time.
    pub(crate) fn put_off(&mut self, actor: ActorId, schedule: ScheduleId, due: WallMs) {
        if let Some((_, error)) = self.start_error.take_if(|(failed, _)| *failed == actor) {
            tracing::warn!(%actor, %schedule, %error, "a schedule is due and its actor cannot be woken; tried again later");
        }
        let now = self.context.clock.wall();
        let until = self.timers.put_off(due, actor, schedule, now);
        self.crashes.tried_again_at(actor, until, now);
    }

    /// Runs a schedule's action as a turn.
    pub(crate) fn start_fire(&mut self, id: ActorId, schedule: ScheduleId, due: WallMs) {
        let now = self.context.clock.wall();
        if now < due && !planted!("schedule-early") {
            // The clock was set back while it waited for its turn.
            return self.timers.load(due, id, schedule);
        }
        // While it waited, the turns before may have cancelled it.
        let entry = match self.provisional.get(&keys::schedule(due, id, schedule)) {
            Ok(Some(bytes)) => records::read_schedule(due, schedule, &bytes),
            Ok(None) => return,
            Err(error) => return self.fail(format!("the store cannot be read: {error}")),
        };
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                return self.fail(format!(
                    "schedule {schedule} of actor {id} cannot be read: {error}"
                ));
            }
        };
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let actor_type = slot.actor_type.clone();
        let exclusive = actor_type
            .action(&entry.action)
            .filter(|&i| actor_type.actions()[i].kind == ActionKind::Exclusive);
        let Some(index) = exclusive else {
            let action = entry.action;
            tracing::error!(actor = %id, action, "a schedule names no `&mut self` action of its actor; it is dropped");
            let mut written = Vec::new();
            self.forget_schedule(id, schedule, due, &mut written);
            return self.end_beside(id, written);
        };
        let passed = match entry.timing {
            clinch_actor::Timing::Once => 0,
            _ if entry.missed == MissedTick::FireAll => 0,
            _ => entry.timing.passed(due, now),
        };
        if entry.missed == MissedTick::Skip && passed > 0 {
            let mut written = Vec::new();
            self.advance(id, &entry, RunOutcome::Skipped, &mut written);
            return self.end_beside(id, written);
        }
        let Some(state) = slot.state.take() else { return };
        let began = Instant::now();
        let deadline = began + actor_type.options().action_timeout;
        let init = TurnFor {
            what: actor_type.actions()[index].name,
            began,
            request: RequestId::default(),
            chain: &[],
            origin: Origin::Schedule(schedule),
            kind: ActionKind::Exclusive,
            deadline,
            input: None,
            fire: Some(FireInfo {
                id: schedule,
                name: entry.name.clone(),
                due,
                fired: now,
                run: entry.runs + 1,
                missed: passed,
            }),
        };
        let Some(turn) = self.turn(id, init) else { return };
        let future = actor_type.exclusive(index, state, turn.clone(), entry.args.clone());
        self.launch(
            id,
            future,
            Running::Fire {
                entry: Box::new(entry),
            },
            turn,
            deadline,
        );
    }

    /// A firing is over: its schedule goes away, or waits for its next time; in the same commit as what it did.
    pub(crate) fn advance(
        &mut self,
        id: ActorId,
        entry: &ScheduleEntry,
        outcome: RunOutcome,
        written: &mut Vec<Vec<u8>>,
    ) {
        let now = self.context.clock.wall();
        self.forget_schedule(id, entry.id, entry.due, written);
        let run = entry.runs + 1;
        match entry.timing.next(entry.due, now, entry.missed) {
            Ok(Some(mut due)) => {
                if planted!("tick-again") && run.is_multiple_of(4) {
                    due = entry.due;
                }
                let next = ScheduleEntry {
                    due,
                    runs: run,
                    ..entry.clone()
                };
                self.put_schedule(id, &next, written);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(actor = %id, schedule = %entry.id, %error, "a schedule has no next time; it is dropped");
            }
        }
        if entry.name.is_none() {
            return;
        }
        let record = RunRecord {
            run,
            due: entry.due,
            ended: now,
            outcome,
        };
        match records::write_run(&record) {
            Ok(bytes) => self.put(written, records::history(id, entry.id, run), bytes.into()),
            Err(error) => self.fail(format!("a firing cannot be recorded: {error}")),
        }
        if let Some(old) = run.checked_sub(records::HISTORY_MAX).filter(|old| *old > 0) {
            self.delete(written, records::history(id, entry.id, old));
        }
    }

    /// Whether the schedules a turn adds are within the limit.
    pub(crate) fn check_schedules(&self, id: ActorId, effects: &Effects) -> Result<(), Error> {
        let mut net = 0usize;
        for op in &effects.schedules {
            match op {
                ScheduleOp::Put(_) => net += 1,
                ScheduleOp::Cancel(_) => net = net.saturating_sub(1),
            }
        }
        if net == 0 {
            return Ok(());
        }
        let range = Prefix::of(keys::schedules_of_actor(id));
        let rows = self
            .provisional
            .scan(range.start(), range.end(), limits::SCHEDULES_MAX, false)
            .map_err(Error::internal)?;
        let max = limits::SCHEDULES_MAX;
        if rows.len() + net <= max {
            return Ok(());
        }
        let message = format!(
            "actor {id} has {} schedules and adds {net}, at most {max} are allowed",
            rows.len()
        );
        Err(Error::new(group::SCHEDULE, "too_many", message))
    }

    /// What a turn asked of the actor's schedules.
    pub(crate) fn write_schedule(&mut self, id: ActorId, op: ScheduleOp, written: &mut Vec<Vec<u8>>) {
        let (schedule, cancelled) = match &op {
            ScheduleOp::Put(entry) => (entry.id, false),
            ScheduleOp::Cancel(schedule) => (*schedule, true),
        };
        // One that is replaced or cancelled is found through the actor's own list.
        match self.provisional.get(&keys::schedule_of_actor(id, schedule)) {
            Ok(Some(due)) => {
                if let Ok(due) = <[u8; 8]>::try_from(&due[..]) {
                    self.forget_schedule(id, schedule, WallMs(u64::from_be_bytes(due)), written);
                }
            }
            Ok(None) => {}
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
        if cancelled {
            self.delete_all(records::history_of(id, schedule), written);
        }
        if let ScheduleOp::Put(entry) = op {
            self.put_schedule(id, &entry, written);
        }
    }

    fn put_schedule(&mut self, id: ActorId, entry: &ScheduleEntry, written: &mut Vec<Vec<u8>>) {
        match records::write_schedule(entry) {
            Ok(bytes) => {
                self.put(written, keys::schedule(entry.due, id, entry.id), bytes.into());
                let due = Bytes::copy_from_slice(&entry.due.0.to_be_bytes());
                self.put(written, keys::schedule_of_actor(id, entry.id), due);
                self.timers.add(entry.due, id, entry.id);
            }
            Err(error) => self.fail(format!("a schedule cannot be encoded: {error}")),
        }
    }

    pub(crate) fn forget_schedule(
        &mut self,
        id: ActorId,
        schedule: ScheduleId,
        due: WallMs,
        written: &mut Vec<Vec<u8>>,
    ) {
        if !planted!("schedule-fires-twice") {
            self.delete(written, keys::schedule(due, id, schedule));
        }
        self.delete(written, keys::schedule_of_actor(id, schedule));
        self.timers.remove(due, id, schedule);
    }

    pub(crate) fn drop_schedules(&mut self, id: ActorId, written: &mut Vec<Vec<u8>>) {
        let prefix = keys::schedules_of_actor(id);
        let range = Prefix::of(prefix.clone());
        match self
            .provisional
            .scan(range.start(), range.end(), usize::MAX, false)
        {
            Ok(rows) => {
                for (key, due) in rows {
                    let schedule = key.get(prefix.len()..).and_then(|k| <[u8; 16]>::try_from(k).ok());
                    let due = <[u8; 8]>::try_from(&due[..]).ok();
                    if let (Some(schedule), Some(due)) = (schedule, due) {
                        let schedule = ScheduleId(u128::from_be_bytes(schedule));
                        self.forget_schedule(id, schedule, WallMs(u64::from_be_bytes(due)), written);
                    }
                }
            }
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    /// Deletes every entry under a prefix; for prefixes that hold few.
    pub(crate) fn delete_all(&mut self, prefix: Vec<u8>, written: &mut Vec<Vec<u8>>) {
        let range = Prefix::of(prefix);
        match self
            .provisional
            .scan(range.start(), range.end(), usize::MAX, false)
        {
            Ok(rows) => rows
                .into_iter()
                .for_each(|(key, _)| self.delete(written, key.to_vec())),
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    /// Ends writes that belong to no turn of the actor's.
    pub(crate) fn end_beside(&mut self, id: ActorId, written: Vec<Vec<u8>>) {
        self.pipeline.turn(TurnEnd {
            actor: id,
            release: None,
            events: None,
            provisional: written,
        });
    }
}
