//! Schedules (G7): never early, each once, whatever happens to their actor and its nodes in between.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{PATIENCE, TestCluster, eventually, gate};
use clinch::prelude::*;
use clinch::{ScheduleId, SystemClock};
use clinch_types::{Clock, WallMs};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// When user code of which alarm ran: also of turns that were not committed, and of actors that are gone.
static FIRED: Mutex<BTreeMap<String, Vec<WallMs>>> = Mutex::new(BTreeMap::new());

fn fired(name: &str) -> Vec<WallMs> {
    FIRED.lock().get(name).cloned().unwrap_or_default()
}

#[derive(Default, Serialize, Deserialize)]
struct Alarm {
    rung: Vec<String>,
}

#[clinch::actor(name = "alarm", sleep_after = "1s")]
impl Alarm {
    #[action]
    fn ring(&mut self, name: String) {
        FIRED
            .lock()
            .entry(name.clone())
            .or_default()
            .push(SystemClock.wall());
        self.rung.push(name);
    }

    #[action]
    fn ring_and_fail(&mut self, name: String) -> Result<()> {
        FIRED
            .lock()
            .entry(name.clone())
            .or_default()
            .push(SystemClock.wall());
        self.rung.push(name);
        Err(Error::user("broken", "on purpose"))
    }

    /// The due time, and the id to cancel it by.
    #[action]
    fn set(&mut self, c: &Ctx<Self>, name: String, ms: u64) -> Result<(WallMs, ScheduleId)> {
        let id = c.me().ring(name).after(Duration::from_millis(ms))?;
        let due = c.schedules().get(id)?.map(|s| s.due);
        Ok((
            due.ok_or_else(|| Error::user("lost", "a schedule of this turn"))?,
            id,
        ))
    }

    #[action]
    fn set_at(&mut self, c: &Ctx<Self>, name: String, at: WallMs) -> Result<ScheduleId> {
        c.me().ring(name).at(at)
    }

    #[action]
    fn set_failing(&mut self, c: &Ctx<Self>, name: String) -> Result<ScheduleId> {
        c.me().ring_and_fail(name).after(Duration::ZERO)
    }

    #[action]
    fn set_then_fail(&mut self, c: &Ctx<Self>, name: String) -> Result<()> {
        c.me().ring(name).after(Duration::ZERO)?;
        Err(Error::user("no", "changed my mind"))
    }

    #[action]
    fn cancel(&mut self, c: &Ctx<Self>, id: ScheduleId) -> Result<bool> {
        c.schedules().cancel(id)
    }

    /// Lets a schedule become due while this turn runs, and then cancels it.
    #[action]
    async fn cancel_late(&mut self, c: &Ctx<Self>, id: ScheduleId, name: String) -> Result<bool> {
        gate(&name)
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
        c.schedules().cancel(id)
    }

    #[action]
    fn rung(&self) -> Vec<String> {
        self.rung.clone()
    }

    #[action]
    fn set_many(&mut self, c: &Ctx<Self>, count: u64) -> Result<()> {
        for n in 0..count {
            c.me()
                .ring(format!("many-{n}"))
                .after(Duration::from_secs(3600))?;
        }
        Ok(())
    }

    #[action]
    fn waiting(&self, c: &Ctx<Self>) -> Result<usize> {
        Ok(c.schedules().list()?.len())
    }

    #[action]
    fn end(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }

    #[action]
    fn doze(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Alarm>()
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_schedule_fires_once_and_never_early() {
    let cluster = TestCluster::start(1, registry()).await;
    let alarm = cluster.node(0).cluster().get::<Alarm>("on-time");
    let mut due = BTreeMap::new();
    for (n, ms) in [400, 0, 250, 120, 120].into_iter().enumerate() {
        let name = format!("on-time-{n}");
        due.insert(name.clone(), alarm.set(name, ms).await.unwrap().0);
    }
    let past = WallMs(SystemClock.wall().0 - 1000);
    alarm.set_at("on-time-past".into(), past).await.unwrap();
    due.insert("on-time-past".into(), past);
    eventually("all have fired", || async {
        alarm.rung().await.unwrap().len() >= 6
    })
    .await;
    assert_eq!(
        alarm.waiting().await.unwrap(),
        0,
        "fired ones are no longer listed"
    );
    for (name, due) in &due {
        let at = fired(name);
        assert_eq!(at.len(), 1, "{name}");
        assert!(
            at[0] >= *due,
            "{name} was due at {due:?} and fired at {:?}",
            at[0]
        );
        assert!(
            at[0].0 < due.0.max(past.0 + 1000) + 10_000,
            "{name} was late: due {due:?}, fired {:?}",
            at[0]
        );
    }
    let mut rung = alarm.rung().await.unwrap();
    let first: Vec<&str> = rung
        .iter()
        .map(String::as_str)
        .filter(|n| matches!(*n, "on-time-0" | "on-time-2"))
        .collect();
    assert_eq!(first, ["on-time-2", "on-time-0"], "in order of time");
    rung.sort();
    rung.dedup();
    assert_eq!(rung.len(), 6, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_schedules_survive_a_restart_of_all_nodes_and_late_ones_fire_then() {
    let mut cluster = TestCluster::start(3, registry()).await;
    let (due, kept) = {
        let handle = cluster.node(0).cluster().clone();
        // One is due while no node runs, one later.
        let (due, _) = handle
            .get::<Alarm>("restart")
            .set("restart-late".into(), 300)
            .await
            .unwrap();
        let (kept, _) = handle
            .get::<Alarm>("restart")
            .set("restart-kept".into(), 3_600_000)
            .await
            .unwrap();
        (due, kept)
    };
    cluster.stop_all().await;
    let early = fired("restart-late");
    // Should the stop have taken longer than the schedule, it fired before: then it must not fire again.
    assert!(early.len() <= 1);
    eventually("its time has passed", || async { SystemClock.wall() > due }).await;
    cluster.start_all(registry()).await;
    let alarm = cluster.node(1).cluster().get::<Alarm>("restart");
    eventually("it took effect", || async {
        !alarm.rung().await.unwrap().is_empty()
    })
    .await;
    assert_eq!(alarm.rung().await.unwrap(), ["restart-late"]);
    assert!(fired("restart-late").iter().all(|at| *at >= due));
    assert_eq!(alarm.waiting().await.unwrap(), 1, "the other one waits on");
    assert!(kept > SystemClock.wall());
    drop(alarm);
    // And what has fired does not fire again.
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let alarm = cluster.node(2).cluster().get::<Alarm>("restart");
    alarm.set("restart-after".into(), 0).await.unwrap();
    eventually("a later one has fired", || async {
        alarm.rung().await.unwrap().len() > 1
    })
    .await;
    assert_eq!(alarm.rung().await.unwrap(), ["restart-late", "restart-after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_cancelled_failed_and_orphaned_schedules_never_fire() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let alarm = handle.get::<Alarm>("cancel");
    let (_, id) = alarm.set("cancel-early".into(), 300).await.unwrap();
    assert!(alarm.cancel(id).await.unwrap());
    assert!(!alarm.cancel(id).await.unwrap(), "there is none any more");
    alarm.set_then_fail("cancel-failed".into()).await.unwrap_err();

    // Cancelled by a turn that began before the schedule was due, and that its firing had to wait for.
    let (due, id) = alarm.set("cancel-late".into(), 150).await.unwrap();
    let cancelling = tokio::spawn({
        let alarm = alarm.clone();
        async move { alarm.cancel_late(id, "cancel-late".into()).await }
    });
    // Half a second behind its time, the firing waits in the actor's queue.
    eventually("it is overdue", || async {
        SystemClock.wall() > due.after(Duration::from_millis(500))
    })
    .await;
    gate("cancel-late").add_permits(1);
    assert!(
        cancelling.await.unwrap().unwrap(),
        "the turn saw it and cancelled it"
    );

    let gone = handle.get::<Alarm>("orphan");
    gone.set("orphan".into(), 200).await.unwrap();
    gone.end().await.unwrap();

    // Later ones, on both actors' shards, show that the time of all these has passed.
    let (_, _) = alarm.set("cancel-witness".into(), 600).await.unwrap();
    handle
        .get::<Alarm>("orphan")
        .set("orphan-witness".into(), 600)
        .await
        .unwrap();
    eventually("the witnesses fired", || async {
        !fired("cancel-witness").is_empty() && !fired("orphan-witness").is_empty()
    })
    .await;
    for name in ["cancel-early", "cancel-failed", "cancel-late", "orphan"] {
        assert_eq!(fired(name), [], "{name} fired");
    }
    eventually("the last one took effect", || async {
        alarm.rung().await.unwrap() == ["cancel-witness"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_schedule_wakes_its_actor_and_a_failing_one_fires_once() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let alarm = handle.get::<Alarm>("asleep");
    alarm.set("asleep".into(), 1500).await.unwrap();
    let id = alarm.resolve().await.unwrap();
    alarm.doze().await.unwrap();
    eventually("the actor sleeps", || async { !cluster.awake(0, id).await }).await;
    assert_eq!(fired("asleep"), []);
    eventually("the schedule fires", || async { !fired("asleep").is_empty() }).await;
    eventually("and takes effect", || async {
        alarm.rung().await.unwrap() == ["asleep"]
    })
    .await;

    alarm.set_failing("failing".into()).await.unwrap();
    alarm.set("failing-witness".into(), 400).await.unwrap();
    eventually("the witness fires", || async {
        !fired("failing-witness").is_empty()
    })
    .await;
    assert_eq!(fired("failing").len(), 1, "a failed firing is not repeated");
    let rung = || async { alarm.rung().await.unwrap() };
    eventually("only the witness took effect", || async {
        rung().await == ["asleep", "failing-witness"]
    })
    .await;
    assert_eq!(alarm.waiting().timeout(PATIENCE).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_has_so_many_schedules_and_no_more() {
    let cluster = TestCluster::start(1, registry()).await;
    let alarm = cluster.node(0).cluster().get::<Alarm>("many");
    alarm.set_many(600).await.unwrap();
    let error = alarm.set_many(401).await.unwrap_err();
    assert!(error.is("schedule", "too_many"), "{error}");
    assert!(
        error.message().contains("600") && error.message().contains("1000"),
        "{error}"
    );
    alarm.set_many(400).await.unwrap();
    assert_eq!(alarm.waiting().await.unwrap(), 1000);
}
