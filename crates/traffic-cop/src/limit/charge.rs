//! Charging a request: to every rule, or to none if one refuses.

use crate::limit::{
    WhenAway,
    gcra::{Bucket, Rate, Taken},
    owing::{Later, Owing},
    reserving::QuotaCount,
    shadow::Shadow,
    shared::{Charged, Shared, SharedBucket},
};
use bytes::Bytes;
use clock::SharedClock;
use http::{HeaderName, HeaderValue};
use protocol::{Code, Problem};
use smallvec::SmallVec;
use std::{fmt::Write as _, sync::Arc, time::Duration};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// A refusal by a time that is so old is looked at again.
pub(super) const STALE: Duration = Duration::from_millis(1);
/// How long a request asks owners of shared limits. Where many come at once after a pause,
/// others draw on what was granted; an owner that grants nothing ends it at once.
const ASKS_FOR: Duration = Duration::from_secs(1);

/// A bucket that a request is charged to, and its rule.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) rule: Arc<str>,
    /// `"rule";r=`, as `RateLimit` begins.
    pub(super) prefix: Box<[u8]>,
    pub(super) policy: Policy,
    pub(super) rate: Rate,
    pub(super) counter: Counter,
    pub(super) when_away: WhenAway,
    /// What a request costs; 0 if that is known afterwards.
    pub(super) cost: u32,
    pub(super) later: Option<Later>,
}

impl Part {
    fn quota(&self) -> Option<&QuotaCount> {
        match &self.counter {
            Counter::Here(_) => None,
            Counter::Shared(bucket) => bucket.quota.as_ref(),
        }
    }
}

/// What `RateLimit-Policy` says of a rule.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) limit: u64,
    /// Seconds; a quota's are those of its period.
    pub(super) window: u64,
    pub(super) is_bytes: bool,
}

/// Who counts.
#[derive(Debug)]
pub(super) enum Counter {
    Here(Arc<Bucket>),
    Shared(Arc<SharedBucket>),
}

impl Counter {
    /// Charges what a request came to, whether there is room for it or not.
    pub(super) fn debit(&self, shared: &Shared, rate: Rate, now: Duration, cost: u64) -> Taken {
        match self {
            Self::Here(bucket) => bucket.debit(rate, now, cost),
            Self::Shared(bucket) => shared.debit(bucket, now, cost),
        }
    }
}

/// The buckets of one kind of request, ready to be charged.
#[derive(Debug, Clone)]
pub struct Charge(pub(super) Arc<Buckets>);

#[derive(Debug)]
pub(super) struct Buckets {
    pub(super) parts: Box<[Part]>,
    /// Rules that refuse nothing.
    pub(super) shadows: Box<[Shadow]>,
    /// `RateLimit-Policy`; `None` if it changes with the calendar.
    pub(super) policy: Option<HeaderValue>,
    pub(super) shared: Arc<Shared>,
    /// Whether some costs are known afterwards.
    pub(super) is_owing: bool,
}

impl Buckets {
    pub(super) fn new(parts: Box<[Part]>, shadows: Box<[Shadow]>, shared: Arc<Shared>) -> Self {
        let owes = |later: &Option<Later>| later.is_some();
        let is_owing = parts.iter().any(|part| owes(&part.later))
            || shadows.iter().any(|shadow| owes(&shadow.later));
        let mut this = Self { parts, shadows, policy: None, shared, is_owing };
        if this.parts.iter().all(|part| part.quota().is_none()) {
            this.policy = this.policy_now();
        }
        this
    }

    /// `RateLimit-Policy` as it is now.
    fn policy_now(&self) -> Option<HeaderValue> {
        let mut text = String::new();
        for part in &self.parts {
            let Policy { limit, window, is_bytes } = part.policy;
            let window = match part.quota() {
                Some(quota) => self.shared.window(quota).as_secs(),
                None => window,
            };
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}\"{}\";q={limit};w={window}", part.rule);
            if is_bytes {
                text.push_str(";qu=\"content-bytes\"");
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }

    pub(super) fn charge(&self, part: &Part, now: Duration, cost: u32) -> Charged {
        match &part.counter {
            Counter::Shared(bucket) => {
                let cost = cost.saturating_mul(part.cost);
                self.shared.charge(bucket, now, cost, part.when_away)
            }
            Counter::Here(bucket) => {
                match bucket.take_or_look(part.rate, now, cost.saturating_mul(part.cost)) {
                    Ok(taken) => Charged::Taken(taken),
                    Err(refused) => Charged::Refused(refused),
                }
            }
        }
    }

    fn put_back(&self, part: &Part, now: Duration, cost: u32) {
        let cost = cost.saturating_mul(part.cost);
        if cost == 0 {
            return;
        }
        match &part.counter {
            Counter::Here(bucket) => bucket.give_back(part.rate, u64::from(cost)),
            Counter::Shared(bucket) => self.shared.put_back(bucket, now, cost),
        }
    }
}

impl Charge {
    /// Whether no rule applies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.parts.is_empty() && self.0.shadows.is_empty()
    }

    /// Charges `cost` to every bucket, or to none if one refuses or if another node has to be
    /// asked first. `now` is the time since the node's clock was made.
    #[must_use]
    pub fn take(&self, now: Duration, cost: u32) -> Decision {
        let mut decision = self.take_with(now, cost, None);
        if decision.allowed() {
            decision.unmoved = self.shadow(cost, now, || now);
        }
        decision
    }

    /// As [`Self::take`], by the time that `clock` tells. A thread that did not run between
    /// reading the time and charging is behind those that did, and would be refused for what
    /// they took in the time that it has missed; so a refusal has to hold by the time after it.
    #[must_use]
    pub fn take_by(&self, clock: &SharedClock, cost: u32) -> Decision {
        self.take_by_with(clock, cost, None)
    }

    fn take_by_with(&self, clock: &SharedClock, cost: u32, alone: Option<usize>) -> Decision {
        let mut now = clock.elapsed();
        loop {
            let mut decision = self.take_with(now, cost, alone);
            if decision.outcome != Outcome::Refused {
                if decision.allowed() {
                    decision.unmoved = self.shadow(cost, now, || clock.elapsed());
                }
                return decision;
            }
            let then = clock.elapsed();
            if then.saturating_sub(now) < STALE {
                return decision;
            }
            now = then;
        }
    }

    /// Charges the rules that refuse nothing; each by itself. A bit for each of the first 64
    /// that would have refused.
    fn shadow(&self, cost: u32, now: Duration, again: impl Fn() -> Duration) -> u64 {
        let mut unmoved = 0;
        for (at, shadow) in self.0.shadows.iter().enumerate() {
            let taken = shadow.charge(&self.0.shared, cost, now, &again);
            unmoved |= u64::from(!taken).checked_shl(at as u32).unwrap_or(0);
        }
        unmoved
    }

    /// `alone`: a part whose owner was asked in vain.
    fn take_with(&self, now: Duration, cost: u32, alone: Option<usize>) -> Decision {
        let parts = &self.0.parts;
        let decided =
            |tightest, outcome| Decision { charge: self.clone(), tightest, outcome, unmoved: 0 };
        let mut tightest: Option<(usize, Taken)> = None;
        for (at, part) in parts.iter().enumerate() {
            let charged = match &part.counter {
                Counter::Shared(bucket) if alone == Some(at) => {
                    let cost = cost.saturating_mul(part.cost);
                    self.0.shared.without_owner(bucket, now, cost, part.when_away)
                }
                Counter::Shared(_) | Counter::Here(_) => self.0.charge(part, now, cost),
            };
            if let Charged::Taken(taken) = charged {
                if tightest.is_none_or(|(_, other)| taken.remaining < other.remaining) {
                    tightest = Some((at, taken));
                }
                continue;
            }
            for earlier in &parts[..at] {
                self.0.put_back(earlier, now, cost);
            }
            return match charged {
                Charged::Refused(refused) => decided(Some((at, refused)), Outcome::Refused),
                Charged::Away => decided(None, Outcome::Away),
                Charged::Short | Charged::Taken(_) => decided(None, Outcome::Short(at)),
            };
        }
        decided(tightest, Outcome::Allowed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Allowed,
    Refused,
    /// The owner of a shared limit does not answer, and its rule refuses without it.
    Away,
    /// The owner of this part has to be asked.
    Short(usize),
}

/// What a charge came to.
#[derive(Debug)]
pub struct Decision {
    charge: Charge,
    tightest: Option<(usize, Taken)>,
    outcome: Outcome,
    /// Rules in shadow that would have refused, a bit for each.
    unmoved: u64,
}

impl Decision {
    /// Whether the request may go on.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }

    /// Whether another node has to be asked before this is one: see [`Self::settle`].
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.outcome, Outcome::Short(_))
    }

    /// Asks whoever has to be asked, and charges `cost` anew. Nothing has been charged before.
    pub async fn settle(self, clock: &SharedClock, cost: u32) -> Self {
        let mut decision = self;
        let until = clock.elapsed() + ASKS_FOR;
        while clock.elapsed() < until {
            let Outcome::Short(at) = decision.outcome else { return decision };
            let buckets = decision.charge.0.clone();
            let answered = match &buckets.parts[at].counter {
                Counter::Shared(bucket) => buckets.shared.ask(bucket).await,
                Counter::Here(_) => false,
            };
            let alone = (!answered).then_some(at);
            decision = decision.charge.take_by_with(clock, cost, alone);
        }
        if let Outcome::Short(at) = decision.outcome {
            // Others have used up each time what this one has waited for.
            let retry_after = Duration::from_millis(100);
            let taken = Taken { remaining: 0, reset: retry_after, retry_after };
            (decision.outcome, decision.tightest) = (Outcome::Refused, Some((at, taken)));
        }
        decision
    }

    /// What is to be charged once it is known; `None` if everything is.
    #[must_use]
    pub fn owing(&self) -> Option<Owing> {
        let owes = self.charge.0.is_owing && self.allowed();
        owes.then(|| Owing::new(self.charge.0.clone(), self.unmoved))
    }

    /// The rule that refused the request, if one did.
    pub(super) fn refused_by(&self) -> Option<&str> {
        let (at, _) = self.tightest?;
        (self.outcome == Outcome::Refused).then_some(&*self.charge.0.parts[at].rule)
    }

    /// Whether the rule of that name, in shadow, would have refused the request.
    pub(super) fn would_refuse(&self, rule: &str) -> bool {
        let at = self.charge.0.shadows.iter().position(|shadow| &*shadow.rule == rule);
        let bit = at.and_then(|at| 1_u64.checked_shl(at as u32));
        bit.is_some_and(|bit| self.unmoved & bit != 0)
    }

    /// Part `at` has come to this.
    pub(super) fn came_to(&mut self, at: usize, taken: Taken) {
        if self.tightest.is_none_or(|(of, known)| of == at || taken.remaining < known.remaining) {
            self.tightest = Some((at, taken));
        }
    }

    /// Gives `tell` the name and value of `RateLimit-Policy` (every rule) and `RateLimit` (the one
    /// with least left), as draft-ietf-httpapi-ratelimit-headers-11 has them.
    pub fn tell(&self, mut tell: impl FnMut(&HeaderName, &[u8])) {
        let Some((at, taken)) = self.tightest else { return };
        let Buckets { parts, policy, .. } = &*self.charge.0;
        let of_now = if policy.is_none() { self.charge.0.policy_now() } else { None };
        if let Some(policy) = policy.as_ref().or(of_now.as_ref()) {
            tell(&RATELIMIT_POLICY, policy.as_bytes());
        }
        // On the hot path: no formatting machinery.
        let mut text = SmallVec::<[u8; 96]>::from_slice(&parts[at].prefix);
        text.extend_from_slice(itoa::Buffer::new().format(taken.remaining).as_bytes());
        text.extend_from_slice(b";t=");
        let reset = taken.reset.as_secs() + u64::from(taken.reset.subsec_nanos() > 0);
        text.extend_from_slice(itoa::Buffer::new().format(reset).as_bytes());
        tell(&RATELIMIT, &text);
    }

    /// Whether [`Self::tell`] tells a field of that name.
    #[must_use]
    pub fn tells(&self, name: &HeaderName) -> bool {
        self.tightest.is_some() && (*name == RATELIMIT || *name == RATELIMIT_POLICY)
    }

    /// The refusal as an error for the client.
    #[must_use]
    pub fn problem(&self) -> Problem {
        if self.outcome == Outcome::Away {
            let detail = "a limit that the nodes share cannot be asked for now";
            return Problem::new(Code::StoreUnavailable, detail)
                .retry_after(Duration::from_secs(1));
        }
        match self.tightest {
            None => Problem::new(Code::RateLimited, "a limit is used up"),
            Some((at, taken)) => {
                let rule = &*self.charge.0.parts[at].rule;
                Problem::new(Code::RateLimited, format!("the limit `{rule}` is used up"))
                    .member("limit", rule)
                    .retry_after(taken.retry_after)
            }
        }
    }
}
