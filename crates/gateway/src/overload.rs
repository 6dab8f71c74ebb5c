//! Whether a core has more work than it can do, and which requests it refuses then.
//!
//! What is known of a core is how late a timer of its own is served, its lag, for that is as late
//! as whatever else is ready then. As in `CoDel` (RFC 8289), it is the least lag over a while that
//! counts: a queue that is short now and then is a burst, and one that never is will not go away
//! by itself. As in DAGOR (Zhou et al. 2018), there is a level below which requests are refused,
//! which rises while the lag stays and falls when it is gone.

use soa::Priority;
use std::time::Duration;

/// The lag is too long for so long before anything is refused, and before more is.
const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(100);
/// While something is refused, this part of what is allowed else is too long.
const TARGET: f64 = 0.1;
/// How fast the level moves, in priorities a second.
const RISE: f64 = 2.0;
const FALL: f64 = 1.0;
/// One look says no more than this of the time since the last.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// A queue that is shorter by this each time that it has passed is left to shrink.
const SHRINKS: f64 = 0.8;
/// Of what comes, this part is served in any case: who only refuses does nothing.
const SERVED_MIN: f64 = 0.1;
/// How far back requests are counted for that.
const COUNTED: Duration = Duration::from_secs(1);
/// Between two timers, at rest and while there is some lag.
const AT_REST: Duration = Duration::from_millis(100);
const AT_WORK: Duration = Duration::from_millis(10);

/// How a core copes with its work.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    /// 1.5 refuses every request of low priority, and half of those of normal priority.
    level: f64,
    /// Since when the lag is too long.
    standing: Option<Duration>,
    /// How late the last timer was served.
    lag: Duration,
    looked: Duration,
    /// Requests of late, and those of them that were served.
    came: f64,
    served: f64,
}

/// Requests since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    pub(crate) served: u32,
    pub(crate) refused: u32,
}

impl Overload {
    /// A timer is served `lag` after it was due. Says how long the next one takes. `lag_max`: what
    /// the lag may be for as long as it likes; zero for whatever it is.
    pub(crate) fn served(
        &mut self,
        now: Duration,
        lag: Duration,
        passed: Passed,
        lag_max: Duration,
    ) -> Duration {
        if lag_max.is_zero() {
            *self = Self { looked: now, ..Self::default() };
            return AT_REST;
        }
        let since = self.since_last(now, passed);
        if lag > self.bound(lag_max) && self.is_queue(lag) {
            self.stands(now, lag, since);
        } else {
            self.standing = None;
            self.fall(since);
        }
        self.lag = lag;
        if self.level > 0.0 || lag > lag_max.mul_f64(TARGET) { AT_WORK } else { AT_REST }
    }

    /// A timer is not served yet, and was due [`Self::bound`] ago or earlier. Says when to look
    /// again, unless it is served before.
    pub(crate) fn waits(&mut self, now: Duration, lag: Duration, passed: Passed) -> Duration {
        let since = self.since_last(now, passed);
        if self.is_queue(lag) {
            self.stands(now, lag, since);
        }
        now + AT_WORK
    }

    /// Which lag is too long.
    pub(crate) fn bound(&self, lag_max: Duration) -> Duration {
        if lag_max.is_zero() {
            Duration::MAX
        } else if self.level > 0.0 {
            lag_max.mul_f64(TARGET)
        } else {
            lag_max
        }
    }

    /// The level in thousandths, as [`refuses`] takes it.
    pub(crate) fn per_mille(&self) -> u32 {
        (self.level * 1e3).ceil() as u32
    }

    fn since_last(&mut self, now: Duration, passed: Passed) -> f64 {
        let since = now.saturating_sub(self.looked).min(LOOK_MAX).as_secs_f64();
        self.looked = now;
        let kept = 1.0 - since / COUNTED.as_secs_f64();
        let (served, refused) = (f64::from(passed.served), f64::from(passed.refused));
        self.came = self.came * kept + served + refused;
        self.served = self.served * kept + served;
        since
    }

    /// Whether requests wait: those that come within the lag (Little 1961). If none does, it is
    /// the machine that is late, and refusals would not help.
    fn is_queue(&self, lag: Duration) -> bool {
        lag.as_secs_f64() * self.came / COUNTED.as_secs_f64() >= 1.0
    }

    fn stands(&mut self, now: Duration, lag: Duration, since: f64) {
        let patience = if self.level > 0.0 { INTERVAL } else { PATIENCE };
        let standing = now.saturating_sub(*self.standing.get_or_insert(now)) >= patience;
        let shrinks = lag < self.lag.mul_f64(SHRINKS);
        if self.served < self.came * SERVED_MIN {
            self.fall(since);
        } else if standing && !shrinks {
            self.level += RISE * since;
        }
    }

    fn fall(&mut self, since: f64) {
        self.level = (self.level - FALL * since).max(0.0);
    }
}

/// Whether a request is refused at this level; `random`: for priorities of which a part is.
pub(crate) fn refuses(per_mille: u32, priority: Priority, random: u64) -> bool {
    let below = match priority {
        Priority::Low => 0,
        Priority::Normal => 1_000,
        Priority::High => 2_000,
        Priority::Urgent => 3_000,
    };
    random % 1_000 < u64::from(per_mille.saturating_sub(below))
}

#[cfg(test)]
mod tests;
