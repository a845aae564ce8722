//! Connections as clients hold them, against an owner that answers when the test lets it.

use std::sync::Arc;

use clinch::{BoxFuture, Caller, Connection, Error, Event, OutgoingCall, RawHandle, Result};
use clinch_types::{
    ActorId, CallMeta, CallOp, CallReply, ConnId, ConnItem, ConnReply, Epoch, Polled, ShardId, Slot, Target,
    Version, codec,
};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Room;

#[derive(Debug, Event)]
struct Said(u64);

#[clinch::actor(name = "room", events(Said))]
impl Room {
    #[action]
    fn say(&mut self, c: &clinch::Ctx<Self>) {
        c.broadcast(Said(0));
    }
}

/// Has one event for each question it lets through, again and again the last one first, as a new owner may.
struct Owner {
    questions: Semaphore,
    told: Mutex<u64>,
    ended: Mutex<Vec<ConnId>>,
}

fn id() -> ActorId {
    ActorId::new(clinch_types::RegionId(0), Slot(0), 7)
}

impl Owner {
    fn event(number: u64) -> (u64, ConnItem) {
        let name = Said::NAME.to_owned();
        let args = Said(number).encode_args().expect("a number");
        (number, ConnItem::Event { name, args })
    }

    async fn polled(&self) -> Polled {
        self.questions.acquire().await.expect("open").forget();
        let mut told = self.told.lock();
        *told += 1;
        let epoch = Epoch(*told);
        let items = [*told - 1, *told].into_iter().filter(|number| *number > 0);
        Polled {
            epoch,
            items: items.map(Self::event).collect(),
        }
    }
}

struct Way(Arc<Owner>);

impl Caller for Way {
    fn call(&self, call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>> {
        let owner = self.0.clone();
        Box::pin(async move {
            let output = match call.op {
                CallOp::Poll { .. } => codec::encode(&owner.polled().await).expect("items"),
                CallOp::Action { .. } => {
                    assert!(call.door.is_some_and(|door| door.conn == Some(ConnId(5))));
                    let output = clinch::encode(&()).expect("nothing");
                    codec::encode(&ConnReply { after: 2, output }).expect("an answer")
                }
                CallOp::Disconnect { conn } => {
                    owner.ended.lock().push(conn);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            let meta = CallMeta {
                actor: id(),
                shard: ShardId(0),
                epoch: Epoch(1),
                version: Version(1),
                created: false,
            };
            Ok(CallReply { meta, output })
        })
    }

    fn draw_conn(&self) -> Option<ConnId> {
        Some(ConnId(5))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_the_events_before_it_and_what_comes_again_is_left_out() {
    let owner = Arc::new(Owner {
        questions: Semaphore::new(0),
        told: Mutex::default(),
        ended: Mutex::default(),
    });
    let handle = RawHandle::new(Arc::new(Way(owner.clone())), Target::Id(id()));
    let room = Connection::<Room>::open(&handle).await.expect("a connection");
    let mut said = room.on::<Said>().await.expect("a subscription");
    let mut answer = room.say().into_future();
    let moment = std::time::Duration::from_secs(1);
    let mut early = || answer.as_mut().now_or_never().is_some();
    assert!(!early());
    owner.questions.add_permits(1);
    tokio::time::sleep(moment).await;
    assert!(!early(), "the second event is not here yet");
    owner.questions.add_permits(1);
    tokio::time::sleep(moment).await;
    assert!(early(), "both events are here");
    owner.questions.add_permits(1);
    for number in 1..=3 {
        assert_eq!(said.next().await.expect("an event").expect("readable").0, number);
    }
    drop(room);
    assert!(said.next().await.is_none());
    tokio::time::sleep(moment).await;
    assert_eq!(*owner.ended.lock(), [ConnId(5)], "the owner is told once");
}

/// Carries calls, and has no connections.
struct Plain;

impl Caller for Plain {
    fn call(&self, call: OutgoingCall) -> BoxFuture<'static, Result<CallReply, Error>> {
        panic!("nothing is to be called: {call:?}");
    }
}

#[tokio::test]
async fn where_calls_are_carried_without_connections_there_are_none_and_that_is_said() {
    let handle = RawHandle::new(Arc::new(Plain), Target::Id(id()));
    let refused = Connection::<Room>::open(&handle).await;
    let error = refused.err().expect("no connection");
    assert!(error.is("actor", "not_supported"), "{error}");
    assert!(error.message().contains("no connections by this way"), "{error}");
}
