//! How many calls a service is given at once: as many as it can work on without a queue.
//!
//! The bound follows the latency, as in Netflix's and Envoy's gradient controllers. What the
//! service needs when nothing waits, the floor, is measured now and then at half the bound,
//! since under load every latency has a queue in it.

use crate::config::{ConcurrencyConfig, Priority};
use std::time::Duration;

/// The bound is looked at this often, if there were enough answers.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES_MIN: usize = 10;
const SAMPLES_MAX: usize = 64;
/// How long a floor is believed.
const FLOOR_FOR: Duration = Duration::from_secs(30);
/// A latency of twice the floor and this is no sign of a queue.
const SLACK: Duration = Duration::from_millis(1);
/// Answers that come in less than this part of the time were waiting before.
const FASTER: f64 = 0.8;
const START: f64 = 20.0;

/// The calls in flight to a service, and their bound.
#[derive(Debug)]
pub(crate) struct Concurrency {
    in_flight: usize,
    limit: f64,
    floor: Option<Floor>,
    window: Window,
}

#[derive(Debug, Clone, Copy)]
struct Floor {
    latency: Duration,
    since: Duration,
    measuring: Option<Measuring>,
}

/// A floor being measured anew: the bound is halved for as long as that makes answers faster.
#[derive(Debug, Clone, Copy)]
struct Measuring {
    /// The latency at twice the bound.
    before: Duration,
    /// What was in flight when the bound was halved has been answered.
    settled: bool,
}

#[derive(Debug, Default)]
struct Window {
    began: Duration,
    latencies: Vec<Duration>,
    count: usize,
    peak: usize,
}

impl Concurrency {
    pub(crate) fn new(config: &ConcurrencyConfig) -> Self {
        let limit = if config.adaptive { START } else { config.max as f64 };
        let limit = limit.clamp(config.min as f64, config.max as f64);
        Self { in_flight: 0, limit, floor: None, window: Window::default() }
    }

    /// Takes a place, if one is left for this priority.
    pub(crate) fn enter(&mut self, priority: Priority) -> bool {
        let may = self.in_flight < room(self.limit, priority);
        if may {
            self.in_flight += 1;
            self.window.peak = self.window.peak.max(self.in_flight);
        }
        may
    }

    /// Gives a place back. `waited`: for how long the answer was waited for, if that says
    /// something about the service.
    pub(crate) fn left(
        &mut self,
        waited: Option<Duration>,
        now: Duration,
        config: &ConcurrencyConfig,
    ) {
        self.in_flight -= 1;
        let Some(waited) = waited.filter(|_| config.adaptive) else { return };
        self.window.note(waited);
        if now.saturating_sub(self.window.began) < WINDOW || self.window.count < SAMPLES_MIN {
            return;
        }
        let window = std::mem::take(&mut self.window);
        self.window.began = now;
        self.window.peak = self.in_flight;
        let busy = window.peak as f64 * 2.0 >= self.limit;
        let limit = self.next(window.median(), busy, now);
        let measuring = self.floor.is_some_and(|floor| floor.measuring.is_some());
        let min = if measuring { 1 } else { config.min };
        self.limit = limit.clamp(min as f64, config.max as f64);
    }

    fn next(&mut self, median: Duration, busy: bool, now: Duration) -> f64 {
        let Some(floor) = &mut self.floor else {
            let measuring = busy.then_some(Measuring { before: median, settled: false });
            self.floor = Some(Floor { latency: median, since: now, measuring });
            return if busy { self.limit / 2.0 } else { self.limit };
        };
        if let Some(measuring) = &mut floor.measuring {
            if !measuring.settled {
                measuring.settled = true;
                return self.limit;
            }
            if median < measuring.before.mul_f64(FASTER) && self.limit > 1.0 {
                *measuring = Measuring { before: median, settled: false };
                return self.limit / 2.0;
            }
            *floor = Floor { latency: median, since: now, measuring: None };
            return self.limit * 2.0;
        }
        let expired = now.saturating_sub(floor.since) >= FLOOR_FOR;
        // Nothing waits where there is room.
        if median <= floor.latency || (expired && !busy) {
            *floor = Floor { latency: median, since: now, measuring: None };
        } else if expired {
            floor.measuring = Some(Measuring { before: median, settled: false });
            return self.limit / 2.0;
        }
        let fine = floor.latency * 2 + SLACK;
        let gradient = fine.as_secs_f64() / median.as_secs_f64().max(1e-9);
        let next = self.limit * gradient.clamp(0.5, 1.0) + self.limit.sqrt();
        // A bound that nobody meets is not known to be too low.
        if next > self.limit && !busy { self.limit } else { next }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// How many places of `limit` a priority may take.
fn room(limit: f64, priority: Priority) -> usize {
    let part = match priority {
        Priority::Low => 0.5,
        Priority::Normal => 0.8,
        Priority::High => 0.9,
        Priority::Urgent => 1.0,
    };
    (limit * part).ceil() as usize
}

impl Window {
    fn note(&mut self, latency: Duration) {
        let place = self.count % SAMPLES_MAX;
        match self.latencies.get_mut(place) {
            Some(held) => *held = latency,
            None => self.latencies.push(latency),
        }
        self.count += 1;
    }

    fn median(mut self) -> Duration {
        let middle = self.latencies.len() / 2;
        *self.latencies.select_nth_unstable(middle).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service with `workers`, each of which needs `work` for a call, and callers who always
    /// want more: in virtual time, with the median of its latencies and the bound at the end.
    fn overloaded(
        concurrency: &mut Concurrency,
        config: &ConcurrencyConfig,
        workers: usize,
        work: Duration,
        from: Duration,
        until: Duration,
    ) -> (f64, Duration) {
        let mut free = vec![from; workers];
        let mut calls = std::collections::BinaryHeap::new();
        let (mut now, mut done, mut latencies) = (from, 0_u32, Vec::new());
        while now < until {
            while concurrency.enter(Priority::Urgent) {
                let worker = free.iter_mut().min().unwrap();
                *worker = (*worker).max(now) + work;
                calls.push(std::cmp::Reverse((*worker, now)));
            }
            let std::cmp::Reverse((end, began)) = calls.pop().unwrap();
            now = end;
            done += 1;
            latencies.push(end - began);
            concurrency.left(Some(end - began), now, config);
        }
        for _ in calls {
            concurrency.left(None, now, config);
        }
        latencies.sort();
        let capacity = (until - from).as_secs_f64() / work.as_secs_f64() * workers as f64;
        (f64::from(done) / capacity, latencies[latencies.len() / 2])
    }

    #[test]
    fn a_service_is_kept_busy_without_a_long_queue() {
        let config = ConcurrencyConfig::default();
        let seconds = Duration::from_secs;
        for (workers, work) in [(1, 10), (4, 10), (50, 20), (200, 100)] {
            let mut concurrency = Concurrency::new(&config);
            let work = Duration::from_millis(work);
            overloaded(&mut concurrency, &config, workers, work, seconds(0), seconds(20));
            // Many floors later, the measured latency has not crept up.
            let (used, median) =
                overloaded(&mut concurrency, &config, workers, work, seconds(20), seconds(320));
            assert!(used > 0.95, "{workers} x {work:?}: {used}");
            let bound = (work * 4).max(work * 8 / workers as u32);
            assert!(median <= bound, "{workers} x {work:?}: {median:?}, {}", concurrency.limit());
        }
    }

    #[test]
    fn the_bound_follows_a_service_that_becomes_slower() {
        let config = ConcurrencyConfig::default();
        let seconds = Duration::from_secs;
        let mut concurrency = Concurrency::new(&config);
        let fast = Duration::from_millis(10);
        overloaded(&mut concurrency, &config, 20, fast, seconds(0), seconds(20));
        overloaded(&mut concurrency, &config, 20, fast * 5, seconds(20), seconds(90));
        let (used, median) =
            overloaded(&mut concurrency, &config, 20, fast * 5, seconds(90), seconds(150));
        assert!(used > 0.95, "{used}");
        assert!(median <= fast * 5 * 4, "{median:?}");
    }

    #[test]
    fn low_priorities_are_refused_first() {
        let config = ConcurrencyConfig { max: 10, min: 1, adaptive: false };
        let mut concurrency = Concurrency::new(&config);
        let mut admitted = |priority| (0..20).filter(|_| concurrency.enter(priority)).count();
        assert_eq!(admitted(Priority::Low), 5);
        assert_eq!(admitted(Priority::Normal), 3);
        assert_eq!(admitted(Priority::High), 1);
        assert_eq!(admitted(Priority::Urgent), 1);
        concurrency.left(None, Duration::ZERO, &config);
        assert!(!concurrency.enter(Priority::Low));
        assert!(concurrency.enter(Priority::Urgent));
    }
}
