//! The generic cell rate algorithm (ITU-T I.371), in its virtual scheduling form: a bucket is
//! one number, the theoretical arrival time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The longest that a bucket takes nothing because of what it owes.
pub(super) const DEBT_MAX: Duration = Duration::from_secs(31 * 86_400);

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

impl Taken {
    /// The state of a bucket that is full in `owed` nanoseconds; for one request more.
    fn of(rate: Rate, owed: u64) -> Self {
        let depth = rate.interval.saturating_mul(rate.burst);
        Self {
            remaining: depth.saturating_sub(owed) / rate.interval,
            reset: Duration::from_nanos(owed),
            retry_after: Duration::from_nanos(
                owed.saturating_add(rate.interval).saturating_sub(depth),
            ),
        }
    }
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

    /// Takes as many as there are, up to `want`, and answers how many that is.
    pub(super) fn take_up_to(&self, rate: Rate, now: Duration, want: u64) -> (u64, Taken) {
        let now = nanos(now);
        let depth = rate.interval.saturating_mul(rate.burst);
        let mut arrival = self.0.load(Ordering::Relaxed);
        loop {
            let owed = arrival.saturating_sub(now);
            let room = depth.saturating_sub(owed) / rate.interval;
            let granted = want.min(room);
            let due = arrival.max(now) + granted * rate.interval;
            let debt = due - now;
            let taken = Taken {
                remaining: room - granted,
                reset: Duration::from_nanos(debt),
                retry_after: Duration::from_nanos((owed + rate.interval).saturating_sub(depth)),
            };
            if granted == 0 {
                return (0, taken);
            }
            match self.0.compare_exchange_weak(arrival, due, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return (granted, taken),
                Err(changed) => arrival = changed,
            }
        }
    }

    /// [`Self::take`], or [`Self::look`] for a cost of 0.
    pub(super) fn take_or_look(
        &self,
        rate: Rate,
        now: Duration,
        cost: u32,
    ) -> Result<Taken, Taken> {
        if cost == 0 { self.look(rate, now) } else { self.take(rate, now, cost) }
    }

    /// Whether there is room for one request; takes nothing.
    pub(super) fn look(&self, rate: Rate, now: Duration) -> Result<Taken, Taken> {
        let (now, arrival) = (nanos(now), self.0.load(Ordering::Relaxed));
        let taken = Taken::of(rate, arrival.saturating_sub(now));
        if taken.remaining > 0 { Ok(taken) } else { Err(taken) }
    }

    /// Takes `cost`, whether there is room for it or not. The bucket may then owe: until that
    /// is paid off, at its rate, it takes nothing. A debt is of [`DEBT_MAX`] at most.
    pub(super) fn debit(&self, rate: Rate, now: Duration, cost: u64) -> Taken {
        let now = nanos(now);
        let price = rate.interval.saturating_mul(cost);
        let depth = rate.interval.saturating_mul(rate.burst);
        let most = now.saturating_add(depth).saturating_add(nanos(DEBT_MAX));
        let pay = |arrival: u64| arrival.max(now).saturating_add(price).min(most.max(arrival));
        let owe = |arrival| Some(pay(arrival));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, owe);
        let (Ok(before) | Err(before)) = before;
        Taken { retry_after: Duration::ZERO, ..Taken::of(rate, pay(before) - now) }
    }

    /// Makes the bucket full.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The theoretical arrival time.
    pub(super) fn arrival(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// At least this theoretical arrival time, as a former owner saved it.
    pub(super) fn at_least(&self, arrival: Duration) {
        self.0.fetch_max(nanos(arrival), Ordering::Relaxed);
    }

    /// Undoes a charge of this moment.
    pub(super) fn give_back(&self, rate: Rate, cost: u64) {
        let price = rate.interval.saturating_mul(cost);
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
