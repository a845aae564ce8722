//! G4: what a turn did and asked for commits as a whole or not at all, whatever it did and however it ended.

use std::time::Duration;

use crate::common::{PATIENCE, TestCluster, eventually, ran, runs};
use clinch::prelude::*;
use clinch_types::WallMs;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "told")]
struct Told(u64);

/// Everything that an actor keeps, as a later turn sees it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Contents {
    count: u64,
    kv: Vec<(String, u64)>,
    schedules: Vec<(Option<String>, String)>,
    queued: Vec<usize>,
}

#[derive(Default, Serialize, Deserialize)]
struct Ledger {
    count: u64,
}

#[clinch::actor(name = "ledger", events(Told), action_timeout = "400ms")]
impl Ledger {
    #[hook]
    fn on_state_change(&self, c: &Ctx<Self>) -> Result<()> {
        c.broadcast(Told(self.count));
        match self.count {
            13 => Err(Error::user("unlucky", "not thirteen")),
            14 => panic!("not fourteen either"),
            _ => Ok(()),
        }
    }

    /// What is there before the turn that fails.
    #[action]
    fn fill(&mut self, c: &Ctx<Self>) -> Result<()> {
        self.count = 1;
        c.kv().put("kept", &1u64)?;
        c.me().note().after(Duration::from_secs(3600))?;
        c.me().note().every("beat", Duration::from_secs(3600))?;
        c.queue("jobs").push(&7u32)
    }

    /// Changes everything there is, and then ends in one of many ways.
    #[action]
    async fn everything(&mut self, c: &Ctx<Self>, end: String) -> Result<u64> {
        ran(&format!("{}-{end}", c.key()));
        self.count += 100;
        c.kv().put("new", &2u64)?;
        c.kv().delete("kept")?;
        for schedule in c.schedules().list()? {
            c.schedules().cancel(schedule.id)?;
        }
        c.me().note().cron("daily", "0 9 * * *")?;
        c.queue::<u32>("jobs").pop()?;
        c.queue("other").push(&8u32)?;
        c.queue("other").push(&9u32)?;
        c.get::<Ledger>("elsewhere").note().send()?;
        c.broadcast(Told(4711));
        let spawned = format!("{}-spawned", c.key());
        c.spawn(|_| async move { ran(&spawned) });
        match end.as_str() {
            "err" => Err(Error::user("no_deal", "changed my mind")),
            "panic" => panic!("a bug in the application"),
            "timeout" => std::future::pending().await,
            "destroy-err" => {
                c.destroy();
                Err(Error::user("no_deal", "changed my mind"))
            }
            "hook-err" => {
                self.count = 13;
                Ok(0)
            }
            "hook-panic" => {
                self.count = 14;
                Ok(0)
            }
            "too-many" => {
                for n in 0..1000u32 {
                    c.queue("other").push(&n)?;
                }
                Ok(0)
            }
            _ => Ok(self.count),
        }
    }

    #[action]
    fn contents(&self, c: &Ctx<Self>) -> Result<Contents> {
        let kv = c.kv().list("")?;
        let kv = kv
            .iter()
            .map(|e| Ok((e.key_str().unwrap_or("?").to_owned(), e.decode()?)));
        let schedules = c.schedules().list()?.into_iter().map(|s| (s.name, s.action));
        let mut schedules: Vec<_> = schedules.collect();
        schedules.sort();
        Ok(Contents {
            count: self.count,
            kv: kv.collect::<Result<_>>()?,
            schedules,
            queued: vec![c.queue::<u32>("jobs").len()?, c.queue::<u32>("other").len()?],
        })
    }

    #[action]
    fn note(&mut self, c: &Ctx<Self>) {
        ran(&format!("{}-noted", c.key()));
        self.count += 1;
    }

    /// The same effects, in an update of an action without `self`.
    #[action]
    async fn beside(c: Ctx<Self>, end: String) -> Result<u64> {
        c.try_update(move |ledger, c| {
            ledger.count += 100;
            c.kv().put("new", &2u64)?;
            c.queue::<u32>("jobs").pop()?;
            c.queue("other").push(&8u32)?;
            c.get::<Ledger>("elsewhere").note().send()?;
            c.me().note().after(Duration::from_secs(60))?;
            c.broadcast(Told(4711));
            match end.as_str() {
                "err" => Err(Error::user("no_deal", "changed my mind")),
                "panic" => panic!("a bug in the application"),
                _ => Ok(ledger.count),
            }
        })
        .await
    }

    /// A firing that fails.
    #[action]
    fn schedule_failing(&mut self, c: &Ctx<Self>) -> Result<WallMs> {
        let id = c.me().everything("err".into()).after(Duration::from_millis(50))?;
        Ok(c.schedules().get(id)?.map_or(WallMs(0), |s| s.due))
    }
}

fn before() -> Contents {
    Contents {
        count: 1,
        kv: vec![("kept".into(), 1)],
        schedules: vec![(None, "note".into()), (Some("beat".into()), "note".into())],
        queued: vec![1, 0],
    }
}

async fn cluster() -> TestCluster {
    TestCluster::start(1, Registry::new().actor::<Ledger>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_turn_that_fails_in_any_way_leaves_nothing_of_anything_it_asked_for() {
    let cluster = cluster().await;
    let handle = cluster.node(0).cluster();
    let ledger = handle.get::<Ledger>("rollback");
    ledger.fill().await.unwrap();
    let id = ledger.resolve().await.unwrap();
    let mut events = cluster.node(0).events().subscribe(id);
    for (end, code) in [
        ("err", "no_deal"),
        ("panic", "internal_error"),
        ("timeout", "action_timed_out"),
        ("destroy-err", "no_deal"),
        ("hook-err", "unlucky"),
        ("hook-panic", "internal_error"),
        ("too-many", "full"),
    ] {
        let error = ledger.everything(end.into()).timeout(PATIENCE).await.unwrap_err();
        assert_eq!(error.code(), code, "{end}: {error}");
        assert_eq!(ledger.contents().await.unwrap(), before(), "after {end}");
        assert_eq!(runs(&format!("rollback-{end}")), 1, "{end} ran");
    }
    for end in ["err", "panic"] {
        ledger.beside(end.into()).await.unwrap_err();
        assert_eq!(
            ledger.contents().await.unwrap(),
            before(),
            "after an update with {end}"
        );
    }
    // A turn that ends well shows that its effects would have been seen.
    assert_eq!(ledger.everything("ok".into()).await.unwrap(), 101);
    let after = Contents {
        count: 101,
        kv: vec![("new".into(), 2)],
        schedules: vec![(Some("daily".into()), "everything".into())],
        queued: vec![0, 2],
    };
    let contents = ledger.contents().await.unwrap();
    assert_eq!(
        contents.schedules,
        [(Some("daily".to_owned()), "note".to_owned())]
    );
    assert_eq!(
        Contents {
            schedules: after.schedules.clone(),
            ..contents
        },
        after
    );
    let mut told = Vec::new();
    while told.len() < 2 {
        let batch = tokio::time::timeout(PATIENCE, events.recv())
            .await
            .expect("in time")
            .expect("the stream");
        told.extend(
            batch
                .events
                .iter()
                .map(|e| clinch_actor::decode::<(u64,)>("event", &e.args).unwrap().0),
        );
    }
    assert_eq!(told, [4711, 101], "events of failed turns are never seen");
    eventually("the send arrives", || async { runs("elsewhere-noted") == 1 }).await;
    eventually("the work begins", || async { runs("rollback-spawned") == 1 }).await;
    assert_eq!(
        runs("elsewhere-noted") + runs("rollback-spawned"),
        2,
        "those of the failed turns do not"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_firing_that_fails_leaves_nothing_but_that_it_fired() {
    let cluster = cluster().await;
    let ledger = cluster.node(0).cluster().get::<Ledger>("fired");
    ledger.fill().await.unwrap();
    ledger.schedule_failing().await.unwrap();
    eventually("it has fired", || async { runs("fired-err") == 1 }).await;
    eventually("and left nothing", || async {
        ledger.contents().await.unwrap() == before()
    })
    .await;
    ledger.beside("ok".into()).await.unwrap();
    assert_eq!(ledger.contents().await.unwrap().count, 101);
    assert_eq!(runs("fired-spawned"), 0);
}
