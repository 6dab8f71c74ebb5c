//! Turns of the connections of a core: who takes long waits longer.
//!
//! A few bytes of HTTP/2 may cost much (a block of header fields that means the same entry of the
//! table thousands of times), so connections share their core by time and not by bytes: deficit
//! round robin (Shreedhar and Varghese, 1995). Where nobody else has anything to do, a turn that
//! is passed takes no time.

use clock::SharedClock;
use std::{
    cell::Cell,
    task::{Context, Poll},
    time::Duration,
};

/// What a connection may use of its core before the others have their turn.
const TURN: Duration = Duration::from_micros(100);

/// A turn that took longer than this is forgiven the rest: a core that was itself kept waiting
/// is no fault of the connection.
const DEBT_MAX: Duration = Duration::from_millis(5);

/// What a connection has used.
pub(super) struct Turn {
    clock: SharedClock,
    began: Cell<Option<Duration>>,
    debt: Cell<Duration>,
}

impl Turn {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, began: Cell::default(), debt: Cell::default() }
    }

    /// Polls within a turn, unless this one has to be passed.
    pub(super) fn take<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.passes() {
            return later(cx);
        }
        let began = self.clock.elapsed();
        self.began.set(Some(began));
        let polled = poll(cx);
        self.began.set(None);
        self.used(self.clock.elapsed().saturating_sub(began));
        polled
    }

    /// Whether the turn that is being taken is over; what was not read waits for the next.
    pub(super) fn is_over(&self) -> bool {
        self.began.get().is_some_and(|began| self.clock.elapsed().saturating_sub(began) >= TURN)
    }

    /// Whether an earlier turn took so long that this one is not taken.
    fn passes(&self) -> bool {
        let debt = self.debt.get();
        let rest = debt.checked_sub(TURN);
        self.debt.set(rest.unwrap_or(debt));
        rest.is_some()
    }

    fn used(&self, time: Duration) {
        self.debt.set((self.debt.get() + time).saturating_sub(TURN).min(DEBT_MAX));
    }
}

/// Comes again once the others that are ready have had their turn, and their sockets were looked
/// at.
pub(super) fn later<T>(cx: &mut Context<'_>) -> Poll<T> {
    let mut later = std::pin::pin!(tokio::task::yield_now());
    let _ = Future::poll(later.as_mut(), cx);
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::{DEBT_MAX, TURN, Turn};

    #[test]
    fn who_took_ten_turns_at_once_passes_nine() {
        let turn = Turn::new(clock::SystemClock::shared());
        assert!(!turn.passes());
        turn.used(TURN * 10);
        let passed = std::iter::from_fn(|| turn.passes().then_some(())).count();
        assert_eq!(passed, 9);
        // Half of a turn is no debt, nor are many of them.
        for _ in 0..100 {
            turn.used(TURN / 2);
            assert!(!turn.passes());
        }
        turn.used(DEBT_MAX * 100);
        let passed = std::iter::from_fn(|| turn.passes().then_some(())).count();
        assert_eq!(passed as u128, DEBT_MAX.as_nanos() / TURN.as_nanos());
    }
}
