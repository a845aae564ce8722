//! Life of an actor beside its turns: variables, hooks in their order and with their limits, `run`, spawned work, sleep and stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{PATIENCE, TestCluster, eventually, gate};
use clinch::prelude::*;
use clinch_types::{Key, Target};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What happened, by the actor's key.
static STORY: Mutex<BTreeMap<String, Vec<&'static str>>> = Mutex::new(BTreeMap::new());

fn tell(key: impl ToString, what: &'static str) {
    STORY.lock().entry(key.to_string()).or_default().push(what);
}

fn story(key: &str) -> Vec<&'static str> {
    STORY.lock().get(key).cloned().unwrap_or_default()
}

/// Tells what happens to it.
#[derive(Default, Serialize, Deserialize)]
struct Teller {
    beats: u64,
    slow: String,
}

#[clinch::actor(
    name = "teller",
    sleep_after = "1s",
    vars_timeout = "200ms",
    on_wake_timeout = "150ms",
    on_create_timeout = "100ms",
    create_timeout = "250ms",
    background_timeout = "500ms"
)]
impl Teller {
    #[hook]
    async fn create(c: &Ctx<Self>, slow: Option<String>) -> Self {
        tell(c.key(), "create");
        let slow = slow.unwrap_or_default();
        wait_if(slow == "create").await;
        Self { beats: 0, slow }
    }

    #[hook]
    async fn on_create(&mut self, c: &Ctx<Self>) {
        tell(c.key(), "on_create");
        wait_if(self.slow == "on_create").await;
    }

    #[hook]
    async fn vars(&self, c: &Ctx<Self>) -> AtomicU32 {
        tell(c.key(), "vars");
        wait_if(self.slow == "vars").await;
        AtomicU32::new(40)
    }

    #[hook]
    async fn on_wake(&mut self, c: &Ctx<Self>) {
        tell(c.key(), "on_wake");
        c.vars().fetch_add(1, Ordering::Relaxed);
        wait_if(self.slow == "on_wake").await;
    }

    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        tell(c.key(), "run");
        c.update(|teller| teller.beats += 1).await?;
        c.cancelled().await;
        // Still allowed to write: this comes before the last hook.
        c.update(|teller| teller.beats += 1000).await?;
        tell(c.key(), "run ends");
        Ok(())
    }

    #[hook]
    fn on_sleep(&mut self, c: &Ctx<Self>) {
        tell(c.key(), "on_sleep");
        self.beats += 10;
    }

    #[hook]
    fn on_destroy(&mut self, c: &Ctx<Self>) {
        tell(c.key(), "on_destroy");
    }

    #[action]
    fn beats(&self) -> u64 {
        self.beats
    }

    #[action]
    fn var(&self, c: &Ctx<Self>) -> u32 {
        c.vars().fetch_add(1, Ordering::Relaxed)
    }

    #[action]
    fn doze(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }

    #[action]
    fn end(&mut self, c: &Ctx<Self>) {
        c.destroy();
    }
}

async fn wait_if(slow: bool) {
    if slow {
        std::future::pending::<()>().await;
    }
}

/// Works beside its turns.
#[derive(Default, Serialize, Deserialize)]
struct Toiler {
    done: u64,
}

#[clinch::actor(name = "toiler", sleep_after = "1s", background_timeout = "300ms")]
impl Toiler {
    #[action]
    fn work(&mut self, c: &Ctx<Self>, name: String, awake: bool) {
        let work = move |c: Ctx<Self>| async move {
            tokio::select! {
                permit = gate(&name).acquire_owned() => permit.expect("gates are never closed").forget(),
                () = c.cancelled() => tell(c.key(), "told to stop"),
            }
            c.update(|toiler| toiler.done += 1)
                .await
                .expect("the actor still listens");
            tell(c.key(), "done");
        };
        match awake {
            true => c.keep_awake(work),
            false => c.spawn(work),
        }
    }

    /// Work that does not listen.
    #[action]
    fn stubborn(&mut self, c: &Ctx<Self>) {
        let ended = Told(c.key().to_string());
        c.spawn(|_| async move {
            let _ended = ended;
            std::future::pending().await
        });
    }

    #[action]
    fn fail_beside(&mut self, c: &Ctx<Self>) {
        c.spawn(|_| async { panic!("a bug in the application") });
    }

    /// A context that outlives its activation, in a task nobody knows of.
    #[action]
    async fn leak(c: Ctx<Self>, name: String) {
        tokio::spawn(async move {
            gate(&name)
                .acquire()
                .await
                .expect("gates are never closed")
                .forget();
            let written = c.update(|toiler| toiler.done += 1000).await;
            tell(c.key(), if written.is_ok() { "written" } else { "refused" });
        });
    }

    #[action]
    fn done(&self) -> u64 {
        self.done
    }

    #[action]
    fn doze(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }

    /// What it broadcasts, stores and schedules commits when it ends.
    #[action]
    async fn beside(c: Ctx<Self>, fail: bool) -> Result<u64> {
        c.kv().put("beside", &1u64)?;
        let seen = c.read(|toiler| toiler.done).await?;
        match fail {
            true => Err(Error::user("no", "changed my mind")),
            false => Ok(seen),
        }
    }

    #[action]
    fn stored(&self, c: &Ctx<Self>) -> Result<Option<u64>> {
        c.kv().get("beside")
    }
}

/// Tells when it is dropped.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        tell(&self.0, "dropped");
    }
}

/// The newest tick of the one game, seen without a call: a call would wake it.
static TICKED: AtomicU64 = AtomicU64::new(0);

/// Ticks by itself.
#[derive(Default, Serialize, Deserialize)]
struct Game {
    ticks: u64,
}

#[clinch::actor(name = "game")]
impl Game {
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        loop {
            let ticks = c.update(|game| {
                game.ticks += 1;
                game.ticks
            });
            let ticks = ticks.await?;
            TICKED.store(ticks, Ordering::Relaxed);
            if ticks == 5 {
                tell(c.key(), "fails");
                return Err(Error::user("broken", "on purpose"));
            }
            tokio::select! {
                () = c.cancelled() => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    #[action]
    fn ticks(&self) -> u64 {
        self.ticks
    }
}

/// Calls itself by way of another.
#[derive(Default, Serialize, Deserialize)]
struct Echo {
    count: u64,
}

#[clinch::actor(name = "echo", reentrant)]
impl Echo {
    #[action]
    async fn ask_back(&mut self, c: &Ctx<Self>, what: String) -> Result<u64> {
        self.count += 1;
        c.get::<Wall>("w").bounce(c.key().to_string(), what).await
    }

    #[action]
    fn get(&self) -> u64 {
        self.count
    }

    #[action]
    fn set(&mut self) -> u64 {
        self.count
    }

    #[action]
    async fn beside(_c: Ctx<Self>) -> u64 {
        4711
    }

    #[action]
    async fn update_beside(c: Ctx<Self>) -> Result<u64> {
        c.update(|echo| echo.count).await
    }
}

/// Sends calls back.
#[derive(Default, Serialize, Deserialize)]
struct Wall;

#[clinch::actor(name = "wall")]
impl Wall {
    #[action]
    async fn bounce(c: Ctx<Self>, to: String, what: String) -> Result<u64> {
        let echo = c.get::<Echo>(to);
        match what.as_str() {
            "get" => echo.get().await,
            "beside" => echo.beside().await,
            "update" => echo.update_beside().await,
            _ => echo.set().await,
        }
    }
}

fn registry() -> Registry {
    Registry::new()
        .actor::<Teller>()
        .actor::<Toiler>()
        .actor::<Game>()
        .actor::<Echo>()
        .actor::<Wall>()
}

async fn cluster() -> TestCluster {
    TestCluster::start(1, registry()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_in_the_order_of_a_life_and_run_ends_before_the_last_one() {
    let cluster = cluster().await;
    let teller = cluster.node(0).cluster().get::<Teller>("order");
    assert_eq!(teller.var().await.unwrap(), 41);
    assert_eq!(teller.var().await.unwrap(), 42);
    eventually("run has written", || async { teller.beats().await.unwrap() == 1 }).await;
    let id = teller.resolve().await.unwrap();
    teller.doze().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    let first = [
        "create",
        "on_create",
        "vars",
        "on_wake",
        "run",
        "run ends",
        "on_sleep",
    ];
    assert_eq!(story("order"), first);
    assert_eq!(teller.var().await.unwrap(), 41, "made anew");
    eventually("run again", || async { teller.beats().await.unwrap() == 1012 }).await;
    assert_eq!(story("order")[first.len()..], ["vars", "on_wake", "run"]);
    teller.end().await.unwrap();
    eventually("run has ended", || async {
        story("order").len() > 11 || story("order").contains(&"on_destroy")
    })
    .await;
    assert_eq!(story("order")[first.len() + 3], "on_destroy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_over_its_limit_is_named_and_the_actor_does_not_come_to_be() {
    let cluster = cluster().await;
    for (hook, ms) in [
        ("create", 250),
        ("on_create", 100),
        ("vars", 200),
        ("on_wake", 150),
    ] {
        let teller = cluster.node(0).cluster().get::<Teller>(hook).with_input(hook);
        let error = teller.beats().timeout(PATIENCE).await.unwrap_err();
        assert!(error.is("actor", "hook_timed_out"), "{error}");
        assert!(
            error.message().contains(&format!("`{hook}`")) && error.message().contains(&ms.to_string()),
            "{error}"
        );
        let error = teller.existing().beats().await.unwrap_err();
        assert!(error.is("actor", "not_found"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_waited_for_keeps_the_actor_awake_and_other_work_is_told_to_stop() {
    let cluster = cluster().await;
    let handle = cluster.node(0).cluster();
    let (held, told) = (handle.get::<Toiler>("held"), handle.get::<Toiler>("told"));
    let (held_id, told_id) = (held.resolve().await.unwrap(), told.resolve().await.unwrap());
    held.work("held-work".into(), true).await.unwrap();
    told.work("told-work".into(), false).await.unwrap();
    eventually("one of them sleeps", || async {
        !cluster.awake(0, told_id).await
    })
    .await;
    assert_eq!(story("told"), ["told to stop", "done"]);
    assert_eq!(told.done().await.unwrap(), 1, "what it wrote at the end is there");
    // Three seconds idle, and one second is enough to sleep.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.awake(0, held_id).await);
    assert_eq!(story("held"), [""; 0]);
    gate("held-work").add_permits(1);
    eventually("it sleeps when that is done", || async {
        !cluster.awake(0, held_id).await
    })
    .await;
    assert_eq!(story("held"), ["done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_does_not_stop_is_ended_and_a_panic_in_it_harms_nobody() {
    let cluster = cluster().await;
    let toiler = cluster.node(0).cluster().get::<Toiler>("stubborn");
    let id = toiler.resolve().await.unwrap();
    toiler.fail_beside().await.unwrap();
    toiler.stubborn().await.unwrap();
    toiler.doze().await.unwrap();
    // A call that comes while it falls asleep waits, and wakes it again.
    assert_eq!(toiler.done().timeout(PATIENCE).await.unwrap(), 0);
    assert_eq!(
        story("stubborn"),
        ["dropped"],
        "ended before the actor was woken again"
    );
    toiler.doze().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_action_without_self_asks_for_commits_when_it_ends_well() {
    let cluster = cluster().await;
    let toiler = cluster.node(0).cluster().get::<Toiler>("effects");
    toiler.beside(true).await.unwrap_err();
    assert_eq!(toiler.stored().await.unwrap(), None);
    assert_eq!(toiler.beside(false).await.unwrap(), 0);
    assert_eq!(toiler.stored().await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_hook_that_fails_is_begun_again_and_another_owner_goes_on_with_it() {
    let mut cluster = TestCluster::start(3, registry()).await;
    cluster.settled().await;
    let target = Target::Key {
        namespace: "default".into(),
        name: "game".into(),
        key: Key::new(["g"]).unwrap(),
        create: None,
    };
    let (_, owner) = cluster.owner(0, &target).unwrap();
    let game = cluster.node((owner + 1) % 3).cluster().get::<Game>("g");
    game.ticks().await.unwrap();
    eventually("it has failed and gone on", || async {
        game.ticks().await.unwrap() > 8
    })
    .await;
    assert_eq!(story("g"), ["fails"]);
    cluster.stop_node(owner).await;
    let before = TICKED.load(Ordering::Relaxed);
    // Nobody calls: the mark alone wakes it at its new owner.
    eventually("it goes on without a call", || async {
        TICKED.load(Ordering::Relaxed) > before + 20
    })
    .await;
    assert!(game.ticks().await.unwrap() > before + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_node_runs_on_sleep_and_keeps_what_it_wrote() {
    let mut cluster = cluster().await;
    {
        let teller = cluster.node(0).cluster().get::<Teller>("stop");
        eventually("run has written", || async { teller.beats().await.unwrap() == 1 }).await;
    }
    cluster.stop_all().await;
    assert_eq!(story("stop")[5..], ["run ends", "on_sleep"]);
    cluster.start_all(registry()).await;
    let teller = cluster.node(0).cluster().get::<Teller>("stop");
    eventually("awake again", || async { teller.beats().await.unwrap() >= 1012 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reentrant_actor_admits_reads_that_come_back_and_refuses_what_would_wait_for_itself() {
    let cluster = cluster().await;
    let echo = Arc::new(cluster.node(0).cluster().get::<Echo>("e"));
    assert_eq!(
        echo.ask_back("get".into()).await.unwrap(),
        0,
        "as it was before the turn that waits"
    );
    assert_eq!(echo.ask_back("get".into()).await.unwrap(), 1);
    assert_eq!(echo.ask_back("beside".into()).await.unwrap(), 4711);
    for what in ["set", "update"] {
        let error = echo
            .ask_back(what.into())
            .timeout(Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(error.is("actor", "deadlock"), "{what}: {error}");
    }
    assert_eq!(echo.get().await.unwrap(), 3, "failed turns left no trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_what_is_left_of_an_activation_cannot_touch_the_next_one() {
    let cluster = cluster().await;
    let toiler = cluster.node(0).cluster().get::<Toiler>("leak");
    let id = toiler.resolve().await.unwrap();
    toiler.leak("leak".into()).await.unwrap();
    toiler.doze().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    assert_eq!(toiler.done().await.unwrap(), 0, "awake again");
    gate("leak").add_permits(1);
    eventually("the left-over has tried", || async { !story("leak").is_empty() }).await;
    assert_eq!(story("leak"), ["refused"]);
    assert_eq!(toiler.done().await.unwrap(), 0);
}
