//! The outbox: one-way sends of committed turns on their way to their actors.
//!
//! Invariant: a send is written in the batch of its turn and deleted when its target has answered. It travels under a
//! request id made of source, target and its number, so the target takes it once, however often it is repeated: exactly
//! once together. To one target, the next leaves when the one before has arrived: in order.
//! Bounded: what has not arrived after [`EXPIRE`] is given up and logged, before its target could forget that it has it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use clinch_actor::{Error, OutgoingCall, OwnRequest, SendOut};
use clinch_types::{
    ActorId, Consistency, Reaction, RequestId, SessionId, Target, Version, code, codec, group, hash_128,
    limits, planted,
};
use tokio::time::Instant;

use super::run::Ended;
use crate::shard::records::{self, SendRecord};
use crate::shard::{Owner, Release, TurnEnd};

/// Sends of one shard on their way at once.
const IN_FLIGHT_MAX: usize = 256;
/// How long one try may take.
const TRY_MAX: Duration = Duration::from_secs(30);
/// First pause after a failed try; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Age at which a send is given up: an hour before its target forgets that it may have it (24 h).
const EXPIRE: Duration = Duration::from_secs(23 * 3600);
/// Sends of one turn, at most: the low bits of their numbers.
const TURN_BITS: u32 = 12;

/// A way from one actor to one target.
type Lane = (ActorId, u128);

#[derive(Debug, Default)]
struct Waiting {
    numbers: VecDeque<u64>,
    busy: bool,
    tries: u32,
}

/// What is on its way from this shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lanes: BTreeMap<Lane, Waiting>,
    /// By source, for the limit.
    counts: HashMap<ActorId, usize>,
    /// Lanes with something to send, in order of arrival.
    ready: VecDeque<Lane>,
    /// Lanes that pause after a failure.
    paused: BTreeMap<(Instant, ActorId, u128), ()>,
    in_flight: usize,
}

impl Outbox {
    fn add(&mut self, source: ActorId, target: u128, number: u64) {
        let waiting = self.lanes.entry((source, target)).or_default();
        waiting.numbers.push_back(number);
        if !waiting.busy && waiting.numbers.len() == 1 {
            self.ready.push_back((source, target));
        }
    }

    /// Sends of this actor that have not arrived.
    fn count(&self, source: ActorId) -> usize {
        self.counts.get(&source).copied().unwrap_or(0)
    }
}

/// The target as a name: the same for every send to it.
fn name_of(target: &Target) -> u128 {
    match target {
        Target::Id(id) => hash_128(&[b"id", id.as_bytes()]),
        Target::Key {
            namespace, name, key, ..
        } => {
            let mut parts: Vec<&[u8]> = vec![b"key", namespace.as_bytes(), name.as_bytes()];
            parts.extend(key.components().iter().map(|c| c.as_bytes()));
            hash_128(&parts)
        }
    }
}

impl Owner {
    /// Reads what earlier owners left on its way.
    pub(crate) fn load_outbox(&mut self) -> std::io::Result<()> {
        if planted!("sends-forgotten") {
            return Ok(());
        }
        for (key, value) in self.provisional.scan_all(b"O")? {
            let record: SendRecord = codec::decode(&value).map_err(std::io::Error::other)?;
            let number = records::number(&key).map_err(std::io::Error::other)?;
            let source: Option<[u8; 16]> = key.get(1..17).and_then(|id| id.try_into().ok());
            let source = source.and_then(|id| ActorId::from_bytes(id).ok());
            let source = source.ok_or_else(|| std::io::Error::other("malformed key of a send"))?;
            *self.beside.outbox.counts.entry(source).or_default() += 1;
            self.beside.outbox.add(source, name_of(&record.target), number);
        }
        Ok(())
    }

    /// Whether a further `sends` are within the limits.
    pub(crate) fn check_outbox(&self, id: ActorId, sends: usize) -> Result<(), Error> {
        let have = self.beside.outbox.count(id);
        if sends == 0 || have + sends <= limits::OUTBOX_MAX {
            return Ok(());
        }
        let message = format!(
            "{have} sends of actor {id} have not arrived yet and it adds {sends}, at most {} are allowed",
            limits::OUTBOX_MAX
        );
        Err(Error::new(group::ACTOR, "outbox_full", message))
    }

    /// Writes a turn's sends into its batch. They leave when that is committed.
    pub(crate) fn write_sends(
        &mut self,
        id: ActorId,
        version: Version,
        sends: Vec<SendOut>,
        written: &mut Vec<Vec<u8>>,
    ) {
        if sends.is_empty() {
            return;
        }
        let at = self.context.clock.wall();
        let mut numbers = Vec::with_capacity(sends.len());
        for (index, send) in sends.into_iter().enumerate() {
            // The version grows with every turn that writes, in all owners; `OUTBOX_MAX` keeps the index below 2^12.
            let number = (version.0 << TURN_BITS) | index as u64;
            let record = SendRecord {
                at,
                target: send.target,
                op: send.op,
            };
            match codec::encode(&record) {
                Ok(bytes) => self.put(written, records::send(id, number), bytes.into()),
                Err(error) => return self.fail(format!("a send cannot be encoded: {error}")),
            }
            numbers.push(number);
        }
        *self.beside.outbox.counts.entry(id).or_default() += numbers.len();
        self.pipeline.turn(TurnEnd {
            actor: id,
            release: Some(Release::Sends { source: id, numbers }),
            events: None,
            provisional: Vec::new(),
        });
    }

    /// Sends of a committed turn may leave.
    pub(crate) fn sends_committed(&mut self, source: ActorId, numbers: Vec<u64>) {
        for number in numbers {
            if let Some(record) = self.send_record(source, number) {
                self.beside.outbox.add(source, name_of(&record.target), number);
            }
        }
        self.pump_outbox();
    }

    fn send_record(&mut self, source: ActorId, number: u64) -> Option<SendRecord> {
        let record = match self.provisional.get(&records::send(source, number)) {
            Ok(Some(bytes)) => codec::decode(&bytes),
            Ok(None) => return None,
            Err(error) => {
                self.fail(format!("the store cannot be read: {error}"));
                return None;
            }
        };
        match record {
            Ok(record) => Some(record),
            Err(error) => {
                self.fail(format!("send {number} of actor {source} cannot be read: {error}"));
                None
            }
        }
    }

    /// Lets sends leave, as many as may; call when something may have changed, and with every tick.
    pub(crate) fn pump_outbox(&mut self) {
        let now = Instant::now();
        while let Some((&(until, source, target), ())) = self.beside.outbox.paused.first_key_value()
            && until <= now
        {
            self.beside.outbox.paused.pop_first();
            self.beside.outbox.ready.push_back((source, target));
        }
        while self.beside.outbox.in_flight < IN_FLIGHT_MAX
            && let Some((source, target)) = self.beside.outbox.ready.pop_front()
        {
            let lane = self.beside.outbox.lanes.get(&(source, target));
            let Some(&number) = lane.and_then(|l| l.numbers.front()) else {
                continue;
            };
            match self.send_record(source, number) {
                Some(record) => self.launch_send((source, target), number, record),
                None => self.arrived((source, target), number),
            }
        }
    }

    fn launch_send(&mut self, lane: Lane, number: u64, record: SendRecord) {
        let (source, target) = lane;
        if record.at.after(EXPIRE) <= self.context.clock.wall() {
            tracing::error!(%source, target = ?record.target, "a send has not arrived within 23 h; it is given up");
            return self.arrived(lane, number);
        }
        let Some(waiting) = self.beside.outbox.lanes.get_mut(&lane) else {
            return;
        };
        waiting.busy = true;
        self.beside.outbox.in_flight += 1;
        let name = match planted!("send-new-id") {
            true => self.context.rng.u128(),
            false => target,
        };
        let session = SessionId(hash_128(&[b"outbox", source.as_bytes(), &name.to_be_bytes()]));
        let id = RequestId { session, seq: number };
        let call = OutgoingCall {
            door: None,
            target: record.target,
            op: record.op,
            timeout: Some(TRY_MAX),
            idempotency_key: None,
            consistency: Consistency::default(),
            if_active: false,
            chain: Vec::new(),
            params: None,
            // Those before this one have arrived, or will not be sent again.
            request: Some(OwnRequest {
                id,
                acked_below: number,
            }),
        };
        let sent = self.context.caller.call(call);
        let (ended, epoch) = (self.context.ended.clone(), self.epoch);
        self.context.tasks.spawn_until_stop(async move {
            let result = sent.await.map(drop);
            // The shard's task may be gone; the next owner sends again.
            drop(
                ended
                    .send(Ended::Sent {
                        lane,
                        number,
                        epoch,
                        result,
                    })
                    .await,
            );
        });
    }

    /// A try is over.
    pub(crate) fn sent(&mut self, lane: Lane, number: u64, result: Result<(), Error>) {
        self.beside.outbox.in_flight = self.beside.outbox.in_flight.saturating_sub(1);
        match result {
            Ok(()) => self.arrived(lane, number),
            Err(error) if is_final(&error) => {
                if !error.is(group::GUARD, "request_settled") {
                    tracing::warn!(source = %lane.0, %error, "the target of a send refused it");
                }
                self.arrived(lane, number);
            }
            Err(error) => {
                tracing::debug!(source = %lane.0, %error, "a send is tried again");
                let outbox = &mut self.beside.outbox;
                if let Some(waiting) = outbox.lanes.get_mut(&lane) {
                    let pause = PAUSE_MIN
                        .saturating_mul(1 << waiting.tries.min(16))
                        .min(PAUSE_MAX);
                    waiting.tries += 1;
                    waiting.busy = false;
                    outbox.paused.insert((Instant::now() + pause, lane.0, lane.1), ());
                }
            }
        }
        self.pump_outbox();
    }

    /// The first of a lane is dealt with: it leaves the outbox, and the next one may go.
    fn arrived(&mut self, lane: Lane, number: u64) {
        let outbox = &mut self.beside.outbox;
        if let Some(waiting) = outbox.lanes.get_mut(&lane) {
            waiting.numbers.retain(|n| *n != number);
            (waiting.busy, waiting.tries) = (false, 0);
            match waiting.numbers.is_empty() {
                true => drop(outbox.lanes.remove(&lane)),
                false => outbox.ready.push_back(lane),
            }
        }
        if let Some(count) = outbox.counts.get_mut(&lane.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                outbox.counts.remove(&lane.0);
            }
        }
        let mut written = Vec::new();
        self.delete(&mut written, records::send(lane.0, number));
        self.end_beside(lane.0, written);
    }
}

/// Whether a further try would get the same answer.
fn is_final(error: &Error) -> bool {
    // No node with the type, for now: a roll-out may bring one.
    error.reaction() == Reaction::Final && !error.is(group::ACTOR, code::NOT_REGISTERED)
}
