//! The store's time: the server's clock.

use clock::SharedClock;
use std::sync::atomic::{AtomicI64, Ordering};
use types::Timestamp;

/// The server tells the time with each answer; what this node has seen never comes back
/// earlier, whatever happens to the server's clock.
pub(crate) struct StoreTime {
    instead: Option<SharedClock>,
    seen: AtomicI64,
}

impl StoreTime {
    pub(crate) fn new(instead: Option<SharedClock>) -> Self {
        Self { instead, seen: AtomicI64::new(0) }
    }

    /// What the statements take as `$1`.
    pub(crate) fn param(&self) -> i64 {
        let seen = self.seen.load(Ordering::Relaxed);
        match &self.instead {
            Some(clock) => crate::number::signed(clock.now().0).max(seen).max(1),
            None => -seen,
        }
    }

    /// The time that an answer tells.
    pub(crate) fn seen(&self, now: i64) -> Timestamp {
        let now = self.seen.fetch_max(now, Ordering::Relaxed).max(now);
        Timestamp(crate::number::unsigned(now))
    }
}
