//! What waits to be written to one connection: bounded in bytes.

use crate::frame::Frame;
use futures_util::task::AtomicWaker;
use protocol::client::Encoding;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::Poll,
};

/// A connection's frames, in the order in which they were queued.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: RefCell<Waiting>,
    /// Whether the connection's task has something to do.
    rung: Cell<bool>,
    task: AtomicWaker,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Waiting {
    /// The next frame, if it has room beside `taken` bytes.
    fn next_within(&mut self, most: usize, taken: usize) -> Option<Frame> {
        let next = self.frames.front()?.len();
        if taken + next > most {
            return None;
        }
        self.bytes -= next;
        self.frames.pop_front()
    }
}

/// The client reads too slowly; the frame was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (waiting, rung, task) = (RefCell::default(), Cell::new(false), AtomicWaker::new());
        Self { waiting, rung, task, bytes_max }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().frames.is_empty()
    }

    /// Whether the client is behind.
    pub(crate) fn is_half_full(&self) -> bool {
        self.waiting.borrow().bytes > self.bytes_max / 2
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.borrow().bytes
    }

    /// Bytes that may wait.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn push(&self, frame: Frame) -> Result<(), Full> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.bytes + frame.len() > self.bytes_max {
            return Err(Full);
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        drop(waiting);
        self.wake();
        Ok(())
    }

    /// Takes what waits, as one message: frames joined (text by line ends), up to `most` bytes
    /// unless the first alone is larger.
    pub(crate) fn take(&self, most: usize) -> Option<Frame> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.frames.pop_front()?;
        waiting.bytes -= first.len();
        if waiting.frames.is_empty() {
            // An idle connection keeps no room for a burst that has passed.
            waiting.frames.shrink_to(0);
            return Some(first);
        }
        let encoding = first.encoding();
        let between: &[u8] = match encoding {
            Encoding::Json => b"\n",
            Encoding::Protobuf => b"",
        };
        let mut joined = first.as_bytes().to_vec();
        while let Some(next) = waiting.next_within(most, joined.len() + between.len()) {
            joined.extend_from_slice(between);
            joined.extend_from_slice(next.as_bytes());
        }
        Some(Frame::new(encoding, joined))
    }

    pub(crate) fn wake(&self) {
        if !self.rung.replace(true) {
            self.task.wake();
        }
    }

    /// Waits until something was pushed, or [`Self::wake`] called.
    pub(crate) async fn woken(&self) {
        poll_fn(|cx| {
            if self.rung.take() {
                return Poll::Ready(());
            }
            self.task.register(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: Encoding, joined: &'static str) {
        let frame = |message: &'static str| Frame::new(encoding, message);
        let queue = Queue::new(10);
        for text in ["abcd", "efgh"] {
            queue.push(frame(text)).unwrap();
        }
        assert_eq!(queue.push(frame("ijk")), Err(Full));
        assert_eq!(queue.take(100), Some(frame(joined)));
        assert_eq!(queue.take(100), None);
        queue.push(frame("ijk")).unwrap();
        queue.push(frame("lmn")).unwrap();
        assert_eq!(queue.take(3), Some(frame("ijk")));
        assert_eq!(queue.take(1), Some(frame("lmn")), "a frame is never divided");
        queue.push(frame("0123456789")).expect("what was taken makes room");
    }

    #[test]
    fn a_queue_is_bounded_and_keeps_its_order() {
        check(Encoding::Json, "abcd\nefgh");
        check(Encoding::Protobuf, "abcdefgh");
    }
}
