//! Quotas: counts of calendar periods, which the store keeps.
//!
//! The owner of a place (the only node, or the holder of its lease) counts its quotas, and
//! reserves in the store what may be used before it is: so much that a request seldom waits for
//! the store, and so little that a crash wastes little ([`quota::part`](super::quota)). A count
//! is loaded when it is first drawn on, and forgotten when nobody has drawn on it for a while.
//! Other nodes get shares of what is reserved, as they do of any shared limit.

use crate::limit::{
    WhenAway,
    calendar::{Calendar, Turning},
    gcra::{Rate, Taken},
    quota::{Counted, Drawing, Quota},
    share::{Ask, Drawn, Grant},
    shared::{Charged, Home, LOOK_EVERY, Place, Shared, SharedBucket, nanos, place_of},
};
use clock::SharedClock;
use futures_util::{StreamExt, future::join_all, stream};
use ledger::LeaseError;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};
use store::{Commit, Key, Write};
use tokio::time::MissedTickBehavior;
use types::Timestamp;

/// A count is kept for so long after the end of its period, should the clock go back.
const KEPT_AFTER: Duration = Duration::from_secs(31 * 86_400);
/// How long another node's question waits for the store; less than that node waits.
const RESERVES_FOR: Duration = Duration::from_millis(300);
/// How long, at the end, shares may take to be given back.
const GIVES_BACK_FOR: Duration = Duration::from_secs(1);
const MALFORMED: &str = "a quota's count is seventeen bytes long";
/// Counts that are loaded at a time.
const LOADS: usize = 32;
/// Writes of one commit; the fence and the like come on top.
const WRITES: usize = 100;

/// A quota's count, with what it is counted by.
#[derive(Debug)]
pub(super) struct QuotaCount {
    turning: Turning,
    limit: AtomicU64,
    count: Mutex<Quota>,
}

impl QuotaCount {
    fn new(calendar: Calendar, limit: u64, count: Quota) -> Self {
        Self {
            turning: Turning::new(calendar),
            limit: AtomicU64::new(limit),
            count: Mutex::new(count),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    pub(super) fn calendar(&self) -> &Calendar {
        self.turning.calendar()
    }

    /// Does something to the count, once it is that of the period of now.
    fn by<T>(&self, clock: &SharedClock, draw: impl FnOnce(&mut Quota, Drawing) -> T) -> T {
        let (at, now) = (clock.now(), clock.elapsed());
        let mut period = self.turning.period(at);
        let mut count = self.count.lock();
        count.turn(period);
        if count.begun() > period.begins {
            period = self.calendar().period(count.begun());
        }
        draw(&mut count, Drawing { limit: self.limit(), at, period, now })
    }

    pub(super) fn put_back(&self, cost: u64) {
        self.count.lock().put_back(cost);
    }
}

impl Shared {
    /// The bucket of a quota, or of `crowd` if there is no room for one more.
    pub(super) fn quota(
        &self,
        key: u128,
        crowd: u128,
        calendar: &Calendar,
        limit: u64,
    ) -> Arc<SharedBucket> {
        let new = || Some(self.new_quota(calendar.clone(), limit));
        let bucket = self.bucket_or_crowd(key, crowd, &new, Self::no_rate());
        if let Some(quota) = &bucket.quota {
            quota.limit.store(limit, Relaxed);
        }
        bucket
    }

    fn new_quota(&self, calendar: Calendar, limit: u64) -> QuotaCount {
        let count = match self.home {
            Home::Memory => Quota::in_memory(),
            Home::Alone(_) | Home::Nodes(..) => Quota::default(),
        };
        QuotaCount::new(calendar, limit, count)
    }

    fn no_rate() -> Rate {
        Rate { interval: 1, burst: 1 }
    }

    /// Whether this node counts the quotas of `place`.
    pub(super) fn holds(&self, place: &Place) -> bool {
        match self.home {
            Home::Memory | Home::Alone(_) => true,
            Home::Nodes(..) => place.lease.load().as_ref().is_some_and(|lease| lease.is_held()),
        }
    }

    fn place_of(&self, bucket: &SharedBucket) -> &Place {
        &self.places[usize::from(bucket.place)]
    }

    fn is_away_now(&self, place: &Place, now: Duration) -> bool {
        nanos(now) < place.away_until.load(Relaxed)
    }

    pub(super) fn charge_quota(
        &self,
        bucket: &Arc<SharedBucket>,
        quota: &QuotaCount,
        now: Duration,
        cost: u32,
        rule: WhenAway,
    ) -> Charged {
        let place = self.place_of(bucket);
        if self.holds(place) {
            return match quota.by(&self.clock, |count, by| count.take(by, u64::from(cost))) {
                Counted::Taken { taken, low } => {
                    if low {
                        self.reserve_soon(bucket);
                    }
                    Charged::Taken(taken)
                }
                Counted::Refused(taken) => Charged::Refused(taken),
                Counted::Short if self.is_away_now(place, now) => {
                    self.without_owner(bucket, now, cost, rule)
                }
                Counted::Short => Charged::Short,
            };
        }
        let drawn = bucket.share.lock().draw(now, u64::from(cost));
        // An owner tells when the period ends; exactly then it does on this node too.
        let left = quota.by(&self.clock, |_, by| by.period.ends.since(by.at));
        match drawn {
            Drawn::Taken { taken, low } => {
                if low {
                    self.wish(bucket);
                }
                Charged::Taken(Taken { reset: left, ..taken })
            }
            Drawn::Refused(taken) => {
                Charged::Refused(Taken { reset: left, retry_after: left, ..taken })
            }
            Drawn::Short if self.is_away_now(place, now) => {
                self.without_owner(bucket, now, cost, rule)
            }
            Drawn::Short => Charged::Short,
        }
    }

    /// The length of the period of now.
    pub(super) fn window(&self, quota: &QuotaCount) -> Duration {
        quota.by(&self.clock, |_, by| by.period.length())
    }

    /// Charges a quota in shadow that is counted here.
    pub(super) fn shadow_quota(
        &self,
        bucket: &Arc<SharedBucket>,
        quota: &QuotaCount,
        cost: u32,
    ) -> bool {
        let fits = quota.by(&self.clock, |count, by| count.take_freely(by, u64::from(cost)));
        self.reserve_soon(bucket);
        fits
    }

    /// Takes of this node's part while the store or the owner does not answer. Whoever counts is
    /// told once it does.
    pub(super) fn take_unasked(
        &self,
        bucket: &SharedBucket,
        quota: &QuotaCount,
        now: Duration,
        cost: u32,
    ) -> Charged {
        let cost = u64::from(cost);
        let is_told = !self.holds(self.place_of(bucket));
        let taken = quota.by(&self.clock, |count, by| count.take_unasked(by, cost, is_told));
        let Some(taken) = taken else { return Charged::Away };
        if is_told {
            bucket.share.lock().spend(now, cost);
        }
        Charged::Taken(taken)
    }

    pub(super) fn debit_quota(
        &self,
        bucket: &Arc<SharedBucket>,
        quota: &QuotaCount,
        now: Duration,
        cost: u64,
    ) -> Taken {
        let place = self.place_of(bucket);
        if self.is_away_now(place, now) {
            quota.by(&self.clock, |count, _| count.debit_unasked(cost));
        }
        if self.holds(place) {
            let taken = quota.by(&self.clock, |count, by| count.debit(by, cost));
            self.reserve_soon(bucket);
            return taken;
        }
        let (taken, news) = bucket.share.lock().spend(now, cost);
        if news {
            self.wish(bucket);
        }
        let left = quota.by(&self.clock, |_, by| by.period.ends.since(by.at));
        Taken { reset: left, ..taken }
    }

    /// Has the store asked or told about a quota that is counted here.
    pub(super) fn reserve_soon(&self, bucket: &Arc<SharedBucket>) {
        if !bucket.wished.swap(true, SeqCst) {
            let place = self.place_of(bucket);
            place.short.lock().push(bucket.clone());
            place.hurry.notify_one();
        }
    }

    /// The bucket that another node asks about, if it is counted here.
    fn asked(&self, ask: &Ask) -> Option<Arc<SharedBucket>> {
        let asked = ask.quota.as_ref()?;
        let place = &self.places[usize::from(place_of(ask.key))];
        if !self.holds(place) {
            return None;
        }
        let new = || Some(self.new_quota(asked.calendar.clone(), ask.burst));
        let bucket = place.bucket(ask.key, Self::no_rate(), &new)?;
        bucket.quota.is_some().then_some(bucket)
    }

    /// Hears what other nodes tell about quotas, and reserves what they ask for. Answers the keys
    /// of those for which the store did not do so in time.
    pub(super) async fn reserve_for(&self, asks: &[Ask]) -> Vec<u128> {
        let mut waiting = Vec::new();
        for ask in asks {
            let Some(bucket) = self.asked(ask) else { continue };
            let (Some(quota), Some(asked)) = (&bucket.quota, &ask.quota) else { continue };
            let is_ready = quota.by(&self.clock, |count, by| {
                if ask.reset {
                    count.reset(quota.turning.period(by.at));
                }
                count.take_back(asked.begun, ask.back);
                if ask.spent > 0 {
                    count.debit(by, ask.spent);
                }
                count.is_ready(Drawing { limit: ask.burst, ..by }, ask.want)
            });
            if !is_ready {
                waiting.push(bucket);
            }
        }
        let answers = waiting.iter().map(|bucket| async {
            let answered = bucket.answered.notified();
            let mut answered = std::pin::pin!(answered);
            answered.as_mut().enable();
            self.reserve_soon(bucket);
            let answered = tokio::time::timeout(RESERVES_FOR, answered).await;
            answered.is_err().then_some(bucket.key)
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    pub(super) fn grant_quota(&self, ask: &Ask) -> Option<Grant> {
        let bucket = self.asked(ask)?;
        let quota = bucket.quota.as_ref()?;
        let (granted, taken, begun) = quota.by(&self.clock, |count, by| {
            let by = Drawing { limit: ask.burst, ..by };
            let (granted, taken) = count.take_up_to(by, ask.want)?;
            Some((granted, taken, count.begun()))
        })?;
        Some(Grant {
            granted,
            remaining: taken.remaining,
            reset: nanos(taken.reset),
            retry_after: nanos(taken.retry_after),
            begun,
        })
    }

    /// Loads and saves the quotas of a place; by itself, so that a slow durable store holds up no
    /// other limit.
    pub(super) async fn keep_quotas(self: Arc<Self>, at: u8) {
        let place = &self.places[usize::from(at)];
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A node alone without quotas need not wake up.
            let is_in_use = self.is_among_nodes() || !place.buckets.lock().is_empty();
            tokio::select! {
                _ = look.tick(), if is_in_use => self.save_quotas(place, None).await,
                () = place.hurry.notified() => {
                    let short = std::mem::take(&mut *place.short.lock());
                    self.save_quotas(place, Some(short)).await;
                }
            }
        }
    }

    /// Loads and saves what has to be: of `some`, or of all that are counted here, of which
    /// those that are kept and that nobody draws on are forgotten.
    async fn save_quotas(&self, place: &Place, some: Option<Vec<Arc<SharedBucket>>>) {
        if matches!(self.home, Home::Memory) {
            return;
        }
        let _saving = place.saving.lock().await;
        let now = self.clock.elapsed();
        let is_held = self.holds(place);
        let buckets = match some {
            Some(some) => some,
            None => place.quotas_of(is_held, now),
        };
        for bucket in &buckets {
            // Before the count is looked at: who draws on it later has to wish again.
            bucket.wished.store(false, SeqCst);
        }
        if !is_held {
            return;
        }
        match self.run_errands(place, &buckets).await {
            Ok(()) => {
                for bucket in buckets.iter().filter(|bucket| !bucket.needs_load()) {
                    bucket.answered.notify_waiters();
                }
            }
            // Whoever waits goes by its rule's `when_away`.
            Err(LeaseError::Lost | LeaseError::Held { .. }) => {}
            Err(LeaseError::Store(error)) => {
                tracing::warn!(%error, place = %place.quotas, "quotas cannot be reserved");
            }
        }
    }

    async fn run_errands(
        &self,
        place: &Place,
        buckets: &[Arc<SharedBucket>],
    ) -> Result<(), LeaseError> {
        let new: Vec<_> = buckets.iter().filter(|bucket| bucket.needs_load()).cloned().collect();
        let loads = new.into_iter().map(|bucket| self.load(place, bucket));
        let mut loading = stream::iter(loads).buffer_unordered(LOADS);
        while let Some(loaded) = loading.next().await {
            // The others can be counted all the same.
            if let Err(error) = loaded {
                tracing::warn!(%error, place = %place.quotas, "a quota's count cannot be read");
            }
        }
        drop(loading);
        let (now, is_leaving) = (self.clock.elapsed(), self.is_leaving.load(SeqCst));
        let due = |bucket: &Arc<SharedBucket>| {
            let quota = bucket.quota.as_ref()?;
            let (begun, used) = quota.count.lock().due(quota.limit(), now, is_leaving)?;
            Some((bucket.clone(), begun, used))
        };
        let saves: Vec<_> = buckets.iter().filter_map(due).collect();
        let mut outcome = Ok(());
        for some in saves.chunks(WRITES) {
            if outcome.is_ok() {
                outcome = self.commit(place, some).await;
            }
            for (bucket, begun, target) in some {
                if let Some(quota) = &bucket.quota {
                    quota.count.lock().saved(*begun, *target, outcome.is_ok());
                }
            }
        }
        outcome
    }

    async fn load(&self, place: &Place, bucket: Arc<SharedBucket>) -> Result<(), store::Error> {
        let (Home::Alone(store) | Home::Nodes(store, _)) = &self.home else { return Ok(()) };
        let key = Key::new(bucket.key.to_be_bytes())?;
        let record = store.get(&place.quotas, &key).await?;
        let read = |value: &[u8]| Saved::read(value).ok_or(store::Error::corrupt(MALFORMED));
        let saved = record.map(|record| read(&record.value)).transpose()?;
        if let Some(quota) = &bucket.quota {
            let known = saved.map(|saved| (saved.begun, saved.used));
            quota.by(&self.clock, |count, _| count.load(known));
        }
        Ok(())
    }

    async fn commit(
        &self,
        place: &Place,
        saves: &[(Arc<SharedBucket>, Timestamp, u64)],
    ) -> Result<(), LeaseError> {
        let at = self.clock.now();
        let mut writes = Vec::new();
        for (bucket, begun, used) in saves {
            let Some(quota) = &bucket.quota else { continue };
            let key = Key::new(bucket.key.to_be_bytes())?;
            let value = Saved { begun: *begun, used: *used }.written().into();
            let left = quota.calendar().period(*begun).ends.since(at);
            writes.push(Write::Put { key, value, expires: Some(left + KEPT_AFTER) });
        }
        let fill = |commit: Commit| writes.into_iter().fold(commit, Commit::write);
        self.counts.reserves.fetch_add(1, Relaxed);
        match &self.home {
            Home::Memory => {}
            Home::Alone(store) => {
                store.commit(fill(Commit::new(place.quotas.clone()))).await?;
            }
            Home::Nodes(store, _) => {
                let lease = place.lease.load_full().ok_or(LeaseError::Lost)?;
                // It was opened when the place was taken over.
                lease.opened(store, &place.quotas).commit(fill).await?;
            }
        }
        Ok(())
    }

    /// Before a node ends: gives back what it did not use, so that no quota counts it.
    pub async fn settle(&self) {
        self.is_leaving.store(true, SeqCst);
        let until = self.clock.elapsed() + GIVES_BACK_FOR;
        while self.give_back_shares() && self.clock.elapsed() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let saving = self.places.iter().map(|place| self.save_quotas(place, None));
        join_all(saving).await;
    }

    /// Whether there is still something to be given back.
    fn give_back_shares(&self) -> bool {
        let now = self.clock.elapsed();
        let mut is_open = false;
        for place in self.places.iter().filter(|place| !self.holds(place)) {
            for bucket in place.buckets.lock().values().filter(|bucket| bucket.quota.is_some()) {
                let mut share = bucket.share.lock();
                share.release();
                if share.has_news(now) {
                    self.wish(bucket);
                }
                is_open |= !share.is_idle();
            }
        }
        is_open
    }
}

impl SharedBucket {
    fn needs_load(&self) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.count.lock().needs_load())
    }
}

impl Place {
    /// Every quota, apart from those that can be forgotten, and are.
    fn quotas_of(&self, is_held: bool, now: Duration) -> Vec<Arc<SharedBucket>> {
        let mut quotas = Vec::new();
        self.buckets.lock().retain(|_, bucket| {
            let Some(quota) = &bucket.quota else { return true };
            let is_idle = quota.count.lock().is_idle(now) && bucket.share.lock().is_idle();
            if is_idle && Arc::strong_count(bucket) == 1 {
                return false;
            }
            if is_held {
                quotas.push(bucket.clone());
            }
            true
        });
        quotas
    }

    /// Somebody else may have counted meanwhile.
    pub(super) fn unload_quotas(&self) {
        for bucket in self.buckets.lock().values() {
            if let Some(quota) = &bucket.quota {
                quota.count.lock().unload();
            }
        }
    }
}

/// A count as it is kept: a version byte, the beginning of the period in milliseconds since
/// 1970, and what is used or reserved of it, each in 8 bytes.
#[derive(Debug, PartialEq, Eq)]
struct Saved {
    begun: Timestamp,
    used: u64,
}

impl Saved {
    const VERSION: u8 = 1;

    fn written(&self) -> Vec<u8> {
        let mut bytes = vec![Self::VERSION];
        bytes.extend(self.begun.0.to_be_bytes());
        bytes.extend(self.used.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&Self::VERSION, rest) = bytes.split_first()? else { return None };
        let (begun, used) = rest.split_at_checked(8)?;
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
        Some(Self { begun: Timestamp(number(begun)?), used: number(used)? })
    }
}

#[cfg(test)]
mod tests;
