//! Repeated schedules (G7): each tick once, never early, on the grid; what happens to the ticks nobody could fire.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{TestCluster, eventually};
use clinch::prelude::*;
use clinch::{FireInfo, MissedTick, RunOutcome, ScheduleEntry, SystemClock};
use clinch_types::{Clock, WallMs};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Ticks that have taken effect or failed, by the actor's key; kept outside, because failed ones leave no trace inside.
static TICKS: Mutex<BTreeMap<String, Vec<FireInfo>>> = Mutex::new(BTreeMap::new());
/// Whether actors of type `Fickle` can be woken.
static CLOSED: Mutex<bool> = Mutex::new(false);

fn ticks(key: &str) -> Vec<FireInfo> {
    TICKS.lock().get(key).cloned().unwrap_or_default()
}

#[derive(Default, Serialize, Deserialize)]
struct Metronome {
    ticks: u64,
    #[serde(default)]
    fail: bool,
}

#[clinch::actor(name = "metronome")]
impl Metronome {
    #[action]
    fn tick(&mut self, c: &Ctx<Self>) -> Result<()> {
        let info = c
            .fire_info()
            .cloned()
            .ok_or_else(|| Error::user("no_info", "not fired"))?;
        TICKS.lock().entry(c.key().to_string()).or_default().push(info);
        self.ticks += 1;
        match self.fail {
            true => Err(Error::user("broken", "on purpose")),
            false => Ok(()),
        }
    }

    #[action]
    fn start(&mut self, c: &Ctx<Self>, ms: u64, missed: String, fail: bool) -> Result<WallMs> {
        self.fail = fail;
        let missed = match missed.as_str() {
            "skip" => MissedTick::Skip,
            "all" => MissedTick::FireAll,
            _ => MissedTick::FireOnce,
        };
        c.me()
            .tick()
            .missed(missed)
            .every("beat", Duration::from_millis(ms))?;
        Ok(c.schedules().named("beat")?.map_or(WallMs(0), |s| s.due))
    }

    #[action]
    fn every_second(&mut self, c: &Ctx<Self>) -> Result<()> {
        c.me().tick().cron("seconds", "* * * * * *").map(drop)
    }

    #[action]
    fn stop(&mut self, c: &Ctx<Self>) -> Result<bool> {
        c.schedules().cancel_named("beat")
    }

    #[action]
    fn count(&self) -> u64 {
        self.ticks
    }

    #[action]
    fn waiting(&self, c: &Ctx<Self>) -> Result<Vec<(Option<String>, u64)>> {
        let name = |s: &ScheduleEntry| (s.name.clone(), s.runs);
        Ok(c.schedules().list()?.iter().map(name).collect())
    }

    /// Number and outcome of the latest firings.
    #[action]
    fn history(&self, c: &Ctx<Self>, name: String) -> Result<Vec<(u64, String)>> {
        let history = c.schedules().history(&name)?;
        Ok(history
            .into_iter()
            .map(|run| (run.run, outcome(&run.outcome)))
            .collect())
    }
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Done => "done".into(),
        RunOutcome::Failed(code) => code.clone(),
        RunOutcome::Skipped => "skipped".into(),
    }
}

/// Cannot always be woken.
#[derive(Default, Serialize, Deserialize)]
struct Fickle {
    rung: u64,
}

#[clinch::actor(name = "fickle")]
impl Fickle {
    #[hook]
    fn on_wake(&mut self) -> Result<()> {
        match *CLOSED.lock() {
            true => Err(Error::user("closed", "not now")),
            false => Ok(()),
        }
    }

    #[action]
    fn ring(&mut self) {
        self.rung += 1;
    }

    #[action]
    fn ring_later(&mut self, c: &Ctx<Self>, ms: u64) -> Result<()> {
        c.me().ring().after(Duration::from_millis(ms))?;
        c.sleep();
        Ok(())
    }

    #[action]
    fn rung(&self) -> u64 {
        self.rung
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Metronome>().actor::<Fickle>()
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_an_interval_fires_on_its_grid_each_tick_once_until_it_is_cancelled() {
    let cluster = TestCluster::start(1, registry()).await;
    let metronome = cluster.node(0).cluster().get::<Metronome>("grid");
    let first = metronome.start(150, String::new(), false).await.unwrap();
    eventually("five ticks", || async { metronome.count().await.unwrap() >= 5 }).await;
    assert!(metronome.stop().await.unwrap());
    let count = metronome.count().await.unwrap();
    let ticks = ticks("grid");
    assert_eq!(ticks.len() as u64, count);
    for (at, tick) in ticks.iter().enumerate() {
        assert_eq!((tick.due.0 - first.0) % 150, 0, "on the grid: {tick:?}");
        assert!(tick.fired >= tick.due, "never early: {tick:?}");
        assert_eq!(tick.run, at as u64 + 1);
        assert_eq!(tick.name.as_deref(), Some("beat"));
    }
    assert!(
        ticks.windows(2).all(|t| t[0].due < t[1].due),
        "each once: {ticks:?}"
    );
    assert_eq!(metronome.waiting().await.unwrap(), []);
    assert_eq!(
        metronome.history("beat".into()).await.unwrap(),
        [],
        "a cancelled one is forgotten"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_cron_schedule_fires_at_its_times_and_remembers_them() {
    let cluster = TestCluster::start(1, registry()).await;
    let metronome = cluster.node(0).cluster().get::<Metronome>("cron");
    metronome.every_second().await.unwrap();
    eventually("three ticks", || async { metronome.count().await.unwrap() >= 3 }).await;
    for tick in ticks("cron") {
        assert_eq!(tick.due.0 % 1000, 0, "{tick:?}");
        assert!(tick.fired >= tick.due);
    }
    let history = metronome.history("seconds".into()).await.unwrap();
    assert!(
        history.contains(&(1, "done".into())) && history.contains(&(3, "done".into())),
        "{history:?}"
    );
    assert_eq!(
        history.first().unwrap().0 as usize,
        history.len(),
        "the last one first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_tick_that_fails_leaves_no_trace_and_the_next_one_comes() {
    let cluster = TestCluster::start(1, registry()).await;
    let metronome = cluster.node(0).cluster().get::<Metronome>("failing");
    metronome.start(100, String::new(), true).await.unwrap();
    eventually("three tries", || async { ticks("failing").len() >= 3 }).await;
    assert_eq!(metronome.count().await.unwrap(), 0);
    let history = metronome.history("beat".into()).await.unwrap();
    assert!(
        history.iter().all(|(_, outcome)| outcome == "user.broken"),
        "{history:?}"
    );
    assert!(history.len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_ticks_missed_while_no_node_ran_fire_as_their_policy_says() {
    let mut cluster = TestCluster::start(1, registry()).await;
    let (first, due) = {
        let handle = cluster.node(0).cluster().clone();
        let first = handle
            .get::<Metronome>("once")
            .start(1000, "once".into(), false)
            .await
            .unwrap();
        handle
            .get::<Metronome>("skip")
            .start(1000, "skip".into(), false)
            .await
            .unwrap();
        (
            first,
            handle
                .get::<Metronome>("all")
                .start(1000, "all".into(), false)
                .await
                .unwrap(),
        )
    };
    cluster.stop_all().await;
    let stopped_at = SystemClock.wall();
    assert!(
        stopped_at < first,
        "the stop came before the first tick: else this test says nothing"
    );
    eventually("some ticks have passed", || async {
        SystemClock.wall() > due.after(Duration::from_millis(2500))
    })
    .await;
    cluster.start_all(registry()).await;
    let back = SystemClock.wall();
    for key in ["once", "skip", "all"] {
        eventually("it ticks again", || async {
            ticks(key).iter().any(|t| t.due > back)
        })
        .await;
    }
    let once = ticks("once");
    assert_eq!(once[0].due, first);
    assert!(
        once[0].missed >= 2,
        "the first stands for those after it: {once:?}"
    );
    assert!(once[1].due >= once[0].fired, "the others do not fire: {once:?}");
    let skip = ticks("skip");
    assert!(
        skip[0].due > first.after(Duration::from_secs(2)),
        "no late one: {skip:?}"
    );
    let all = ticks("all");
    assert!(
        all.len() >= 4 && all.windows(2).all(|t| t[1].due.0 - t[0].due.0 == 1000),
        "each of them: {all:?}"
    );
    let metronome = cluster.node(0).cluster().get::<Metronome>("skip");
    let history = metronome.history("beat".into()).await.unwrap();
    assert!(history.contains(&(1, "skipped".into())), "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_repeated_schedule_survives_a_change_of_owner_without_a_tick_lost_or_doubled() {
    let mut cluster = TestCluster::start(3, registry()).await;
    let target = clinch_types::Target::Key {
        namespace: "default".into(),
        name: "metronome".into(),
        key: clinch_types::Key::new(["moves"]).unwrap(),
        create: None,
    };
    cluster.settled().await;
    let (_, owner) = cluster.owner(0, &target).unwrap();
    let other = (owner + 1) % 3;
    let metronome = cluster.node(other).cluster().get::<Metronome>("moves");
    metronome.start(200, "all".into(), false).await.unwrap();
    eventually("it ticks", || async { metronome.count().await.unwrap() >= 2 }).await;
    cluster.stop_node(owner).await;
    let before = metronome.count().await.unwrap();
    eventually("it ticks on", || async {
        metronome.count().await.unwrap() >= before + 3
    })
    .await;
    metronome.stop().await.unwrap();
    let (count, ticks) = (metronome.count().await.unwrap(), ticks("moves"));
    let mut due: Vec<u64> = ticks.iter().map(|t| t.due.0).collect();
    due.sort_unstable();
    due.dedup();
    // User code may run again for a tick whose first try was lost with its owner; its effect is there once.
    assert_eq!(due.len() as u64, count);
    assert!(due.windows(2).all(|d| d[1] - d[0] == 200), "{due:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_schedule_whose_actor_cannot_be_woken_fires_when_it_can() {
    let cluster = TestCluster::start(1, registry()).await;
    let fickle = cluster.node(0).cluster().get::<Fickle>("a");
    let id = fickle.resolve().await.unwrap();
    fickle.ring_later(300).await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    *CLOSED.lock() = true;
    // Its time passes, and it cannot be woken: neither by the schedule nor by a call.
    tokio::time::sleep(Duration::from_millis(800)).await;
    fickle.rung().await.unwrap_err();
    *CLOSED.lock() = false;
    eventually("the schedule is tried again", || async {
        cluster.awake(0, id).await
    })
    .await;
    eventually("it took effect", || async { fickle.rung().await.unwrap() == 1 }).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(fickle.rung().await.unwrap(), 1, "once");
}
