//! What clients asked and were told, in one format for every checker: one JSON object a line.
//!
//! Invariant: an operation is in the history from the moment before it is sent, with its outcome unknown; so a client
//! that dies leaves no call out. All times are nanoseconds on one monotonic clock, from the history's start.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use clinch_types::CallMeta;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What was asked: of a counter, or of the actors of other workloads ([`crate::actors`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Add this amount, tell the sum.
    Increment(i64),
    /// Tell the sum.
    Read,
    /// A register: this value.
    Write(i64),
    /// A register: the second value, if it has the first.
    Cas(i64, i64),
    /// A register: tell the value.
    Get,
    /// A list: one more at its end; tells its length.
    Append(i64),
    /// A list: tell all of it.
    List,
    /// Change everything, then fail.
    Spoil(i64),
    /// This value in the state and in two KV entries.
    Stamp(i64),
    /// Tell all three.
    Stamps,
    /// A schedule with this number, after so many ms.
    Remind(i64, u64),
    /// Tell what fired: number, due, fired, ...
    Fired,
    /// A sum that may be destroyed: add this.
    Add(i64),
    /// Tell that sum.
    Sum,
    /// Destroy it.
    End,
    /// An account: this amount to the account of that number, one way.
    Pay(i64, i64),
    /// Tell the balance, what was paid and what was got.
    Account,
    /// A queue, from outside: this message.
    Push(i64),
    /// A queue, from the actor's own turn: this message.
    Enqueue(i64),
    /// The next message, taken out and dealt with in one turn; tells it.
    Pop,
    /// The next message, dealt with under a lease: with its end in one commit (0), before its end (1), given back (2),
    /// forgotten (3), or as 0, but only when the lease is over (4); tells it.
    Work(i64),
    /// Tell what was dealt with.
    Works,
    /// Begin to tick, by an interval and by a cron expression.
    Begin(i64),
    /// Tell the time and the ticks: which, due, fired, ...
    Ticks,
    /// One more at the end of a list, and an event about it; tells its length.
    Tell(i64),
    /// An event that a listener got: its place and the number.
    Heard(i64, i64),
    /// One more at the end of a list, and one way at the end of the list of that number; tells its length.
    Relay(i64, i64),
    /// A connection is opened; the number is its own.
    Enter(i64),
    /// That connection asks for events. Nothing answers that.
    Hark(i64),
    /// What a connection got: a place and a number; place 0: said to it alone.
    Got(i64, i64),
    /// Tell who came and who went.
    Visits,
    /// A call that makes one at another actor, waits for its answer, and keeps that; tells it.
    Buy(i64),
    /// Tell what was kept of such calls: number, place, ...
    Bought,
    /// Tell the list that they all went to.
    Till,
}

impl Op {
    /// Whether it changes anything when it succeeds.
    pub fn writes(self) -> bool {
        match self {
            Self::Increment(_)
            | Self::Write(_)
            | Self::Cas(..)
            | Self::Append(_)
            | Self::Spoil(_)
            | Self::Stamp(_)
            | Self::Remind(..)
            | Self::Add(_)
            | Self::End
            | Self::Pay(..)
            | Self::Push(_)
            | Self::Enqueue(_)
            | Self::Pop
            | Self::Work(_)
            | Self::Begin(_)
            | Self::Tell(_)
            | Self::Buy(_)
            | Self::Relay(..) => true,
            Self::Read
            | Self::Get
            | Self::List
            | Self::Stamps
            | Self::Fired
            | Self::Sum
            | Self::Account
            | Self::Works
            | Self::Ticks
            | Self::Enter(_)
            | Self::Hark(_)
            | Self::Got(..)
            | Self::Visits
            | Self::Bought
            | Self::Till
            | Self::Heard(..) => false,
        }
    }

    /// Whether it tells something that depends on the actor's state alone: the same at the same version.
    pub fn is_look(self) -> bool {
        matches!(
            self,
            Self::Read
                | Self::Get
                | Self::List
                | Self::Stamps
                | Self::Fired
                | Self::Sum
                | Self::Account
                | Self::Works
                | Self::Visits
                | Self::Bought
                | Self::Till
        )
    }

    /// Whether an answer with this list shows a turn of its own: one that changed the state and made a version.
    pub fn made_version(self, list: &[i64]) -> bool {
        match self {
            // Refused: it tells what was there.
            Self::Cas(..) => list.is_empty(),
            // There was none.
            Self::Pop => !list.is_empty(),
            // The queue is no part of the state, and work is several turns.
            Self::Push(_) | Self::Work(_) => false,
            _ => self.writes(),
        }
    }

    /// Whether its answer is remembered, so that a repetition gets the same.
    pub fn is_remembered(self, list: &[i64]) -> bool {
        matches!(self, Self::Push(_)) || self.made_version(list)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With this value.
    Ok(i64),
    /// It certainly had no effect.
    Fail,
    /// Perhaps it had, or will have.
    Unknown,
}

/// Where in the actor's life an answer was produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The actor id: this life of the key.
    pub incarnation: String,
    /// The ownership epoch that answered.
    pub epoch: u64,
    /// The actor's version after the call.
    pub version: u64,
}

impl From<CallMeta> for Meta {
    fn from(meta: CallMeta) -> Self {
        Self {
            incarnation: meta.actor.to_string(),
            epoch: meta.epoch.0,
            version: meta.version.0,
        }
    }
}

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its place in the history.
    pub id: usize,
    /// Who asked.
    pub client: String,
    /// The counter's key.
    pub key: String,
    /// What was asked.
    pub op: Op,
    /// When the client began.
    pub invoke_ns: u64,
    /// When it knew the outcome; `None`: never.
    pub return_ns: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// With [`Outcome::Ok`], where the answer was produced.
    pub meta: Option<Meta>,
    /// With [`Outcome::Ok`], what was told beside the value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<i64>,
    /// What the client was told when there was no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something that was done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at_ns: u64,
    /// What.
    pub fault: String,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Operation(Operation),
    Mark(Mark),
}

/// How one call ended, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// Where the answer was produced.
    pub meta: Option<Meta>,
    /// What was told beside the value.
    pub list: Vec<i64>,
    /// What was said instead of a value.
    pub error: Option<String>,
}

impl Answer {
    /// A value and where it came from.
    pub fn ok(value: i64, meta: Meta) -> Self {
        Self {
            outcome: Outcome::Ok(value),
            meta: Some(meta),
            list: Vec::new(),
            error: None,
        }
    }

    /// A value and a list, and where they came from.
    pub fn told((value, list): (i64, Vec<i64>), meta: Meta) -> Self {
        Self {
            list,
            ..Self::ok(value, meta)
        }
    }

    /// No value: `perhaps` says whether the call may have had an effect.
    pub fn error(perhaps: bool, error: impl Into<String>) -> Self {
        let outcome = if perhaps { Outcome::Unknown } else { Outcome::Fail };
        Self {
            outcome,
            meta: None,
            list: Vec::new(),
            error: Some(error.into()),
        }
    }

    /// Whether there is a value.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(_))
    }
}

/// A history being written. Cheap to clone; all clones write the same one.
#[derive(Clone)]
pub struct Recorder {
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
    lines: Arc<Mutex<(Vec<Operation>, Vec<Mark>)>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} operations)", self.begun())
    }
}

impl Default for Recorder {
    /// On this process's clock, from now.
    fn default() -> Self {
        let start = Instant::now();
        Self::on_clock(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Recorder {
    /// On a clock that tells nanoseconds, one for all clients: that of a simulated world, of which every machine has
    /// another.
    pub fn on_clock(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            now: Arc::new(now),
            lines: Arc::default(),
        }
    }

    /// Now, on the history's clock.
    pub fn now_ns(&self) -> u64 {
        (self.now)()
    }

    /// Writes down a call that is about to be made; returns its id.
    pub fn invoke(&self, client: &str, key: &str, op: Op) -> usize {
        let mut lines = self.lock();
        let id = lines.0.len();
        // Taken under the lock: ids are in order of invocation.
        let invoke_ns = self.now_ns();
        lines.0.push(Operation {
            id,
            client: client.to_owned(),
            key: key.to_owned(),
            op,
            invoke_ns,
            return_ns: None,
            outcome: Outcome::Unknown,
            meta: None,
            list: Vec::new(),
            error: None,
        });
        id
    }

    /// Writes down how it ended.
    pub fn complete(&self, id: usize, answer: Answer) {
        let return_ns = Some(self.now_ns());
        if let Some(operation) = self.lock().0.get_mut(id) {
            let Answer {
                outcome,
                meta,
                list,
                error,
            } = answer;
            *operation = Operation {
                return_ns,
                outcome,
                meta,
                list,
                error,
                ..operation.clone()
            };
        }
    }

    /// Writes down a fault.
    pub fn mark(&self, fault: impl Into<String>) {
        let mark = Mark {
            at_ns: self.now_ns(),
            fault: fault.into(),
        };
        self.lock().1.push(mark);
    }

    /// All operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().0.clone()
    }

    /// All faults so far.
    pub fn marks(&self) -> Vec<Mark> {
        self.lock().1.clone()
    }

    /// How many operations ended with a value, of those since `from` (an id).
    pub fn acknowledged_since(&self, from: usize) -> usize {
        let lines = self.lock();
        lines
            .0
            .iter()
            .skip(from)
            .filter(|o| matches!(o.outcome, Outcome::Ok(_)))
            .count()
    }

    /// How many operations were begun.
    pub fn begun(&self) -> usize {
        self.lock().0.len()
    }

    /// Writes the history to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let what = || format!("writing the history {}", path.display());
        let (operations, marks) = self.lock().clone();
        let mut lines: Vec<(u64, Line)> = marks.into_iter().map(|m| (m.at_ns, Line::Mark(m))).collect();
        lines.extend(operations.into_iter().map(|o| (o.invoke_ns, Line::Operation(o))));
        lines.sort_by_key(|(at, _)| *at);
        let mut file = BufWriter::new(File::create(path).with_context(what)?);
        for (_, line) in lines {
            serde_json::to_writer(&mut file, &line).with_context(what)?;
            file.write_all(b"\n").with_context(what)?;
        }
        file.flush().with_context(what)
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Operation>, Vec<Mark>)> {
        // Every critical section leaves the lists whole, also when a client panics elsewhere.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the operations of a saved history.
///
/// # Errors
/// Names the line that cannot be read.
pub fn load(path: &Path) -> anyhow::Result<Vec<Operation>> {
    let file = File::open(path).with_context(|| format!("opening the history {}", path.display()))?;
    let mut operations = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let what = || format!("line {} of {}", number + 1, path.display());
        match serde_json::from_str(&line.with_context(what)?).with_context(what)? {
            Line::Operation(operation) => operations.push(operation),
            Line::Mark(_) => {}
        }
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_history_reads_back_as_it_was() {
        let recorder = Recorder::default();
        let meta = Meta {
            incarnation: "a".into(),
            epoch: 3,
            version: 7,
        };
        let first = recorder.invoke("c1", "k", Op::Increment(5));
        recorder.mark("kill -9 of node 2");
        let second = recorder.invoke("c2", "k", Op::Read);
        recorder.complete(second, Answer::ok(5, meta));
        recorder.complete(first, Answer::error(true, "silent"));
        let open = recorder.invoke("c1", "k", Op::Read);
        assert_eq!((first, second, open), (0, 1, 2));
        let path = tempfile::NamedTempFile::new().unwrap();
        recorder.save(path.path()).unwrap();
        let read = load(path.path()).unwrap();
        assert_eq!(read, recorder.operations());
        assert_eq!(read[2].return_ns, None);
        assert_eq!(recorder.acknowledged_since(0), 1);
        assert_eq!(recorder.acknowledged_since(2), 0);
        let text = std::fs::read_to_string(path.path()).unwrap();
        assert!(
            text.contains(r#""op":{"increment":5}"#) && text.contains(r#""fault":"kill -9 of node 2""#),
            "{text}"
        );
    }

    #[test]
    fn a_line_that_is_no_operation_is_named() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), "{\"at_ns\":1,\"fault\":\"x\"}\nnonsense\n").unwrap();
        let error = format!("{:#}", load(path.path()).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
