//! Requests that wait for their answer.
//!
//! Invariant: a correlation number names at most one request of a stream's life: slots are reused, their generation
//! is not (within 2^32 reuses), so a late answer to a forgotten request finds nobody.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::Refusal;

/// How a request ended.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Bytes),
    Refused(Refusal),
    /// The connection was lost before the request was handed to QUIC.
    NotSent(Arc<str>),
    /// The connection was lost after that.
    Lost(Arc<str>),
    /// The deadline has passed.
    TimeUp,
}

#[derive(Debug)]
pub(super) struct Pending {
    slots: Mutex<Slots>,
    max: usize,
    /// There is an earlier deadline than the one slept for, or the table was closed.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    closed: bool,
    /// When [`Pending::expire`] looks next; no deadline in the table is earlier.
    look_at: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    begun: Instant,
    until: Instant,
    waiter: Option<oneshot::Sender<Answer>>,
}

/// Why no request can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSlot {
    Full,
    Closed,
}

/// When to look for passed deadlines again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    At(Instant),
    /// When a request comes.
    Nothing,
    Closed,
}

impl Pending {
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Mutex::default(),
            max,
            earlier: Notify::new(),
        }
    }

    /// Makes room for an answer; the number returned is the request's correlation.
    pub(super) fn insert(
        &self,
        begun: Instant,
        until: Instant,
    ) -> Result<(u64, oneshot::Receiver<Answer>), NoSlot> {
        let (tx, rx) = oneshot::channel();
        let mut slots = self.slots.lock();
        if slots.closed {
            return Err(NoSlot::Closed);
        }
        let index = match slots.free.pop() {
            Some(index) => index,
            None if slots.slots.len() >= self.max => return Err(NoSlot::Full),
            None => {
                slots.slots.push(Slot {
                    generation: 0,
                    begun,
                    until,
                    waiter: None,
                });
                // `max` is at most 2^20.
                (slots.slots.len() - 1) as u32
            }
        };
        let slot = &mut slots.slots[index as usize];
        slot.waiter = Some(tx);
        (slot.begun, slot.until) = (begun, until);
        let correlation = (u64::from(slot.generation) << 32) | u64::from(index);
        let earlier = slots.look_at.is_none_or(|look_at| until < look_at);
        if earlier {
            slots.look_at = Some(until);
        }
        drop(slots);
        if earlier {
            self.earlier.notify_one();
        }
        Ok((correlation, rx))
    }

    /// Takes out the requests whose deadline has passed; says when to look again.
    pub(super) fn expire(&self, now: Instant, out: &mut Vec<oneshot::Sender<Answer>>) -> Next {
        let mut slots = self.slots.lock();
        if slots.closed {
            return Next::Closed;
        }
        if let Some(look_at) = slots.look_at
            && look_at > now
        {
            return Next::At(look_at);
        }
        let mut earliest: Option<Instant> = None;
        for index in 0..slots.slots.len() {
            let slot = &slots.slots[index];
            if slot.waiter.is_none() {
                continue;
            }
            if slot.until <= now {
                let correlation = (u64::from(slot.generation) << 32) | index as u64;
                out.extend(slots.remove(correlation));
            } else {
                earliest = Some(earliest.map_or(slot.until, |found| found.min(slot.until)));
            }
        }
        slots.look_at = earliest;
        earliest.map_or(Next::Nothing, Next::At)
    }

    /// Takes out the requests that have waited since `instant` or longer.
    pub(super) fn begun_before(&self, instant: Instant, out: &mut Vec<oneshot::Sender<Answer>>) {
        let mut slots = self.slots.lock();
        for index in 0..slots.slots.len() {
            let slot = &slots.slots[index];
            if slot.waiter.is_some() && slot.begun <= instant {
                let correlation = (u64::from(slot.generation) << 32) | index as u64;
                out.extend(slots.remove(correlation));
            }
        }
    }

    /// Waits for a deadline earlier than the last [`Next`], or the close.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    /// Takes requests out; those forgotten or never known are skipped.
    pub(super) fn remove_all(
        &self,
        answers: &mut Vec<(u64, Answer)>,
        out: &mut Vec<(oneshot::Sender<Answer>, Answer)>,
    ) {
        let mut slots = self.slots.lock();
        for (correlation, answer) in answers.drain(..) {
            if let Some(waiter) = slots.remove(correlation) {
                out.push((waiter, answer));
            }
        }
    }

    /// Forgets one request.
    pub(super) fn forget(&self, correlation: u64) {
        self.slots.lock().remove(correlation);
    }

    /// Refuses further requests and gives back all that wait, oldest slot first.
    pub(super) fn close(&self) -> Vec<(u64, oneshot::Sender<Answer>)> {
        let mut slots = self.slots.lock();
        slots.closed = true;
        let left = std::mem::take(&mut slots.slots);
        slots.free.clear();
        drop(slots);
        self.earlier.notify_one();
        (0u64..)
            .zip(left)
            .filter_map(|(index, slot)| Some(((u64::from(slot.generation) << 32) | index, slot.waiter?)))
            .collect()
    }
}

impl Slots {
    fn remove(&mut self, correlation: u64) -> Option<oneshot::Sender<Answer>> {
        let (generation, index) = ((correlation >> 32) as u32, correlation as u32);
        let slot = self
            .slots
            .get_mut(index as usize)
            .filter(|slot| slot.generation == generation)?;
        let waiter = slot.waiter.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_late_answer_does_not_reach_the_next_user_of_a_slot() {
        let pending = Pending::new(1);
        let (first, _rx) = pending.insert(Instant::now(), Instant::now()).unwrap();
        assert_eq!(
            pending.insert(Instant::now(), Instant::now()).unwrap_err(),
            NoSlot::Full
        );
        pending.forget(first);
        let (second, mut rx) = pending.insert(Instant::now(), Instant::now()).unwrap();
        assert_ne!(first, second);
        let mut out = vec![];
        pending.remove_all(&mut vec![(first, Answer::Reply(Bytes::new()))], &mut out);
        pending.forget(first);
        assert!(out.is_empty() && matches!(rx.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        pending.remove_all(&mut vec![(second, Answer::Reply(Bytes::new()))], &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn deadlines_end_requests_in_time_whatever_order_they_come_in() {
        let (pending, start, mut out) = (Pending::new(8), Instant::now(), vec![]);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pending.expire(start, &mut out), Next::Nothing);
        let (answered, _) = pending.insert(start, at(10)).unwrap();
        let (_, mut late) = pending.insert(start, at(50)).unwrap();
        let (_, mut early) = pending.insert(start, at(20)).unwrap();
        assert_eq!(pending.expire(at(5), &mut out), Next::At(at(10)));
        pending.forget(answered);
        assert_eq!(pending.expire(at(10), &mut out), Next::At(at(20)));
        assert!(out.is_empty());
        assert_eq!(pending.expire(at(20), &mut out), Next::At(at(50)));
        assert!(
            out.pop()
                .is_some_and(|waiter| waiter.send(Answer::TimeUp).is_ok())
        );
        assert!(matches!(early.try_recv(), Ok(Answer::TimeUp)));
        assert!(late.try_recv().is_err());
        assert_eq!(pending.expire(at(60), &mut out), Next::Nothing);
        assert_eq!(out.len(), 1);
        pending.close();
        assert_eq!(pending.expire(at(60), &mut out), Next::Closed);
    }

    #[test]
    fn a_closed_table_gives_back_who_waits_and_takes_no_more() {
        let pending = Pending::new(8);
        let numbers: Vec<u64> = (0..3)
            .map(|_| pending.insert(Instant::now(), Instant::now()).unwrap().0)
            .collect();
        pending.forget(numbers[1]);
        assert_eq!(
            pending.close().iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            [numbers[0], numbers[2]]
        );
        assert_eq!(
            pending.insert(Instant::now(), Instant::now()).unwrap_err(),
            NoSlot::Closed
        );
    }
}
