//! The first life of a partition that does not exist yet.
//!
//! A client may follow a channel or a document before anything was written to it, and must
//! be able to resume from there later. So the incarnation that such a partition will start
//! with is known beforehand: it follows from its name and from a seed in the same bucket of the
//! same engine, drawn once.
//!
//! Where a store loses data, the seed's partition begins another life, or is lost as well and
//! drawn anew. Either way whatever is begun again begins with another incarnation: a client of
//! the lost life is told to start again, instead of resuming over a gap. That is why a seed is
//! read each time, and never kept.

use clock::SharedClock;
use parking_lot::Mutex;
use std::{collections::HashMap, fmt, sync::Arc};
use store::{
    Bucket, Check, Commit, Incarnation, Key, Kind, Partition, Position, SharedStore, Write,
};
use types::TenantId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How often a seed is asked for, if others draw it at the same time.
const ATTEMPTS: usize = 8;

/// Knows the first incarnation of every partition of a store.
#[derive(Clone)]
pub struct Genesis(Arc<Inner>);

struct Inner {
    store: SharedStore,
    clock: SharedClock,
    /// The partitions of seeds, by their kind and bucket.
    seeds: Mutex<HashMap<(String, Bucket), Partition>>,
}

impl fmt::Debug for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Genesis").finish_non_exhaustive()
    }
}

impl Genesis {
    /// The beginnings of what is kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock) -> Self {
        Self(Arc::new(Inner { store, clock, seeds: Mutex::default() }))
    }

    /// The incarnation with which `partition` starts.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn incarnation(&self, partition: &Partition) -> Result<Incarnation, store::Error> {
        let Inner { store, clock, .. } = &*self.0;
        let of = self.seed_partition(partition)?;
        let key = Key::new("seed")?;
        for _ in 0..ATTEMPTS {
            let page = store.scan(&of, b"", None, 1).await?;
            let seed = page.records.first().map(|(_, record)| record.value.clone());
            if let Some(seed) = seed.and_then(|seed| <[u8; 8]>::try_from(&*seed).ok()) {
                let seed = u64::from_be_bytes(seed) ^ page.position.incarnation.0;
                let name = partition.to_string();
                return Ok(Incarnation(xxh3_64_with_seed(name.as_bytes(), seed).max(1)));
            }
            let drawn = clock::random::<8>(&**clock).to_vec();
            let commit = Commit::new(of.clone())
                .check(Check::Absent { key: key.clone() })
                .put(key.clone(), drawn);
            match store.commit(commit).await {
                Ok(_) | Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(store::Error::Corrupt { detail: format!("{of} holds no seed") })
    }

    /// The first write of the first commit to `partition`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn begin(&self, partition: &Partition) -> Result<Write, store::Error> {
        let incarnation = self.incarnation(partition).await?;
        Ok(Write::Begin { position: Position { incarnation, revision: 0 }, heads: Vec::new() })
    }

    /// Where the seed for `partition` is: in the same bucket, so that it is lost with it, and
    /// of a kind by which it goes to the same tier.
    fn seed_partition(&self, partition: &Partition) -> Result<Partition, store::Error> {
        let of_session = partition.id().starts_with("session:");
        let suffix = if of_session { "-of-session" } else { "" };
        let kind = format!("genesis-{}{suffix}", partition.kind().as_str());
        let bucket = partition.bucket();
        if let Some(known) = self.0.seeds.lock().get(&(kind.clone(), bucket)) {
            return Ok(known.clone());
        }
        let mut number = 0_u64;
        let found = loop {
            let candidate =
                Partition::new(TenantId::system(), Kind::parse(&kind)?, &number.to_string())?;
            if candidate.bucket() == bucket {
                break candidate;
            }
            number += 1;
        };
        self.0.seeds.lock().insert((kind, bucket), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::SystemClock;
    use store_memory::MemoryStore;

    fn partition(id: &str) -> Partition {
        Partition::new(TenantId::new("acme").unwrap(), Kind::new("channel"), id).unwrap()
    }

    #[tokio::test]
    async fn nodes_agree_on_a_beginning_until_the_store_has_lost_data() {
        let clock = SystemClock::shared();
        let store: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
        let [here, there] = [(); 2].map(|()| Genesis::new(store.clone(), clock.clone()));
        let first = here.incarnation(&partition("news")).await.unwrap();
        assert_eq!(first, there.incarnation(&partition("news")).await.unwrap());
        assert_ne!(first, there.incarnation(&partition("olds")).await.unwrap());
        let begun =
            Commit::new(partition("news")).write(here.begin(&partition("news")).await.unwrap());
        let begun = store.commit(begun).await.unwrap();
        assert_eq!(begun.position.incarnation, first);

        let emptied: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
        let after = Genesis::new(emptied, clock).incarnation(&partition("news")).await.unwrap();
        assert_ne!(first, after);
    }

    #[test]
    fn a_seed_lies_beside_what_it_is_for() {
        let clock = SystemClock::shared();
        let genesis = Genesis::new(Arc::new(MemoryStore::new(clock.clone())), clock);
        for id in ["a", "b", "session:x"] {
            let seed = genesis.seed_partition(&partition(id)).unwrap();
            assert_eq!(seed.bucket(), partition(id).bucket());
            assert_eq!(seed.kind().as_str().ends_with("-of-session"), id.starts_with("session:"));
        }
    }
}
