//! The generic cell rate algorithm (ITU-T I.371), in its virtual scheduling form: a bucket is
//! one number, the theoretical arrival time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A rate with its burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rate {
    /// Nanoseconds that one request costs.
    pub(super) interval: u64,
    /// Requests that a rested bucket takes at once.
    pub(super) burst: u64,
}

/// The state of a bucket after a charge, or at a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Requests that could follow at once.
    pub(super) remaining: u64,
    /// Until the bucket is full again.
    pub(super) reset: Duration,
    /// Until the refused request would be taken; zero if it was.
    pub(super) retry_after: Duration,
}

/// The theoretical arrival time, in nanoseconds since the node's clock was made.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    pub(super) fn take(&self, rate: Rate, now: Duration, cost: u32) -> Result<Taken, Taken> {
        let now = nanos(now);
        let price = rate.interval.saturating_mul(u64::from(cost));
        let depth = rate.interval.saturating_mul(rate.burst);
        let mut arrival = self.0.load(Ordering::Relaxed);
        loop {
            let due = arrival.max(now).saturating_add(price);
            let debt = due - now;
            if debt > depth {
                let owed = arrival.saturating_sub(now);
                return Err(Taken {
                    remaining: depth.saturating_sub(owed) / rate.interval,
                    reset: Duration::from_nanos(owed),
                    retry_after: Duration::from_nanos(debt - depth),
                });
            }
            match self.0.compare_exchange_weak(arrival, due, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    return Ok(Taken {
                        remaining: (depth - debt) / rate.interval,
                        reset: Duration::from_nanos(debt),
                        retry_after: Duration::ZERO,
                    });
                }
                Err(changed) => arrival = changed,
            }
        }
    }

    /// Undoes a charge of this moment.
    pub(super) fn give_back(&self, rate: Rate, cost: u32) {
        let price = rate.interval.saturating_mul(u64::from(cost));
        let give = |arrival: u64| Some(arrival.saturating_sub(price));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
    }

    /// Whether the bucket is full again, so that forgetting it loses nothing.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.0.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
