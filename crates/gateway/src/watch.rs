//! What a connection, its guard and its core tell one another.
//!
//! Deadlines are checked by the core's sweeper, some times in each of them, instead of by
//! timers: a connection sets a number, and is woken if it has passed.

use futures_util::task::AtomicWaker;
use http1::Refusal;
use parking_lot::Mutex;
use slab::Slab;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

/// The time as the sweeper last saw it, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoarseClock(Arc<AtomicU64>);

impl CoarseClock {
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, elapsed: Duration) {
        // Never zero, which says that there is no deadline.
        self.0.store(millis(elapsed) + 1, Relaxed);
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

/// The shared state of one connection.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) clock: CoarseClock,
    read: Deadline,
    write: Deadline,
    /// For the head of a service's answer.
    answer: Deadline,
    /// Requests that were not answered to the end.
    in_flight: AtomicU32,
    /// Why the body that is being read is not taken.
    refusal: Mutex<Option<Refusal>>,
    /// Since when the client of an HTTP/2 stream owes us room for the answer.
    owed: Mutex<Slab<u64>>,
    write_timeout_ms: u64,
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    pub(crate) fn new(clock: CoarseClock, write_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            clock,
            read: Deadline::default(),
            write: Deadline::default(),
            answer: Deadline::default(),
            in_flight: AtomicU32::new(0),
            refusal: Mutex::new(None),
            owed: Mutex::default(),
            write_timeout_ms: millis(write_timeout),
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    pub(crate) fn read(&self) -> &Deadline {
        &self.read
    }

    pub(crate) fn write(&self) -> &Deadline {
        &self.write
    }

    pub(crate) fn answer(&self) -> &Deadline {
        &self.answer
    }

    /// The connection's task, to be woken when a deadline passes.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Whether the socket is what a write waits for, which it may for `timeout` at a time.
    pub(crate) fn waits_to_write(&self, waits: bool, timeout: Duration) {
        if !waits {
            self.write.clear();
        } else if !self.write.is_set() {
            self.write.set(self.clock.now_ms().saturating_add(millis(timeout)));
        }
    }

    /// Marks deadlines that have passed.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let passed = [&self.read, &self.write, &self.answer].map(|deadline| deadline.pass(now_ms));
        if passed.contains(&true) {
            self.wake();
        }
        let oldest = self.owed.lock().iter().map(|(_, since)| *since).min();
        if oldest.is_some_and(|since| since < now_ms.saturating_sub(self.write_timeout_ms)) {
            self.cut();
        }
    }

    /// Watches the answer of one HTTP/2 stream, which has its own flow control.
    pub(crate) fn owe(self: &Arc<Self>) -> Owed {
        let key = self.owed.lock().insert(self.clock.now_ms());
        Owed { watch: Arc::clone(self), key }
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// The connection's core alone writes the number, so it need not be locked.
    pub(crate) fn request_began(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed) - 1, Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) != 0
    }

    /// The body that is being read was refused.
    pub(crate) fn refuse_body(&self, refusal: Refusal) {
        *self.refusal.lock() = Some(refusal);
    }

    /// Why the body that is being read is not taken.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        *self.refusal.lock()
    }
}

/// An answer whose client has to make room for it; too long, and its connection is cut.
#[derive(Debug)]
pub(crate) struct Owed {
    watch: Arc<Watch>,
    key: usize,
}

impl Owed {
    /// Bytes are there, so it is the client's turn; or it is ours.
    pub(crate) fn set(&self, by_client: bool) {
        let since = if by_client { self.watch.clock.now_ms() } else { u64::MAX };
        if let Some(owed) = self.watch.owed.lock().get_mut(self.key) {
            *owed = since;
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.watch.owed.lock().remove(self.key);
    }
}

/// A moment after which something is given up.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    /// Zero if there is none.
    at_ms: AtomicU64,
    passed: AtomicBool,
}

impl Deadline {
    pub(crate) fn set(&self, at_ms: u64) {
        self.at_ms.store(at_ms, Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.at_ms.load(Relaxed) != 0
    }

    pub(crate) fn clear(&self) {
        if self.is_set() {
            self.at_ms.store(0, Relaxed);
        }
    }

    /// Whether it has passed; says so once.
    pub(crate) fn take_passed(&self) -> bool {
        self.passed.load(Relaxed) && self.passed.swap(false, Relaxed)
    }

    fn pass(&self, now_ms: u64) -> bool {
        let at = self.at_ms.load(Relaxed);
        if at == 0 || now_ms < at {
            return false;
        }
        self.at_ms.store(0, Relaxed);
        self.passed.store(true, Relaxed);
        true
    }
}
