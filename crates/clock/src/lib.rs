//! Time and randomness, real or manual.
//!
//! Everything that asks for the time or for random bytes takes a [`Clock`], so that a test
//! can set both. This crate alone may read the machine's clock.

use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use types::Timestamp;

/// The time and a source of random bytes.
pub trait Clock: Send + Sync {
    /// The time of day. It may jump, as the machine's clock may.
    fn now(&self) -> Timestamp;
    /// Time since the clock was made. It never goes back.
    fn elapsed(&self) -> Duration;
    /// Fills `bytes` with random bytes; from [`SystemClock`] they are fit for secrets.
    fn fill_random(&self, bytes: &mut [u8]);
}

/// A clock shared by the parts of a node.
pub type SharedClock = Arc<dyn Clock>;

/// `N` random bytes.
#[must_use]
pub fn random<const N: usize>(clock: &dyn Clock) -> [u8; N] {
    let mut bytes = [0; N];
    clock.fill_random(&mut bytes);
    bytes
}

/// The machine's clock and random source.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A shared system clock.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self { started: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    fn now(&self) -> Timestamp {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// A clock that moves when told to, with reproducible randomness.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug)]
struct ManualState {
    now: Timestamp,
    elapsed: Duration,
    seed: u64,
}

impl ManualClock {
    /// A clock that stands at `now`; its random bytes follow from `seed`.
    #[must_use]
    pub fn new(now: Timestamp, seed: u64) -> Arc<Self> {
        let state = ManualState { now, elapsed: Duration::ZERO, seed };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Lets `duration` pass.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state.lock();
        state.now = state.now.plus(duration);
        state.elapsed += duration;
    }

    /// Sets the time of day, as an operator or NTP would; elapsed time does not change.
    pub fn jump_to(&self, now: Timestamp) {
        self.state.lock().now = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().now
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().elapsed
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): reproducible, and not fit for secrets.
    fn fill_random(&self, bytes: &mut [u8]) {
        let mut state = self.state.lock();
        for chunk in bytes.chunks_mut(8) {
            state.seed = state.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state.seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp(5), 1);
        clock.advance(Duration::from_secs(1));
        clock.jump_to(Timestamp(2));
        assert_eq!((clock.now(), clock.elapsed()), (Timestamp(2), Duration::from_secs(1)));
        assert_ne!(random::<16>(&*clock), random::<16>(&*clock));
    }
}
