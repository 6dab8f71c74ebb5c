//! Rate limits: GCRA, all or nothing over several rules.
//!
//! A rule gives each of its subjects a bucket. A request is charged to every rule that
//! applies to it, and to none of them if one refuses. The buckets are looked up once per
//! connection, caller and route ([`Limits::resolve`]); a charge is then one compare-and-swap
//! per rule. Rules whose [`Scope`] is shared are counted for all nodes together, by [`Shared`].

mod asking;
mod calendar;
mod charge;
mod gcra;
mod look;
mod owing;
mod quota;
mod reserving;
mod reset;
mod rule;
mod shadow;
mod share;
mod shared;
pub mod simulate;
mod subject;
mod tally;

pub use asking::ASKS_MAX;
pub use calendar::{Calendar, Every};
pub use charge::{Charge, Decision};
pub use look::Left;
pub use owing::{COST_MAX, Owing};
pub use reset::ResetError;
pub use rule::{Measure, Mode, Per, Rule, Scope, WhenAway};
pub use shadow::ShadowReport;
pub use share::{Ask, AskedQuota, Grant};
pub use shared::{Owners, PLACES, SAVED_WITHIN, Shared, SharedFigures, shard_of, shards};
pub use subject::{Named, Subject, network};
pub use tally::Refusals;

use crate::{
    analytics::Range,
    limit::{
        charge::{Buckets, Counter, Part, Policy},
        gcra::{Bucket, Rate},
        owing::Later,
        shadow::Shadow,
        subject::{BucketKey, Pace, SubjectKey},
        tally::Tally,
    },
};
use ahash::RandomState;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const SHARDS: usize = 64;
/// Buckets of a shard, beyond which those that are full again are forgotten, and subjects
/// that still find no room share one bucket per rule.
const SHARD_BUCKETS_MAX: usize = 16_384;

/// Buckets by a hash of their key ([`Limits::place`]), which takes little room.
type Shard = HashMap<u64, Arc<Bucket>, RandomState>;

/// Every limit of the node.
#[derive(Debug)]
pub struct Limits {
    rules: ArcSwap<Vec<Active>>,
    generation: AtomicU64,
    shards: Vec<Mutex<Shard>>,
    hashing: RandomState,
    shared: Arc<Shared>,
}

/// A rule and what it has come to.
#[derive(Debug)]
struct Active {
    rule: Rule,
    /// Whom it would have refused, if it refuses nothing.
    tally: Option<Arc<Tally>>,
    /// Answers that should have told their cost, and told something else.
    malformed: Arc<AtomicU64>,
}

impl Active {
    /// `rules`, of which those keep what they came to that were in shadow before, too.
    fn all(rules: Vec<Rule>, before: &[Self]) -> Vec<Self> {
        let active = |rule: Rule| {
            let known = before.iter().find(|before| before.rule.name == rule.name);
            let is_shadow = rule.mode == Mode::Shadow;
            let tally = known.and_then(|known| known.tally.clone());
            let malformed = known.map(|known| known.malformed.clone()).unwrap_or_default();
            Self { tally: is_shadow.then(|| tally.unwrap_or_default()), malformed, rule }
        };
        rules.into_iter().map(active).collect()
    }
}

impl Active {
    /// What tells the cost of a request afterwards.
    fn later(&self) -> Option<Later> {
        match &self.rule.measure {
            Measure::Fixed => None,
            Measure::Bytes => Some(Later::Bytes),
            Measure::Field { name, kept } => Some(Later::Field {
                name: name.clone(),
                kept: *kept,
                default: self.rule.cost,
                malformed: self.malformed.clone(),
            }),
        }
    }
}

impl Limits {
    /// Limits by `rules`.
    #[must_use]
    pub fn new(rules: Vec<Rule>, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            rules: ArcSwap::from_pointee(Active::all(rules, &[])),
            generation: AtomicU64::new(1),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hashing: RandomState::new(),
        }
    }

    /// Replaces the rules. Buckets of rules that kept their name and rate stay as they are.
    pub fn replace(&self, rules: Vec<Rule>) {
        let rules = Active::all(rules, &self.rules.load());
        self.rules.store(Arc::new(rules));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes when the rules do; a [`Charge`] of another generation has to be resolved again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The buckets that a request of `subject` is charged to.
    #[must_use]
    pub fn resolve(&self, subject: &Subject<'_>) -> Charge {
        let (mut parts, mut shadows) = (Vec::new(), Vec::new());
        for active in self.rules.load().iter() {
            let Active { rule, tally, .. } = active;
            if !rule.covers(subject.route) {
                continue;
            }
            let Some(key) = SubjectKey::of(rule.per, subject) else { continue };
            let named = tally.as_ref().map(|_| key.named());
            let key = BucketKey { rule: rule.name.clone(), pace: rule.pace(), subject: key };
            let rate = rule.rate();
            let policy = Policy {
                limit: rule.requests,
                window: rule.period.as_secs().max(1),
                is_bytes: rule.measure == Measure::Bytes,
            };
            let part = Part {
                rule: rule.name.clone(),
                prefix: format!("\"{}\";r=", rule.name).into_bytes().into(),
                policy,
                rate,
                counter: self.counter(rule, key, rate),
                when_away: rule.when_away,
                cost: rule.cost_of(subject.route),
                later: active.later(),
            };
            if let Some((tally, named)) = tally.as_ref().zip(named) {
                shadows.push(Shadow::new(part, tally.clone(), named));
                continue;
            }
            parts.push(part);
        }
        Charge(Arc::new(Buckets::new(parts.into(), shadows.into(), self.shared.clone())))
    }

    /// Who counts `key`.
    fn counter(&self, rule: &Rule, key: BucketKey, rate: Rate) -> Counter {
        if !self.is_shared(rule) {
            return Counter::Here(self.bucket(&key));
        }
        let crowd = key.crowd().digest();
        Counter::Shared(match &key.pace {
            Pace::Rate(_) => self.shared.bucket(key.digest(), crowd, rate),
            Pace::Quota(calendar) => {
                self.shared.quota(key.digest(), crowd, calendar, rule.requests)
            }
        })
    }

    /// Whether nodes count it together; quotas are, since they outlive a node.
    fn is_shared(&self, rule: &Rule) -> bool {
        rule.calendar.is_some() || (self.shared.is_among_nodes() && rule.scope == Scope::Shared)
    }

    /// Answers that should have told their cost and told something else, by rule.
    #[must_use]
    pub fn malformed(&self) -> Vec<(Arc<str>, u64)> {
        let rules = self.rules.load();
        let told =
            rules.iter().filter(|active| matches!(active.rule.measure, Measure::Field { .. }));
        let read = |active: &Active| active.malformed.load(Ordering::Relaxed);
        told.map(|active| (active.rule.name.clone(), read(active))).collect()
    }

    /// Whom each rule in shadow would have refused on this node in the last `range`, at `now`,
    /// the time since the node's clock was made.
    #[must_use]
    pub fn shadows(&self, range: Range, now: Duration) -> Vec<ShadowReport> {
        let rules = self.rules.load();
        let reports = rules.iter().filter_map(|active| {
            let tally = active.tally.as_ref()?;
            Some(ShadowReport {
                limit: active.rule.name.clone(),
                since_start: tally.total(),
                refusals: tally.report(range, now),
            })
        });
        reports.collect()
    }

    /// Where a bucket is: nobody can choose a subject that falls on another's, since the hash is of
    /// the digest and by keys of this node. Of a million buckets, two do once in thirty million
    /// nodes.
    fn place(&self, key: &BucketKey) -> u64 {
        self.hashing.hash_one(key.digest())
    }

    fn shard(&self, place: u64) -> &Mutex<Shard> {
        &self.shards[(place as usize) % SHARDS]
    }

    fn bucket(&self, key: &BucketKey) -> Arc<Bucket> {
        let place = self.place(key);
        let mut buckets = self.shard(place).lock();
        if let Some(bucket) = buckets.get(&place) {
            return bucket.clone();
        }
        let is_full = buckets.len() >= SHARD_BUCKETS_MAX;
        let place = if is_full { self.place(&key.crowd()) } else { place };
        buckets.entry(place).or_default().clone()
    }

    /// Forgets buckets that are full again and that nobody holds. Call it every few seconds.
    pub fn expire(&self, now: Duration) {
        for shard in &self.shards {
            shard.lock().retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_idle(now));
        }
    }

    /// What shared limits have come to; `None` if there is one node.
    #[must_use]
    pub fn shared(&self) -> Option<SharedFigures> {
        self.shared.is_among_nodes().then(|| self.shared.figures())
    }

    /// Before a node ends: gives back what it reserved of quotas and did not use.
    pub async fn settle(&self) {
        self.shared.settle().await;
    }

    /// Commits that reserved parts of quotas, or gave them back.
    #[must_use]
    pub fn reserves(&self) -> u64 {
        self.shared.figures().reserves
    }

    /// The most that each shared rule may admit beyond its limit, by name.
    #[must_use]
    pub fn excess_max(&self) -> Vec<(Arc<str>, u64)> {
        let rules = self.rules.load();
        let rules = rules.iter().map(|active| &active.rule);
        let shared = rules.filter(|rule| self.is_shared(rule));
        let nodes = self.shared.nodes();
        shared.filter_map(|rule| Some((rule.name.clone(), rule.excess_max(nodes)?))).collect()
    }

    /// Number of buckets in memory.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests;
