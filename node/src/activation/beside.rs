//! What goes on beside the turns of awake actors: `run` hooks, spawned work, and the orderly end of both.
//!
//! Invariant: work beside the turns belongs to one life of its actor. It is told when that ends (`Life::stop`), may go on
//! for `background_timeout`, and whatever it still asks of the actor then comes before the last hook.
//! An actor whose `run` hook has something to do is marked in the store, so that the next owner wakes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clinch_actor::{ActionKind, BoxFuture, Error, Life, Origin, Spawn, Turn, TurnInit};
use clinch_types::{ActorId, RequestId, codec};
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::outbox::Outbox;
use super::run::{Ended, panic_text};
use super::slot::{Open, Work};
use crate::shard::records::{self, Prefix};
use crate::shard::{Owner, Release, ShardContext};

/// First pause before a `run` hook that failed is begun again; doubles.
const RESTART_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(60);
/// Actors woken per tick after a take-over, so that calls get through between them.
const WAKE_MAX: usize = 64;

/// The owner's part of this.
#[derive(Default)]
pub(crate) struct Beside {
    /// Senders that wait until somebody has dealt with their message, with the actor.
    pub(crate) waiting: BTreeMap<RequestId, (ActorId, Open)>,
    pub(crate) outbox: Outbox,
    /// Marked actors that are still to be woken after the take-over.
    to_wake: VecDeque<ActorId>,
    /// `run` hooks to be begun again.
    restarts: BTreeSet<(Instant, ActorId)>,
    /// Actors whose state is to be written, by the time of that; see `save`.
    pub(crate) unsaved: BTreeMap<(Instant, ActorId), ()>,
    /// Actors that are put to sleep before the node stops, and who waits for that.
    resting: Option<Resting>,
}

/// The lives that are to end, and who is told.
type Resting = (Vec<(ActorId, Arc<Life>)>, oneshot::Sender<()>);

impl Owner {
    /// Reads what earlier owners left to be done beside the turns.
    pub(crate) fn load_beside(&mut self) -> std::io::Result<()> {
        self.load_outbox()?;
        self.load_conns()?;
        for (key, _) in self.provisional.scan_all(b"W")? {
            let id: [u8; 16] = key[1..].try_into().map_err(std::io::Error::other)?;
            self.beside
                .to_wake
                .push_back(ActorId::from_bytes(id).map_err(std::io::Error::other)?);
        }
        Ok(())
    }

    /// What time brings beside the turns.
    pub(crate) fn tick_beside(&mut self) {
        for _ in 0..WAKE_MAX {
            let Some(id) = self.beside.to_wake.pop_front() else {
                break;
            };
            if self.slots.contains_key(&id) {
                continue;
            }
            match self.wake_by_id(id, false) {
                Ok(true) => {}
                Ok(false) => self.unmark(id),
                Err(error) => self.fail(format!("the store cannot be read: {error}")),
            }
        }
        let now = Instant::now();
        while let Some(&(at, id)) = self.beside.restarts.first()
            && at <= now
        {
            self.beside.restarts.pop_first();
            self.start_run(id);
        }
        self.save_due(now);
        self.pump_outbox();
        self.rested();
    }

    /// Begins the `run` hook of an actor that has started.
    pub(crate) fn start_run(&mut self, id: ActorId) {
        let Some(slot) = self.slots.get(&id) else { return };
        let (life, actor_type) = (slot.life.clone(), slot.actor_type.clone());
        if !actor_type.has_run() || life.is_running() || life.stop().is_cancelled() {
            return;
        }
        let turn = beside_turn(slot.meta.clone(), life.clone(), self.host.clone());
        let Some(run) = actor_type.run(turn.clone()) else {
            return;
        };
        life.set_running(true);
        let ended = self.context.ended.clone();
        let report = life.clone();
        run_beside(&self.context, life, false, run, move |outcome| async move {
            let outcome = outcome.unwrap_or(Ok(()));
            // The shard's task may be gone.
            drop(
                ended
                    .send(Ended::Run {
                        id,
                        life: report,
                        outcome,
                    })
                    .await,
            );
        });
        self.mark(id);
    }

    /// A `run` hook has ended.
    pub(crate) fn run_ended(&mut self, id: ActorId, life: &Arc<Life>, outcome: Result<(), Error>) {
        life.set_running(false);
        let Some(slot) = self.slots.get_mut(&id).filter(|s| Arc::ptr_eq(&s.life, life)) else {
            return;
        };
        match outcome {
            Ok(()) => {
                slot.run_failures = 0;
                self.crashes.forget(id);
            }
            Err(_) if life.stop().is_cancelled() => {}
            Err(error) => {
                let pause = RESTART_MIN
                    .saturating_mul(1 << slot.run_failures.min(16))
                    .min(RESTART_MAX);
                slot.run_failures = slot.run_failures.saturating_add(1);
                tracing::error!(actor = %id, %error, pause_ms = pause.as_millis() as u64, "a `run` hook failed; it is begun again");
                self.beside.restarts.insert((Instant::now() + pause, id));
                let now = self.context.clock.wall();
                self.crashes
                    .note(id, error.group(), error.code(), now, Some(now.after(pause)));
            }
        }
        self.pump(id);
    }

    /// Notes in the store that the actor is to be awake.
    fn mark(&mut self, id: ActorId) {
        let key = records::awake_mark(id);
        match self.provisional.get(&key) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let mut written = Vec::new();
                self.put(&mut written, key, Bytes::from_static(&[codec::FORMAT]));
                self.end_beside(id, written);
            }
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    fn unmark(&mut self, id: ActorId) {
        let key = records::awake_mark(id);
        match self.provisional.get(&key) {
            Ok(None) => {}
            Ok(Some(_)) => {
                let mut written = Vec::new();
                self.delete(&mut written, key);
                self.end_beside(id, written);
            }
            Err(error) => self.fail(format!("the store cannot be read: {error}")),
        }
    }

    /// Whether something beside its turns keeps an actor from sleeping: work it waits for, or messages for its `run` hook.
    pub(crate) fn kept_awake(&mut self, id: ActorId) -> bool {
        let Some(slot) = self.slots.get(&id) else {
            return false;
        };
        if slot.life.is_held() {
            return true;
        }
        let runs = slot.actor_type.has_run() && (slot.life.is_running() || slot.run_failures > 0);
        runs && self.stock(id).is_some_and(|stock| stock.messages > 0)
    }

    /// Falling asleep begins: work beside the turns is told, and awaited. `true` when there is none to wait for.
    pub(crate) fn still(&mut self, id: ActorId) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            return true;
        };
        let life = slot.life.clone();
        if slot.actor_type.has_run() || life.has_tasks() {
            life.end();
        }
        if !life.has_tasks() {
            return true;
        }
        slot.busy().stopping = true;
        let ended = self.context.ended.clone();
        self.context.tasks.spawn_until_stop(async move {
            // Each task ends by itself, `background_timeout` after it was told to.
            life.quiet().await;
            drop(ended.send(Ended::Quiet { id, life }).await);
        });
        false
    }

    /// The work beside the turns of an actor that falls asleep is over.
    pub(crate) fn quiet(&mut self, id: ActorId, life: &Arc<Life>) {
        let Some(slot) = self.slots.get_mut(&id).filter(|s| Arc::ptr_eq(&s.life, life)) else {
            return;
        };
        let busy = slot.busy();
        // What the work asked for last may have been the end of the actor.
        if std::mem::take(&mut busy.stopping) && busy.running.is_none() {
            self.sleep_hook(id);
        }
    }

    /// An actor leaves memory by falling asleep: nobody needs to wake it but for a call, a schedule or a message.
    pub(crate) fn asleep(&mut self, id: ActorId) {
        let runs = self.slots.get(&id).is_some_and(|slot| slot.actor_type.has_run());
        if runs && self.beside.resting.is_none() {
            self.unmark(id);
        }
    }

    /// The node is about to stop: actors that have something to do before are put to sleep.
    pub(crate) fn rest(&mut self, done: oneshot::Sender<()>) {
        let mut actors: Vec<(ActorId, Arc<Life>)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.has_last_words())
            .map(|(id, slot)| (*id, slot.life.clone()))
            .collect();
        actors.sort_unstable_by_key(|(id, _)| *id);
        // Who is on its way to sleep already would wake again for what is behind that.
        let is_due = |id: &ActorId| self.slots.get(id).is_some_and(|slot| !slot.falls_asleep());
        let ids: Vec<ActorId> = actors.iter().map(|(id, _)| *id).filter(is_due).collect();
        self.beside.resting = Some((actors, done));
        for id in ids {
            self.enqueue(id, Work::Sleep);
        }
        self.rested();
    }

    /// Tells whoever waits for the rest when it is reached.
    pub(crate) fn rested(&mut self) {
        let Some((actors, done)) = self.beside.resting.take() else {
            return;
        };
        // One that was called meanwhile is awake again, in another life.
        let awake = |(id, life): &(ActorId, Arc<Life>)| {
            self.slots
                .get(id)
                .is_some_and(|slot| Arc::ptr_eq(&slot.life, life))
        };
        // They leave memory when what they wrote is committed; what others write is not waited for.
        if actors.iter().any(awake) {
            self.beside.resting = Some((actors, done));
            return;
        }
        // The node may have given up waiting.
        let _waiting = done.send(());
    }

    /// What a turn wants begun beside it: when its effects are committed, or at once when it has none.
    pub(crate) fn begin_spawns(&mut self, id: ActorId, turn: &Arc<Turn>, wrote: bool) {
        let spawns = turn.take_spawns();
        if spawns.is_empty() {
            return;
        }
        let release = Release::Spawn {
            turn: turn.clone(),
            spawns,
        };
        if !wrote {
            return self.release(release);
        }
        self.pipeline.turn(crate::shard::TurnEnd {
            actor: id,
            release: Some(release),
            events: None,
            provisional: Vec::new(),
        });
    }

    /// Everything an actor keeps in many entries, for the purge after its destruction.
    pub(crate) fn rows_of(&self, id: ActorId, limit: usize) -> std::io::Result<Vec<Bytes>> {
        let mut rows = Vec::new();
        for kind in *b"VQHE" {
            let range = Prefix::of(crate::shard::keys::with_id(kind, id, &[]));
            let found = self
                .provisional
                .scan(range.start(), range.end(), limit - rows.len(), false)?;
            rows.extend(found.into_iter().map(|(key, _)| key));
            if rows.len() >= limit {
                break;
            }
        }
        Ok(rows)
    }
}

/// A turn without an end, for work beside the turns.
pub(crate) fn beside_turn(
    actor: Arc<clinch_actor::ActorMeta>,
    life: Arc<Life>,
    host: Arc<dyn clinch_actor::Host>,
) -> Arc<Turn> {
    Turn::new(TurnInit {
        actor,
        what: "work beside the turns",
        began: Instant::now(),
        request: RequestId::default(),
        chain: Vec::new(),
        origin: Origin::Background,
        kind: ActionKind::Interleaved,
        deadline: None,
        input: None,
        host,
        life,
        fire: None,
    })
}

/// Begins spawned work.
pub(crate) fn begin(context: &Arc<ShardContext>, turn: &Turn, spawn: Spawn) {
    let turn = beside_turn(turn.actor.clone(), turn.life.clone(), turn.host.clone());
    let (life, id) = (turn.life.clone(), turn.actor.id);
    let work = AssertUnwindSafe(async move { (spawn.start)(turn).await });
    let work = Box::pin(async move {
        work.await;
        Ok(())
    });
    run_beside(context, life, spawn.keep_awake, work, move |outcome| async move {
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(actor = %id, %error, "spawned work failed"),
            None => {
                tracing::warn!(actor = %id, "spawned work was ended, its time after the actor's stop was up")
            }
        }
    });
}

/// Runs work of a life in a task. `None` for the end: it overran its time after the stop.
fn run_beside<F, E>(
    context: &Arc<ShardContext>,
    life: Arc<Life>,
    keep_awake: bool,
    work: BoxFuture<'static, Result<(), Error>>,
    end: E,
) where
    E: FnOnce(Option<Result<(), Error>>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let grace = life.actor_type().options().background_timeout;
    let task = life.task(keep_awake);
    context.tasks.spawn(async move {
        let stop = life.stop().clone();
        let mut work = AssertUnwindSafe(work).catch_unwind();
        let outcome = tokio::select! {
            biased;
            outcome = &mut work => Some(outcome),
            () = stop.cancelled() => tokio::time::timeout(grace, &mut work).await.ok(),
        };
        let outcome = outcome.map(|outcome| match outcome {
            Ok(outcome) => outcome,
            Err(panic) => Err(Error::internal(format!("it panicked: {}", panic_text(&*panic)))),
        });
        // What it held is let go before the actor may think it has ended.
        drop(work);
        drop(task);
        end(outcome).await;
    });
}
