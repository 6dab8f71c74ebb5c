//! What waits to be written to one connection: bounded in bytes.

use crate::frame::Frame;
use bytes::BytesMut;
use std::{cell::RefCell, collections::VecDeque};
use tokio::sync::Notify;

/// A connection's frames, in the order in which they were queued.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: RefCell<Waiting>,
    woken: Notify,
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
        Self { waiting: RefCell::default(), woken: Notify::new(), bytes_max }
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
        self.woken.notify_one();
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
        Some(match first {
            Frame::Text(first) => {
                let mut joined = String::from(first.as_str());
                while let Some(Frame::Text(next)) = waiting.next_within(most, joined.len() + 1) {
                    joined.push('\n');
                    joined.push_str(&next);
                }
                Frame::Text(joined.into())
            }
            Frame::Binary(first) => {
                let mut joined = BytesMut::from(first);
                while let Some(Frame::Binary(next)) = waiting.next_within(most, joined.len()) {
                    joined.extend_from_slice(&next);
                }
                Frame::Binary(joined.freeze())
            }
        })
    }

    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Waits until something was pushed, or [`Self::wake`] called.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn check(frame: fn(&'static str) -> Frame, joined: &'static str) {
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
        check(|text| Frame::Text(text.into()), "abcd\nefgh");
        check(|text| Frame::Binary(Bytes::from_static(text.as_bytes())), "abcdefgh");
    }
}
