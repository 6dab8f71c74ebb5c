//! What a connection and its core tell one another. Neither leaves its thread.
//!
//! Deadlines are checked by the core's sweeper, some times in each of them, instead of by
//! timers: a connection sets a number, and is woken if it has passed.

use crate::connection::Patience;
use http1::Refusal;
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::Duration,
};

/// The time as the sweeper last saw it, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoarseClock(Rc<Cell<u64>>);

impl CoarseClock {
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn set(&self, elapsed: Duration) {
        // Never zero, which says that there is no deadline.
        self.0.set(millis(elapsed) + 1);
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
    in_flight: Cell<u32>,
    /// Why the body that is being read is not taken.
    refusal: Cell<Option<Refusal>>,
    /// Since when the client of an HTTP/2 stream owes us room for the answer.
    owed: RefCell<Slab<u64>>,
    write_timeout_ms: u64,
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    pub(crate) fn new(clock: CoarseClock, write_timeout: Duration) -> Rc<Self> {
        Rc::new(Self {
            clock,
            read: Deadline::default(),
            write: Deadline::default(),
            answer: Deadline::default(),
            in_flight: Cell::new(0),
            refusal: Cell::new(None),
            owed: RefCell::default(),
            write_timeout_ms: millis(write_timeout),
            cut: Cell::new(false),
            waker: RefCell::new(None),
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
        let held = &mut *self.waker.borrow_mut();
        match held {
            Some(held) => held.clone_from(waker),
            None => *held = Some(waker.clone()),
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The client took some bytes; then whether the socket is what a write still waits for. It may
    /// do so for `patience.write`, and each byte taken earns a little more of that.
    pub(crate) fn wrote(&self, bytes: u64, waits: bool, patience: &Patience) {
        if !waits {
            return self.write.clear();
        }
        let whole = self.clock.now_ms().saturating_add(millis(patience.write));
        let at = match self.write.at() {
            None => whole,
            Some(at) => earned(at, bytes, patience.write_rate_min).min(whole),
        };
        self.write.set(at);
    }

    /// Marks deadlines that have passed.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let passed = [&self.read, &self.write, &self.answer].map(|deadline| deadline.pass(now_ms));
        if passed.contains(&true) {
            self.wake();
        }
        let oldest = self.owed.borrow().iter().map(|(_, since)| *since).min();
        if oldest.is_some_and(|since| since < now_ms.saturating_sub(self.write_timeout_ms)) {
            self.cut();
        }
    }

    /// Watches the answer of one HTTP/2 stream, which has its own flow control.
    pub(crate) fn owe(self: &Rc<Self>) -> Owed {
        let key = self.owed.borrow_mut().insert(self.clock.now_ms());
        Owed { watch: Rc::clone(self), key }
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    pub(crate) fn request_began(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(crate) fn request_ended(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.get() != 0
    }

    /// The body that is being read was refused.
    pub(crate) fn refuse_body(&self, refusal: Refusal) {
        self.refusal.set(Some(refusal));
    }

    /// Why the body that is being read is not taken.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get()
    }
}

/// A deadline once `bytes` were taken, each of which earns a second divided by `rate`.
fn earned(at_ms: u64, bytes: u64, rate: u64) -> u64 {
    at_ms.saturating_add(bytes.saturating_mul(1000) / rate.max(1))
}

/// An answer whose client has to make room for it; too long, and its connection is cut.
#[derive(Debug)]
pub(crate) struct Owed {
    watch: Rc<Watch>,
    key: usize,
}

impl Owed {
    /// Bytes are there, so it is the client's turn; or it is ours.
    pub(crate) fn set(&self, by_client: bool) {
        let since = if by_client { self.watch.clock.now_ms() } else { u64::MAX };
        if let Some(owed) = self.watch.owed.borrow_mut().get_mut(self.key) {
            *owed = since;
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.watch.owed.borrow_mut().remove(self.key);
    }
}

/// A moment after which something is given up.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    /// Zero if there is none.
    at_ms: Cell<u64>,
    passed: Cell<bool>,
}

impl Deadline {
    pub(crate) fn set(&self, at_ms: u64) {
        self.at_ms.set(at_ms);
    }

    /// When it passes, if there is one.
    pub(crate) fn at(&self) -> Option<u64> {
        Some(self.at_ms.get()).filter(|at| *at != 0)
    }

    pub(crate) fn clear(&self) {
        self.at_ms.set(0);
    }

    /// Whether it has passed; says so once.
    pub(crate) fn take_passed(&self) -> bool {
        self.passed.replace(false)
    }

    fn pass(&self, now_ms: u64) -> bool {
        let at = self.at_ms.get();
        if at == 0 || now_ms < at {
            return false;
        }
        self.at_ms.set(0);
        self.passed.set(true);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_little_earns_little() {
        let clock = CoarseClock::default();
        let watch = Watch::new(clock.clone(), Duration::from_secs(10));
        let second = Duration::from_secs(1);
        let patience = Patience {
            header: second,
            body: second,
            body_rate_min: 1,
            idle: second,
            write: second * 10,
            write_rate_min: 1024,
        };
        let cut_after = |bytes: u64| {
            watch.write().clear();
            watch.write().take_passed();
            let mut seconds = 0;
            clock.set(Duration::ZERO);
            watch.wrote(0, true, &patience);
            while !watch.write().take_passed() && seconds < 1000 {
                seconds += 1;
                clock.set(second * seconds);
                watch.sweep(clock.now_ms());
                watch.wrote(bytes, true, &patience);
            }
            seconds
        };
        assert_eq!(cut_after(0), 10);
        assert_eq!(cut_after(8), 11);
        assert_eq!(cut_after(512), 19);
        assert_eq!(cut_after(1100), 1000, "it may be as slow as the least rate");
        // What it has taken quickly earns it no more than its whole time.
        watch.write().clear();
        clock.set(Duration::ZERO);
        watch.wrote(0, true, &patience);
        watch.wrote(1 << 40, true, &patience);
        assert_eq!(watch.write().at(), Some(clock.now_ms() + 10_000));
        watch.wrote(0, false, &patience);
        assert_eq!(watch.write().at(), None);
    }
}
