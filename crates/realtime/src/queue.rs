//! What waits to be written to one connection: bounded in bytes.

use std::{cell::RefCell, collections::VecDeque};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A connection's frames, in the order in which they were queued.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: RefCell<Waiting>,
    woken: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
}

/// The client reads too slowly; the frame was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { waiting: RefCell::default(), woken: Notify::new(), bytes_max }
    }

    pub(crate) fn push(&self, frame: Utf8Bytes) -> Result<(), Full> {
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

    /// Takes what waits, as one message: frames joined by line ends, up to `most` bytes unless
    /// the first alone is larger.
    pub(crate) fn take(&self, most: usize) -> Option<Utf8Bytes> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.frames.pop_front()?;
        waiting.bytes -= first.len();
        if waiting.frames.is_empty() {
            // An idle connection keeps no room for a burst that has passed.
            waiting.frames.shrink_to(0);
            return Some(first);
        }
        let mut joined = String::from(first.as_str());
        while let Some(next) = waiting.frames.front()
            && joined.len() + 1 + next.len() <= most
        {
            joined.push('\n');
            joined.push_str(next);
            let taken = next.len();
            waiting.bytes -= taken;
            waiting.frames.pop_front();
        }
        Some(joined.into())
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

    #[test]
    fn a_queue_is_bounded_and_keeps_its_order() {
        let queue = Queue::new(10);
        for text in ["abcd", "efgh"] {
            queue.push(text.into()).unwrap();
        }
        assert_eq!(queue.push("ijk".into()), Err(Full));
        assert_eq!(queue.take(100).unwrap().as_str(), "abcd\nefgh");
        assert!(queue.take(100).is_none());
        queue.push("ijk".into()).unwrap();
        queue.push("lmn".into()).unwrap();
        assert_eq!(queue.take(3).unwrap().as_str(), "ijk");
    }
}
