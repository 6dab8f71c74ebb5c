//! Rate limits: GCRA, all or nothing over several rules.
//!
//! A rule gives each of its subjects a bucket. A request is charged to every rule that
//! applies to it, and to none of them if one refuses. The buckets are looked up once per
//! connection, caller and route ([`Limits::resolve`]); a charge is then one compare-and-swap
//! per rule.

mod gcra;
mod rule;

pub use rule::{Per, Rule};

use crate::limit::gcra::{Bucket, Rate, Taken};
use ahash::RandomState;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use protocol::{Code, Problem};
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
const SHARDS: usize = 64;
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
}

impl Limits {
    /// Limits by `rules`.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
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
            let bucket = self.bucket(BucketKey { rule: rule.name.clone(), rate, subject: key });
            if !policy.is_empty() {
                policy.push_str(", ");
            }
            let window = rule.period.as_secs().max(1);
            let _ = write!(policy, "\"{}\";q={};w={window}", rule.name, rule.requests);
            let prefix = format!("\"{}\";r=", rule.name).into_bytes().into();
            parts.push(Part { rule: rule.name.clone(), prefix, rate, bucket });
        }
        let policy = HeaderValue::from_str(&policy).ok();
        Charge(Arc::new(Buckets { parts: parts.into(), policy }))
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

    /// Number of buckets in memory.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
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
    bucket: Arc<Bucket>,
}

/// The buckets of one kind of request, ready to be charged.
#[derive(Debug, Clone)]
pub struct Charge(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    parts: Box<[Part]>,
    policy: Option<HeaderValue>,
}

impl Charge {
    /// Whether no rule applies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.parts.is_empty()
    }

    /// Charges `cost` to every bucket, or to none if one refuses. `now` is the time since the
    /// node's clock was made.
    #[must_use]
    pub fn take(&self, now: Duration, cost: u32) -> Decision {
        let parts = &self.0.parts;
        let mut tightest: Option<(usize, Taken)> = None;
        for (at, part) in parts.iter().enumerate() {
            match part.bucket.take(part.rate, now, cost) {
                Ok(taken) => {
                    if tightest.is_none_or(|(_, other)| taken.remaining < other.remaining) {
                        tightest = Some((at, taken));
                    }
                }
                Err(refused) => {
                    for earlier in &parts[..at] {
                        earlier.bucket.give_back(earlier.rate, cost);
                    }
                    let tightest = Some((at, refused));
                    return Decision { charge: self.clone(), tightest, allowed: false };
                }
            }
        }
        Decision { charge: self.clone(), tightest, allowed: true }
    }
}

/// What a charge came to.
#[derive(Debug)]
pub struct Decision {
    charge: Charge,
    tightest: Option<(usize, Taken)>,
    allowed: bool,
}

impl Decision {
    /// Whether the request may go on.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.allowed
    }

    /// Sets `RateLimit-Policy` (every rule) and `RateLimit` (the one with least left), as
    /// draft-ietf-httpapi-ratelimit-headers-11 has them, and `Retry-After` on a refusal.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let Some((at, taken)) = self.tightest else { return };
        let Buckets { parts, policy } = &*self.charge.0;
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
        if !self.allowed {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(taken.retry_after)));
        }
    }

    /// The refusal as an error for the client.
    #[must_use]
    pub fn problem(&self) -> Problem {
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
