//! The store's time: it never goes back, neither while running nor over a restart.

use clock::SharedClock;
use types::Timestamp;

/// Starts at the wall clock, or at the last time known to the folder if that is later, and
/// goes on with the clock's elapsed time: a jump of the wall clock while running neither
/// expires nor resurrects anything.
#[derive(Clone)]
pub(crate) struct StoreTime {
    clock: SharedClock,
    start: Timestamp,
    start_elapsed: std::time::Duration,
}

impl StoreTime {
    pub(crate) fn start(clock: SharedClock, last: Timestamp) -> Self {
        let (start, start_elapsed) = (clock.now().max(last), clock.elapsed());
        Self { clock, start, start_elapsed }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.start.plus(self.clock.elapsed().saturating_sub(self.start_elapsed))
    }

    pub(crate) fn clock(&self) -> &dyn clock::Clock {
        &*self.clock
    }
}
