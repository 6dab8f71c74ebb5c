//! What an owner does for a place: it takes over what was counted, saves what it counts, and gives
//! back what nobody draws on.

use super::{Home, LOOK_EVERY, Place, SAVED_WITHIN, Shared, nanos};
use crate::limit::gcra::Rate;
use ledger::{Lease, LeaseError, Shard};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use store::{Key, SharedStore, Write};
use types::Timestamp;

const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Writes of one commit; the fence and the like come on top.
const WRITES: usize = 100;

impl Shared {
    /// Looks after the place as long as this node runs: takes it over, saves it, gives it up.
    pub(super) async fn own(self: Arc<Self>, at: u8) {
        let Home::Nodes(store, keeper) = &self.home else { return };
        let place = &self.places[usize::from(at)];
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut next_save = Duration::ZERO;
        loop {
            look.tick().await;
            let lease = keeper.lease(Shard::of(&place.partition));
            let known = place.lease.load_full();
            match (&lease, &known) {
                (None, Some(_)) => place.lease.store(None),
                (Some(lease), known)
                    if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, lease)) =>
                {
                    match self.take_over(store, place, lease).await {
                        Ok(()) => tracing::info!(place = at, "this node counts shared limits"),
                        Err(error) => {
                            tracing::warn!(place = at, %error, "limits cannot be taken over")
                        }
                    }
                }
                (Some(lease), Some(_)) if self.clock.elapsed() >= next_save => {
                    next_save = self.clock.elapsed() + SAVE_EVERY;
                    match self.save(store, place, lease).await {
                        Ok(()) => {}
                        Err(LeaseError::Lost) => place.lease.store(None),
                        Err(error) => tracing::warn!(place = at, %error, "limits cannot be saved"),
                    }
                }
                (_, _) => {}
            }
            self.give_back(place);
        }
    }

    /// Loads what the former owner saved; nothing that it saves later counts.
    async fn take_over(
        &self,
        store: &SharedStore,
        place: &Place,
        lease: &Arc<Lease>,
    ) -> Result<(), LeaseError> {
        let begun = self.clock.elapsed();
        {
            let _saving = place.saving.lock().await;
            drop(lease.open(store, &place.quotas).await?);
            place.unload_quotas();
        }
        drop(lease.open(store, &place.partition).await?);
        let mut after: Option<Key> = None;
        loop {
            let page = store.scan(&place.partition, b"", after.as_ref(), 1_000).await?;
            for (key, record) in &page.records {
                let saved =
                    <[u8; 16]>::try_from(key.as_bytes()).ok().zip(Saved::read(&record.value));
                let Some((key, saved)) = saved else { continue };
                let Some(bucket) = place.bucket(u128::from_be_bytes(key), saved.rate, &|| None)
                else {
                    continue;
                };
                let ahead = saved.full_at.since(self.clock.now());
                bucket.owned.at_least(self.clock.elapsed() + ahead);
            }
            match page.records.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        place.saved.store(nanos(begun), Relaxed);
        place.lease.store(Some(lease.clone()));
        Ok(())
    }

    /// Saves every count that has changed and that would matter in a second.
    async fn save(
        &self,
        store: &SharedStore,
        place: &Place,
        lease: &Lease,
    ) -> Result<(), LeaseError> {
        let begun = self.clock.elapsed();
        let mut changed = Vec::new();
        place.buckets.lock().retain(|_, bucket| {
            if bucket.quota.is_some() {
                return true;
            }
            let arrival = bucket.owned.arrival();
            let saved = bucket.saved.load(Relaxed);
            // What was saved may also have to be taken back.
            let matters = nanos(arrival).max(saved) > nanos(begun + SAVE_EVERY);
            if matters && nanos(arrival) != saved {
                changed.push((bucket.clone(), arrival));
            }
            let is_idle = bucket.owned.is_idle(begun) && bucket.share.lock().is_idle();
            Arc::strong_count(bucket) > 1 || !is_idle
        });
        // It was opened when it was taken over.
        let owned = lease.opened(store, &place.partition);
        for some in changed.chunks(WRITES) {
            let writes = some.iter().map(|(bucket, arrival)| {
                let ahead = arrival.saturating_sub(self.clock.elapsed());
                let saved = Saved { rate: bucket.rate, full_at: self.clock.now().plus(ahead) };
                (bucket.key, saved.written(), ahead)
            });
            let writes: Vec<_> = writes.collect();
            owned
                .commit(|mut commit| {
                    for (key, value, ahead) in writes {
                        if let Ok(key) = Key::new(key.to_be_bytes()) {
                            let expires = Some(ahead + SAVED_WITHIN);
                            commit = commit.write(Write::Put { key, value: value.into(), expires });
                        }
                    }
                    commit
                })
                .await?;
            self.counts.saves.fetch_add(1, Relaxed);
        }
        for (bucket, arrival) in changed {
            bucket.saved.store(nanos(arrival), Relaxed);
        }
        place.saved.store(nanos(begun), Relaxed);
        Ok(())
    }

    /// Gives shares back that nobody drew on, and tells what was spent.
    fn give_back(&self, place: &Place) {
        let now = self.clock.elapsed();
        if nanos(now) < place.away_until.load(Relaxed) {
            return;
        }
        let buckets = place.buckets.lock();
        for bucket in buckets.values() {
            if bucket.share.lock().has_news(now) {
                self.wish(bucket);
            }
        }
    }
}

/// A count as it is kept: a version byte, interval, burst, and when it is full again in
/// milliseconds since 1970, each in 8 bytes.
#[derive(Debug, PartialEq, Eq)]
struct Saved {
    rate: Rate,
    full_at: Timestamp,
}

impl Saved {
    const VERSION: u8 = 1;

    fn written(&self) -> Vec<u8> {
        let mut bytes = vec![Self::VERSION];
        for number in [self.rate.interval, self.rate.burst, self.full_at.0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&Self::VERSION, rest) = bytes.split_first()? else { return None };
        let mut numbers =
            rest.chunks_exact(8).map(|bytes| bytes.try_into().map(u64::from_be_bytes));
        let mut next = || numbers.next()?.ok();
        let rate = Rate { interval: next()?.max(1), burst: next()? };
        Some(Self { rate, full_at: Timestamp(next()?) })
    }
}
