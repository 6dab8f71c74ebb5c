//! Limits that several nodes share.
//!
//! The keys of shared limits fall into [`PLACES`] places, each a partition of the store whose
//! shard has an owner ([`ledger::Lease`]). The owner counts in memory, as a node alone would,
//! and saves what it counted each second. Other nodes ask it for shares ([`Share`]). So a
//! request costs no call of a store ever, and a call of the owner only where its share is used
//! up.
//!
//! What is admitted beyond the limit is bounded: an owner that is lost takes at most the last
//! [`SAVED_WITHIN`] of its grants out of the count. Shares are counted when they are granted,
//! and used within a second.
//!
//! Quotas are counted here even where there is one node, since they outlive it; how, says
//! [`super::reserving`].

mod owning;

use crate::limit::{
    WhenAway,
    gcra::{Bucket, Rate, Taken},
    reserving::QuotaCount,
    share::{Ask, AskedQuota, Drawn, Grant, Share},
    subject::Named,
    tally::Tally,
};
use ahash::RandomState;
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use clock::SharedClock;
use ledger::{Keeper, Lease, Shard};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};
use store::{Kind, Partition, SharedStore};
use tokio::sync::{Notify, mpsc};
use types::{TenantId, Timestamp};

/// Places that keys fall into.
pub const PLACES: u8 = 16;
/// An owner that could not save for so long no longer grants.
pub const SAVED_WITHIN: Duration = Duration::from_secs(2);

const KIND: Kind = Kind::new("limit");
const QUOTAS: Kind = Kind::new("quota");
/// Keys of a place in memory; beyond, subjects share one bucket per rule.
const KEYS_MAX: usize = 65_536;
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An owner that did not answer is not asked for so long.
const AWAY: Duration = Duration::from_secs(1);
/// How long a request waits for its owner's answer, in all.
const WAIT: Duration = Duration::from_millis(500);
/// Keys that wait to be asked about; beyond, whoever waits is told by the time.
const WISHES: usize = 16_384;

/// Where the owners are. The edge that knows of nodes and sockets has it.
#[async_trait]
pub trait Owners: Send + Sync {
    /// How many nodes there are.
    fn nodes(&self) -> u64;

    /// The node that owns `place`, or is about to.
    fn owner(&self, place: u8) -> Option<String>;

    /// Asks a node about places that it owns; an answer for each question, in their order, and
    /// `None` for those whose place it does not own.
    ///
    /// # Errors
    /// What went wrong, for the log.
    async fn ask(&self, owner: &str, asks: Vec<Ask>) -> Result<Vec<Option<Grant>>, String>;
}

/// Where counts are kept.
pub(super) enum Home {
    /// Nowhere.
    Memory,
    /// Quotas in the store of the only node.
    Alone(SharedStore),
    /// In the store of several nodes, by the owner of each place.
    Nodes(SharedStore, Arc<Keeper>),
}

/// The shared limits of a node.
pub struct Shared {
    pub(super) places: Vec<Place>,
    pub(super) home: Home,
    pub(super) clock: SharedClock,
    pub(super) owners: Arc<dyn Owners>,
    /// Nothing more is reserved.
    pub(super) is_leaving: AtomicBool,
    wishes: mpsc::Sender<Arc<SharedBucket>>,
    wished: Mutex<Option<mpsc::Receiver<Arc<SharedBucket>>>>,
    pub(super) counts: Counts,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) questions: AtomicU64,
    pub(super) granted: AtomicU64,
    away: AtomicU64,
    saves: AtomicU64,
    pub(super) reserves: AtomicU64,
}

/// What shared limits have come to since the node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFigures {
    /// Places that this node owns now.
    pub owned: usize,
    /// Questions to owners.
    pub questions: u64,
    /// Requests that owners granted to this node.
    pub granted: u64,
    /// Requests that were decided without their owner, by their rule's `when_away`.
    pub away: u64,
    /// Commits that saved what this node counted as an owner.
    pub saves: u64,
    /// Commits that reserved parts of quotas, or gave them back.
    pub reserves: u64,
}

pub(super) struct Place {
    partition: Partition,
    /// Of the same shard, in the durable tier.
    pub(super) quotas: Partition,
    /// Set once what the former owner saved is loaded.
    pub(super) lease: ArcSwapOption<Lease>,
    /// When what is counted here was saved last, in nanoseconds since the clock was made.
    saved: AtomicU64,
    pub(super) away_until: AtomicU64,
    pub(super) buckets: Mutex<HashMap<u128, Arc<SharedBucket>, RandomState>>,
    /// Quotas of which more has to be reserved.
    pub(super) short: Mutex<Vec<Arc<SharedBucket>>>,
    pub(super) hurry: Notify,
    /// Quotas are saved by one at a time.
    pub(super) saving: tokio::sync::Mutex<()>,
}

/// One key's count, on whichever side this node is.
#[derive(Debug)]
pub(super) struct SharedBucket {
    pub(super) place: u8,
    pub(super) key: u128,
    rate: Rate,
    /// The count, if it is that of a calendar's period; then `rate` and `owned` mean nothing.
    pub(super) quota: Option<QuotaCount>,
    /// The count, where this node owns it; else what it counts by itself while the owner is
    /// away.
    owned: Bucket,
    pub(super) share: Mutex<Share>,
    /// The arrival time that was saved last, in nanoseconds.
    saved: AtomicU64,
    pub(super) answered: Notify,
    /// Where refusals are noted that nobody waits for.
    tally: Mutex<Option<(Arc<Tally>, Arc<Named>)>>,
    /// It waits to be asked about.
    pub(super) wished: AtomicBool,
}

/// What drawing on a shared limit comes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charged {
    Taken(Taken),
    Refused(Taken),
    /// The owner has to be asked first.
    Short,
    /// The owner is away, and the rule refuses without it.
    Away,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// There is no other node.
struct Nobody;

#[async_trait]
impl Owners for Nobody {
    fn nodes(&self) -> u64 {
        1
    }

    fn owner(&self, _: u8) -> Option<String> {
        None
    }

    async fn ask(&self, _: &str, _: Vec<Ask>) -> Result<Vec<Option<Grant>>, String> {
        Err("there is no other node".into())
    }
}

fn partition(place: u8) -> Result<Partition, store::Error> {
    Partition::new(TenantId::system(), KIND, &place.to_string())
}

/// The first of the quotas' partitions that lies in the shard of the place.
fn quotas_partition(place: u8) -> Result<Partition, store::Error> {
    let shard = Shard::of(&partition(place)?);
    let mut number = 0_u32;
    loop {
        let named = Partition::new(TenantId::system(), QUOTAS, &format!("{place}.{number}"))?;
        if Shard::of(&named) == shard {
            return Ok(named);
        }
        number += 1;
    }
}

pub(super) fn place_of(key: u128) -> u8 {
    (key % u128::from(PLACES)) as u8
}

/// The shards whose owners count limits.
pub fn shards() -> impl Iterator<Item = Shard> {
    (0..PLACES).filter_map(|place| partition(place).ok()).map(|partition| Shard::of(&partition))
}

/// The shard of a place.
#[must_use]
pub fn shard_of(place: u8) -> Option<Shard> {
    partition(place % PLACES).ok().map(|partition| Shard::of(&partition))
}

impl Shared {
    /// Limits shared by whoever keeps leases in `store` as `keeper` does.
    ///
    /// # Errors
    /// None that depends on the store.
    pub fn new(
        store: SharedStore,
        clock: SharedClock,
        keeper: Arc<Keeper>,
        owners: Arc<dyn Owners>,
    ) -> Result<Arc<Self>, store::Error> {
        Self::at(Home::Nodes(store, keeper), clock, owners)
    }

    /// Limits of the only node of `store`, which keeps quotas there and nothing else.
    ///
    /// # Errors
    /// None that depends on the store.
    pub fn alone(store: SharedStore, clock: SharedClock) -> Result<Arc<Self>, store::Error> {
        Self::at(Home::Alone(store), clock, Arc::new(Nobody))
    }

    /// Limits that are counted in memory alone: for tests, and over recorded traffic.
    ///
    /// # Panics
    /// Never: the names of places are short.
    #[must_use]
    pub fn in_memory(clock: SharedClock) -> Arc<Self> {
        Self::at(Home::Memory, clock, Arc::new(Nobody)).expect("the names of places are short")
    }

    fn at(
        home: Home,
        clock: SharedClock,
        owners: Arc<dyn Owners>,
    ) -> Result<Arc<Self>, store::Error> {
        let mut places = Vec::new();
        for place in 0..PLACES {
            places.push(Place {
                partition: partition(place)?,
                quotas: quotas_partition(place)?,
                lease: ArcSwapOption::empty(),
                saved: AtomicU64::new(0),
                away_until: AtomicU64::new(0),
                buckets: Mutex::default(),
                short: Mutex::default(),
                hurry: Notify::new(),
                saving: tokio::sync::Mutex::default(),
            });
        }
        let (wishes, wished) = mpsc::channel(WISHES);
        let wished = Mutex::new(Some(wished));
        let counts = Counts::default();
        let is_leaving = AtomicBool::new(false);
        Ok(Arc::new(Self { places, home, clock, owners, is_leaving, wishes, wished, counts }))
    }

    /// Whether nodes count together.
    #[must_use]
    pub fn is_among_nodes(&self) -> bool {
        matches!(self.home, Home::Nodes(..))
    }

    /// How many nodes there are, as far as this one knows.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.owners.nodes().max(1)
    }

    /// What it has come to.
    #[must_use]
    pub fn figures(&self) -> SharedFigures {
        let now = self.clock.elapsed();
        let read = |count: &AtomicU64| count.load(Relaxed);
        SharedFigures {
            owned: self.places.iter().filter(|place| place.is_owned(now)).count(),
            questions: read(&self.counts.questions),
            granted: read(&self.counts.granted),
            away: read(&self.counts.away),
            saves: read(&self.counts.saves),
            reserves: read(&self.counts.reserves),
        }
    }

    /// The bucket of `key`, or of `crowd` if there is no room for one more.
    pub(super) fn bucket(&self, key: u128, crowd: u128, rate: Rate) -> Arc<SharedBucket> {
        self.bucket_or_crowd(key, crowd, &|| None, rate)
    }

    pub(super) fn bucket_or_crowd(
        &self,
        key: u128,
        crowd: u128,
        quota: &dyn Fn() -> Option<QuotaCount>,
        rate: Rate,
    ) -> Arc<SharedBucket> {
        let bucket = self.places[usize::from(place_of(key))].bucket(key, rate, quota);
        bucket.unwrap_or_else(|| {
            let place = &self.places[usize::from(place_of(crowd))];
            let mut buckets = place.buckets.lock();
            let new = || Arc::new(SharedBucket::new(crowd, rate, quota()));
            buckets.entry(crowd).or_insert_with(new).clone()
        })
    }

    /// Charges a bucket, or for 0 asks whether there is room for one. Nothing waits here.
    pub(super) fn charge(
        &self,
        bucket: &Arc<SharedBucket>,
        now: Duration,
        cost: u32,
        rule: WhenAway,
    ) -> Charged {
        if let Some(quota) = &bucket.quota {
            return self.charge_quota(bucket, quota, now, cost, rule);
        }
        let place = &self.places[usize::from(bucket.place)];
        if place.is_owned(now) {
            return match bucket.owned.take_or_look(bucket.rate, now, cost) {
                Ok(taken) => Charged::Taken(taken),
                Err(refused) => Charged::Refused(refused),
            };
        }
        let drawn = bucket.share.lock().draw(now, u64::from(cost));
        match drawn {
            Drawn::Taken { taken, low } => {
                if low {
                    self.wish(bucket);
                }
                Charged::Taken(taken)
            }
            Drawn::Refused(taken) => Charged::Refused(taken),
            Drawn::Short if nanos(now) < place.away_until.load(Relaxed) => {
                self.without_owner(bucket, now, cost, rule)
            }
            Drawn::Short => Charged::Short,
        }
    }

    /// Charges a bucket of a rule that refuses nothing, and so makes nobody wait. False if the
    /// rule would have refused; what the owner has to be asked for first is told to the tally
    /// once it has answered, and not counted at all while it is away.
    pub(super) fn shadow(&self, bucket: &Arc<SharedBucket>, now: Duration, cost: u32) -> bool {
        let place = &self.places[usize::from(bucket.place)];
        if let Some(quota) = &bucket.quota {
            if self.holds(place) {
                return self.shadow_quota(bucket, quota, cost);
            }
        } else if place.is_owned(now) {
            return bucket.owned.take_or_look(bucket.rate, now, cost).is_ok();
        }
        let mut share = bucket.share.lock();
        let low = match share.draw(now, u64::from(cost)) {
            Drawn::Taken { low, .. } => low,
            Drawn::Refused(_) => return false,
            Drawn::Short => {
                let is_away = nanos(now) < place.away_until.load(Relaxed);
                if !is_away {
                    share.owe(u64::from(cost));
                }
                !is_away
            }
        };
        drop(share);
        if low {
            self.wish(bucket);
        }
        true
    }

    /// Decides by the rule's policy for an owner that does not answer.
    pub(super) fn without_owner(
        &self,
        bucket: &SharedBucket,
        now: Duration,
        cost: u32,
        rule: WhenAway,
    ) -> Charged {
        self.counts.away.fetch_add(1, Relaxed);
        match rule {
            WhenAway::Refuse => Charged::Away,
            WhenAway::Pass => {
                let retry_after = Duration::ZERO;
                Charged::Taken(Taken { remaining: 0, reset: Duration::ZERO, retry_after })
            }
            WhenAway::LocalShare => {
                if let Some(quota) = &bucket.quota {
                    return self.take_unasked(bucket, quota, now, cost);
                }
                match bucket.owned.take_or_look(self.part_of(bucket.rate), now, cost) {
                    Ok(taken) => Charged::Taken(taken),
                    Err(refused) => Charged::Refused(refused),
                }
            }
        }
    }

    /// This node's part of a rate.
    fn part_of(&self, rate: Rate) -> Rate {
        let nodes = self.owners.nodes().max(1);
        let interval = rate.interval.saturating_mul(nodes);
        Rate { interval, burst: (rate.burst / nodes).max(1) }
    }

    /// Charges what a request that was let in came to, whether there is room for it or not.
    /// What is decided without the owner stays on this node.
    pub(super) fn debit(&self, bucket: &Arc<SharedBucket>, now: Duration, cost: u64) -> Taken {
        let place = &self.places[usize::from(bucket.place)];
        if let Some(quota) = &bucket.quota {
            return self.debit_quota(bucket, quota, now, cost);
        }
        if place.is_owned(now) {
            return bucket.owned.debit(bucket.rate, now, cost);
        }
        if nanos(now) < place.away_until.load(Relaxed) {
            return bucket.owned.debit(self.part_of(bucket.rate), now, cost);
        }
        let (taken, news) = bucket.share.lock().spend(now, cost);
        if news {
            self.wish(bucket);
        }
        taken
    }

    /// Makes a limit full again by `ask`, wherever it is counted. Nodes that were refused
    /// remember that for up to a second.
    ///
    /// # Errors
    /// What the owner said, or that there is none.
    pub(super) async fn reset(&self, ask: Ask) -> Result<(), String> {
        let place = place_of(ask.key);
        let known = self.places[usize::from(place)].buckets.lock().get(&ask.key).cloned();
        if let Some(bucket) = &known {
            bucket.share.lock().reset();
        }
        if let [Some(_)] = *self.grant(std::slice::from_ref(&ask)).await {
            return Ok(());
        }
        let owner = self.owners.owner(place).ok_or("no node is registered")?;
        match self.owners.ask(&owner, vec![ask]).await?.first() {
            Some(Some(_)) => Ok(()),
            Some(None) | None => Err("its owner changes".into()),
        }
    }

    /// Undoes a charge of this moment. What was decided without the owner stays charged.
    pub(super) fn put_back(&self, bucket: &SharedBucket, now: Duration, cost: u32) {
        let place = &self.places[usize::from(bucket.place)];
        if let Some(quota) = &bucket.quota
            && self.holds(place)
        {
            quota.put_back(u64::from(cost));
        } else if bucket.quota.is_none() && place.is_owned(now) {
            bucket.owned.give_back(bucket.rate, u64::from(cost));
        } else if nanos(now) >= place.away_until.load(Relaxed) {
            bucket.share.lock().put_back(u64::from(cost));
        }
    }

    /// Waits for the owner's answer about `bucket`; false if there was none in time, and then
    /// the owner counts as away.
    pub(super) async fn ask(&self, bucket: &Arc<SharedBucket>) -> bool {
        let answered = bucket.answered.notified();
        let mut answered = std::pin::pin!(answered);
        answered.as_mut().enable();
        if bucket.quota.is_some() && self.holds(&self.places[usize::from(bucket.place)]) {
            self.reserve_soon(bucket);
        } else {
            self.wish(bucket);
        }
        let in_time = tokio::time::timeout(WAIT, answered).await.is_ok();
        if !in_time {
            self.is_away(bucket.place);
        }
        in_time
    }

    /// Its owner does not answer.
    pub(super) fn is_away(&self, place: u8) {
        let until = nanos(self.clock.elapsed() + AWAY);
        self.places[usize::from(place)].away_until.store(until, Relaxed);
    }

    pub(super) fn wish(&self, bucket: &Arc<SharedBucket>) {
        if !bucket.wished.swap(true, SeqCst) && self.wishes.try_send(bucket.clone()).is_err() {
            bucket.wished.store(false, SeqCst);
        }
    }

    /// Answers another node's questions; `None` for those whose place this node does not own.
    pub async fn grant(&self, asks: &[Ask]) -> Vec<Option<Grant>> {
        let unheard = self.reserve_for(asks).await;
        let is_heard = |ask: &&Ask| !unheard.contains(&ask.key);
        asks.iter()
            .map(|ask| Some(ask).filter(is_heard).and_then(|ask| self.grant_one(ask)))
            .collect()
    }

    fn grant_one(&self, ask: &Ask) -> Option<Grant> {
        if ask.quota.is_some() {
            return self.grant_quota(ask);
        }
        let place = &self.places[usize::from(place_of(ask.key))];
        if !place.is_owned(self.clock.elapsed()) {
            return None;
        }
        let rate = Rate { interval: ask.interval.max(1), burst: ask.burst.max(1) };
        let Some(bucket) = place.bucket(ask.key, rate, &|| None) else {
            // There is no room to count it; to refuse is the safe side.
            let retry_after = nanos(SAVED_WITHIN);
            return Some(Grant { retry_after, ..Grant::default() });
        };
        if ask.reset {
            bucket.owned.reset();
        }
        bucket.owned.give_back(rate, ask.back.min(rate.burst));
        if ask.spent > 0 {
            bucket.owned.debit(rate, self.clock.elapsed(), ask.spent);
        }
        // By the time now: who did not run for a while is behind what others took since.
        let (granted, taken) = bucket.owned.take_up_to(rate, self.clock.elapsed(), ask.want);
        Some(Grant {
            granted,
            remaining: taken.remaining,
            reset: nanos(taken.reset),
            retry_after: nanos(taken.retry_after),
            begun: Timestamp(0),
        })
    }

    /// Asks owners, takes places over and saves what is counted here. To be run once, until
    /// dropped.
    pub async fn run(self: Arc<Self>) {
        let Some(wished) = self.wished.lock().take() else { return };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(self.clone().ask_owners(wished));
        for place in 0..PLACES {
            tasks.spawn(self.clone().own(place));
            tasks.spawn(self.clone().keep_quotas(place));
        }
        tasks.join_all().await;
    }
}

impl Place {
    fn is_owned(&self, now: Duration) -> bool {
        let lease = self.lease.load();
        lease.as_ref().is_some_and(|lease| lease.is_held())
            && nanos(now).saturating_sub(self.saved.load(Relaxed)) < nanos(SAVED_WITHIN)
    }

    pub(super) fn bucket(
        &self,
        key: u128,
        rate: Rate,
        quota: &dyn Fn() -> Option<QuotaCount>,
    ) -> Option<Arc<SharedBucket>> {
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.get(&key) {
            return Some(bucket.clone());
        }
        if buckets.len() >= KEYS_MAX {
            return None;
        }
        let bucket = Arc::new(SharedBucket::new(key, rate, quota()));
        buckets.insert(key, bucket.clone());
        Some(bucket)
    }
}

impl SharedBucket {
    fn new(key: u128, rate: Rate, quota: Option<QuotaCount>) -> Self {
        Self {
            place: place_of(key),
            key,
            rate,
            quota,
            owned: Bucket::default(),
            share: Mutex::default(),
            saved: AtomicU64::new(0),
            answered: Notify::new(),
            tally: Mutex::default(),
            wished: AtomicBool::new(false),
        }
    }

    /// What to ask its owner; `None` while an answer is awaited.
    pub(super) fn ask(&self, now: Duration) -> Option<Ask> {
        // Before the share is looked at: who draws on it later has to wish again.
        self.wished.store(false, SeqCst);
        let mut share = self.share.lock();
        match &self.quota {
            None => share.ask(now, self.key, self.rate.interval, self.rate.burst),
            Some(quota) => {
                let ask = share.ask(now, self.key, 1, quota.limit())?;
                let quota =
                    Some(AskedQuota { calendar: quota.calendar().clone(), begun: share.begun() });
                Some(Ask { quota, ..ask })
            }
        }
    }

    /// Takes the owner's answer, or that there was none, and tells whoever waits.
    pub(super) fn answer(&self, now: Duration, grant: Option<Grant>) {
        let refused = self.share.lock().answered(now, grant);
        if refused > 0
            && let Some((tally, named)) = &*self.tally.lock()
        {
            tally.add(now, named, refused);
        }
        self.answered.notify_waiters();
    }

    /// Notes refusals of requests that did not wait in `tally`.
    pub(super) fn tell(&self, tally: &Arc<Tally>, named: &Arc<Named>) {
        *self.tally.lock() = Some((tally.clone(), named.clone()));
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
