//! The judgement: from calls and their answers to a condition.

use crate::Config;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use store::Error;

/// How an engine is, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It answers.
    Well,
    /// It answers late.
    Slow,
    /// It answers reads, and refuses writes.
    ReadOnly,
    /// It does not answer.
    Away,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 4] = [Self::Well, Self::Slow, Self::ReadOnly, Self::Away];

    /// As `/health` and the metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Slow => "slow",
            Self::ReadOnly => "read_only",
            Self::Away => "away",
        }
    }
}

/// What an engine has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// How it is.
    pub condition: Condition,
    /// For how long it has been so.
    pub lasts: Duration,
    /// How long its answers take, smoothed.
    pub latency: Duration,
    /// Calls that wait for an answer.
    pub under_way: usize,
    /// Calls that it answered, be it with a refusal.
    pub answered: u64,
    /// Calls that it did not answer.
    pub unanswered: u64,
    /// Calls that were refused here, with nothing sent.
    pub refused: u64,
}

/// What one call told of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// An answer to a read, or to a commit that was not applied for reasons of its own.
    Something,
    /// A commit was applied.
    Written,
    /// It takes no writes.
    NoWrites,
    Nothing,
}

impl Said {
    pub(crate) fn by<T>(result: &Result<T, Error>, writes: bool) -> Self {
        match result {
            Ok(_) if writes => Self::Written,
            Ok(_) => Self::Something,
            Err(Error::ReadOnly { .. } | Error::Full { .. }) => Self::NoWrites,
            Err(Error::Unavailable { .. }) => Self::Nothing,
            Err(
                Error::Conflict { .. }
                | Error::Fenced { .. }
                | Error::IdReused
                | Error::Lagged { .. }
                | Error::Trimmed { .. }
                | Error::TooLarge { .. }
                | Error::Corrupt { .. },
            ) => Self::Something,
        }
    }
}

/// Judges one engine. Times are those of one clock, which never goes back.
#[derive(Debug)]
pub struct Gauge {
    patience: Option<Duration>,
    slow_after: Duration,
    calls_max: usize,
    /// When the first call began that came after the last answer, in nanoseconds; 0: none.
    waiting_since: AtomicU64,
    /// The last answer, in nanoseconds.
    heard: AtomicU64,
    /// In nanoseconds.
    latency: AtomicU64,
    slow: AtomicBool,
    no_writes: AtomicBool,
    under_way: AtomicUsize,
    answered: AtomicU64,
    unanswered: AtomicU64,
    refused: AtomicU64,
    since: Mutex<(Condition, Duration)>,
}

impl Gauge {
    /// Judges by `config`; what is within the process (`is_shared` false) is never away.
    #[must_use]
    pub fn new(config: &Config, is_shared: bool) -> Self {
        Self {
            patience: is_shared.then_some(config.patience),
            slow_after: config.slow_after,
            calls_max: config.calls_max,
            waiting_since: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            slow: AtomicBool::new(false),
            no_writes: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            since: Mutex::new((Condition::Well, Duration::ZERO)),
        }
    }

    /// How the engine is at `now`.
    #[must_use]
    pub fn condition(&self, now: Duration) -> Condition {
        let waiting_since = self.waiting_since.load(Relaxed);
        let waited = nanos(now).saturating_sub(waiting_since);
        if self.patience.is_some_and(|most| waiting_since != 0 && waited >= nanos(most)) {
            Condition::Away
        } else if self.no_writes.load(Relaxed) {
            Condition::ReadOnly
        } else if self.slow.load(Relaxed) {
            Condition::Slow
        } else {
            Condition::Well
        }
    }

    /// Everything about the engine at `now`.
    #[must_use]
    pub fn report(&self, now: Duration) -> Report {
        self.turned(now);
        let (condition, since) = *self.since.lock();
        Report {
            condition,
            lasts: now.saturating_sub(since),
            latency: Duration::from_nanos(self.latency.load(Relaxed)),
            under_way: self.under_way.load(Relaxed),
            answered: self.answered.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    /// What it was before, if it is something else now.
    pub(crate) fn turned(&self, now: Duration) -> Option<(Condition, Condition)> {
        let is = self.condition(now);
        let mut since = self.since.lock();
        let was = since.0;
        if was == is {
            return None;
        }
        *since = (is, now);
        Some((was, is))
    }

    /// Whether nothing was heard for so long that it is better asked.
    pub(crate) fn is_quiet(&self, now: Duration, most: Duration) -> bool {
        nanos(now).saturating_sub(self.heard.load(Relaxed)) >= nanos(most)
    }

    /// A call is about to begin. Probes are never refused.
    pub(crate) fn begin(&self, now: Duration, is_probe: bool) -> Result<Call<'_>, Error> {
        if !is_probe {
            if self.condition(now) == Condition::Away {
                return Err(self.refuse("it has not answered lately, and nothing was sent"));
            }
            if self.under_way.load(Relaxed) >= self.calls_max {
                return Err(self.refuse("too many calls wait for it, and nothing was sent"));
            }
        }
        let begun = nanos(now).max(1);
        // Only the first one after an answer is remembered.
        let _ = self.waiting_since.compare_exchange(0, begun, Relaxed, Relaxed);
        self.under_way.fetch_add(1, Relaxed);
        Ok(Call { gauge: self, begun })
    }

    fn refuse(&self, why: &'static str) -> Error {
        self.refused.fetch_add(1, Relaxed);
        Error::unavailable(why)
    }
}

/// A call under way, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    gauge: &'a Gauge,
    begun: u64,
}

impl Call<'_> {
    /// The call has ended.
    pub(crate) fn end(self, now: Duration, said: Said) {
        let gauge = self.gauge;
        match said {
            Said::Nothing => {
                gauge.unanswered.fetch_add(1, Relaxed);
                return;
            }
            Said::Something => {}
            Said::Written => gauge.no_writes.store(false, Relaxed),
            Said::NoWrites => gauge.no_writes.store(true, Relaxed),
        }
        gauge.answered.fetch_add(1, Relaxed);
        gauge.heard.store(nanos(now), Relaxed);
        gauge.waiting_since.store(0, Relaxed);
        let took = nanos(now).saturating_sub(self.begun);
        // A smoothed mean over about 16 answers; what is lost in a race is one sample.
        let mean = gauge.latency.load(Relaxed);
        let mean = mean - mean / 16 + took / 16;
        gauge.latency.store(mean, Relaxed);
        let slow_after = nanos(gauge.slow_after);
        if mean >= slow_after {
            gauge.slow.store(true, Relaxed);
        } else if mean < slow_after / 2 {
            gauge.slow.store(false, Relaxed);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.gauge.under_way.fetch_sub(1, Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn gauge() -> Gauge {
        Gauge::new(&Config { calls_max: 2, ..Config::default() }, true)
    }

    fn call(gauge: &Gauge, at: u64, took: u64, said: Said) {
        gauge.begin(MS(at), false).unwrap().end(MS(at + took), said);
    }

    #[test]
    fn what_does_not_answer_is_away_until_a_probe_is_answered() {
        let gauge = gauge();
        call(&gauge, 1_000, 1, Said::Something);
        // Nobody asks: silence alone says nothing.
        assert_eq!(gauge.condition(MS(60_000)), Condition::Well);
        call(&gauge, 60_000, 5, Said::Nothing);
        call(&gauge, 61_900, 5, Said::Nothing);
        assert_eq!(gauge.condition(MS(61_999)), Condition::Well);
        assert_eq!(gauge.condition(MS(62_000)), Condition::Away);
        let refused = gauge.begin(MS(62_000), false).unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
        gauge.begin(MS(62_000), true).unwrap().end(MS(62_001), Said::Nothing);
        assert_eq!(gauge.condition(MS(62_001)), Condition::Away);
        gauge.begin(MS(63_000), true).unwrap().end(MS(63_001), Said::Something);
        assert_eq!(gauge.condition(MS(63_001)), Condition::Well);
        let told = gauge.report(MS(63_002));
        assert_eq!((told.answered, told.unanswered, told.refused), (2, 3, 1));
    }

    #[test]
    fn a_call_that_hangs_counts_from_its_beginning() {
        let gauge = gauge();
        let hanging = gauge.begin(MS(1_000), false).unwrap();
        assert_eq!(gauge.condition(MS(3_000)), Condition::Away);
        hanging.end(MS(3_500), Said::Something);
        assert_eq!(gauge.condition(MS(3_500)), Condition::Well);
    }

    #[test]
    fn what_is_within_the_process_is_waited_for() {
        let gauge = Gauge::new(&Config::default(), false);
        let hanging = gauge.begin(MS(1_000), false).unwrap();
        assert_eq!(gauge.condition(MS(60_000)), Condition::Well);
        drop(hanging);
    }

    #[test]
    fn so_many_calls_may_wait() {
        let gauge = gauge();
        let held = [gauge.begin(MS(1), false).unwrap(), gauge.begin(MS(1), false).unwrap()];
        assert!(gauge.begin(MS(2), false).is_err());
        assert!(gauge.begin(MS(2), true).is_ok());
        drop(held);
        assert!(gauge.begin(MS(3), false).is_ok());
        assert_eq!(gauge.report(MS(3)).under_way, 0);
    }

    #[test]
    fn it_is_read_only_until_a_commit_is_taken() {
        let gauge = gauge();
        call(&gauge, 1, 1, Said::NoWrites);
        call(&gauge, 3, 1, Said::Something);
        assert_eq!(gauge.condition(MS(5)), Condition::ReadOnly);
        call(&gauge, 5, 1, Said::Written);
        assert_eq!(gauge.condition(MS(7)), Condition::Well);
    }

    #[test]
    fn it_is_slow_until_it_is_fast_again() {
        let gauge = gauge();
        for n in 0..100 {
            call(&gauge, n * 1_000, 400, Said::Something);
        }
        assert_eq!(gauge.condition(MS(100_000)), Condition::Slow);
        assert!(gauge.report(MS(100_000)).latency > MS(300));
        for n in 100..110 {
            call(&gauge, n * 1_000, 1, Said::Something);
        }
        assert_eq!(gauge.condition(MS(110_000)), Condition::Slow, "still above the half");
        for n in 110..130 {
            call(&gauge, n * 1_000, 1, Said::Something);
        }
        assert_eq!(gauge.condition(MS(130_000)), Condition::Well);
    }

    #[test]
    fn turns_are_told_once_with_their_time() {
        let gauge = gauge();
        call(&gauge, 10, 1, Said::NoWrites);
        let turn = Some((Condition::Well, Condition::ReadOnly));
        assert_eq!((gauge.turned(MS(20)), gauge.turned(MS(21))), (turn, None));
        assert_eq!(gauge.report(MS(50)).lasts, MS(30));
    }
}
