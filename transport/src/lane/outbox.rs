//! What waits to be written to one stream.
//!
//! Invariant: a frame is either still here, and can be taken back, or was handed to the writer, and may have left.
//! There is no third state: [`Outbox::take_back`] and [`Outbox::take`] decide under one lock.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::frame::Frame;

/// A queue of frames with one writer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered by sequence number; `None` was taken back.
    queue: VecDeque<(u64, Option<Frame>)>,
    /// How many in `queue` were taken back.
    holes: usize,
    /// Wire bytes of the frames in `queue`.
    bytes: usize,
    next: u64,
    closed: bool,
    /// The writer, if it waits for frames.
    writer: Option<Waker>,
    /// The reader of the same stream, if it waits for `bytes` to fall.
    reader: Option<Waker>,
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

impl Outbox {
    /// Queues a frame; the number returned takes it back.
    pub(super) fn push(&self, frame: Frame) -> Result<u64, Closed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed);
        }
        let number = state.next;
        state.next += 1;
        state.bytes += frame.wire_len();
        state.queue.push_back((number, Some(frame)));
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(number)
    }

    /// Takes a frame back, if it was not handed to the writer yet.
    pub(super) fn take_back(&self, number: u64) -> Option<Frame> {
        let mut state = self.state.lock();
        let index = state.queue.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        let frame = state.queue[index].1.take()?;
        state.bytes -= frame.wire_len();
        state.holes += 1;
        // Otherwise short-lived requests behind one long-lived would fill memory with holes.
        if state.holes > 64 && state.holes * 2 > state.queue.len() {
            state.queue.retain(|(_, frame)| frame.is_some());
            state.holes = 0;
        }
        Some(frame)
    }

    /// Waits until there may be frames to take; `false` when closed.
    pub(super) fn poll_any(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(false);
        }
        if !state.queue.is_empty() {
            return Poll::Ready(true);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Moves frames to the writer: at least one, if there is one, then as many as fit into `bytes_max`.
    pub(super) fn take(&self, out: &mut Vec<Frame>, bytes_max: usize) {
        let mut state = self.state.lock();
        let mut taken = 0;
        while let Some((_, slot)) = state.queue.front() {
            let Some(frame) = slot else {
                state.holes -= 1;
                state.queue.pop_front();
                continue;
            };
            let len = frame.wire_len();
            if taken > 0 && taken + len > bytes_max {
                break;
            }
            taken += len;
            out.extend(state.queue.pop_front().and_then(|(_, frame)| frame));
        }
        state.bytes -= taken;
        let reader = if taken > 0 { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits until at most `bytes_max` are queued, or the outbox is closed.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed || state.bytes <= bytes_max {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Refuses further frames and gives back those never handed to the writer.
    pub(super) fn close(&self) -> Vec<Frame> {
        let mut state = self.state.lock();
        state.closed = true;
        state.bytes = 0;
        state.holes = 0;
        let left = std::mem::take(&mut state.queue);
        let (writer, reader) = (state.writer.take(), state.reader.take());
        drop(state);
        for waker in [writer, reader].into_iter().flatten() {
            waker.wake();
        }
        left.into_iter().filter_map(|(_, frame)| frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameType;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn frame(correlation: u64, len: usize) -> Frame {
        let body = Bytes::from(vec![0; len]);
        Frame {
            kind: FrameType::Request,
            service: 0,
            correlation,
            deadline_ms: 0,
            trace: None,
            body,
        }
    }

    fn take(outbox: &Outbox, bytes_max: usize) -> Vec<u64> {
        let mut out = vec![];
        outbox.take(&mut out, bytes_max);
        out.iter().map(|f| f.correlation).collect()
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let outbox = Outbox::default();
        for n in 0..3 {
            outbox.push(frame(n, 1000)).unwrap();
        }
        assert_eq!(take(&outbox, 10), [0]);
        assert_eq!(take(&outbox, 5000), [1, 2]);
        assert_eq!(take(&outbox, 5000), [0; 0]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        TakeBack(prop::sample::Index),
        Take(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..50).prop_map(Step::Push),
            3 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
            1 => (0usize..300).prop_map(Step::Take),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        /// Every frame ends in exactly one place: written in order, taken back, or given back at the close.
        #[test]
        fn a_frame_is_written_or_taken_back_never_both(steps in steps()) {
            let outbox = Outbox::default();
            let (mut pushed, mut written, mut back) = (vec![], vec![], vec![]);
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let correlation = pushed.len() as u64;
                        pushed.push(outbox.push(frame(correlation, len)).unwrap());
                    }
                    Step::TakeBack(index) if !pushed.is_empty() => {
                        back.extend(outbox.take_back(*index.get(&pushed)).map(|f| f.correlation));
                    }
                    Step::TakeBack(_) => {}
                    Step::Take(max) => written.extend(take(&outbox, max)),
                }
                let state = outbox.state.lock();
                let live: usize = state.queue.iter().filter_map(|(_, f)| f.as_ref()).map(Frame::wire_len).sum();
                prop_assert_eq!(state.bytes, live);
                prop_assert!(state.queue.len() <= 2 * (state.queue.len() - state.holes) + 66, "holes pile up");
            }
            prop_assert!(written.is_sorted());
            let left = outbox.close().into_iter().map(|f| f.correlation);
            let mut all: Vec<u64> = written.into_iter().chain(back).chain(left).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..pushed.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(outbox.push(frame(0, 0)), Err(Closed));
        }
    }
}
