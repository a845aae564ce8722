//! One dialled connection: its classes, opened when first used, and its end.
//!
//! Invariant: once a link has failed, no lane of it takes a request, and every request under way is answered.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::close;
use crate::config::TransportConfig;
use crate::lane::CallLane;
use crate::{Class, PeerId};

/// A connection dialled by this process, verified in both directions.
#[derive(Debug)]
pub(crate) struct Link {
    connection: quinn::Connection,
    peer: PeerId,
    state: Mutex<State>,
    /// Made under the lock of `state`, found without it: every call passes here.
    lanes: [OnceLock<Arc<CallLane>>; Class::ALL.len()],
    /// Datagrams received when last looked at, and since when no more have come.
    heard: Mutex<(u64, Instant)>,
}

#[derive(Debug, Default)]
struct State {
    /// Why it is ending, if we decided that.
    closing: Option<Arc<str>>,
    failed: Option<Arc<str>>,
}

impl Link {
    pub(crate) fn new(connection: quinn::Connection, peer: PeerId) -> Self {
        Self {
            connection,
            peer,
            state: Mutex::default(),
            lanes: [const { OnceLock::new() }; Class::ALL.len()],
            heard: Mutex::new((0, Instant::now())),
        }
    }

    pub(crate) fn peer(&self) -> &PeerId {
        &self.peer
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// For how long nothing has been received, as far as looks at this number can tell: it counts from the first look
    /// that found nothing new. Such a look also sends a datagram that says nothing but must be acknowledged: a peer that
    /// works on a long answer has no other reason to speak.
    pub(crate) fn silent_for(&self) -> Duration {
        let received = self.connection.stats().udp_rx.datagrams;
        let mut heard = self.heard.lock();
        if heard.0 != received {
            *heard = (received, Instant::now());
            return Duration::ZERO;
        }
        // Fails when the connection is lost, which others notice.
        let _lost = self.connection.send_datagram(Bytes::from_static(&[0]));
        heard.1.elapsed()
    }

    /// The lane of a class; the first use opens its stream.
    ///
    /// # Errors
    /// Why the link has failed.
    pub(crate) fn lane(
        self: &Arc<Self>,
        class: Class,
        config: &TransportConfig,
        tracker: &TaskTracker,
    ) -> Result<&CallLane, Arc<str>> {
        let place = &self.lanes[class.index()];
        if let Some(lane) = place.get() {
            return Ok(lane);
        }
        let state = self.state.lock();
        if let Some(reason) = &state.failed {
            return Err(reason.clone());
        }
        Ok(place.get_or_init(|| {
            let lane = Arc::new(CallLane::new(class, config));
            tracker.spawn(run_lane(self.clone(), lane.clone(), tracker.clone()));
            let timed = lane.clone();
            let link = self.clone();
            tracker.spawn(async move { timed.run_deadlines(|| link.silent_for()).await });
            lane
        }))
    }

    /// Closes the connection; the first reason counts.
    pub(crate) fn close(&self, code: VarInt, reason: &str) {
        // Streams break in consequence of the connection's end: that is no reason of its own.
        if self.connection.close_reason().is_some() {
            return;
        }
        self.state.lock().closing.get_or_insert_with(|| reason.into());
        self.connection.close(code, reason.as_bytes());
    }

    /// Waits for the end of the connection and answers every request under way. Returns the reason.
    pub(crate) async fn until_lost(&self) -> Arc<str> {
        let error = self.connection.closed().await;
        let reason = {
            let mut state = self.state.lock();
            let reason = state
                .closing
                .clone()
                .unwrap_or_else(|| close::describe(&error).into());
            state.failed = Some(reason.clone());
            reason
        };
        for lane in self.lanes.iter().filter_map(OnceLock::get) {
            lane.fail(&reason);
        }
        reason
    }
}

/// Opens a lane's stream and writes to it; its answers are read by a task of their own.
async fn run_lane(link: Arc<Link>, lane: Arc<CallLane>, tracker: TaskTracker) {
    // An error here is the connection's end, which `until_lost` sees too.
    let Ok((send, receive)) = link.connection.open_bi().await else {
        return;
    };
    tracker.spawn({
        let (link, lane) = (link.clone(), lane.clone());
        async move {
            if let Err(reason) = lane.run_reader(receive).await {
                link.close(close::MALFORMED, &reason);
            }
        }
    });
    if let Err(error) = lane.run_writer(send).await {
        link.close(close::MALFORMED, &format!("a stream broke: {error}"));
    }
}
