//! What stands between callers and a service on bad days, shared by the cores of a node: its
//! breaker, the bound on calls at once, the budget of attempts beside the first.
//!
//! Each rule is a value with a clock given to it; here is the lock around them, and the
//! counting of what came of it.

mod breaker;
mod budget;
mod concurrency;
mod quantile;

use crate::config::{HedgeAfter, Priority, ServiceConfig};
use breaker::{Breaker, Passage};
use budget::Budget;
use concurrency::Concurrency;
use parking_lot::Mutex;
use quantile::Quantile;
use std::time::Duration;

/// The guard of one service that asks for one.
#[derive(Debug)]
pub(crate) struct Guard {
    config: ServiceConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    budget: Budget,
    concurrency: Option<Concurrency>,
    latencies: Quantile,
    counts: Counts,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    retries: u64,
    hedges: u64,
    shed: u64,
    broken: u64,
}

/// How a service's guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardReport {
    /// `closed`, `open` or `probing`; `None` without a breaker.
    pub breaker: Option<&'static str>,
    /// Calls in flight and how many there may be; `None` without a bound.
    pub concurrency: Option<(usize, usize)>,
    /// Attempts after a failed one, since the node started.
    pub retries: u64,
    /// Second instances asked because the first was slow.
    pub hedges: u64,
    /// Calls refused because there were as many as there may be.
    pub shed: u64,
    /// Calls refused by the breaker.
    pub broken: u64,
}

/// Why a guard lets a call not through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// There are as many as there may be.
    Full,
    /// The breaker is open; when to come again.
    Open(Duration),
}

impl Guard {
    /// A guard, if the configuration asks for one.
    pub(crate) fn new(config: &ServiceConfig) -> Option<Self> {
        let asked = config.retry.is_some()
            || config.hedge.is_some()
            || config.breaker.is_some()
            || config.concurrency.is_some();
        asked.then(|| Self {
            config: config.clone(),
            state: Mutex::new(State {
                breaker: Breaker::default(),
                budget: Budget::default(),
                concurrency: config.concurrency.as_ref().map(Concurrency::new),
                latencies: Quantile::default(),
                counts: Counts::default(),
            }),
        })
    }

    /// Whether it was made for the same rules.
    pub(crate) fn fits(&self, config: &ServiceConfig) -> bool {
        self.config.retry == config.retry
            && self.config.budget == config.budget
            && self.config.hedge == config.hedge
            && self.config.breaker == config.breaker
            && self.config.concurrency == config.concurrency
    }

    /// Lets a call through, or not.
    pub(crate) fn enter(&self, priority: Priority, now: Duration) -> Result<Pass<'_>, Closed> {
        let state = &mut *self.state.lock();
        if let Some(concurrency) = &mut state.concurrency
            && !concurrency.enter(priority)
        {
            state.counts.shed += 1;
            return Err(Closed::Full);
        }
        let passage = match &self.config.breaker {
            Some(config) => state.breaker.enter(now, config),
            None => Ok(Passage::Normal),
        };
        match passage {
            Ok(passage) => {
                state.budget.called(now);
                Ok(Pass { guard: self, passage, left: false })
            }
            Err(after) => {
                if let (Some(concurrency), Some(config)) =
                    (&mut state.concurrency, &self.config.concurrency)
                {
                    concurrency.left(None, now, config);
                }
                state.counts.broken += 1;
                Err(Closed::Open(after))
            }
        }
    }

    /// Room for a further attempt after a failed one.
    pub(crate) fn take_retry(&self, now: Duration) -> bool {
        let state = &mut *self.state.lock();
        let may = state.budget.take(&self.config.budget, now);
        state.counts.retries += u64::from(may);
        may
    }

    /// Room for a second attempt beside a slow one.
    pub(crate) fn take_hedge(&self, now: Duration) -> bool {
        let state = &mut *self.state.lock();
        let may = state.budget.take(&self.config.budget, now);
        state.counts.hedges += u64::from(may);
        may
    }

    /// After which time a second instance is asked; none if that is not known yet.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        match self.config.hedge?.after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::Percentile(_) => self.state.lock().latencies.get(),
        }
    }

    pub(crate) fn report(&self, now: Duration) -> GuardReport {
        let state = self.state.lock();
        GuardReport {
            breaker: self.config.breaker.map(|_| state.breaker.condition(now)),
            concurrency: state
                .concurrency
                .as_ref()
                .map(|concurrency| (concurrency.in_flight(), concurrency.limit())),
            retries: state.counts.retries,
            hedges: state.counts.hedges,
            shed: state.counts.shed,
            broken: state.counts.broken,
        }
    }

    fn left(&self, passage: Passage, good: Option<bool>, waited: Option<Duration>, now: Duration) {
        let state = &mut *self.state.lock();
        if let (Some(concurrency), Some(config)) =
            (&mut state.concurrency, &self.config.concurrency)
        {
            concurrency.left(waited, now, config);
        }
        if let Some(config) = &self.config.breaker {
            state.breaker.ended(passage, good, now, config);
        }
        if let (Some(waited), Some(HedgeAfter::Percentile(percentile))) =
            (waited, self.config.hedge.map(|hedge| hedge.after))
        {
            state.latencies.note(percentile, waited);
        }
    }
}

/// A call that was let through. Dropped, nothing is said of the service.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    guard: &'a Guard,
    passage: Passage,
    left: bool,
}

impl Pass<'_> {
    /// The head of the answer has come, or the call has failed. `good`: whether the service
    /// did well, if that can be told. `waited`: for how long it was waited for, if that says
    /// something about it.
    pub(crate) fn ended(mut self, good: Option<bool>, waited: Option<Duration>, now: Duration) {
        self.left = true;
        self.guard.left(self.passage, good, waited, now);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.left {
            self.guard.left(self.passage, None, None, Duration::ZERO);
        }
    }
}
