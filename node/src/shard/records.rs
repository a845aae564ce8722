//! Records of schedules, durable queues and the outbox: where they lie (see [`super::keys`]) and how they are written.
//!
//! Invariant: numbers of messages and sends are never used twice in an actor's life, and grow: the order of the keys is
//! the order of the pushes and sends.

use std::ops::Bound;

use bincode::{Decode, Encode};
use clinch_actor::{MessageId, MissedTick, RunOutcome, RunRecord, ScheduleEntry, ScheduleId, Stored, Timing};
use clinch_types::codec::CodecError;
use clinch_types::{ActorId, CallOp, RequestId, Target, WallMs, codec};

use super::keys::{end_of, with_id};

/// The range of all keys with a prefix.
pub(crate) struct Prefix {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Prefix {
    pub(crate) fn of(start: Vec<u8>) -> Self {
        let end = end_of(&start);
        Self { start, end }
    }

    pub(crate) fn start(&self) -> Bound<&[u8]> {
        Bound::Included(&self.start)
    }

    pub(crate) fn end(&self) -> Bound<&[u8]> {
        Bound::Excluded(&self.end)
    }
}

/// The format of [`ScheduleRecord`]; 1 was action and arguments alone, of one that fires once.
const SCHEDULE_FORMAT: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct ScheduleRecordV1 {
    action: String,
    args: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct ScheduleRecord {
    action: String,
    args: Vec<u8>,
    name: Option<String>,
    timing: TimingRecord,
    missed: u8,
    runs: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum TimingRecord {
    Once,
    Every { ms: u64 },
    Cron { expression: String, zone: String },
}

/// A schedule as stored under its time, actor and id, which are in the key.
pub(crate) fn write_schedule(entry: &ScheduleEntry) -> Result<Vec<u8>, CodecError> {
    let record = ScheduleRecord {
        action: entry.action.clone(),
        args: entry.args.to_vec(),
        name: entry.name.clone(),
        timing: match &entry.timing {
            Timing::Once => TimingRecord::Once,
            Timing::Every { ms } => TimingRecord::Every { ms: *ms },
            Timing::Cron { expression, zone } => TimingRecord::Cron {
                expression: expression.clone(),
                zone: zone.clone(),
            },
        },
        missed: match entry.missed {
            MissedTick::FireOnce => 0,
            MissedTick::Skip => 1,
            MissedTick::FireAll => 2,
        },
        runs: entry.runs,
    };
    let mut out = vec![SCHEDULE_FORMAT];
    codec::encode_into(&record, &mut out)?;
    Ok(out)
}

/// Reads what [`write_schedule`] wrote, now or in an earlier release.
pub(crate) fn read_schedule(due: WallMs, id: ScheduleId, bytes: &[u8]) -> Result<ScheduleEntry, CodecError> {
    let Some((&SCHEDULE_FORMAT, body)) = bytes.split_first() else {
        let ScheduleRecordV1 { action, args } = codec::decode(bytes)?;
        return Ok(ScheduleEntry::once(id, due, action, args.into()));
    };
    let record: ScheduleRecord = codec::decode_body(body)?;
    Ok(ScheduleEntry {
        name: record.name,
        timing: match record.timing {
            TimingRecord::Once => Timing::Once,
            TimingRecord::Every { ms } => Timing::Every { ms },
            TimingRecord::Cron { expression, zone } => Timing::Cron { expression, zone },
        },
        missed: match record.missed {
            0 => MissedTick::FireOnce,
            1 => MissedTick::Skip,
            2 => MissedTick::FireAll,
            other => {
                return Err(CodecError::Malformed {
                    reason: format!("missed-tick policy {other}"),
                });
            }
        },
        runs: record.runs,
        ..ScheduleEntry::once(id, due, record.action, record.args.into())
    })
}

/// Firings of one repeated schedule that are remembered.
pub(crate) const HISTORY_MAX: u64 = 100;

pub(crate) fn history(id: ActorId, schedule: ScheduleId, run: u64) -> Vec<u8> {
    let mut key = history_of(id, schedule);
    key.extend_from_slice(&run.to_be_bytes());
    key
}

/// The prefix of all remembered firings of one schedule.
pub(crate) fn history_of(id: ActorId, schedule: ScheduleId) -> Vec<u8> {
    with_id(b'H', id, &schedule.0.to_be_bytes())
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct HistoryRecord {
    due: WallMs,
    ended: WallMs,
    /// `None`: done. An empty text: skipped. Else the error's group and code.
    failure: Option<String>,
}

pub(crate) fn write_run(run: &RunRecord) -> Result<Vec<u8>, CodecError> {
    codec::encode(&HistoryRecord {
        due: run.due,
        ended: run.ended,
        failure: match &run.outcome {
            RunOutcome::Done => None,
            RunOutcome::Skipped => Some(String::new()),
            RunOutcome::Failed(code) => Some(code.clone()),
        },
    })
}

/// Reads a remembered firing, its number from the end of the key.
pub(crate) fn read_run(key: &[u8], value: &[u8]) -> Result<RunRecord, CodecError> {
    let record: HistoryRecord = codec::decode(value)?;
    Ok(RunRecord {
        run: number(key)?,
        due: record.due,
        ended: record.ended,
        outcome: match record.failure {
            None => RunOutcome::Done,
            Some(code) if code.is_empty() => RunOutcome::Skipped,
            Some(code) => RunOutcome::Failed(code),
        },
    })
}

/// The number a key ends in.
pub(crate) fn number(key: &[u8]) -> Result<u64, CodecError> {
    match key.last_chunk::<8>() {
        Some(number) => Ok(u64::from_be_bytes(*number)),
        None => Err(CodecError::Malformed {
            reason: format!("key of {} bytes without a number", key.len()),
        }),
    }
}

/// The prefix of one queue's messages. The name's length stands before it, so no name is the beginning of another.
pub(crate) fn queue_of(id: ActorId, queue: &str) -> Vec<u8> {
    let mut key = with_id(b'Q', id, &[]);
    // Names are at most 128 bytes, checked where they come in.
    key.push(u8::try_from(queue.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(queue.as_bytes());
    key
}

pub(crate) fn message(id: ActorId, queue: &str, number: MessageId) -> Vec<u8> {
    let mut key = queue_of(id, queue);
    key.extend_from_slice(&number.0.to_be_bytes());
    key
}

/// The queue's name and the message's number in a `Q` key.
pub(crate) fn parse_message(key: &[u8]) -> Option<(&str, MessageId)> {
    let (&len, rest) = key.get(17..)?.split_first()?;
    let (name, number) = rest.split_at_checked(usize::from(len))?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some((std::str::from_utf8(name).ok()?, MessageId(number)))
}

/// A message of a durable queue.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MessageRecord {
    pub(crate) pushed: WallMs,
    /// Not to be received before.
    pub(crate) not_before: WallMs,
    pub(crate) retries: u32,
    /// The request of a sender that waits until it is dealt with, and whether its answer is kept for the long window.
    pub(crate) waiter: Option<(RequestId, bool)>,
    pub(crate) body: Vec<u8>,
}

impl MessageRecord {
    pub(crate) fn into_stored(self, queue: &str, id: MessageId) -> Stored {
        Stored {
            queue: queue.to_owned(),
            id,
            pushed: self.pushed,
            not_before: self.not_before,
            retries: self.retries,
            body: self.body.into(),
        }
    }
}

pub(crate) fn send(source: ActorId, number: u64) -> Vec<u8> {
    with_id(b'O', source, &number.to_be_bytes())
}

/// A one-way send on its way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SendRecord {
    /// When its turn committed, by the owner's wall clock.
    pub(crate) at: WallMs,
    pub(crate) target: Target,
    pub(crate) op: CallOp,
}

pub(crate) fn awake_mark(id: ActorId) -> Vec<u8> {
    with_id(b'W', id, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use clinch_types::{RegionId, SessionId, Slot};

    fn actor() -> ActorId {
        ActorId::new(RegionId(0), Slot(3), 9)
    }

    #[test]
    fn schedules_read_back_keep_their_bytes_and_those_of_the_first_format_are_read() {
        let (due, id) = (WallMs(7), ScheduleId(5));
        let entry = ScheduleEntry {
            name: Some("n".into()),
            timing: Timing::Cron {
                expression: "* * * * *".into(),
                zone: "UTC".into(),
            },
            missed: MissedTick::Skip,
            runs: 3,
            ..ScheduleEntry::once(id, due, "a".into(), Bytes::from_static(&[0x80]))
        };
        let bytes = write_schedule(&entry).unwrap();
        assert_eq!(read_schedule(due, id, &bytes), Ok(entry));
        assert_eq!(
            bytes,
            b"\x02\x01a\x01\x80\x01\x01n\x02\x09* * * * *\x03UTC\x01\x03"
        );
        let first = b"\x01\x01a\x01\x80";
        let once = ScheduleEntry::once(id, due, "a".into(), Bytes::from_static(&[0x80]));
        assert_eq!(read_schedule(due, id, first), Ok(once));
        assert!(read_schedule(due, id, b"\x03").is_err());
        assert!(read_schedule(due, id, b"").is_err());
    }

    #[test]
    fn messages_runs_and_sends_read_back_and_keep_their_bytes() {
        let request = RequestId {
            session: SessionId(1),
            seq: 2,
        };
        let record = MessageRecord {
            pushed: WallMs(1),
            not_before: WallMs(2),
            retries: 3,
            waiter: Some((request, true)),
            body: vec![0xf6],
        };
        let bytes = codec::encode(&record).unwrap();
        assert_eq!(bytes, [1, 1, 2, 3, 1, 1, 2, 1, 1, 0xf6]);
        assert_eq!(codec::decode::<MessageRecord>(&bytes), Ok(record));

        for outcome in [
            RunOutcome::Done,
            RunOutcome::Skipped,
            RunOutcome::Failed("user.no".into()),
        ] {
            let run = RunRecord {
                run: 260,
                due: WallMs(1),
                ended: WallMs(2),
                outcome,
            };
            let bytes = write_run(&run).unwrap();
            assert_eq!(read_run(&history(actor(), ScheduleId(1), 260), &bytes), Ok(run));
        }
        let sent = SendRecord {
            at: WallMs(4),
            target: Target::Id(actor()),
            op: CallOp::Action {
                name: "a".into(),
                args: vec![0x80],
            },
        };
        let bytes = codec::encode(&sent).unwrap();
        assert_eq!(bytes[..3], [1, 4, 0]);
        assert_eq!(codec::decode::<SendRecord>(&bytes), Ok(sent));
    }

    #[test]
    fn a_queue_holds_its_own_messages_in_order_and_no_other_queues() {
        let key = |queue: &str, n| message(actor(), queue, MessageId(n));
        assert_eq!(parse_message(&key("jobs", 258)), Some(("jobs", MessageId(258))));
        assert!(key("jobs", 255) < key("jobs", 256));
        let prefix = queue_of(actor(), "jobs");
        assert!(!key("jobsx", 1).starts_with(&prefix) && !key("job", 1).starts_with(&prefix));
        assert_eq!(parse_message(b"Q"), None);
    }
}
