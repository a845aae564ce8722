//! The life of an actor: made, woken, put to sleep, destroyed; and the limits it meets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{Probe, TestCluster, eventually, gate, runs};
use clinch::prelude::*;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What happened to which actor, in order.
static STORY: Mutex<BTreeMap<String, Vec<&'static str>>> = Mutex::new(BTreeMap::new());

fn tell<A: Actor>(c: &Ctx<A>, what: &'static str) {
    STORY.lock().entry(c.key().to_string()).or_default().push(what);
}

fn story(key: &str) -> Vec<&'static str> {
    STORY.lock().get(key).cloned().unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
struct Person {
    name: String,
    naps: u32,
}

#[clinch::actor(
    name = "person",
    sleep_after = "1s",
    queue_max = 8,
    state_max = "64KiB",
    action_timeout = "10s"
)]
impl Person {
    #[hook]
    async fn create(c: &Ctx<Self>, name: Option<String>) -> Result<Self> {
        tell(c, "create");
        let name = name.unwrap_or_default();
        match name.as_str() {
            "refused" => Err(Error::user("not_wanted", "no such person")),
            "refused-late" => {
                c.kv().put("left", &1)?;
                gate(&c.key().to_string())
                    .acquire()
                    .await
                    .expect("gates are never closed")
                    .forget();
                Err(Error::user("not_wanted", "no such person"))
            }
            "late" => {
                gate(&c.key().to_string())
                    .acquire()
                    .await
                    .expect("gates are never closed")
                    .forget();
                Ok(Self { name, naps: 0 })
            }
            _ => Ok(Self { name, naps: 0 }),
        }
    }

    #[hook]
    async fn on_create(&mut self, c: &Ctx<Self>) {
        tell(c, "on_create");
    }

    #[hook]
    async fn on_wake(&mut self, c: &Ctx<Self>) {
        tell(c, "on_wake");
    }

    #[hook]
    async fn on_sleep(&mut self, c: &Ctx<Self>) {
        tell(c, "on_sleep");
        self.naps += 1;
    }

    #[hook]
    async fn on_destroy(&mut self, c: &Ctx<Self>) {
        tell(c, "on_destroy");
        if self.name == "slow end" {
            gate(&c.key().to_string())
                .acquire()
                .await
                .expect("gates are never closed")
                .forget();
        }
    }

    #[action]
    fn naps(&self) -> u32 {
        self.naps
    }

    #[action]
    fn name(&self) -> String {
        self.name.clone()
    }

    #[action]
    fn rename(&mut self, name: String) {
        self.name = name;
    }

    #[action]
    fn doze(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }

    #[action]
    async fn hold(&mut self, c: &Ctx<Self>, name: String) {
        tell(c, "hold");
        gate(&name)
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
    }

    /// A slow step between other turns, then two changes.
    #[action]
    async fn rename_slowly(c: Ctx<Self>, name: String) -> Result<String> {
        let before = c.read(|p| p.name.clone()).await?;
        gate(&name)
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
        let length = c
            .update(|p| {
                p.name.push('!');
                p.name.len()
            })
            .await?;
        let refused = c
            .try_update(|p, c| {
                p.name.clear();
                c.kv().put("lost", &1)?;
                Err::<(), Error>(Error::user("no", "no"))
            })
            .await;
        assert_eq!(refused.unwrap_err().code(), "no");
        Ok(format!("{before} {length}"))
    }

    #[action]
    fn put(&mut self, c: &Ctx<Self>, key: usize, value: usize) -> Result<()> {
        c.kv().put_bytes(vec![b'k'; key], vec![0; value])
    }

    #[action]
    fn put_many(&mut self, c: &Ctx<Self>, count: usize) -> Result<()> {
        c.kv()
            .put_batch((0..count).map(|n| (format!("k{n}"), vec![0u8; 1])))
    }

    #[action]
    fn kv_len(&self, c: &Ctx<Self>) -> Result<usize> {
        Ok(c.kv().list("")?.len())
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Person>().actor::<Probe>()
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_in_order_and_sleep_keeps_everything() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let ann: PersonHandle = handle.raw("person", "ann").with_input("Ann").into();
    assert_eq!(ann.name().await.unwrap(), "Ann");
    assert_eq!(story("ann"), ["create", "on_create", "on_wake"]);
    let id = ann.resolve().await.unwrap();
    ann.doze().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    assert_eq!(story("ann")[3..], ["on_sleep"]);
    let error = ann.naps().if_active().await.unwrap_err();
    assert!(error.is("actor", "not_active"), "{error}");
    assert_eq!(ann.naps().await.unwrap(), 1, "what on_sleep wrote is there");
    assert_eq!(story("ann")[4..], ["on_wake"]);
    // Idle for a second, it goes by itself.
    eventually("it falls asleep", || async { !cluster.awake(0, id).await }).await;
    assert_eq!(story("ann")[5..], ["on_sleep"]);
    assert_eq!(ann.naps().await.unwrap(), 2);
    ann.destroy().await.unwrap();
    assert_eq!(story("ann").last(), Some(&"on_destroy"));
}

/// Falling asleep, its last write still on the way: whoever calls then must be answered.
#[tokio::test(flavor = "multi_thread")]
async fn calls_on_an_actor_that_falls_asleep_are_all_answered() {
    let cluster = TestCluster::start(1, registry()).await;
    let bob = cluster.node(0).cluster().get::<Person>("bob");
    bob.naps().await.unwrap();
    for round in 0..15 {
        let name = format!("bob-{round}");
        gate(&name).add_permits(6);
        let calls = (0..6).map(|n| {
            let (bob, name) = (bob.clone(), name.clone());
            async move {
                match n {
                    2 => bob.doze().await,
                    _ => bob.hold(name).timeout(Duration::from_secs(20)).await,
                }
            }
        });
        for (n, result) in join_all(calls).await.into_iter().enumerate() {
            assert!(result.is_ok(), "round {round}, call {n}: {result:?}");
        }
    }
    // Each sleep was followed by a waking before anything else ran.
    let told = story("bob");
    for pair in told.windows(2).filter(|pair| pair[0] == "on_sleep") {
        assert_eq!(pair[1], "on_wake", "{told:?}");
    }
    assert!(told.contains(&"on_sleep"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_creation_tells_all_who_wait_and_leaves_nothing() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    // Refused at once: the reason comes at once, and user code is not run again and again for it.
    let eve: PersonHandle = handle.raw("person", "eve").with_input("refused").into();
    let error = eve.naps().timeout(Duration::from_secs(10)).await.unwrap_err();
    assert!(error.is("user", "not_wanted"), "{error}");
    assert_eq!(story("eve"), ["create"]);
    // Refused after a while: everybody who came meanwhile hears it.
    let mallory: PersonHandle = handle.raw("person", "mallory").with_input("refused-late").into();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let m = mallory.clone();
                async move { m.naps().await }
            })
        })
        .collect();
    eventually("create runs", || async { story("mallory") == ["create"] }).await;
    gate("mallory").add_permits(1);
    let mut refused = 0;
    for call in waiting {
        // A call that came after the refusal begins anew, and is let in with the same input.
        gate("mallory").add_permits(1);
        refused += u32::from(call.await.unwrap().unwrap_err().is("user", "not_wanted"));
    }
    assert_eq!(refused, 4);
    // Nothing is left: neither actor nor KV.
    let error = handle
        .get::<Person>("mallory")
        .existing()
        .resolve()
        .await
        .unwrap_err();
    assert!(error.is("actor", "not_found"), "{error}");
    let mallory: PersonHandle = handle.raw("person", "mallory").with_input("Mallory").into();
    assert_eq!(mallory.kv_len().await.unwrap(), 0);
    assert_eq!(mallory.name().await.unwrap(), "Mallory");
    let taken = mallory.create().await.unwrap_err();
    assert!(taken.is("actor", "duplicate_key"), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_while_an_actor_is_destroyed_find_the_next_one_or_none() {
    let cluster = TestCluster::start(1, registry()).await;
    let handle = cluster.node(0).cluster();
    let old = handle.get::<Person>("ida");
    old.rename("slow end".into()).await.unwrap();
    let id = old.resolve().await.unwrap();
    let end = tokio::spawn({
        let old = old.clone();
        async move { old.destroy().await }
    });
    eventually("on_destroy runs", || async {
        story("ida").last() == Some(&"on_destroy")
    })
    .await;
    let by_key = tokio::spawn({
        let old = old.clone();
        async move { old.name().meta().await }
    });
    let existing = old.existing();
    let existing = tokio::spawn(async move { existing.name().await });
    let by_id = handle.get_by_id::<Person>(id);
    let by_id = tokio::spawn(async move { by_id.name().await });
    // A call from elsewhere passes those above: all of them wait for the end of the actor.
    eventually("another actor answers", || async {
        handle.get::<Person>("ira").name().await.is_ok()
    })
    .await;
    gate("ida").add_permits(1);
    end.await.unwrap().unwrap();
    let gone = by_id.await.unwrap().unwrap_err();
    assert!(gone.is("actor", "not_found"), "{gone}");
    let (name, meta) = by_key.await.unwrap().expect("the key begins anew");
    assert_eq!(name, "");
    assert_ne!(meta.actor, id);
    // By key without creating: the old one is gone, the new one may be there already.
    if let Err(gone) = existing.await.unwrap() {
        assert!(gone.is("actor", "not_found"), "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interleaved_action_lets_others_run_and_writes_in_turns_of_its_own() {
    let cluster = TestCluster::start(1, registry()).await;
    let zoe = cluster.node(0).cluster().get::<Person>("zoe");
    zoe.rename("Zoe".into()).await.unwrap();
    let slow = tokio::spawn({
        let zoe = zoe.clone();
        async move { zoe.rename_slowly("zoe".into()).await }
    });
    // It waits at its gate, and does not keep others out.
    zoe.rename("Zoey".into()).await.unwrap();
    gate("zoe").add_permits(1);
    let told = slow.await.unwrap().unwrap();
    assert!(told == "Zoe 5" || told == "Zoey 5", "{told}");
    assert_eq!(
        zoe.name().await.unwrap(),
        "Zoey!",
        "the refused update was rolled back"
    );
    assert_eq!(zoe.kv_len().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_by_name_and_value_and_harm_nothing() {
    let cluster = TestCluster::start(1, registry()).await;
    let max = cluster.node(0).cluster().get::<Person>("max");
    max.rename("Max".into()).await.unwrap();
    let cases = [
        (max.put(2049, 1).await, "2048"),
        (max.put(1, (128 << 10) + 1).await, "131072"),
        (max.put_many(129).await, "128"),
        (max.rename("x".repeat(65 << 10)).await, "65536"),
    ];
    for (result, limit) in cases {
        let error = result.unwrap_err();
        assert!(error.message().contains(limit), "{error}");
        assert!(!error.is("rivetkit", "internal_error"), "{error}");
    }
    max.put(2048, 128 << 10).await.unwrap();
    max.put_many(128).await.unwrap();
    assert_eq!(
        (max.name().await.unwrap(), max.kv_len().await.unwrap()),
        ("Max".to_owned(), 129)
    );
    let error = max.rename("x".repeat(2 << 20)).await.unwrap_err();
    assert!(error.is("message", "incoming_too_long"), "{error}");

    // A full queue is an answer, and names itself. (The router waits for room as long as the call may.)
    let held = tokio::spawn({
        let max = max.clone();
        async move { max.hold("max".into()).await }
    });
    eventually("the turn runs", || async { story("max").last() == Some(&"hold") }).await;
    let call = |time| {
        let max = max.clone();
        tokio::spawn(async move { max.naps().timeout(time).await })
    };
    let waiting: Vec<_> = (0..8).map(|_| call(Duration::from_secs(60))).collect();
    let is_full = async || {
        let error = call(Duration::from_millis(300)).await.unwrap().unwrap_err();
        error.is("actor", "overloaded")
    };
    eventually("all eight have found room", is_full).await;
    let more: Vec<_> = (0..12).map(|_| call(Duration::from_secs(1))).collect();
    for call in more {
        let error = call.await.unwrap().unwrap_err();
        assert!(error.is("actor", "overloaded"), "{error}");
        assert!(error.message().contains("8"), "{error}");
        assert!(error.is_retryable());
    }
    gate("max").add_permits(1);
    held.await.unwrap().unwrap();
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap(), 0);
    }
    assert_eq!(max.naps().await.unwrap(), 0);
}

mod later {
    use super::*;

    /// The same actor in a later release: another shape, which `#[serde(default)]` cannot bridge.
    #[derive(Serialize, Deserialize)]
    pub(crate) struct Person {
        first: String,
        last: String,
    }

    #[clinch::actor(name = "person", version = 2)]
    impl Person {
        #[hook]
        fn create(_c: &Ctx<Self>) -> Self {
            Self {
                first: String::new(),
                last: String::new(),
            }
        }

        #[hook]
        fn migrate(from: u32, bytes: &[u8]) -> Result<Self> {
            #[derive(Deserialize)]
            struct Old {
                name: String,
            }
            assert_eq!(from, 1);
            let old: Old = clinch_actor::decode("the old state", bytes)?;
            let (first, last) = old
                .name
                .split_once(' ')
                .ok_or_else(|| Error::user("one_name", "cannot tell"))?;
            Ok(Self {
                first: first.into(),
                last: last.into(),
            })
        }

        #[action]
        fn last(&self) -> String {
            self.last.clone()
        }

        #[action]
        fn marry(&mut self, last: String) {
            self.last = last;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_release_migrates_and_an_old_one_refuses_what_it_cannot_read() {
    let mut cluster = TestCluster::start(1, registry()).await;
    {
        let handle = cluster.node(0).cluster();
        handle
            .get::<Person>("kim")
            .rename("Kim Smith".into())
            .await
            .unwrap();
        handle.get::<Person>("cher").rename("Cher".into()).await.unwrap();
    }
    cluster.stop_all().await;
    cluster.start_all(Registry::new().actor::<later::Person>()).await;
    {
        let handle = cluster.node(0).cluster();
        let kim = handle.get::<later::Person>("kim");
        assert_eq!(kim.last().await.unwrap(), "Smith");
        kim.marry("Jones".into()).await.unwrap();
        // One that cannot be migrated says so at once, and is no trouble for others.
        let error = handle
            .get::<later::Person>("cher")
            .last()
            .timeout(Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(error.is("rivetkit", "internal_error"), "{error}");
        assert_eq!(kim.last().await.unwrap(), "Jones");
    }
    cluster.stop_all().await;
    cluster.start_all(registry()).await;
    let handle = cluster.node(0).cluster();
    let error = handle
        .get::<Person>("kim")
        .name()
        .timeout(Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(error.is("actor", "state_too_new"), "{error}");
    assert_eq!(handle.get::<Person>("cher").name().await.unwrap(), "Cher");
    assert_eq!(runs("kim"), 0);
}
