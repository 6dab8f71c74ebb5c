//! Where documents were last found, and how much they are used.

use crate::state::tier::place::Place;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use store::Partition;

const SHARDS: usize = 16;
/// Documents that a shard knows; then it forgets all of them.
const DOCUMENTS_MAX: usize = 4_096;
/// After so long a use counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// What is done with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    /// What a reader or a writer asks beside.
    Look,
}

/// How much a document is used, by the calls of its store.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Activity {
    pub(crate) reads_per_minute: f64,
    pub(crate) writes_per_minute: f64,
}

/// Counts uses, the later ones more.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    count: f64,
    at: Duration,
}

impl Rate {
    fn count_at(&self, now: Duration) -> f64 {
        let ages = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.count * (-ages).exp2()
    }

    fn add(&mut self, now: Duration) {
        *self = Self { count: self.count_at(now) + 1.0, at: now };
    }

    /// With one use after the other, evenly, the count comes to what is used in a half-life, by
    /// the logarithm of two.
    fn per_minute(&self, now: Duration) -> f64 {
        self.count_at(now) * std::f64::consts::LN_2 * 60.0 / HALF_LIFE.as_secs_f64()
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    place: Place,
    reads: Rate,
    writes: Rate,
}

impl Seen {
    fn used(&mut self, by: Use, now: Duration) {
        match by {
            Use::Read => self.reads.add(now),
            Use::Write => self.writes.add(now),
            Use::Look => {}
        }
    }
}

/// Bounded: what is forgotten is looked up again.
pub(super) struct Known {
    shards: Vec<Mutex<HashMap<Partition, Seen, ahash::RandomState>>>,
    hasher: ahash::RandomState,
}

impl Known {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: ahash::RandomState::new() }
    }

    fn shard(&self, of: &Partition) -> &Mutex<HashMap<Partition, Seen, ahash::RandomState>> {
        &self.shards[(self.hasher.hash_one(of) as usize) % SHARDS]
    }

    /// Where it is, if that is known; the use counts.
    pub(super) fn place(&self, document: &Partition, by: Use, now: Duration) -> Option<Place> {
        let mut shard = self.shard(document).lock();
        let seen = shard.get_mut(document)?;
        seen.used(by, now);
        Some(seen.place)
    }

    pub(super) fn put(&self, document: &Partition, place: Place, by: Use, now: Duration) {
        let mut shard = self.shard(document).lock();
        if shard.len() >= DOCUMENTS_MAX && !shard.contains_key(document) {
            shard.clear();
        }
        let (reads, writes) = (Rate::default(), Rate::default());
        let seen = shard.entry(document.clone()).or_insert(Seen { place, reads, writes });
        seen.place = place;
        seen.used(by, now);
    }

    pub(super) fn forget(&self, document: &Partition) {
        self.shard(document).lock().remove(document);
    }

    pub(super) fn activity(&self, document: &Partition, now: Duration) -> Activity {
        let shard = self.shard(document).lock();
        shard.get(document).map_or_else(Activity::default, |seen| Activity {
            reads_per_minute: seen.reads.per_minute(now),
            writes_per_minute: seen.writes.per_minute(now),
        })
    }

    /// All documents that are known.
    pub(super) fn all(&self) -> Vec<Partition> {
        let of = |shard: &Mutex<HashMap<Partition, Seen, _>>| {
            shard.lock().keys().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_told_by_the_minute_and_fade() {
        let mut rate = Rate::default();
        for second in 0..600 {
            rate.add(Duration::from_secs(second));
        }
        let after = |seconds: u64| rate.per_minute(Duration::from_secs(600 + seconds));
        assert!((55.0..65.0).contains(&after(0)), "{}", after(0));
        assert!((27.0..33.0).contains(&after(60)), "{}", after(60));
        assert!(after(3_600) < 0.1);
    }
}
