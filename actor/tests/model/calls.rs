//! Handles and calls: what reaches whoever carries them, and what a call can become instead.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinch_actor::{
    ActionKind, Ctx, Effects, Error, IDEMPOTENCY_KEY_MAX, Origin, RawHandle, ScheduleId, ScheduleOp, Turn,
};
use clinch_types::{
    ActorId, CallError, CallOp, Consistency, CreateSpec, Epoch, Key, RegionId, Slot, Target, WallMs, limits,
};
use serde::{Deserialize, Serialize};

use crate::support::Node;

#[derive(Default, Serialize, Deserialize)]
struct Clock {
    fired: u32,
}

#[clinch_actor::actor(crate = "clinch_actor")]
impl Clock {
    #[action]
    fn fire(&mut self, times: u32) -> u32 {
        self.fired += times;
        self.fired
    }

    #[action]
    fn later(&mut self, c: &Ctx<Self>, times: u32, delay_ms: u64) -> clinch_actor::Result<ScheduleId> {
        c.me().fire(times).after(Duration::from_millis(delay_ms))
    }

    #[action]
    fn cancel(&mut self, c: &Ctx<Self>, id: ScheduleId) -> clinch_actor::Result<bool> {
        c.schedules().cancel(id)
    }

    #[action]
    fn pending(&self, c: &Ctx<Self>) -> clinch_actor::Result<Vec<(WallMs, String)>> {
        Ok(c.schedules()
            .list()?
            .into_iter()
            .map(|entry| (entry.due, entry.action))
            .collect())
    }

    #[action]
    async fn ask(&mut self, c: &Ctx<Self>) -> clinch_actor::Result<u32> {
        self.fired += 1;
        c.get::<Clock>(("other", 7u32)).fire(2).await
    }

    /// Has the name of a method that every handle has; this one wins.
    #[action]
    fn existing(&self) -> bool {
        true
    }
}

fn clock(node: &Arc<Node>) -> ClockHandle {
    RawHandle::by_key(node.caller(), "default", "clock", "a").into()
}

fn turn(node: &Arc<Node>, kind: ActionKind) -> (Ctx<Clock>, Arc<Turn>) {
    let turn = node.turn(kind, Origin::Call, None);
    (Ctx::new(turn.clone()), turn)
}

#[tokio::test]
async fn a_call_carries_what_was_asked_of_it() {
    let node = Node::start::<Clock>().await;
    let call = clock(&node)
        .with_input(5)
        .in_region(RegionId(2))
        .fire(3)
        .timeout(Duration::from_secs(2))
        .idempotency_key("once")
        .consistency(Consistency::Stale { max_age_ms: 9 })
        .if_active();
    let (fired, meta) = call.meta().await.unwrap();
    assert_eq!((fired, meta.epoch), (3, Epoch(4)));
    let sent = node.store.lock().outgoing.pop().unwrap();
    let create = Some(CreateSpec {
        input: Some(vec![5]),
        region: Some(RegionId(2)),
    });
    let key = Key::new(["a"]).unwrap();
    let target = Target::Key {
        namespace: "default".to_owned(),
        name: "clock".to_owned(),
        key,
        create,
    };
    assert_eq!(sent.target, target);
    assert_eq!(
        sent.op,
        CallOp::Action {
            name: "fire".to_owned(),
            args: vec![0x81, 3]
        }
    );
    assert_eq!(
        (sent.timeout, sent.idempotency_key.as_deref()),
        (Some(Duration::from_secs(2)), Some("once"))
    );
    assert_eq!(
        (sent.consistency, sent.if_active),
        (Consistency::Stale { max_age_ms: 9 }, true)
    );
    assert_eq!((sent.chain, sent.params), (vec![], None));
}

#[tokio::test]
async fn a_handle_to_an_existing_actor_does_not_create_one() {
    let node = Node::start::<Clock>().await;
    let raw = RawHandle::by_key(node.caller(), "default", "clock", "a");
    assert!(matches!(
        raw.target().unwrap(),
        Target::Key { create: Some(_), .. }
    ));
    let raw = raw.existing().with_params(&"token");
    assert!(matches!(raw.target().unwrap(), Target::Key { create: None, .. }));
    assert_eq!(raw.action::<u32>("fire", (1,)).await.unwrap(), 1);
    assert_eq!(
        node.store.lock().outgoing.pop().unwrap().params.as_deref(),
        Some(&b"\x65token"[..])
    );
    assert!(ClockHandle::from(raw).existing().await.unwrap());
}

#[tokio::test]
async fn resolve_create_and_destroy_are_calls_too() {
    let node = Node::start::<Clock>().await;
    let clock = clock(&node);
    let id = clock.resolve().await.unwrap();
    assert_eq!(clock.create().await.unwrap(), id);
    clock.destroy().await.unwrap();
    let ops: Vec<CallOp> = node.store.lock().outgoing.drain(..).map(|call| call.op).collect();
    assert_eq!(ops, [CallOp::Resolve, CallOp::Create, CallOp::Destroy]);
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_told_when_it_is_made() {
    let node = Node::start::<Clock>().await;
    let long = "x".repeat(limits::KEY_COMPONENT_MAX + 1);
    let raw = |key: &str| RawHandle::by_key(node.caller(), "default", "clock", key);
    let error = raw(&long).action::<u32>("fire", (1,)).await.unwrap_err();
    assert!(
        error.is("actor", "key_too_large") && error.message().contains("129"),
        "{error}"
    );
    let text = "x".repeat(limits::ARGS_MAX);
    assert!(
        raw("a")
            .action::<u32>("fire", (&text,))
            .await
            .unwrap_err()
            .is("message", "incoming_too_long")
    );
    let input = "x".repeat(limits::INPUT_MAX);
    let error = clock(&node).with_input(input).fire(1).await.unwrap_err();
    assert!(error.is("actor", "input_too_large"), "{error}");
    assert!(
        raw("a")
            .action::<u32>("x".repeat(129), ())
            .await
            .unwrap_err()
            .is("actor", "invalid_request")
    );
    assert!(
        raw("a")
            .action::<u32>("fire", 5)
            .await
            .unwrap_err()
            .message()
            .contains("a tuple")
    );
    for key in [String::new(), "k".repeat(IDEMPOTENCY_KEY_MAX + 1)] {
        assert!(
            clock(&node)
                .fire(1)
                .idempotency_key(key)
                .await
                .unwrap_err()
                .is("actor", "invalid_request")
        );
    }
    assert!(
        raw("a")
            .action::<String>("fire", (1,))
            .await
            .unwrap_err()
            .message()
            .starts_with("the reply is not")
    );
    // Only the last one, whose reply was asked for in the wrong type, got through.
    assert_eq!(node.store.lock().outgoing.len(), 1);
    assert!(
        raw("a")
            .action::<u32>("fire", Vec::<u32>::new())
            .await
            .unwrap_err()
            .message()
            .contains("missing")
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_from_a_turn_carries_the_chain_and_ends_with_the_turn() {
    let node = Node::start::<Clock>().await;
    *node.answer.lock() = Ok(vec![5]);
    assert_eq!(clock(&node).ask().await.unwrap(), 5);
    let call = node.store.lock().outgoing.remove(0);
    let (c, turn) = turn(&node, ActionKind::Exclusive);
    assert_eq!(call.chain, [c.id()]);
    assert_eq!(call.timeout, Some(Duration::from_secs(60)));
    assert!(matches!(&call.target, Target::Key { key, .. } if *key == Key::new(["other", "7"]).unwrap()));

    // Whoever waits for an interleaved action does not hold its actor.
    let interleaved = node.turn(ActionKind::Interleaved, Origin::Call, None);
    assert_eq!(
        (turn.outgoing_chain(), interleaved.outgoing_chain()),
        (vec![c.id()], vec![])
    );
    c.get::<Clock>("b")
        .fire(1)
        .timeout(Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(
        node.store.lock().outgoing.pop().unwrap().timeout,
        Some(Duration::from_secs(1))
    );
    tokio::time::advance(Duration::from_secs(59)).await;
    c.by_id::<Clock>(c.id())
        .fire(1)
        .timeout(Duration::from_secs(9))
        .await
        .unwrap();
    let call = node.store.lock().outgoing.pop().unwrap();
    assert_eq!(
        (call.timeout, call.target),
        (Some(Duration::from_secs(1)), Target::Id(c.id()))
    );
}

#[tokio::test]
async fn an_endless_chain_of_calls_is_cut() {
    let node = Node::start::<Clock>().await;
    let chain = |len: u128| {
        (0..len)
            .map(|i| ActorId::new(RegionId(0), Slot(0), i))
            .collect::<Vec<_>>()
    };
    for (len, fits) in [(limits::CHAIN_MAX - 1, true), (limits::CHAIN_MAX, false)] {
        let turn = node.turn(ActionKind::Exclusive, Origin::Call, None);
        let mut turn = Arc::into_inner(turn).unwrap();
        turn.chain = chain(len as u128);
        *node.answer.lock() = Ok(vec![1]);
        let result = Ctx::<Clock>::new(Arc::new(turn)).get::<Clock>("b").fire(1).await;
        assert_eq!(result.is_ok(), fits, "{result:?}");
    }
}

#[tokio::test]
async fn schedules_are_typed_calls_that_commit_with_the_turn() {
    let node = Node::start::<Clock>().await;
    let clock = clock(&node);
    let second = clock.later(2, 500).await.unwrap();
    let first = clock.later(1, 100).await.unwrap();
    let fire = || "fire".to_owned();
    assert_eq!(
        clock.pending().await.unwrap(),
        [(WallMs(1_100), fire()), (WallMs(1_500), fire())]
    );
    let entry = node.store.lock().schedules[&second].clone();
    assert_eq!((entry.action.as_str(), &entry.args[..]), ("fire", &[0x81, 2][..]));
    assert_eq!(first.to_string().parse(), Ok(first));
    assert!(clock.cancel(first).await.unwrap());
    assert!(!clock.cancel(first).await.unwrap());
    assert_eq!(clock.pending().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_turn_sees_the_schedules_it_changed() {
    let node = Node::start::<Clock>().await;
    let stored = clock(&node).later(9, 1).await.unwrap();
    let (c, turn) = turn(&node, ActionKind::Exclusive);
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(50);
    let own = c.me().fire(1).at(at).unwrap();
    let ids = |c: &Ctx<Clock>| {
        c.schedules()
            .list()
            .unwrap()
            .iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&c), [own, stored]);
    assert!(c.schedules().cancel(stored).unwrap() && c.schedules().cancel(own).unwrap());
    assert_eq!(ids(&c), []);
    let ops = turn.take_effects().schedules;
    assert!(matches!(&ops[0], ScheduleOp::Put(entry) if entry.due == WallMs(50)));
    assert_eq!(ops[1..], [ScheduleOp::Cancel(stored), ScheduleOp::Cancel(own)]);
}

#[tokio::test]
async fn a_send_leaves_with_the_effects_of_the_turn() {
    let node = Node::start::<Clock>().await;
    let (c, turn) = turn(&node, ActionKind::Exclusive);
    c.get::<Clock>("b").fire(4).send().unwrap();
    c.me().fire(5).send().unwrap();
    let sends = turn.take_effects().sends;
    assert_eq!(
        sends.iter().map(|send| send.op.clone()).collect::<Vec<_>>(),
        [4, 5].map(|n| CallOp::Action {
            name: "fire".into(),
            args: vec![0x81, n],
        })
    );
    assert_eq!(sends[1].target, Target::Id(c.id()));
    assert!(node.store.lock().outgoing.is_empty());
}

#[tokio::test]
async fn sending_and_scheduling_need_the_right_handle() {
    let node = Node::start::<Clock>().await;
    assert!(clock(&node).fire(1).send().unwrap_err().is("actor", "no_turn"));
    assert!(
        clock(&node)
            .fire(1)
            .after(Duration::ZERO)
            .unwrap_err()
            .is("actor", "no_turn")
    );
    let (c, _) = turn(&node, ActionKind::Exclusive);
    let error = c.get::<Clock>("b").fire(1).after(Duration::ZERO).unwrap_err();
    assert!(
        error.is("schedule", "not_own_actor") && error.message().contains("c.me()"),
        "{error}"
    );
}

#[tokio::test]
async fn a_context_that_outlives_its_turn_is_told_so() {
    let node = Node::start::<Clock>().await;
    let (c, turn) = turn(&node, ActionKind::Exclusive);
    assert_eq!(turn.take_effects(), Effects::default());
    assert!(c.kv().put("k", &1).unwrap_err().is("actor", "turn_ended"));
    assert!(
        c.me()
            .fire(1)
            .after(Duration::ZERO)
            .unwrap_err()
            .is("actor", "turn_ended")
    );
    c.destroy();
    assert_eq!(turn.take_effects(), Effects::default());
}

#[tokio::test]
async fn errors_of_the_way_keep_their_class() {
    let node = Node::start::<Clock>().await;
    let (c, _) = turn(&node, ActionKind::Exclusive);
    let perhaps = CallError::Perhaps {
        reason: "lost node 2".to_owned(),
    };
    *node.answer.lock() = Err(Error::from(perhaps.clone()));
    let error = c.get::<Clock>("b").fire(1).await.unwrap_err();
    assert!(error.is_perhaps() && !error.is_retryable());
    assert_eq!(error.into_call_error("r"), perhaps);
    // But an action that passes it on has failed for certain: its own turn was rolled back.
    let error = node.call::<u32>("ask", ()).await.unwrap_err();
    assert!(
        !error.is_perhaps() && error.is("guard", "request_timeout"),
        "{error}"
    );
    assert_eq!(node.call::<u32>("fire", (0,)).await.unwrap(), 0);
}

#[tokio::test]
async fn what_the_context_knows_is_what_the_node_told() {
    let node = Node::start::<Clock>().await;
    let (c, turn) = turn(&node, ActionKind::Shared);
    assert_eq!(
        (c.name(), c.namespace(), c.key().to_string()),
        ("clock", "default", "a".to_owned())
    );
    assert_eq!(
        (c.now(), c.created(), c.origin()),
        (WallMs(1_000), WallMs(1), Origin::Call)
    );
    node.now.store(2_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(c.now(), WallMs(1_000));
    assert_eq!(
        (c.id(), c.region(), c.request_id()),
        (turn.actor.id, RegionId(0), turn.request)
    );
    assert_ne!(c.random_u128(), c.random_u128());
    assert_eq!((c.random_below(0), c.random_below(1)), (0, 0));
    assert!((0..100).all(|_| c.random_below(7) < 7));
    assert!(!c.cancellation().is_cancelled());
    turn.life.end();
    c.cancelled().await;
}
