//! Several engines as one store: each partition lies in the engine of its tier.

use crate::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store, StreamName,
};
use async_trait::async_trait;
use std::fmt;
use types::TenantId;

/// How dear a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Used all the time, and made again by its users if it is lost: sessions, channels, leases.
    Hot,
    /// To be kept: documents, keys, figures.
    Durable,
}

/// A store over two engines. Which of them has a partition follows from its name alone, so
/// that every node agrees and nothing moves.
pub struct Tiers {
    hot: SharedStore,
    durable: SharedStore,
    tier_of: fn(&Partition) -> Tier,
}

impl Tiers {
    /// `hot` and `durable` as one, by `tier_of`.
    #[must_use]
    pub fn new(hot: SharedStore, durable: SharedStore, tier_of: fn(&Partition) -> Tier) -> Self {
        Self { hot, durable, tier_of }
    }

    fn of(&self, partition: &Partition) -> &dyn Store {
        match (self.tier_of)(partition) {
            Tier::Hot => &*self.hot,
            Tier::Durable => &*self.durable,
        }
    }

    fn engines(&self) -> [&dyn Store; 2] {
        [&*self.hot, &*self.durable]
    }
}

impl fmt::Debug for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiers").finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Tiers {
    /// Both engines; what survives is the less of the two.
    fn capabilities(&self) -> Capabilities {
        let [hot, durable] = self.engines().map(Store::capabilities);
        Capabilities {
            engine: format!("{} and {}", hot.engine, durable.engine),
            survives: hot.survives.min(durable.survives),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        self.of(&commit.partition).commit(commit).await
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.of(partition).head(partition).await
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.of(partition).get(partition, key).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.of(partition).scan(partition, prefix, after, limit).await
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.of(partition).read(partition, stream, from, limit).await
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.of(partition).changes(partition, since).await
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        self.of(partition).hints(partition)
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        let mut due = self.hot.due(bucket, limit).await?;
        due.extend(self.durable.due(bucket, limit - due.len()).await?);
        Ok(due)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        let (mut partitions, mut more) = (Vec::new(), false);
        // What lies beyond an unfinished page may have others before it.
        let mut known_to: Option<Partition> = None;
        for engine in self.engines() {
            let page = engine.list(tenant, kind, after, limit).await?;
            if page.more {
                more = true;
                known_to = known_to.into_iter().chain(page.partitions.last().cloned()).min();
            }
            partitions.extend(page.partitions);
        }
        partitions.sort_unstable();
        if let Some(last) = known_to {
            partitions.retain(|partition| *partition <= last);
        }
        more |= partitions.len() > limit;
        partitions.truncate(limit);
        Ok(PartitionPage { partitions, more })
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        Ok(self.hot.sweep(bucket).await? + self.durable.sweep(bucket).await?)
    }
}
