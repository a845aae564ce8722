//! One destination: where it is, whether it is connected, and the one attempt at a time to change that.
//!
//! Invariant: at most one task per peer dials; a caller waits for the outcome of one attempt, and no longer than its
//! deadline. An attempt that failed fails everybody who waited for it, with the reason; the next caller starts the
//! next one, after a pause that doubles.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::close;
use crate::inbound::Side;
use crate::link::Link;
use crate::shared::Shared;
use crate::{Dest, TransportError};

/// A destination.
#[derive(Debug)]
pub(crate) struct Peer {
    dest: Dest,
    state: Mutex<State>,
    /// The phase changed, or an attempt ended.
    changed: Notify,
    /// The address changed: a pause is pointless.
    rerouted: Notify,
}

#[derive(Debug)]
struct State {
    address: Option<String>,
    phase: Phase,
    /// Attempts begun and ended; an attempt is known by its number.
    begun: u64,
    ended: u64,
    /// Attempts failed in a row.
    failures: u32,
    retry_at: Option<Instant>,
    last_error: Option<Arc<str>>,
    /// The route was removed: no further attempts.
    forgotten: bool,
    used_at: Instant,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Dialling,
    Up(Arc<Link>),
}

impl Peer {
    pub(crate) fn new(dest: Dest, address: Option<String>) -> Self {
        let state = State {
            address,
            phase: Phase::Idle,
            begun: 0,
            ended: 0,
            failures: 0,
            retry_at: None,
            last_error: None,
            forgotten: false,
            used_at: Instant::now(),
        };
        Self {
            dest,
            state: Mutex::new(state),
            changed: Notify::new(),
            rerouted: Notify::new(),
        }
    }

    pub(crate) fn dest(&self) -> &Dest {
        &self.dest
    }

    /// Notes that somebody wants this peer now.
    pub(crate) fn touch(&self) {
        self.state.lock().used_at = Instant::now();
    }

    pub(crate) fn used_at(&self) -> Instant {
        self.state.lock().used_at
    }

    /// The link, if one is up.
    pub(crate) fn up(&self) -> Option<Arc<Link>> {
        match &self.state.lock().phase {
            Phase::Up(link) => Some(link.clone()),
            Phase::Idle | Phase::Dialling => None,
        }
    }

    /// Sets where to dial. A connection that is up stays: the peer is known by its certificate.
    pub(crate) fn set_address(&self, address: String) {
        let mut state = self.state.lock();
        if state.address.as_ref() == Some(&address) {
            return;
        }
        state.address = Some(address);
        state.failures = 0;
        state.retry_at = None;
        drop(state);
        self.rerouted.notify_waiters();
    }

    /// Closes the connection and dials no more.
    pub(crate) fn forget(&self) {
        let link = {
            let mut state = self.state.lock();
            state.forgotten = true;
            match &state.phase {
                Phase::Up(link) => Some(link.clone()),
                Phase::Idle | Phase::Dialling => None,
            }
        };
        if let Some(link) = link {
            link.close(close::UNUSED, "no longer needed");
        }
        self.rerouted.notify_waiters();
    }

    /// The link to this peer, dialled if there is none. Cancel-safe: the attempt goes on for the next caller.
    pub(crate) async fn link(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        until: Instant,
    ) -> Result<Arc<Link>, TransportError> {
        if let Some(link) = self.up() {
            return Ok(link);
        }
        let mut attempt = None;
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                if let Phase::Up(link) = &state.phase {
                    return Ok(link.clone());
                }
                let number = match (attempt, &state.phase) {
                    (Some(number), _) if state.ended >= number => {
                        let reason = state.last_error.as_deref().unwrap_or("connecting failed");
                        return Err(self.not_sent(reason));
                    }
                    (Some(number), _) => number,
                    (None, Phase::Dialling) => state.begun,
                    (None, _) => self.begin(&mut state, shared)?,
                };
                attempt = Some(number);
            }
            // `Notify` remembers wakers from the creation of `changed`, so nothing is missed in between.
            if timeout_at(until, changed).await.is_err() {
                let state = self.state.lock();
                let address = state.address.as_deref().unwrap_or("no address");
                let last = state
                    .last_error
                    .as_deref()
                    .map_or(String::new(), |e| format!("; before that: {e}"));
                return Err(self.not_sent(&format!("no connection to {address} in time{last}")));
            }
        }
    }

    /// Starts an attempt; returns its number.
    fn begin(self: &Arc<Self>, state: &mut State, shared: &Arc<Shared>) -> Result<u64, TransportError> {
        if shared.stop.is_cancelled() {
            return Err(self.not_sent("shutting down"));
        }
        if state.forgotten || state.address.is_none() {
            return Err(self.not_sent("no address is known"));
        }
        state.phase = Phase::Dialling;
        state.begun += 1;
        shared.tracker.spawn(run(self.clone(), shared.clone()));
        Ok(state.begun)
    }

    fn not_sent(&self, reason: &str) -> TransportError {
        TransportError::NotSent {
            peer: self.dest.clone(),
            reason: reason.to_owned(),
        }
    }

    fn failed(&self, shared: &Shared, reason: &str) {
        let config = &shared.config;
        let mut state = self.state.lock();
        let pause = config
            .backoff_min
            .saturating_mul(1 << state.failures.min(16))
            .min(config.backoff_max);
        // Half to all of it: peers that lost the same node must not come back in step.
        let jittered = pause.mul_f64(shared.rng.lock().random_range(0.5..=1.0));
        state.failures = state.failures.saturating_add(1);
        state.retry_at = Some(Instant::now() + jittered);
        state.last_error = Some(reason.into());
        state.phase = Phase::Idle;
        state.ended = state.begun;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Publishes a new link; refused when the peer was forgotten meanwhile.
    fn connected(&self, link: &Arc<Link>) -> bool {
        let mut state = self.state.lock();
        let wanted = !state.forgotten;
        if wanted {
            state.phase = Phase::Up(link.clone());
            state.failures = 0;
            state.retry_at = None;
            state.last_error = None;
        } else {
            state.phase = Phase::Idle;
            state.last_error = Some("the route was removed".into());
        }
        state.ended = state.begun;
        drop(state);
        self.changed.notify_waiters();
        wanted
    }

    /// Waits until the pause after a failure is over.
    async fn pause(&self) {
        loop {
            let rerouted = self.rerouted.notified();
            let retry_at = {
                let state = self.state.lock();
                if state.forgotten { None } else { state.retry_at }
            };
            let Some(at) = retry_at else { return };
            tokio::select! {
                () = sleep_until(at) => return,
                () = rerouted => {}
            }
        }
    }
}

/// One attempt and, if it succeeds, the life of the connection.
async fn run(peer: Arc<Peer>, shared: Arc<Shared>) {
    let attempt = async {
        peer.pause().await;
        let address = peer.state.lock().address.clone().unwrap_or_default();
        crate::dial::dial(&shared, &peer.dest, &address).await
    };
    let result = tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err("shutting down".to_owned()),
        result = attempt => result,
    };
    match result {
        Err(reason) => {
            metrics::counter!(crate::metric_names::DIAL_ATTEMPTS, "result" => "failed").increment(1);
            tracing::debug!(peer = %peer.dest, reason, "connecting failed");
            peer.failed(&shared, &reason);
        }
        Ok(link) => {
            metrics::counter!(crate::metric_names::DIAL_ATTEMPTS, "result" => "ok").increment(1);
            if !peer.connected(&link) {
                link.close(close::UNUSED, "no longer needed");
                return;
            }
            live(&peer, &shared, &link).await;
        }
    }
}

async fn live(peer: &Peer, shared: &Shared, link: &Arc<Link>) {
    publish(peer, shared, link);
    tracing::debug!(peer = %peer.dest, found = %link.peer(), "connected");
    let up = metrics::gauge!(crate::metric_names::CONNECTIONS, "side" => "dialled");
    up.increment(1);
    shared.handler.peer_up(link.peer(), Side::Dialled);
    tokio::select! {
        biased;
        _ = link.connection().closed() => {}
        () = shared.stop.cancelled() => link.close(close::SHUTDOWN, "shutting down"),
    }
    // New callers dial again before those under way hear of the loss and perhaps retry.
    withdraw(peer, shared, link);
    {
        let mut state = peer.state.lock();
        state.phase = Phase::Idle;
        state.retry_at = None;
    }
    let reason = link.until_lost().await;
    up.decrement(1);
    tracing::debug!(peer = %peer.dest, %reason, "connection lost");
    shared.handler.peer_down(link.peer(), Side::Dialled);
}

/// Lets calls find the link without asking the peer.
fn publish(peer: &Peer, shared: &Shared, link: &Arc<Link>) {
    if let Dest::Node(id) = peer.dest {
        let mut links = shared.links.write();
        // Under this lock `forget` cannot come between the look and the entry.
        if !peer.state.lock().forgotten {
            links.insert(id, link.clone());
        }
    }
}

/// Undoes [`publish`]; a newer link of the same node stays.
fn withdraw(peer: &Peer, shared: &Shared, link: &Arc<Link>) {
    if let Dest::Node(id) = peer.dest {
        let mut links = shared.links.write();
        if links.get(&id).is_some_and(|found| Arc::ptr_eq(found, link)) {
            links.remove(&id);
        }
    }
}
