//! Refuses calls of a service that fails (Nygard, Release It!, 2007): closed, open for a while,
//! then one call at a time to try.

use crate::config::BreakerConfig;
use std::time::Duration;

/// Parts of the window that are forgotten at once.
const SLOTS: usize = 10;

/// The breaker of one service.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    phase: Phase,
    window: Window,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Duration,
    },
    /// Whether a call is trying, and how many have succeeded.
    Probing {
        trying: bool,
        succeeded: u32,
    },
}

/// A call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Normal,
    Probe,
}

impl Breaker {
    /// Lets a call through, or says how long to wait.
    pub(crate) fn enter(
        &mut self,
        now: Duration,
        config: &BreakerConfig,
    ) -> Result<Passage, Duration> {
        match &mut self.phase {
            Phase::Closed => Ok(Passage::Normal),
            Phase::Open { until } if now < *until => Err(*until - now),
            Phase::Open { .. } => {
                self.phase = Phase::Probing { trying: true, succeeded: 0 };
                Ok(Passage::Probe)
            }
            Phase::Probing { trying: true, .. } => Err(config.open),
            Phase::Probing { trying, .. } => {
                *trying = true;
                Ok(Passage::Probe)
            }
        }
    }

    /// A call that was let through has ended; `good` is unknown if nobody can tell.
    pub(crate) fn ended(
        &mut self,
        passage: Passage,
        good: Option<bool>,
        now: Duration,
        config: &BreakerConfig,
    ) {
        match (&mut self.phase, passage) {
            (Phase::Closed, _) => {
                let Some(good) = good else { return };
                self.window.note(good, now, config.window);
                if self.window.fails(config) {
                    self.open(now, config);
                }
            }
            (Phase::Probing { trying, succeeded }, Passage::Probe) => match good {
                None => *trying = false,
                Some(false) => self.open(now, config),
                Some(true) if *succeeded + 1 < config.probes => {
                    (*trying, *succeeded) = (false, *succeeded + 1);
                }
                Some(true) => *self = Self::default(),
            },
            // It began before the breaker opened.
            (Phase::Open { .. } | Phase::Probing { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Duration, config: &BreakerConfig) {
        *self = Self { phase: Phase::Open { until: now + config.open }, window: Window::default() };
    }

    /// `closed`, `open` or `probing`.
    pub(crate) fn condition(&self, now: Duration) -> &'static str {
        match self.phase {
            Phase::Closed => "closed",
            Phase::Open { until } if now < until => "open",
            Phase::Open { .. } | Phase::Probing { .. } => "probing",
        }
    }
}

/// Calls and failures of the last while.
#[derive(Debug, Default)]
struct Window {
    slots: [(u32, u32); SLOTS],
    /// Which slot of time the newest is.
    newest: u128,
}

impl Window {
    fn note(&mut self, good: bool, now: Duration, window: Duration) {
        let slot = now.as_nanos() * SLOTS as u128 / window.as_nanos().max(1);
        for passed in 0..slot.saturating_sub(self.newest).min(SLOTS as u128) {
            self.slots[((slot - passed) % SLOTS as u128) as usize] = (0, 0);
        }
        self.newest = self.newest.max(slot);
        let (calls, failures) = &mut self.slots[(self.newest % SLOTS as u128) as usize];
        *calls = calls.saturating_add(1);
        *failures = failures.saturating_add(u32::from(!good));
    }

    fn fails(&self, config: &BreakerConfig) -> bool {
        let sum =
            |of: fn(&(u32, u32)) -> u32| self.slots.iter().map(|slot| u64::from(of(slot))).sum();
        let (calls, failures): (u64, u64) = (sum(|slot| slot.0), sum(|slot| slot.1));
        calls >= u64::from(config.calls_min)
            && failures * 100 >= calls * u64::from(config.failures_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        failures_percent: 50,
        calls_min: 4,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        probes: 2,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn call(breaker: &mut Breaker, good: bool, now: Duration) -> bool {
        let Ok(passage) = breaker.enter(now, &CONFIG) else { return false };
        breaker.ended(passage, Some(good), now, &CONFIG);
        true
    }

    #[test]
    fn it_opens_when_half_fail_and_closes_when_the_tries_succeed() {
        let mut breaker = Breaker::default();
        for good in [true, true, false] {
            assert!(call(&mut breaker, good, at(0)));
        }
        assert_eq!(breaker.condition(at(0)), "closed", "too few calls to tell");
        assert!(call(&mut breaker, false, at(100)));
        assert_eq!(breaker.enter(at(1_100), &CONFIG), Err(at(4_000)));
        assert_eq!(breaker.enter(at(5_100), &CONFIG), Ok(Passage::Probe));
        assert_eq!(breaker.enter(at(5_100), &CONFIG), Err(CONFIG.open), "one at a time");
        // The client of the try left; another may.
        breaker.ended(Passage::Probe, None, at(5_200), &CONFIG);
        assert!(call(&mut breaker, true, at(5_200)));
        assert_eq!(breaker.condition(at(5_200)), "probing");
        assert!(call(&mut breaker, false, at(5_300)));
        assert_eq!(breaker.condition(at(5_400)), "open");
        for _ in 0..2 {
            assert!(call(&mut breaker, true, at(10_400)));
        }
        assert_eq!(breaker.condition(at(10_400)), "closed");
        for good in [false, true, true] {
            assert!(call(&mut breaker, good, at(10_400)), "the past is forgotten");
        }
    }

    #[test]
    fn failures_leave_the_window() {
        let mut breaker = Breaker::default();
        for now in [0, 4_000, 9_000, 10_500, 14_500, 20_000, 60_000, 60_000, 60_000] {
            assert!(call(&mut breaker, false, at(now)), "{now}");
        }
        assert!(call(&mut breaker, false, at(60_900)));
        assert!(!call(&mut breaker, false, at(60_900)));
    }

    #[test]
    fn calls_that_began_before_it_opened_change_nothing() {
        let mut breaker = Breaker::default();
        let early = breaker.enter(at(0), &CONFIG).unwrap();
        for _ in 0..4 {
            call(&mut breaker, false, at(0));
        }
        breaker.ended(early, Some(true), at(6_000), &CONFIG);
        assert_eq!(breaker.enter(at(6_000), &CONFIG), Ok(Passage::Probe));
        breaker.ended(early, Some(false), at(6_000), &CONFIG);
        assert_eq!(breaker.condition(at(6_000)), "probing");
    }
}
