//! Rate limits: GCRA, all or nothing over several rules.
//!
//! A rule gives each of its subjects a bucket. A request is charged to every rule that
//! applies to it, and to none of them if one refuses. The buckets are looked up once per
//! connection, caller and route ([`Limits::resolve`]); a charge is then one compare-and-swap
//! per rule. Rules whose [`Scope`] is shared are counted for all nodes together, by [`Shared`].

mod asking;
mod gcra;
mod rule;
mod share;
mod shared;

pub use asking::ASKS_MAX;
pub use rule::{Per, Rule, Scope, WhenAway};
pub use share::{Ask, Grant};
pub use shared::{Owners, PLACES, SAVED_WITHIN, Shared, SharedFigures, shard_of, shards};

use crate::limit::{
    gcra::{Bucket, Rate, Taken},
    shared::{Charged, SharedBucket},
};
use ahash::RandomState;
use arc_swap::ArcSwap;
use bytes::Bytes;
use clock::SharedClock;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use protocol::{Code, Problem};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use types::{Principal, TenantId};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// A refusal by a time that is so old is looked at again.
const STALE: Duration = Duration::from_millis(1);
const SHARDS: usize = 64;
/// How long a request asks owners of shared limits. Where many come at once after a pause,
/// others draw on what was granted; an owner that grants nothing ends it at once.
const ASKS_FOR: Duration = Duration::from_secs(1);
/// Buckets of a shard, beyond which those that are full again are forgotten, and subjects
/// that still find no room share one bucket per rule.
const SHARD_BUCKETS_MAX: usize = 16_384;

/// Whom a request is charged to.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The tenant, once known.
    pub tenant: Option<&'a TenantId>,
    /// The principal, once known.
    pub principal: Option<&'a Principal>,
    /// Where it comes from.
    pub ip: IpAddr,
    /// The route's name.
    pub route: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BucketKey {
    rule: Arc<str>,
    rate: Rate,
    subject: SubjectKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(TenantId, Principal),
    Route(Option<TenantId>, Box<str>),
    Ip(IpAddr),
    Tenant(TenantId),
    Global,
    /// Where those are counted together for whom there is no room.
    Crowd,
}

/// Every limit of the node.
#[derive(Debug)]
pub struct Limits {
    rules: ArcSwap<Vec<Rule>>,
    generation: AtomicU64,
    shards: Vec<Mutex<HashMap<BucketKey, Arc<Bucket>, RandomState>>>,
    hasher: RandomState,
    shared: Option<Arc<Shared>>,
}

impl Limits {
    /// Limits by `rules`. Without `shared` there is one node, and every rule is its own.
    #[must_use]
    pub fn new(rules: Vec<Rule>, shared: Option<Arc<Shared>>) -> Self {
        Self {
            shared,
            rules: ArcSwap::from_pointee(rules),
            generation: AtomicU64::new(1),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Replaces the rules. Buckets of rules that kept their name and rate stay as they are.
    pub fn replace(&self, rules: Vec<Rule>) {
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
        let mut parts = Vec::new();
        let mut policy = String::new();
        for rule in self.rules.load().iter().filter(|rule| rule.covers(subject.route)) {
            let Some(key) = subject_key(rule.per, subject) else { continue };
            let rate = rule.rate();
            let key = BucketKey { rule: rule.name.clone(), rate, subject: key };
            let counter = match &self.shared {
                Some(shared) if rule.scope == Scope::Shared => {
                    let crowd = BucketKey { subject: SubjectKey::Crowd, ..key.clone() };
                    Counter::Shared(shared.bucket(key.digest(), crowd.digest(), rate))
                }
                Some(_) | None => Counter::Here(self.bucket(key)),
            };
            if !policy.is_empty() {
                policy.push_str(", ");
            }
            let window = rule.period.as_secs().max(1);
            let _ = write!(policy, "\"{}\";q={};w={window}", rule.name, rule.requests);
            let prefix = format!("\"{}\";r=", rule.name).into_bytes().into();
            let (rule, when_away) = (rule.name.clone(), rule.when_away);
            parts.push(Part { rule, prefix, rate, counter, when_away });
        }
        let policy = HeaderValue::from_str(&policy).ok();
        let shared = self.shared.clone();
        Charge(Arc::new(Buckets { parts: parts.into(), policy, shared }))
    }

    fn bucket(&self, key: BucketKey) -> Arc<Bucket> {
        let shard = &self.shards[(self.hasher.hash_one(&key) as usize) % SHARDS];
        let mut buckets = shard.lock();
        if let Some(bucket) = buckets.get(&key) {
            return bucket.clone();
        }
        let key = if buckets.len() >= SHARD_BUCKETS_MAX {
            BucketKey { subject: SubjectKey::Crowd, ..key }
        } else {
            key
        };
        buckets.entry(key).or_default().clone()
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
        self.shared.as_ref().map(|shared| shared.figures())
    }

    /// The most that each shared rule may admit beyond its limit, by name.
    #[must_use]
    pub fn excess_max(&self) -> Vec<(Arc<str>, u64)> {
        let rules = self.rules.load();
        let shared = rules.iter().filter(|rule| rule.scope == Scope::Shared);
        match self.shared {
            Some(_) => shared.map(|rule| (rule.name.clone(), rule.excess_max())).collect(),
            None => Vec::new(),
        }
    }

    /// Number of buckets in memory.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl BucketKey {
    /// The same on every node; nobody can choose a subject that falls on another's.
    fn digest(&self) -> u128 {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(self.rule.as_bytes());
        add(&self.rate.interval.to_be_bytes());
        add(&self.rate.burst.to_be_bytes());
        match &self.subject {
            SubjectKey::User(tenant, principal) => {
                add(b"user");
                add(tenant.as_str().as_bytes());
                add(format!("{:?}", principal.kind).as_bytes());
                add(principal.id.as_str().as_bytes());
            }
            SubjectKey::Route(tenant, route) => {
                add(b"route");
                add(tenant.as_ref().map_or("", TenantId::as_str).as_bytes());
                add(route.as_bytes());
            }
            SubjectKey::Ip(ip) => {
                add(b"ip");
                add(ip.to_string().as_bytes());
            }
            SubjectKey::Tenant(tenant) => {
                add(b"tenant");
                add(tenant.as_str().as_bytes());
            }
            SubjectKey::Global => add(b"global"),
            SubjectKey::Crowd => add(b"crowd"),
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (half, _) = digest.split_at(16);
        half.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

fn subject_key(per: Per, subject: &Subject<'_>) -> Option<SubjectKey> {
    Some(match per {
        Per::User => SubjectKey::User(subject.tenant?.clone(), subject.principal?.clone()),
        Per::Route => SubjectKey::Route(subject.tenant.cloned(), subject.route.into()),
        Per::Ip => SubjectKey::Ip(network(subject.ip)),
        Per::Tenant => SubjectKey::Tenant(subject.tenant?.clone()),
        Per::Global => SubjectKey::Global,
    })
}

/// One IPv6 customer has a /64 and may take any address of it.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

#[derive(Debug)]
struct Part {
    rule: Arc<str>,
    /// `"rule";r=`, as `RateLimit` begins.
    prefix: Box<[u8]>,
    rate: Rate,
    counter: Counter,
    when_away: WhenAway,
}

/// Who counts.
#[derive(Debug)]
enum Counter {
    Here(Arc<Bucket>),
    Shared(Arc<SharedBucket>),
}

/// The buckets of one kind of request, ready to be charged.
#[derive(Debug, Clone)]
pub struct Charge(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    parts: Box<[Part]>,
    policy: Option<HeaderValue>,
    shared: Option<Arc<Shared>>,
}

impl Buckets {
    fn charge(&self, part: &Part, now: Duration, cost: u32) -> Charged {
        match (&part.counter, &self.shared) {
            (Counter::Shared(bucket), Some(shared)) => {
                shared.charge(bucket, now, cost, part.when_away)
            }
            (Counter::Here(bucket), _) => match bucket.take(part.rate, now, cost) {
                Ok(taken) => Charged::Taken(taken),
                Err(refused) => Charged::Refused(refused),
            },
            (Counter::Shared(_), None) => Charged::Away,
        }
    }

    fn put_back(&self, part: &Part, now: Duration, cost: u32) {
        match (&part.counter, &self.shared) {
            (Counter::Here(bucket), _) => bucket.give_back(part.rate, u64::from(cost)),
            (Counter::Shared(bucket), Some(shared)) => shared.put_back(bucket, now, cost),
            (Counter::Shared(_), None) => {}
        }
    }
}

impl Charge {
    /// Whether no rule applies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.parts.is_empty()
    }

    /// Charges `cost` to every bucket, or to none if one refuses or if another node has to be
    /// asked first. `now` is the time since the node's clock was made.
    #[must_use]
    pub fn take(&self, now: Duration, cost: u32) -> Decision {
        self.take_with(now, cost, None)
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
            let decision = self.take_with(now, cost, alone);
            if decision.outcome != Outcome::Refused {
                return decision;
            }
            let then = clock.elapsed();
            if then.saturating_sub(now) < STALE {
                return decision;
            }
            now = then;
        }
    }

    /// `alone`: a part whose owner was asked in vain.
    fn take_with(&self, now: Duration, cost: u32, alone: Option<usize>) -> Decision {
        let parts = &self.0.parts;
        let decided = |tightest, outcome| Decision { charge: self.clone(), tightest, outcome };
        let mut tightest: Option<(usize, Taken)> = None;
        for (at, part) in parts.iter().enumerate() {
            let charged = match (&part.counter, &self.0.shared) {
                (Counter::Shared(bucket), Some(shared)) if alone == Some(at) => {
                    shared.without_owner(bucket, now, cost, part.when_away)
                }
                (_, _) => self.0.charge(part, now, cost),
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
            let answered = match (&buckets.parts[at].counter, &buckets.shared) {
                (Counter::Shared(bucket), Some(shared)) => shared.ask(bucket).await,
                (_, _) => false,
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

    /// Sets `RateLimit-Policy` (every rule) and `RateLimit` (the one with least left), as
    /// draft-ietf-httpapi-ratelimit-headers-11 has them, and `Retry-After` on a refusal.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let Some((at, taken)) = self.tightest else { return };
        let Buckets { parts, policy, .. } = &*self.charge.0;
        if let Some(policy) = policy {
            headers.insert(RATELIMIT_POLICY, policy.clone());
        }
        // On the hot path: no formatting machinery.
        let prefix = &parts[at].prefix;
        let mut text = Vec::with_capacity(prefix.len() + 43);
        text.extend_from_slice(prefix);
        text.extend_from_slice(itoa::Buffer::new().format(taken.remaining).as_bytes());
        text.extend_from_slice(b";t=");
        let reset = taken.reset.as_secs() + u64::from(taken.reset.subsec_nanos() > 0);
        text.extend_from_slice(itoa::Buffer::new().format(reset).as_bytes());
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            headers.insert(RATELIMIT, value);
        }
        if !self.allowed() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(taken.retry_after)));
        }
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

fn seconds_up(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests;
