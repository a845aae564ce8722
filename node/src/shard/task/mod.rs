//! The task of one shard on one node: follows the leadership, and runs the owner while this node has it.

mod hand_over;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clinch_actor::{Caller, Registry};
use clinch_client::Router;
use clinch_storage::raft::CommittedLeaderId;
use clinch_storage::{GroupReader, TypeConfig};
use clinch_transport::Transport;
use clinch_types::{CallError, CallRequest, Clock, Epoch, NodeId, RegionId, ShardId, fp, planted};
use openraft::async_runtime::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::{OneshotReceiverOf, WatchReceiverOf};
use openraft::{ReadPolicy, ServerState};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::hand_over::HandOver;
use super::linger::Linger;
use super::stale::{self, Found, StaleRead};
use super::{EventHub, Internal, Owner, Owners, Raft, Release, ReplyTo, ShardHandle, ShardMsg};
use crate::activation::Ended;
use crate::config::NodeConfig;
use crate::metric_names::{OWNER_CHANGES, SHARD_BATCH_TURNS};
use crate::seams::NodeRng;
use crate::tasks::Tasks;

/// Messages taken in one go.
const TAKE_MAX: usize = 256;
/// How often a shard looks at its clock when nothing is due.
const TICK: Duration = Duration::from_millis(250);

/// What a shard needs of its node.
pub(crate) struct ShardContext {
    pub(crate) id: ShardId,
    pub(crate) node: NodeId,
    pub(crate) region: RegionId,
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) reader: GroupReader,
    pub(crate) transport: Transport,
    pub(crate) registry: Registry,
    pub(crate) caller: Arc<dyn Caller>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<NodeRng>,
    pub(crate) events: Arc<EventHub>,
    /// Knows which actors are of this shard.
    pub(crate) router: Router,
    pub(crate) tasks: Tasks,
    /// Turns that ran in tasks of their own come back here.
    pub(crate) ended: mpsc::Sender<Ended>,
    /// Interleaved actions ask here.
    pub(crate) internal: mpsc::Sender<Internal>,
    /// Version of the node's route map.
    pub(crate) map_version: Arc<AtomicU64>,
    /// Numbers of turns. Never used twice, not even by a later ownership: a turn of an earlier one may still end.
    pub(crate) turns: AtomicU64,
}

impl ShardContext {
    pub(crate) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

type Receipt = OneshotReceiverOf<TypeConfig, openraft::raft::ClientWriteResult<TypeConfig>>;

/// The shard's task.
pub(crate) struct ShardTask {
    context: Arc<ShardContext>,
    raft: Raft,
    rx: mpsc::Receiver<ShardMsg>,
    /// The other end of `rx`, which must not keep this one open.
    tx: mpsc::WeakSender<ShardMsg>,
    ended: mpsc::Receiver<Ended>,
    internal: mpsc::Receiver<Internal>,
    server: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    role: Role,
    /// Receipts of the batches in flight, oldest first.
    receipts: VecDeque<Receipt>,
    linger: Linger,
    /// Calls that came while this node is about to own the shard, or hands it over.
    parked: Vec<(Box<CallRequest>, Instant, ReplyTo)>,
    /// A hand-over under way; nothing new is admitted meanwhile.
    hand_over: Option<HandOver>,
    /// The term in which a transfer was asked for: the next leader need not wait for this lease, and `as_leader()` does
    /// not know of it. Reads of that term ask the quorum.
    lease_void: Option<Epoch>,
    /// Reads that wait for a round of the quorum, because the lease has lapsed.
    doubtful: Vec<Release>,
    confirm: Option<tokio::sync::oneshot::Receiver<bool>>,
    confirming: Vec<Release>,
    owners: Owners,
    /// A round that must end before the shard may be taken over: recovery after a start, or a barrier behind
    /// proposals that this node made earlier in the same term and has lost sight of.
    settling: Option<tokio::sync::oneshot::Receiver<bool>>,
    /// The last term in which this node owned the shard.
    owned: Option<Epoch>,
    /// The term in which ownership was given up while still leading.
    given_up: Option<Epoch>,
    /// Since when this node leads (as far as this task knows).
    led_since: Instant,
    /// The leadership is to be looked at again although nothing has changed.
    recheck: bool,
}

enum Role {
    /// Another replica leads, or none.
    Follower,
    /// This one leads, and applies what came before its term.
    Recovering { leader: CommittedLeaderId, epoch: Epoch },
    /// This one owns the shard.
    Owner {
        owner: Box<Owner>,
        leader: CommittedLeaderId,
    },
}

/// The receiving ends that belong to a [`ShardContext`].
pub(crate) struct ShardEnds {
    pub(crate) ended: mpsc::Receiver<Ended>,
    pub(crate) internal: mpsc::Receiver<Internal>,
}

impl ShardTask {
    /// A task and its handle. `owners` tells the node who owns the shard.
    pub(crate) fn new(
        context: ShardContext,
        ends: ShardEnds,
        raft: Raft,
        owners: Owners,
    ) -> (Self, ShardHandle) {
        let (tx, rx) = mpsc::channel(context.config.proposer.queue_max);
        let weak = tx.downgrade();
        let handle = ShardHandle { id: context.id, tx };
        let server = raft.server_metrics();
        let task = Self {
            context: Arc::new(context),
            raft,
            rx,
            tx: weak,
            ended: ends.ended,
            internal: ends.internal,
            server,
            role: Role::Follower,
            receipts: VecDeque::new(),
            linger: Linger::default(),
            parked: Vec::new(),
            hand_over: None,
            lease_void: None,
            doubtful: Vec::new(),
            confirm: None,
            confirming: Vec::new(),
            owners,
            settling: None,
            owned: None,
            given_up: None,
            led_since: Instant::now(),
            recheck: false,
        };
        (task, handle)
    }

    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let stop = self.context.tasks.stop().clone();
        self.await_recovery();
        let mut data = self.raft.data_metrics();
        let mut messages = Vec::with_capacity(TAKE_MAX);
        let mut endings = Vec::with_capacity(TAKE_MAX);
        let mut tick_at = Instant::now();
        self.leadership().await;
        loop {
            let recovering = matches!(self.role, Role::Recovering { .. });
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.server.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.leadership().await;
                }
                changed = data.changed(), if recovering => {
                    if changed.is_err() {
                        break;
                    }
                    self.recovered();
                }
                settled = signal(&mut self.settling) => self.settled(settled),
                receipt = next(&mut self.receipts) => self.receipt(receipt),
                confirmed = signal(&mut self.confirm) => self.confirmed(confirmed),
                _ = self.ended.recv_many(&mut endings, TAKE_MAX) => {
                    for ended in endings.drain(..) {
                        if let Role::Owner { owner, .. } = &mut self.role {
                            owner.ended(ended);
                        }
                    }
                }
                Some(message) = self.internal.recv() => self.internal(message),
                taken = self.rx.recv_many(&mut messages, TAKE_MAX) => {
                    if taken == 0 {
                        break;
                    }
                    for message in messages.drain(..) {
                        self.message(message);
                    }
                }
                () = tokio::time::sleep_until(tick_at) => {
                    tick_at = self.tick();
                }
            }
            tick_at = tick_at.min(self.advance().await);
            if std::mem::take(&mut self.recheck) {
                self.leadership().await;
            }
        }
        self.lose(None);
        for (_, _, reply) in std::mem::take(&mut self.parked) {
            reply.send(Err(self.unavailable("this node is stopping")));
        }
    }

    fn unavailable(&self, reason: &str) -> CallError {
        CallError::Unavailable {
            shard: self.context.id,
            reason: reason.into(),
        }
    }

    /// The leadership may have changed.
    async fn leadership(&mut self) {
        let metrics = self.server.borrow_watched().clone();
        let leads = metrics.state == ServerState::Leader;
        let epoch = Epoch(metrics.vote.leader_id.term);
        let leader = metrics.current_leader.map(NodeId);
        self.owners.set(self.context.id, leader.map(|l| (l, epoch)));
        let same = match &self.role {
            Role::Follower => false,
            Role::Recovering { epoch: mine, .. } => *mine == epoch,
            Role::Owner { owner, .. } => owner.epoch == epoch || planted!("no-fence"),
        };
        if leads && same {
            return;
        }
        if planted!("no-fence") && matches!(self.role, Role::Owner { .. }) {
            return;
        }
        if !matches!(self.role, Role::Follower) {
            self.lose(leader.filter(|l| *l != self.context.node));
        }
        if leads && let Ok(leading) = self.raft.as_leader() {
            let (leader, epoch) = (leading.to_committed_leader_id(), Epoch(leading.term()));
            self.role = Role::Recovering { leader, epoch };
            self.led_since = Instant::now();
            if self.given_up == Some(epoch) && self.settling.is_none() {
                self.raise_barrier();
            }
            self.recovered();
        } else {
            for (_, _, reply) in std::mem::take(&mut self.parked) {
                reply.send(Err(self.moved()));
            }
        }
    }

    /// Takes over once an entry of the own term is applied: then everything committed before is, too.
    fn recovered(&mut self) {
        let Role::Recovering { leader, epoch } = &self.role else {
            return;
        };
        let applied = self.raft.data_metrics().borrow_watched().last_applied;
        if self.settling.is_some()
            || (applied.map(|id| id.leader_id) != Some(*leader) && !planted!("no-recovery-wait"))
            || !self.context.reader.ready()
        {
            return;
        }
        let (leader, epoch) = (*leader, *epoch);
        fp!("shard.before_take_over");
        match Owner::take_over(self.context.clone(), epoch) {
            Ok(owner) => {
                fp!("shard.after_take_over");
                metrics::counter!(OWNER_CHANGES).increment(1);
                self.owned = Some(epoch);
                self.role = Role::Owner {
                    owner: Box::new(owner),
                    leader,
                };
                for (request, deadline, reply) in std::mem::take(&mut self.parked) {
                    self.call(request, deadline, reply);
                }
            }
            Err(error) => {
                tracing::error!(shard = %self.context.id, error, "the shard cannot be taken over");
                self.role = Role::Follower;
            }
        }
    }

    /// Ownership is lost (or given up): everybody who waits is told how the call stands.
    fn lose(&mut self, next: Option<NodeId>) {
        self.receipts.clear();
        // Should this node still lead, the next tick notices.
        self.confirm = None;
        self.hand_over = None;
        let moved = self.moved();
        let doubtful: Vec<Release> = self.doubtful.drain(..).chain(self.confirming.drain(..)).collect();
        if let Role::Owner { mut owner, .. } = std::mem::replace(&mut self.role, Role::Follower) {
            fp!("shard.lost");
            tracing::info!(shard = %self.context.id, epoch = %owner.epoch, "shard no longer owned");
            self.given_up = Some(owner.epoch);
            for release in doubtful {
                owner.turn_away(release, moved.clone());
            }
            owner.abandon(next, self.context.map_version.load(Ordering::Relaxed));
            if !planted!("listeners-kept") {
                let (routes, me) = (self.context.router.routes(), self.context.id);
                self.context
                    .events
                    .end(|actor| routes.shard_of(actor.slot()).is_none_or(|shard| shard == me));
            }
        }
    }

    /// After a start nothing may be served before everything is applied that may have been answered for.
    fn await_recovery(&mut self) {
        let raft = self.raft.clone();
        self.settle(async move { raft.wait_for_recovery(None).await.is_ok() });
    }

    /// Proposals of an ownership given up within this term may still commit: a new one begins behind all of them.
    fn raise_barrier(&mut self) {
        let raft = self.raft.clone();
        self.settle(async move { raft.write_blank().await.is_ok() });
    }

    fn settle(&mut self, round: impl Future<Output = bool> + Send + 'static) {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.settling = Some(rx);
        self.context.tasks.spawn_until_stop(async move {
            // The shard's task may be gone.
            let _gone = tx.send(round.await);
        });
    }

    fn settled(&mut self, settled: bool) {
        self.settling = None;
        if settled {
            self.given_up = None;
        } else {
            // Looked at again with the next tick.
            self.role = Role::Follower;
        }
        self.recovered();
    }

    /// Why a call cannot be served here: another node owns the shard, or nobody does.
    fn moved(&self) -> CallError {
        let metrics = self.server.borrow_watched();
        let epoch = Epoch(metrics.vote.leader_id.term);
        if metrics.current_leader.is_none() {
            let voters: Vec<NodeId> = metrics
                .membership_config
                .membership()
                .voter_ids()
                .map(NodeId)
                .collect();
            let down: Vec<String> = voters
                .iter()
                .filter(|n| **n != self.context.node && !self.context.transport.is_up(**n))
                .map(ToString::to_string)
                .collect();
            let reason = match (voters.is_empty(), down.is_empty()) {
                (true, _) => "its group has not formed yet".to_owned(),
                (_, true) => "it has no owner at the moment".to_owned(),
                (_, false) => format!(
                    "it has no owner; of its {} replicas, nodes {} cannot be reached from node {}",
                    voters.len(),
                    down.join(", "),
                    self.context.node
                ),
            };
            return CallError::Unavailable {
                shard: self.context.id,
                reason,
            };
        }
        CallError::Moved {
            shard: self.context.id,
            owner: metrics
                .current_leader
                .map(NodeId)
                .filter(|l| *l != self.context.node),
            epoch,
            map_version: self.context.map_version.load(Ordering::Relaxed),
        }
    }

    fn message(&mut self, message: ShardMsg) {
        match message {
            ShardMsg::Call {
                request,
                deadline,
                reply,
            } => self.call(request, deadline, reply),
            ShardMsg::List { request, reply } => reply.send(match &self.role {
                Role::Owner { owner, .. } => owner.list(&request),
                Role::Recovering { .. } => Err(self.unavailable("the owner is recovering")),
                Role::Follower => Err(self.moved()),
            }),
            ShardMsg::HandOff { to, leaving } => self.begin_hand_over(to, leaving),
            ShardMsg::Rest { done } => {
                if let Role::Owner { owner, .. } = &mut self.role {
                    owner.rest(done);
                }
            }
        }
    }

    fn internal(&mut self, message: Internal) {
        match &mut self.role {
            Role::Owner { owner, .. } => owner.internal(message),
            // The answer's sender is dropped, which tells the action.
            Role::Recovering { .. } | Role::Follower => {}
        }
    }

    /// Answers a read that may be of an older state, if it can be; gives every other call back.
    fn stale(
        &self,
        request: Box<CallRequest>,
        deadline: Instant,
        reply: ReplyTo,
    ) -> Option<(Box<CallRequest>, Instant, ReplyTo)> {
        let epoch = stale::max_age(&request).and_then(|max_age| self.known_within(max_age));
        let found = epoch.and_then(|epoch| Some((epoch, Found::of(&self.context, &request)?)));
        let call = (request, deadline, reply);
        let (Some((epoch, found)), Some(tx)) = (found, self.tx.upgrade()) else {
            return Some(call);
        };
        let shard = ShardHandle {
            id: self.context.id,
            tx,
        };
        StaleRead::new(self.context.clone(), shard, epoch, found, call).run();
        None
    }

    /// The epoch in which this node has been the owner, if a majority is known to have followed it within this time. Also of
    /// an ownership that was given up since: what it had answered before that moment is all there was.
    fn known_within(&self, max_age: Duration) -> Option<Epoch> {
        let leading = self.raft.as_leader().ok()?;
        let acked = leading.last_quorum_acked()?;
        let epoch = Epoch(leading.term());
        let owned = self.owned == Some(epoch) && self.context.reader.ready();
        (owned && acked.elapsed() < max_age).then_some(epoch)
    }

    fn call(&mut self, request: Box<CallRequest>, deadline: Instant, reply: ReplyTo) {
        let Some((request, deadline, reply)) = self.stale(request, deadline, reply) else {
            return;
        };
        if matches!(self.role, Role::Recovering { .. }) && self.is_cut_off() {
            return reply.send(Err(self.cut_off()));
        }
        match &mut self.role {
            Role::Owner { owner, .. }
                if self
                    .hand_over
                    .as_ref()
                    .is_none_or(|h| h.lets_in(owner, &request.chain))
                    || (planted!("lease-through-transfer") && owner.is_look(&request)) =>
            {
                owner.admit(*request, deadline, reply)
            }
            Role::Owner { .. } | Role::Recovering { .. } => {
                if self.parked.len() >= self.context.config.proposer.queue_max {
                    let limit = self.context.config.proposer.queue_max as u64;
                    let what = format!("the queue of shard {}", self.context.id);
                    return reply.send(Err(CallError::Overloaded { what, limit }));
                }
                self.parked.push((request, deadline, reply));
            }
            Role::Follower => reply.send(Err(self.moved())),
        }
    }

    /// The oldest batch in flight is decided.
    fn receipt(&mut self, receipt: Result<openraft::raft::ClientWriteResult<TypeConfig>, ()>) {
        match receipt {
            Ok(Ok(_)) => {
                fp!("shard.committed");
                if let Role::Owner { owner, .. } = &mut self.role {
                    let released = owner.committed();
                    self.linger
                        .committed(Instant::now(), owner.pipeline.turns(), released);
                }
            }
            // Refused or lost: in both cases this is no longer the owner (the fence held), or the node is stopping.
            Ok(Err(_)) | Err(()) if planted!("refused-batch") => {
                if let Role::Owner { owner, .. } = &mut self.role {
                    owner.forget_batch();
                }
            }
            Ok(Err(error)) => {
                tracing::info!(shard = %self.context.id, %error, "a proposal was refused");
                self.lose(None);
            }
            Err(()) => self.lose(None),
        }
    }

    /// Proposes what is executed, and lets reads go. Returns when the task is next needed.
    async fn advance(&mut self) -> Instant {
        let Role::Owner { owner, leader } = &mut self.role else {
            return Instant::now() + TICK;
        };
        owner.tuck_in();
        if let Some(fault) = owner.fault.take() {
            tracing::error!(shard = %self.context.id, fault, "the shard gives up its ownership");
            self.lose(None);
            return Instant::now() + TICK;
        }
        let mut cut_at = None;
        while owner.pipeline.may_cut() {
            let turns = owner.pipeline.turns();
            if !owner.pipeline.full()
                && let Some(until) = self.linger.until(Instant::now(), turns)
            {
                cut_at = Some(until);
                break;
            }
            self.linger.proposed(Instant::now());
            owner.clear_dedup();
            metrics::histogram!(SHARD_BATCH_TURNS).record(owner.pipeline.turns() as f64);
            let batch = owner.pipeline.cut();
            let (responder, receipt) = ProgressResponder::complete_only();
            fp!("shard.before_propose");
            let proposal = self.raft.write(batch).responder(responder);
            let proposal = match planted!("no-fence") {
                true => proposal,
                false => proposal.with_leader(*leader),
            };
            if proposal.await.is_err() {
                self.lose(None);
                return Instant::now() + TICK;
            }
            fp!("shard.after_propose");
            self.receipts.push_back(receipt);
            if planted!("early-reply") {
                owner.answer_early();
            }
            if planted!("early-events") {
                owner.publish_early();
            }
            if planted!("told-early") {
                owner.tell_early();
            }
            crate::activation::resume(owner);
        }
        let due = owner.next_due();
        let ready = owner.pipeline.ready_reads();
        if !ready.is_empty() {
            self.release_reads(ready);
        }
        if self.continue_hand_over().await {
            // Calls that were parked have run: what they made is to be proposed.
            return Instant::now();
        }
        let now = self.context.clock.wall();
        let next = match due {
            Some(due) => Instant::now() + Duration::from_millis(due.0.saturating_sub(now.0)).min(TICK),
            None => Instant::now() + TICK,
        };
        cut_at.map_or(next, |at| next.min(at))
    }

    /// Answers reads under the lease; without one, after a round of the quorum.
    fn release_reads(&mut self, ready: Vec<Release>) {
        // After the answers were produced: a pause before this line must not let a stale one out.
        let valid = self.lease_holds() || planted!("stale-read");
        let Role::Owner { owner, .. } = &mut self.role else {
            return;
        };
        if valid {
            fp!("shard.read_under_lease");
            for release in ready {
                owner.release(release);
            }
            return;
        }
        self.doubtful.extend(ready);
        self.begin_confirm();
    }

    /// Whether this node leads but has not heard from a majority for so long that another one may own the shard. Raft
    /// itself would lead on, and let its callers wait.
    fn is_cut_off(&self) -> bool {
        let patience = match planted!("lease-too-long") {
            true => self.context.config.raft.lease() * 10,
            false => self.context.config.raft.lease() * 2,
        };
        if matches!(self.role, Role::Follower) || self.led_since.elapsed() < patience {
            return false;
        }
        let voters = self
            .server
            .borrow_watched()
            .membership_config
            .membership()
            .voter_ids()
            .count();
        // One voter is its own majority, and hears from nobody.
        voters > 1
            && self.raft.as_leader().is_ok_and(|leading| {
                leading
                    .last_quorum_acked()
                    .is_none_or(|acked| acked.elapsed() >= patience)
            })
    }

    fn cut_off(&self) -> CallError {
        self.unavailable("this node led it last, and cannot reach a majority of its replicas")
    }

    fn lease_holds(&self) -> bool {
        let Role::Owner { leader, owner } = &self.role else {
            return false;
        };
        if self.lease_void == Some(owner.epoch) {
            return false;
        }
        let trusted = match planted!("lease-too-long") {
            true => self.context.config.raft.lease() * 5,
            false => self.context.config.raft.lease_trusted(),
        };
        self.raft.as_leader().is_ok_and(|leading| {
            leading.to_committed_leader_id() == *leader
                && leading
                    .last_quorum_acked()
                    .is_some_and(|acked| acked.elapsed() < trusted)
        })
    }

    /// Asks the quorum whether this is still the owner; one round serves all reads that wait.
    fn begin_confirm(&mut self) {
        if self.confirm.is_some() || self.doubtful.is_empty() {
            return;
        }
        self.confirming = std::mem::take(&mut self.doubtful);
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.confirm = Some(rx);
        let raft = self.raft.clone();
        self.context.tasks.spawn_until_stop(async move {
            let confirmed = raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok();
            fp!("shard.read_confirmed");
            // The shard may have moved on meanwhile.
            let _gone = tx.send(confirmed);
        });
    }

    fn confirmed(&mut self, confirmed: bool) {
        self.confirm = None;
        let confirming = std::mem::take(&mut self.confirming);
        let reason = "the owner cannot reach a majority of the shard's replicas";
        let error = self.unavailable(reason);
        if let Role::Owner { owner, .. } = &mut self.role {
            for release in confirming {
                match confirmed {
                    true => owner.release(release),
                    false => owner.turn_away(release, error.clone()),
                }
            }
        }
        self.begin_confirm();
    }

    /// Time has passed.
    fn tick(&mut self) -> Instant {
        match &mut self.role {
            Role::Owner { owner, .. } => owner.tick(),
            Role::Follower => self.recheck = true,
            Role::Recovering { .. } => {}
        }
        if self.is_cut_off() {
            // Others may have elected an owner meanwhile: callers must not wait here to learn that.
            if matches!(self.role, Role::Owner { .. }) {
                tracing::warn!(shard = %self.context.id, "no majority answers: the shard is given up");
                self.lose(None);
            }
            for (_, _, reply) in std::mem::take(&mut self.parked) {
                reply.send(Err(self.cut_off()));
            }
        }
        let now = Instant::now();
        for (_, _, reply) in self.parked.extract_if(.., |(_, deadline, _)| *deadline <= now) {
            let reason = "the call's time was up before the shard could serve".into();
            reply.send(Err(CallError::Unavailable {
                shard: self.context.id,
                reason,
            }));
        }
        now + TICK
    }
}

/// Waits for the oldest receipt; for ever when there is none.
async fn next(receipts: &mut VecDeque<Receipt>) -> Result<openraft::raft::ClientWriteResult<TypeConfig>, ()> {
    match receipts.front_mut() {
        Some(receipt) => {
            let result = receipt.await.map_err(|_| ());
            receipts.pop_front();
            result
        }
        None => std::future::pending().await,
    }
}

/// Waits for a yes or no; for ever when none is expected.
async fn signal(confirm: &mut Option<tokio::sync::oneshot::Receiver<bool>>) -> bool {
    match confirm {
        Some(receiver) => receiver.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}
