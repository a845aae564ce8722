//! Schedules that repeat, as actors set them.

use std::time::Duration;

use clinch_actor::{Ctx, FireInfo, MissedTick, Result, ScheduleId, Timing};
use clinch_types::WallMs;
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Default, Serialize, Deserialize)]
struct Report {
    sent: Vec<u64>,
}

#[clinch::actor(name = "report")]
impl Report {
    #[action]
    fn send(&mut self, c: &Ctx<Self>) -> Result<()> {
        self.sent.push(c.fire_info().map_or(0, |fire| fire.run));
        Ok(())
    }

    #[action]
    fn look(&self) {}

    #[action]
    fn every(&mut self, c: &Ctx<Self>, ms: u64) -> Result<ScheduleId> {
        c.me().send().every("sweep", Duration::from_millis(ms))
    }

    #[action]
    fn daily(&mut self, c: &Ctx<Self>, expression: String, zone: String) -> Result<ScheduleId> {
        c.me()
            .send()
            .missed(MissedTick::Skip)
            .cron_in("daily", &expression, &zone)
    }

    #[action]
    fn stop(&mut self, c: &Ctx<Self>) -> Result<bool> {
        c.schedules().cancel_named("sweep")
    }

    #[action]
    fn wrong(&mut self, c: &Ctx<Self>, what: String) -> Result<ScheduleId> {
        let (me, time) = (c.me(), Duration::from_secs(1));
        match what.as_str() {
            "read" => me.look().after(time),
            "unknown" => me.action::<()>("nothing", ()).after(time),
            "name" => me.send().every("", time),
            "other" => c.get::<Report>("b").send().cron("x", "* * * * *"),
            _ => me.send().every("short", Duration::from_millis(99)),
        }
    }
}

fn entry(node: &Node, id: ScheduleId) -> clinch_actor::ScheduleEntry {
    node.store.lock().schedules[&id].clone()
}

#[tokio::test]
async fn a_named_interval_keeps_its_beat_when_it_is_set_again() {
    let node = Node::start::<Report>().await;
    let id: ScheduleId = node.call("every", (1_000u64,)).await.unwrap();
    assert_eq!(id, ScheduleId::of_name("sweep"));
    assert_eq!(entry(&node, id).due, WallMs(2_000));
    let set_now = |now| node.now.store(now, std::sync::atomic::Ordering::Relaxed);
    set_now(1_600);
    node.call::<ScheduleId>("every", (1_000u64,)).await.unwrap();
    assert_eq!(entry(&node, id).due, WallMs(2_000), "not from now on");
    node.call::<ScheduleId>("every", (2_000u64,)).await.unwrap();
    assert_eq!(
        entry(&node, id).due,
        WallMs(3_600),
        "another interval begins anew"
    );
    assert_eq!(entry(&node, id).timing, Timing::Every { ms: 2_000 });
    // Set again by the very action that it fires: its next time is not the one that fires now.
    set_now(3_650);
    let (due, fired) = (WallMs(3_600), WallMs(3_650));
    *node.fire.lock() = Some(FireInfo {
        id,
        name: Some("sweep".into()),
        due,
        fired,
        run: 1,
        missed: 0,
    });
    node.call::<ScheduleId>("every", (2_000u64,)).await.unwrap();
    assert_eq!((entry(&node, id).due, entry(&node, id).runs), (WallMs(5_600), 1));
    *node.fire.lock() = None;
    assert!(node.call::<bool>("stop", ()).await.unwrap());
    assert!(!node.call::<bool>("stop", ()).await.unwrap());
}

#[tokio::test]
async fn a_cron_schedule_is_due_in_its_zone_and_names_what_is_wrong() {
    let node = Node::start::<Report>().await;
    let id: ScheduleId = node.call("daily", ("0 9 * * *", "Asia/Tokyo")).await.unwrap();
    let stored = entry(&node, id);
    // At 1970-01-01T00:00:01Z it is nine o'clock in Tokyo, by one second.
    assert_eq!(stored.due, WallMs(24 * 3_600_000));
    assert_eq!(
        (stored.missed, stored.name.as_deref()),
        (MissedTick::Skip, Some("daily"))
    );
    for (expression, zone, part) in [("0 25 * * *", "UTC", "0 25"), ("0 9 * * *", "Tokyo", "Tokyo")] {
        let error = node
            .call::<ScheduleId>("daily", (expression, zone))
            .await
            .unwrap_err();
        assert!(
            error.is("schedule", "invalid_timing") && error.message().contains(part),
            "{error}"
        );
    }
}

#[tokio::test]
async fn only_own_actions_with_mut_self_are_scheduled() {
    let node = Node::start::<Report>().await;
    for (what, code, part) in [
        ("read", "not_exclusive", "`look`"),
        ("unknown", "unknown_action", "\"nothing\""),
        ("name", "invalid_name", "0 bytes"),
        ("other", "not_own_actor", "c.me()"),
        ("short", "invalid_timing", "99 ms"),
    ] {
        let error = node.call::<ScheduleId>("wrong", (what,)).await.unwrap_err();
        assert!(
            error.is("schedule", code) && error.message().contains(part),
            "{what}: {error}"
        );
    }
}
