//! Rules in shadow: charged as if they held, refusing nothing.
//!
//! A request that the other rules let in is charged to each rule in shadow by itself, as if
//! that rule alone were added to those that hold.

use crate::limit::{
    charge::{Counter, Part},
    gcra::Rate,
    owing::Later,
    shared::Shared,
    subject::Named,
    tally::{Refusals, Tally},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// A bucket of a rule in shadow, and where its refusals are noted.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) rule: Arc<str>,
    pub(super) rate: Rate,
    pub(super) counter: Counter,
    /// What a request costs; 0 if that is known afterwards.
    cost: u32,
    pub(super) later: Option<Later>,
    tally: Arc<Tally>,
    named: Arc<Named>,
}

/// Whom a rule in shadow would have refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ShadowReport {
    /// The rule.
    pub limit: Arc<str>,
    /// Requests that it would have refused since the node's start, or since it is in shadow.
    pub since_start: u64,
    /// Those of the time asked for.
    #[serde(flatten)]
    pub refusals: Refusals,
}

impl Shadow {
    /// As `part` of a charge, but refusing nothing.
    pub(super) fn new(part: Part, tally: Arc<Tally>, named: Named) -> Self {
        let Part { rule, rate, counter, cost, later, .. } = part;
        let named = Arc::new(named);
        if let Counter::Shared(bucket) = &counter {
            bucket.tell(&tally, &named);
        }
        Self { rule, rate, counter, cost, later, tally, named }
    }

    /// Charges it; false if it would have refused. A refusal has to hold `again`, by the time
    /// that is then.
    pub(super) fn charge(
        &self,
        shared: &Shared,
        cost: u32,
        now: Duration,
        again: &impl Fn() -> Duration,
    ) -> bool {
        let mut now = now;
        while !self.takes(shared, cost, now) {
            let then = again();
            if then.saturating_sub(now) < super::charge::STALE {
                self.tally.add(then, &self.named, 1);
                return false;
            }
            now = then;
        }
        true
    }

    fn takes(&self, shared: &Shared, cost: u32, now: Duration) -> bool {
        let cost = cost.saturating_mul(self.cost);
        match &self.counter {
            Counter::Here(bucket) => bucket.take_or_look(self.rate, now, cost).is_ok(),
            Counter::Shared(bucket) => shared.shadow(bucket, now, cost),
        }
    }
}
