//! Exactly once: which requests a shard has answered, and with what.
//!
//! Invariant: a request below its session's floor is never executed again, and one above it is executed at most once
//! while its record is kept. Records and floors are written in the entries of their effects, so a new owner has them.
//! Bounded twice: a caller's acknowledgement lets go of a record at once, age lets go of the rest. Age is counted by the
//! present owner alone: by the clock of another, a record written a moment ago may look as old as it likes.
//! Not here: requests that are being executed now (`Owner::open`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clinch_types::{CallReply, RequestId, SessionId, WallMs, planted};

use super::keys::DedupRecord;

/// How long an answer is kept for a caller that does not acknowledge. Routers give up well before (70 s).
pub(crate) const WINDOW: Duration = Duration::from_secs(600);
/// How long an answer under a user's idempotency key is kept.
pub(crate) const WINDOW_LONG: Duration = Duration::from_secs(24 * 3600);

/// Ages of fewer requests than this are never tidied.
const TIDY_MIN: usize = 1024;
/// How often all sessions are looked at.
const SWEEP: Duration = Duration::from_secs(30);

/// What is known about a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    /// Never seen.
    New,
    /// Executed; the answer may be given once batch `seq` is committed.
    Answered { seq: u64, reply: Arc<CallReply> },
    /// The caller has said it has the answer: a late copy.
    Settled,
}

#[derive(Debug, Default)]
struct Session {
    floor: u64,
    used: WallMs,
    done: BTreeMap<u64, Done>,
}

#[derive(Debug)]
struct Done {
    seq: u64,
    reply: Arc<CallReply>,
}

/// The dedup table of one shard, as its owner keeps it.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    sessions: HashMap<SessionId, Session>,
    by_age: Ages,
    by_age_long: Ages,
    swept: WallMs,
    garbage: Vec<RequestId>,
    raised: Vec<SessionId>,
}

/// Requests in the order they were recorded in. Those that have been acknowledged since stay until the next tidying: then
/// half of the queue is new, so each request pays for two looks at most.
#[derive(Debug, Default)]
struct Ages {
    queue: VecDeque<(WallMs, RequestId)>,
    /// Length at which it is tidied.
    tidy_at: usize,
}

impl Ages {
    fn push(&mut self, at: WallMs, request: RequestId, sessions: &HashMap<SessionId, Session>) {
        self.queue.push_back((at, request));
        if self.queue.len() > self.tidy_at {
            self.tidy(sessions);
        }
    }

    /// Drops what is gone, and gives its memory back.
    fn tidy(&mut self, sessions: &HashMap<SessionId, Session>) {
        self.queue.retain(|(_, request)| {
            sessions
                .get(&request.session)
                .is_some_and(|s| s.done.contains_key(&request.seq))
        });
        self.tidy_at = 2 * self.queue.len() + TIDY_MIN;
        self.queue.shrink_to(self.tidy_at + 1);
    }
}

/// What the next entry should clear away.
#[derive(Debug, Default)]
pub(crate) struct Cleared {
    pub(crate) records: Vec<RequestId>,
    pub(crate) floors: Vec<(SessionId, u64)>,
}

impl Dedup {
    /// Takes over what an earlier owner wrote, with a whole window before it. Call once per stored record, in order of
    /// key.
    pub(crate) fn load(&mut self, request: RequestId, record: DedupRecord, now: WallMs) {
        let session = self.sessions.entry(request.session).or_default();
        session.used = session.used.max(now);
        session.done.insert(
            request.seq,
            Done {
                seq: 0,
                reply: Arc::new(record.reply),
            },
        );
        let queue = if record.long {
            &mut self.by_age_long
        } else {
            &mut self.by_age
        };
        queue.queue.push_back((now, request));
    }

    /// Takes over a stored floor.
    pub(crate) fn load_floor(&mut self, session: SessionId, floor: u64, now: WallMs) {
        let entry = self.sessions.entry(session).or_default();
        entry.floor = entry.floor.max(floor);
        entry.used = entry.used.max(now);
    }

    /// Call after the last [`Dedup::load`]: ages must be in order for expiry.
    pub(crate) fn loaded(&mut self) {
        self.by_age.queue.make_contiguous().sort_unstable();
        self.by_age_long.queue.make_contiguous().sort_unstable();
    }

    pub(crate) fn look(&self, request: RequestId) -> Known {
        if planted!("no-dedup") {
            return Known::New;
        }
        let Some(session) = self.sessions.get(&request.session) else {
            return Known::New;
        };
        match session.done.get(&request.seq) {
            Some(done) => Known::Answered {
                seq: done.seq,
                reply: done.reply.clone(),
            },
            None if request.seq < session.floor && !planted!("no-floor") => Known::Settled,
            None => Known::New,
        }
    }

    /// The caller has all answers below `acked_below`.
    pub(crate) fn acknowledge(&mut self, session: SessionId, acked_below: u64) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        if acked_below <= entry.floor {
            return;
        }
        entry.floor = acked_below;
        let keep = entry.done.split_off(&acked_below);
        let gone = std::mem::replace(&mut entry.done, keep);
        if !gone.is_empty() {
            self.raised.push(session);
            self.garbage
                .extend(gone.into_keys().map(|seq| RequestId { session, seq }));
        }
    }

    /// Remembers an answer that travels in batch `seq`.
    pub(crate) fn record(
        &mut self,
        request: RequestId,
        seq: u64,
        now: WallMs,
        long: bool,
        reply: Arc<CallReply>,
    ) {
        let session = self.sessions.entry(request.session).or_default();
        session.used = now;
        session.done.insert(request.seq, Done { seq, reply });
        let queue = if long {
            &mut self.by_age_long
        } else {
            &mut self.by_age
        };
        queue.push(now, request, &self.sessions);
    }

    /// Lets go of what is older than its window. Cheap when nothing is.
    pub(crate) fn expire(&mut self, now: WallMs) {
        for (ages, window) in [(&mut self.by_age, WINDOW), (&mut self.by_age_long, WINDOW_LONG)] {
            let queue = &mut ages.queue;
            while let Some(&(at, request)) = queue.front() {
                let Some(session) = self.sessions.get_mut(&request.session) else {
                    queue.pop_front();
                    continue;
                };
                if !session.done.contains_key(&request.seq) {
                    queue.pop_front();
                    continue;
                }
                if at.after(window) >= now {
                    break;
                }
                session.done.remove(&request.seq);
                self.garbage.push(request);
                queue.pop_front();
            }
        }
        // Sessions may be many (one per idempotency key): all of them are looked at rarely.
        if self.swept.after(SWEEP) > now {
            return;
        }
        self.swept = now;
        self.by_age.tidy(&self.sessions);
        self.by_age_long.tidy(&self.sessions);
        let garbage = &mut self.garbage;
        self.sessions.retain(|&id, session| {
            let idle = session.done.is_empty() && session.used.after(WINDOW) < now;
            if idle && session.floor > 0 {
                // Number 0 is where the floor is stored.
                garbage.push(RequestId { session: id, seq: 0 });
            }
            !idle
        });
    }

    /// How many records wait to be cleared away.
    pub(crate) fn garbage_len(&self) -> usize {
        self.garbage.len()
    }

    /// What the next entry should delete, and the floors it must write with that.
    pub(crate) fn clear(&mut self) -> Cleared {
        self.raised.sort_unstable();
        self.raised.dedup();
        let floors = self
            .raised
            .drain(..)
            .filter_map(|id| self.sessions.get(&id).map(|session| (id, session.floor)))
            .collect();
        Cleared {
            records: std::mem::take(&mut self.garbage),
            floors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinch_types::{ActorId, CallMeta, Epoch, ShardId, Version};

    fn reply(version: u64) -> CallReply {
        let meta = CallMeta {
            actor: ActorId::default(),
            shard: ShardId(0),
            epoch: Epoch(1),
            version: Version(version),
            created: false,
        };
        CallReply { meta, output: vec![] }
    }

    fn request(seq: u64) -> RequestId {
        RequestId {
            session: SessionId(9),
            seq,
        }
    }

    #[test]
    fn g5_a_request_is_new_once_then_answered_then_settled() {
        let mut dedup = Dedup::default();
        assert_eq!(dedup.look(request(1)), Known::New);
        dedup.record(request(1), 4, WallMs(0), false, Arc::new(reply(1)));
        assert_eq!(
            dedup.look(request(1)),
            Known::Answered {
                seq: 4,
                reply: Arc::new(reply(1))
            }
        );
        dedup.acknowledge(SessionId(9), 2);
        assert_eq!(dedup.look(request(1)), Known::Settled);
        let cleared = dedup.clear();
        assert_eq!(
            (cleared.records, cleared.floors),
            (vec![request(1)], vec![(SessionId(9), 2)])
        );
    }

    #[test]
    fn g5_a_new_owner_that_loads_the_floor_refuses_a_late_copy() {
        let mut dedup = Dedup::default();
        dedup.load_floor(SessionId(9), 2, WallMs(5));
        dedup.load(
            request(2),
            DedupRecord {
                at: WallMs(5),
                long: false,
                reply: reply(2),
            },
            WallMs(5),
        );
        dedup.loaded();
        assert_eq!(dedup.look(request(1)), Known::Settled);
        assert!(matches!(dedup.look(request(2)), Known::Answered { seq: 0, .. }));
        assert_eq!(dedup.look(request(3)), Known::New);
    }

    #[test]
    fn g5_records_of_an_owner_whose_clock_was_behind_last_a_whole_window() {
        let mut dedup = Dedup::default();
        let record = DedupRecord {
            at: WallMs(0),
            long: false,
            reply: reply(1),
        };
        let now = WallMs(1_000_000);
        dedup.load(request(1), record, now);
        dedup.loaded();
        dedup.expire(now.after(WINDOW));
        assert!(matches!(dedup.look(request(1)), Known::Answered { .. }));
        dedup.expire(now.after(WINDOW + Duration::from_millis(1)));
        assert_eq!(dedup.look(request(1)), Known::New);
    }

    #[test]
    fn what_was_acknowledged_takes_no_memory_however_much_of_it_there_was() {
        let mut dedup = Dedup::default();
        for seq in 1..=100_000 {
            dedup.record(request(seq), seq, WallMs(seq / 100), false, Arc::new(reply(seq)));
            dedup.acknowledge(SessionId(9), seq.saturating_sub(15));
            dedup.clear();
        }
        assert!(dedup.by_age.queue.capacity() < 4 * TIDY_MIN);
        let answered = |seq| matches!(dedup.look(request(seq)), Known::Answered { .. });
        assert!(answered(100_000) && answered(99_985) && !answered(99_984));
    }

    #[test]
    fn answers_outlive_their_window_only_if_the_user_named_them() {
        let mut dedup = Dedup::default();
        dedup.record(request(1), 1, WallMs(0), false, Arc::new(reply(1)));
        dedup.record(request(2), 1, WallMs(0), true, Arc::new(reply(2)));
        dedup.expire(WallMs(600_001));
        assert_eq!(dedup.look(request(1)), Known::New);
        assert!(matches!(dedup.look(request(2)), Known::Answered { .. }));
        dedup.expire(WallMs(24 * 3600 * 1000 + 1));
        assert_eq!(dedup.look(request(2)), Known::New);
        assert_eq!(dedup.clear().records, vec![request(1), request(2)]);
    }
}
