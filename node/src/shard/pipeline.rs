//! The proposer: packs the effects of executed turns into entries and lets answers go when they are committed.
//!
//! Invariant (G1, G6): an answer or event leaves only after the batch that carries its effects, and every batch its
//! reader saw, is committed. Batches are numbered from 1; batch `n` commits before batch `n + 1`.
//! There is no timer: a batch is whatever was executed while the ones before it were in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use clinch_storage::{Batch, BatchBuilder};
use clinch_types::{ActorId, planted};

use super::{EventBatch, Release};
use crate::config::ProposerConfig;

/// One write of a batch.
#[derive(Debug)]
pub(crate) enum Write {
    Put(Bytes),
    /// A key that certainly did not exist.
    PutFresh(Bytes),
    Delete,
}

/// Effects not yet proposed.
#[derive(Default)]
struct Pending {
    writes: Vec<(Vec<u8>, Write)>,
    bytes: usize,
    turns: usize,
    releases: Vec<Release>,
    events: Vec<EventBatch>,
    /// Keys to forget in the provisional view once applied.
    provisional: Vec<Vec<u8>>,
    actors: Vec<ActorId>,
}

/// What a turn adds to the batch beside its writes.
pub(crate) struct TurnEnd {
    /// Whose turn.
    pub(crate) actor: ActorId,
    /// The answer that goes out with the batch.
    pub(crate) release: Option<Release>,
    /// The events that go out with it.
    pub(crate) events: Option<EventBatch>,
    /// Keys written through the provisional view.
    pub(crate) provisional: Vec<Vec<u8>>,
}

/// A batch on its way through the log.
pub(crate) struct InFlight {
    pub(crate) seq: u64,
    pub(crate) releases: Vec<Release>,
    pub(crate) events: Vec<EventBatch>,
    pub(crate) provisional: Vec<Vec<u8>>,
    /// Actors with a turn in it.
    pub(crate) actors: Vec<ActorId>,
}

/// The batches of one epoch.
pub(crate) struct Pipeline {
    config: Arc<ProposerConfig>,
    pending: Pending,
    /// One at a time: a batch rests on the one before it. Were two on their way, the log might refuse the first (its
    /// leader's lease had lapsed) and take the second, whose states contain the effects of the first without its dedup
    /// records: its calls, asked again, would take effect twice.
    in_flight: Option<InFlight>,
    /// Number of the batch being filled.
    filling: u64,
    committed: u64,
    /// Answers without effects, by the batch they must wait for.
    reads: BTreeMap<u64, Vec<Release>>,
}

impl Pipeline {
    pub(crate) fn new(config: Arc<ProposerConfig>) -> Self {
        Self {
            config,
            pending: Pending::default(),
            in_flight: None,
            filling: 1,
            committed: 0,
            reads: BTreeMap::new(),
        }
    }

    /// The batch that effects added now will travel in.
    pub(crate) fn filling(&self) -> u64 {
        self.filling
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Adds a write; returns its place for [`Pipeline::rewrite`].
    pub(crate) fn write(&mut self, key: Vec<u8>, write: Write) -> usize {
        self.pending.bytes += key.len() + write.len();
        self.pending.writes.push((key, write));
        self.pending.writes.len() - 1
    }

    /// Replaces a put of the batch being filled: several turns of one actor write its state once.
    pub(crate) fn rewrite(&mut self, at: usize, value: Bytes) {
        let (_, write) = &mut self.pending.writes[at];
        self.pending.bytes = self.pending.bytes + value.len() - write.len();
        *write = Write::Put(value);
    }

    /// A turn's writes are in: its answer and events go out with this batch.
    pub(crate) fn turn(&mut self, end: TurnEnd) {
        self.pending.turns += 1;
        self.pending.releases.extend(end.release);
        self.pending.events.extend(end.events);
        self.pending.provisional.extend(end.provisional);
        self.pending.actors.push(end.actor);
    }

    /// An answer without effects that has seen batches up to `seq`.
    pub(crate) fn read(&mut self, seq: u64, release: Release) {
        let seq = if planted!("read-at-once") { 0 } else { seq };
        self.reads.entry(seq).or_default().push(release);
    }

    /// Whether the batch being filled holds anything.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.writes.is_empty()
    }

    /// Whether anything is on its way or about to be.
    pub(crate) fn busy(&self) -> bool {
        self.has_pending() || self.in_flight.is_some()
    }

    /// Whether another turn fits into the batch being filled.
    pub(crate) fn full(&self) -> bool {
        self.pending.turns >= self.config.batch_turns_max || self.pending.bytes >= self.config.batch_bytes_max
    }

    /// Turns in the batch being filled.
    pub(crate) fn turns(&self) -> usize {
        self.pending.turns
    }

    /// Whether a batch should be cut now.
    pub(crate) fn may_cut(&self) -> bool {
        self.has_pending() && self.in_flight.is_none()
    }

    /// Cuts the batch being filled; the caller proposes it.
    pub(crate) fn cut(&mut self) -> Batch {
        let pending = std::mem::take(&mut self.pending);
        // The log keeps it in memory for a while: no more room than it needs.
        let bytes = pending.writes.iter().map(|(key, write)| match write {
            Write::Put(value) | Write::PutFresh(value) => BatchBuilder::room_for(key, value),
            Write::Delete => BatchBuilder::room_for(key, &[]),
        });
        let mut builder = BatchBuilder::with_capacity(1 + bytes.sum::<usize>());
        for (key, write) in &pending.writes {
            match write {
                Write::Put(value) => builder.put(key, value),
                Write::PutFresh(value) => builder.put_fresh(key, value),
                Write::Delete => builder.delete(key),
            }
        }
        self.in_flight = Some(InFlight {
            seq: self.filling,
            releases: pending.releases,
            events: pending.events,
            provisional: pending.provisional,
            actors: pending.actors,
        });
        self.filling += 1;
        builder.finish()
    }

    /// The batch in flight is committed and applied.
    pub(crate) fn commit(&mut self) -> Option<InFlight> {
        let batch = self.in_flight.take()?;
        self.committed = batch.seq;
        Some(batch)
    }

    /// The answers of the batch in flight, taken before it is committed: only for a bug put in on purpose.
    #[cfg(feature = "planted")]
    pub(crate) fn take_releases(&mut self) -> Vec<Release> {
        self.in_flight
            .as_mut()
            .map_or_else(Vec::new, |batch| std::mem::take(&mut batch.releases))
    }

    /// What the batch in flight has for connections, taken before it is committed: only for a bug put in on purpose.
    #[cfg(feature = "planted")]
    pub(crate) fn take_deliveries(&mut self) -> Vec<Release> {
        let Some(batch) = self.in_flight.as_mut() else {
            return Vec::new();
        };
        batch
            .releases
            .extract_if(.., |release| matches!(release, Release::Deliver(_)))
            .collect()
    }

    /// The events of the batch in flight, taken before it is committed: only for a bug put in on purpose.
    #[cfg(feature = "planted")]
    pub(crate) fn take_events(&mut self) -> Vec<EventBatch> {
        self.in_flight
            .as_mut()
            .map_or_else(Vec::new, |batch| std::mem::take(&mut batch.events))
    }

    /// Reads that have nothing left to wait for but the lease.
    pub(crate) fn ready_reads(&mut self) -> Vec<Release> {
        match self.reads.first_key_value() {
            Some((&seq, _)) if seq <= self.committed => {}
            _ => return Vec::new(),
        }
        let later = self.reads.split_off(&(self.committed + 1));
        let ready = std::mem::replace(&mut self.reads, later);
        ready.into_values().flatten().collect()
    }

    /// Ownership is lost. Returns answers that are perhaps committed, then those that are certainly not.
    pub(crate) fn abandon(&mut self) -> (Vec<Release>, Vec<Release>) {
        let mut perhaps: Vec<Release> = self
            .in_flight
            .take()
            .into_iter()
            .flat_map(|b| b.releases)
            .collect();
        // Some of these repeat the answer of a turn whose batch is on its way.
        perhaps.extend(std::mem::take(&mut self.reads).into_values().flatten());
        (perhaps, std::mem::take(&mut self.pending).releases)
    }
}

impl Write {
    fn len(&self) -> usize {
        match self {
            Self::Put(value) | Self::PutFresh(value) => value.len(),
            Self::Delete => 0,
        }
    }
}
